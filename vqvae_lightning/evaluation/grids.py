"""Pictures that test what a model has learned on test images: interpolation between two, completion
of a half one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, Experiment, SampleOptions
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.evaluation.samplers import decode, labels_of, sampling
from vqvae_lightning.models.autoencoder import Autoencoder

STEPS = 10
COMPLETIONS = 4

# Images (N, C, H, W) in [-1, 1] and how many stand in a row.
Grid = tuple[Tensor, int]


def interpolation(module: Any, experiment: Experiment, options: SampleOptions) -> Grid:
    """Between pairs of test images of two classes: original, STEPS decoded latents, original;
    n/columns rows.

    The latents lie on the straight line between the two E[z|x] (`Latent.mean`), so the outer ones
    are the reconstructions. A line need not stay where p(z) is: of a VAE in D dimensions its middle
    is nearer to 0 than any typical z.
    """
    net: Autoencoder = module.net
    rows = -(-options.n // options.columns)
    classes = torch.arange(rows)
    images, _ = examples(
        experiment, torch.stack([classes, classes + 1]).flatten(), options.seed
    )  # left, then right
    images = images.to(module.device)
    left, right = images.chunk(2)  # rows,C,H,W each
    between = interpolate(net, left, right, STEPS)  # rows,STEPS,C,H,W
    return torch.cat([left[:, None], between, right[:, None]], dim=1).flatten(0, 1), STEPS + 2


@torch.inference_mode()
def interpolate(net: Autoencoder, left: Tensor, right: Tensor, steps: int) -> Tensor:
    """Decoded latents (N, steps, C, H, W) on a line from E[z|left] to E[z|right], both (N, C, H,
    W), with both ends.
    """
    a, b = net.encode(left).mean, net.encode(right).mean  # N,D,h,w each
    weights = torch.linspace(0, 1, steps, device=a.device, dtype=a.dtype).view(
        -1, 1, 1, 1
    )  # steps,1,1,1
    z = torch.lerp(a[:, None], b[:, None], weights)  # N,steps,D,h,w; exact at both ends
    return decode(net, z.flatten(0, 1)).unflatten(0, (len(a), steps))


def completion(module: Any, experiment: Experiment, options: SampleOptions) -> Grid:
    """Test images without their lower half: original, what is left of it, COMPLETIONS completions;
    n/columns rows.

    The codes of the upper rows of the grid, h // 2 of them, are kept; the prior draws the rest
    given them and the image's label. A code's receptive field reaches below its own cell, so the
    codes of the whole image would tell the prior what is missing. They are therefore those of the
    masked image: nothing of the lower half is seen. What it costs: the codes near the cut say that
    the drawing ends there. Raises ConfigError for a grid of one row.
    """
    height, width = module.tokenizer.layout.grid
    if height < 2:
        raise ConfigError(
            "show: completion keeps the upper half of the codes, but their grid is"
            f" {height}x{width}"
        )
    classes = labels_of(options, module.classes)[:: options.columns]
    images, labels = examples(experiment, classes, options.seed)
    images, labels = images.to(module.device), labels.to(module.device)
    masked = mask_lower_half(images)
    tokenizer = module.tokenizer.to(module.device)
    kept = tokenizer.layout.upper_half(tokenizer.encode(masked))  # rows,t
    prefix, repeated = kept.repeat_interleave(COMPLETIONS, 0), labels.repeat_interleave(COMPLETIONS)
    torch.manual_seed(options.seed)
    completed = module.sample(repeated, prefix=prefix, **sampling(options)).unflatten(
        0, (-1, COMPLETIONS)
    )
    return (
        torch.cat([images[:, None], masked[:, None], completed], dim=1).flatten(0, 1),
        COMPLETIONS + 2,
    )


def mask_lower_half(x: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] with background in the place of the lower H − H // 2 rows.

    Background is -1 for one channel (MNIST and Fashion-MNIST are drawn on black), and for colours
    the mean of the upper half of each image, per channel.
    """
    upper = x[:, :, : x.shape[2] // 2]
    background = (
        torch.full_like(upper[:, :, :1, :1], -1.0)
        if x.shape[1] == 1
        else upper.mean((2, 3), keepdim=True)
    )
    return torch.cat([upper, background.expand_as(x[:, :, x.shape[2] // 2 :])], dim=2)


def examples(experiment: Experiment, classes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Test images (N, C, H, W) in [-1, 1] of the given classes (N,), modulo how many there are, and
    their labels (N,).

    Drawn by the seed, each image once as long as there are enough of its class. Raises DataError if
    they cannot be had.
    """
    data = ImageDataModule(experiment.data, experiment.seed)
    data.prepare_data()
    data.setup()
    x, labels = data.splits["test"]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = [order[labels[order] == label] for label in range(data.dataset.classes)]
    wanted = [int(label) % len(by_class) for label in classes]
    rows = torch.stack(
        [by_class[c][wanted[:i].count(c) % len(by_class[c])] for i, c in enumerate(wanted)]
    )
    return data.scale(Batch(x[rows], labels[rows], rows, seed)).x, labels[rows]


# What `show` may be beside samples → the kinds of run that have it, and what draws it.
GRIDS: dict[str, tuple[tuple[str, ...], Callable[[Any, Experiment, SampleOptions], Grid]]] = {
    "interpolation": (("ae", "vae"), interpolation),
    "completion": (("prior",), completion),
}


def check_grid(kind: str, name: str) -> None:
    """Raises ConfigError unless a run of this kind has the grid."""
    kinds, _ = GRIDS[name]
    if kind not in kinds:
        raise ConfigError(
            f"show: {name} needs a run of kind {' or '.join(kinds)}, got one of kind {kind}"
        )
