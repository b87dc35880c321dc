"""What W&B shows of pictures: tables of reconstructions with their errors, and the use of codes;
and what it plays.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.pictures import Grid, grid_image

if TYPE_CHECKING:
    import wandb

TABLE_ROWS = 8  # images in a table of reconstructions
MOST_BINS = 512  # of W&B's histograms


def reconstruction_table(grid: Grid) -> "wandb.Table":
    """original | reconstruction | error | MSE of the first images of a grid of pairs.

    The error is |original − reconstruction|: black is none, white the whole range of a pixel. MSE
    is in the units of pixels in [-1, 1].
    """
    import wandb

    originals, reconstructions = pairs(grid)
    errors = (originals - reconstructions).abs()  # N,C,H,W in [0, 2]
    table = wandb.Table(["image", "original", "reconstruction", "error", "mse"])
    for number in range(min(TABLE_ROWS, len(originals))):
        shown = (originals[number], reconstructions[number], errors[number] - 1)
        pictures = [wandb.Image(grid_image(image[None], 1)) for image in shown]
        table.add_data(number, *pictures, errors[number].square().mean().item())
    return table


def audio(sounds: Sequence[Path], caption: str) -> "list[wandb.Audio]":
    """WAV files as W&B plays them."""
    import wandb

    return [wandb.Audio(str(path), caption=caption) for path in sounds]


def pairs(grid: Grid) -> tuple[Tensor, Tensor]:
    """Originals and reconstructions, each (N, C, H, W), of a grid whose rows alternate."""
    rows = grid.images.detach().float().cpu().split(grid.columns)
    return torch.cat(rows[::2]), torch.cat(rows[1::2])


def code_histogram(counts: Tensor) -> "wandb.Histogram":
    """How often each code was used, (K,) or (M, K), most used first.

    With more than 512 codes a bin is of several that follow each other.
    """
    import wandb

    sorted_counts = counts.flatten().sort(descending=True).values.cpu().numpy()
    bins = min(MOST_BINS, len(sorted_counts))
    edges = np.linspace(0, len(sorted_counts), bins + 1).round().astype(int)
    used = np.add.reduceat(sorted_counts, edges[:-1])
    return wandb.Histogram(np_histogram=(used.tolist(), edges.tolist()))
