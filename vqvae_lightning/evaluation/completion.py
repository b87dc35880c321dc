"""`sample show=completion|inpainting`: test images of which a prior draws a part anew."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, SampleOptions
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.examples import examples
from vqvae_lightning.evaluation.samplers import classes_of, labels_of, sampling
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.pictures import Grid

SIDES = ("height", "width")  # of a picture and of a grid
COMPLETIONS = 4


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
