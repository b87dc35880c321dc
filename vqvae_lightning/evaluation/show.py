"""`sample show=…`: interpolation between two test images, and completion of a half one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, SampleOptions
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.samplers import classes_of, decode, labels_of, sampling
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.kinds import Kind, kind_names
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.pictures import Grid

STEPS = 10
COMPLETIONS = 4


def interpolation(subject: Subject, options: SampleOptions) -> Grid:
    """Between pairs of test images of two classes: original, STEPS decoded latents, original;
    n/columns rows.

    The latents lie on the straight line between the two E[z|x] (`Latent.mean`), so the outer ones
    are the reconstructions. A line need not stay where p(z) is: in a VAE's D dimensions its middle
    is nearer to 0 than any typical z.
    """
    net = subject.net
    classes = torch.arange(-(-options.n // options.columns))
    wanted = torch.stack([classes, classes + 1]).flatten()  # left, then right
    images = examples(subject.images, wanted, options.seed)[0].to(own_device())
    left, right = images.chunk(2)  # rows,C,H,W each
    between = interpolate(net, left, right, STEPS)  # rows,STEPS,C,H,W
    rows = torch.cat([left[:, None], between, right[:, None]], dim=1)  # rows,STEPS+2,C,H,W
    return Grid(rows.flatten(0, 1), STEPS + 2)


@torch.inference_mode()
def interpolate(net: Autoencoder, left: Tensor, right: Tensor, steps: int) -> Tensor:
    """Decoded latents (N, steps, C, H, W) on a line from E[z|left] to E[z|right], both (N, C, H,
    W), with both ends.
    """
    a, b = net.encode(left).mean, net.encode(right).mean  # N,D,h,w each
    weights = torch.linspace(0, 1, steps, device=a.device, dtype=a.dtype)
    weights = weights.view(-1, 1, 1, 1)  # steps,1,1,1
    z = torch.lerp(a[:, None], b[:, None], weights)  # N,steps,D,h,w; exact at both ends
    images: Tensor = decode(net, z.flatten(0, 1)).unflatten(0, (len(a), steps))
    return images


def completion(subject: Subject, options: SampleOptions) -> Grid:
    """Test images without their lower half: original, what is left of it, COMPLETIONS completions;
    n/columns rows.

    The codes of the upper rows of the grid, h // 2 of them, are kept; the prior draws the rest
    given them and the image's label. A code's receptive field reaches below its own grid cell, so
    the codes of the whole image would tell the prior what is missing. They are therefore those of
    the masked image: nothing of the lower half is seen. The cost: codes near the cut say that the
    drawing ends there. Raises ConfigError for a grid of one row.
    """
    prior, device = subject.prior, own_device()
    tokenizer = prior.tokenizer.to(device)
    height, width = tokenizer.layout.grid
    if height < 2:
        raise ConfigError(
            "show: completion keeps the upper half of the codes, but their grid is"
            f" {height}x{width}"
        )
    classes = labels_of(options, prior.classes)[:: options.columns]
    images, labels = examples(subject.images, classes, options.seed)
    images, labels = images.to(device), labels.to(device)
    masked = mask_lower_half(images)
    kept = tokenizer.layout.upper_half(tokenizer.encode(masked))  # rows,t
    prefix, repeated = kept.repeat_interleave(COMPLETIONS, 0), labels.repeat_interleave(COMPLETIONS)
    torch.manual_seed(options.seed)
    completed = prior.sample(
        len(repeated), classes_of(prior, repeated), prefix=prefix, **sampling(options)
    )
    completed = completed.unflatten(0, (-1, COMPLETIONS))  # rows,COMPLETIONS,C,H,W
    rows = torch.cat([images[:, None], masked[:, None], completed], dim=1)
    return Grid(rows.flatten(0, 1), COMPLETIONS + 2, labels.repeat_interleave(COMPLETIONS + 2))


def mask_lower_half(x: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] with background instead of the lower H − H // 2 rows.

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


def examples(data: ImageDataModule, classes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Test images (N, C, H, W) in [-1, 1] of the given classes (N,), and their labels (N,).

    Classes count modulo how many there are. Images are drawn by the seed, each once as long as
    there are enough of its class.
    """
    test = data.splits["test"]
    labels = test.labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    # A class of own images may have none among them.
    by_class = [order[labels[order] == label] for label in labels.unique()]
    wanted = [int(label) % len(by_class) for label in classes]
    rows = torch.stack(
        [by_class[c][wanted[:i].count(c) % len(by_class[c])] for i, c in enumerate(wanted)]
    )
    return data.scale(Batch(test.take(rows), labels[rows], rows, seed)).x, labels[rows]


@dataclass(frozen=True)
class Show:
    """A grid of test images."""

    draw: Callable[[Subject, SampleOptions], Grid]
    offered_by: Callable[[Kind], bool]


# What `show` may be beside samples.
SHOWS: dict[str, Show] = {
    "interpolation": Show(interpolation, lambda kind: kind.stage == 1 and not kind.has_codes),
    "completion": Show(completion, lambda kind: kind.stage == 2),
}


def check_show(kind: Kind, name: str) -> None:
    """Raises ConfigError unless a run of this kind has the grid."""
    offered_by = SHOWS[name].offered_by
    if not offered_by(kind):
        wanted = " or ".join(kind_names(offered_by))
        raise ConfigError(f"show: {name} needs a run of kind {wanted}, got one of kind {kind.name}")
