"""`sample(run)`: images drawn from a run, as one PNG grid."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, SampleOptions
from vqvae_lightning.training.callbacks import grid_image, write_picture
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run


def sample(run: Run, options: SampleOptions) -> Path:
    """Draws `options.n` images and writes their grid; returns its path.

    A class-conditional prior draws a row per class. AE and VAE draw z ~ N(0, I), a VQ-VAE without a prior draws
    uniform codes. Raises ConfigError for a label or top_k that the model does not have.
    """
    module: Any = load_run(run)
    module.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(options.seed)
    if module.kind == "prior":
        images = module.sample(
            _labels(options, module.classes),
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
        )
    else:
        if options.label is not None:
            raise ConfigError(f"label: got {options.label}, but a {module.kind} has no classes; sample a prior run")
        images = module.net.sample(options.n)
    path = Path(options.out) if options.out else run.images / f"samples-seed{options.seed}.png"
    write_picture(path, grid_image(images, options.columns))
    return path


def _labels(options: SampleOptions, classes: int) -> Tensor:
    """The class of each image of the grid, (n,): one row after another."""
    if options.label is not None:
        if not 0 <= options.label < classes:
            raise ConfigError(f"label: got {options.label}, wanted 0 to {classes - 1}")
        return torch.full((options.n,), options.label)
    return (torch.arange(options.n) // options.columns) % classes
