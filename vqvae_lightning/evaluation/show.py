"""`sample show=…`: interpolation between two test images, conversion to other classes, and
completion of hidden parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, Experiment, SampleOptions, name_of
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.samplers import (
    classes_of,
    decode,
    labels_of,
    sampling,
)
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.kinds import Kind, kind_names
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.priors.prior import Completes
from vqvae_lightning.pictures import Grid
from vqvae_lightning.training.flow import LatentFlow

SIDES = ("height", "width")  # of a picture and of a grid
STEPS = 10
COMPLETIONS = 4
CONVERSIONS = 10  # classes in a row, at most


def interpolation(subject: Subject, options: SampleOptions) -> Grid:
    """Between pairs of test images of two classes: original, STEPS decoded latents, original;
    n/columns rows.

    The latents lie on the straight line between the two E[z|x] (`Latent.mean`), so the outer ones
    are the reconstructions; those of a class-conditional decoder are as `decoded_as`, by default
    its first class. A line need not stay where p(z) is: in a VAE's D dimensions its middle
    is nearer to 0 than any typical z.
    """
    if subject.kind.stage == 2:
        return flow_interpolation(subject, options)
    net = subject.net
    classes = torch.arange(-(-options.n // options.columns))
    wanted = torch.stack([classes, classes + 1]).flatten()  # left, then right
    images = examples(subject.images, wanted, options.seed)[0].to(own_device())
    left, right = images.chunk(2)  # rows,C,H,W each
    between = interpolate(net, left, right, STEPS, options.decoded_as or 0)  # rows,STEPS,C,H,W
    rows = torch.cat([left[:, None], between, right[:, None]], dim=1)  # rows,STEPS+2,C,H,W
    return Grid(rows.flatten(0, 1), STEPS + 2)


def conversion(subject: Subject, options: SampleOptions) -> Grid:
    """Test images decoded as each of the first ten classes, after the original; n/columns rows.

    The latents of a row are the same in all of its images but the first. Raises ConfigError for a
    decoder that is given no label, and for `decoded_as`.
    """
    check_labels(subject, "show: conversion")
    if options.decoded_as is not None:
        raise ConfigError(
            f"decoded_as: got {options.decoded_as}, but show=conversion decodes as each class;"
            " wanted none"
        )
    net = subject.net
    rows = torch.arange(-(-options.n // options.columns))
    images, labels = examples(subject.images, rows, options.seed)
    images = images.to(own_device())
    shown = min(net.classes, CONVERSIONS)
    as_each = torch.arange(shown).repeat(len(images))  # rows·shown
    with torch.inference_mode():
        z = net.encode(images).mean.repeat_interleave(shown, 0)
        found = net.decode(z, as_each.to(z.device)).unflatten(0, (-1, shown))
    grid = torch.cat([images[:, None], found], dim=1)  # rows,1+shown,C,H,W
    names = torch.cat([labels[:, None], as_each.view(-1, shown)], dim=1)  # rows,1+shown
    return Grid(grid.flatten(0, 1), 1 + shown, names.flatten())


def check_labels(plan: Plan, what: str) -> None:
    """Raises ConfigError for a run of stage 1 whose decoder is given no label."""
    if not plan.experiment.model.class_conditional:
        raise ConfigError(
            f"{what} needs a decoder that is given the label, wanted a run with"
            " model.class_conditional=true"
        )


def flow_interpolation(subject: Subject, options: SampleOptions) -> Grid:
    """Between pairs of test images, along the noise from which the flow leads to their latents; as
    `interpolation`.

    Two images of a pair are of one class if the flow is class-conditional, and else of two.
    """
    prior, device = cast(LatentFlow, subject.module), own_device()
    classes = labels_of(options, subject.prior.classes)[:: options.columns]
    step = 0 if prior.config.class_conditional else 1
    wanted = torch.stack([classes, classes + step]).flatten()
    images, labels = examples(subject.images, wanted, options.seed)
    left, right = images.to(device).chunk(2)  # rows,C,H,W each
    between = prior.between(
        left,
        right,
        classes_of(subject.prior, labels.to(device).chunk(2)[0]),
        STEPS,
        **sampling(subject.experiment, options),
    )
    rows = torch.cat([left[:, None], between, right[:, None]], dim=1)  # rows,STEPS+2,C,H,W
    return Grid(rows.flatten(0, 1), STEPS + 2)


@torch.inference_mode()
def interpolate(
    net: Autoencoder, left: Tensor, right: Tensor, steps: int, label: int = 0
) -> Tensor:
    """Decoded latents (N, steps, C, H, W) on a line from E[z|left] to E[z|right], both (N, C, H,
    W), with both ends. A class-conditional decoder is given that label.
    """
    a, b = net.encode(left).mean, net.encode(right).mean  # N,D,h,w each
    weights = torch.linspace(0, 1, steps, device=a.device, dtype=a.dtype)
    weights = weights.view(-1, 1, 1, 1)  # steps,1,1,1
    z = torch.lerp(a[:, None], b[:, None], weights)  # N,steps,D,h,w; exact at both ends
    images: Tensor = decode(net, z.flatten(0, 1), label).unflatten(0, (len(a), steps))
    return images


def completion(subject: Subject, options: SampleOptions) -> Grid:
    """Test images without their second half: original, what is left of it, COMPLETIONS completions;
    n/columns rows.

    The lower half of an image is hidden, and of a recording what comes later. The latents of the
    other half of the grid, rounded down, are kept, and those of this half are drawn: see
    `completed`. Raises ConfigError for a grid of one row, or column.
    """
    cells, axis = subject.prior.first_stage.cells, SIDES.index(subject.signal.completed_side)
    kept = "upper half" if axis == 0 else "first half"
    if cells[axis] < 2:
        raise ConfigError(
            f"show: completion keeps the {kept} of the latents, but their grid is"
            f" {cells[0]}x{cells[1]}"
        )
    if axis == 1 and cells[0] > 1 and subject.experiment.model.completes != "any":
        raise ConfigError(
            f"show: completion keeps the {kept} of the latents, which a prior that draws row by row"
            f" cannot on a grid of {cells[0]}x{cells[1]}; wanted one row, or"
            " model.network.name=masked"
        )
    images, labels = shown_examples(subject, options)
    hidden, unknown = (
        second_half(size, axis).expand(len(images), -1, -1) for size in (images.shape[2:], cells)
    )
    return completed(subject, options, images, labels, hidden, unknown)


def second_half(size: Sequence[int], axis: int) -> Tensor:
    """The mask (H, W) bool of the second half along an axis, the larger one."""
    positions = torch.arange(size[axis]) >= size[axis] // 2
    along = positions[:, None] if axis == 0 else positions[None]
    return along.expand(*size)


def inpainting(subject: Subject, options: SampleOptions) -> Grid:
    """Test images with a hole: original, what is left of it, COMPLETIONS completions; n/columns
    rows.

    A hole is half as high and half as wide as the grid of codes. It is in the middle in every
    second row, from the first on, and in the others where the seed says. Raises ConfigError for a
    grid of one row or column.
    """
    height, width = subject.prior.first_stage.cells
    if min(height, width) < 2:
        raise ConfigError(
            f"show: inpainting hides half of the grid's sides, but it is {height}x{width}"
        )
    images, labels = shown_examples(subject, options)
    generator = torch.Generator().manual_seed(options.seed)
    unknown = torch.zeros(len(images), height, width, dtype=torch.bool)
    for i, cells in enumerate(unknown):
        free = height - height // 2, width - width // 2
        anywhere = [int(torch.randint(n + 1, (), generator=generator)) for n in free]
        top, left = [n // 2 for n in free] if i % 2 == 0 else anywhere
        cells[top : top + height // 2, left : left + width // 2] = True
    # The pixels of a cell, also where the image is no whole number of times as large.
    rows, columns = (
        torch.arange(size) * of // size
        for size, of in zip(images.shape[2:], (height, width), strict=True)
    )
    hidden = unknown[:, rows][:, :, columns]  # N,H,W
    return completed(subject, options, images, labels, hidden, unknown)


def completed(
    subject: Subject,
    options: SampleOptions,
    images: Tensor,
    labels: Tensor,
    hidden: Tensor,
    unknown: Tensor,
) -> Grid:
    """A row for each image: itself, what is seen of it, and COMPLETIONS completions.

    The prior draws the unknown latents given the others and the image's label. The receptive field
    of a grid cell reaches beyond it, so the latents of the whole image would tell the prior what is
    missing. They are therefore those of the masked image: nothing hidden is seen. The cost: latents
    near the cut say that the drawing ends there.

    Args:
        subject: a run of stage 2.
        options: the seed, and how it draws.
        images: (N, C, H, W) in [-1, 1].
        labels: their classes (N,).
        hidden: the pixels (N, H, W) that are not seen.
        unknown: the grid cells (N, h, w) whose latents are drawn.
    """
    prior, device = subject.prior, own_device()
    first_stage = prior.first_stage.to(device)
    images, labels = images.to(device), labels.to(device)
    masked = hide(images, hidden.to(device))
    latents, known = first_stage.latents(masked), first_stage.known(~unknown)
    repeated = labels.repeat_interleave(COMPLETIONS)
    given = (latents.repeat_interleave(COMPLETIONS, 0), known.repeat_interleave(COMPLETIONS, 0))
    torch.manual_seed(options.seed)
    drawn = prior.sample(
        len(repeated),
        classes_of(prior, repeated),
        options.decoded_as,
        known=given,
        **sampling(subject.experiment, options),
    )
    drawn = drawn.unflatten(0, (-1, COMPLETIONS))  # rows,COMPLETIONS,C,H,W
    rows = torch.cat([images[:, None], masked[:, None], drawn], dim=1)
    return Grid(rows.flatten(0, 1), COMPLETIONS + 2, labels.repeat_interleave(COMPLETIONS + 2))


def shown_examples(subject: Subject, options: SampleOptions) -> tuple[Tensor, Tensor]:
    """A test image (N, C, H, W) in [-1, 1] for each row of a prior's grid, and its label (N,)."""
    classes = labels_of(options, subject.prior.classes)[:: options.columns]
    return examples(subject.images, classes, options.seed)


