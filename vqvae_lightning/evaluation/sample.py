"""`sample(run)`: images drawn from a run, or the grids that show what it has learned, as PNG files."""

from pathlib import Path
from typing import Any

from vqvae_lightning.config import ConfigError, SampleOptions
from vqvae_lightning.evaluation.grids import GRIDS, check_grid
from vqvae_lightning.evaluation.samplers import TrainLatents, draw, sampler_names
from vqvae_lightning.models.distributed import own_device
from vqvae_lightning.training.callbacks import grid_image, write_picture
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run


def sample(run: Run, options: SampleOptions) -> list[Path]:
    """Draws what `options` asks for and writes a picture each; returns their paths.

    `samples-seed0.png` is the default sampler's, `samples-<sampler>.png` that of one which is named, and
    `interpolation.png` and `completion.png` are grids on test images; another seed than 0 ends the latter's names.
    Raises ConfigError, before anything is loaded, for a sampler or a grid that this kind of run does not have, and for
    a label or top_k that the model does not have.
    """
    kind = run.info["kind"]
    names = sampler_names(kind, options.sampler)
    if options.show != "samples":
        check_grid(kind, options.show)
        if options.sampler:
            raise ConfigError(f"sampler: got '{options.sampler}', but show={options.show} has none")
    if options.label is not None and kind != "prior":
        raise ConfigError(f"label: got {options.label}, but a {kind} has no classes; sample a prior run")
    if options.out and len(names) > 1:
        raise ConfigError(f"out: got one file, but sampler=all draws {len(names)} pictures; leave out empty")

    module: Any = load_run(run)
    module.to(own_device())
    if options.show != "samples":
        images, columns = GRIDS[options.show][1](module, run.experiment(), options)
        path = Path(options.out) if options.out else run.images / f"{options.show}{_seed(options)}.png"
        write_picture(path, grid_image(images, columns))
        return [path]
    train, paths = TrainLatents(module.net, run.experiment()), []
    for name in names:
        file = f"samples-{name}{_seed(options)}.png" if options.sampler else f"samples-seed{options.seed}.png"
        path = Path(options.out) if options.out else run.images / file
        write_picture(path, grid_image(draw(module, train, name, options), options.columns))
        paths.append(path)
    return paths


def _seed(options: SampleOptions) -> str:
    return f"-seed{options.seed}" if options.seed else ""