def hide(x: Tensor, hidden: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] with background at the hidden pixels (N, H, W).

    Background is -1 for one channel (MNIST and Fashion-MNIST are drawn on black), and for colours
    the mean of what is seen of each image, per channel.
    """
    seen = ~hidden[:, None]  # N,1,H,W
    background = (
        torch.full_like(x[:, :, :1, :1], -1.0)
        if x.shape[1] == 1
        else (x * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
    )
    return torch.where(seen, x, background)


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
    completes: tuple[Completes, ...] = ()  # what a prior has to keep of given latents


# What `show` may be beside samples.
SHOWS: dict[str, Show] = {
    "interpolation": Show(interpolation, lambda kind: not kind.has_codes),
    "conversion": Show(conversion, lambda kind: kind.stage == 1),
    "completion": Show(completion, lambda kind: kind.stage == 2, ("any", "beginning")),
    "inpainting": Show(inpainting, lambda kind: kind.stage == 2, ("any",)),
}


def check_show(kind: Kind, name: str) -> None:
    """Raises ConfigError unless a run of this kind has the grid."""
    offered_by = SHOWS[name].offered_by
    if not offered_by(kind):
        wanted = " or ".join(kind_names(offered_by))
        raise ConfigError(f"show: {name} needs a run of kind {wanted}, got one of kind {kind.name}")


def check_completes(experiment: Experiment, name: str) -> None:
    """Raises ConfigError if the prior of a run does not keep those latents that the grid gives."""
    model, enough = experiment.model, SHOWS[name].completes
    if enough and model.completes not in enough:
        got, of = name_of(model.network, model.networks), model.networks.items()
        able = [
            network
            for network, member in of
            if replace(model, network=member.Config()).completes in enough
        ]
        what = "any mask" if enough == ("any",) else "latents"
        raise ConfigError(
            f"show: {name} needs a prior that completes {what}, got one with"
            f" model.network.name={got}, wanted {' or '.join(able)}"
        )
