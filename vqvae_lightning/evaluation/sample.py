"""`sample(run)`: images drawn from a run, or the grids that show what it has learned, as PNG
files.
"""

from pathlib import Path
from typing import Any

from vqvae_lightning.config import ConfigError, SampleOptions, plain
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.evaluate import settings_of
from vqvae_lightning.evaluation.grids import GRIDS, check_grid
from vqvae_lightning.evaluation.samplers import TrainLatents, changed_sampling, draw, sampler_names
from vqvae_lightning.pictures import grid_image, write_picture
from vqvae_lightning.storage import check_writable
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run


def sample(run: Run, options: SampleOptions) -> list[Path]:
    """Draws what `options` asks for and writes a picture each; returns their paths.

    `samples-seed0.png` is the default sampler's, `samples-<sampler>.png` that of one which is
    named, and `interpolation.png` and `completion.png` are grids on test images. Another seed than
    0, and a label, a temperature … that are not the usual ones end the name, so that what a
    comparison shows by these names is what it says. Raises ConfigError, before anything is loaded,
    for a sampler or a grid that this kind of run does not have, and for a label or top_k that the
    model does not have.
    """
    kind, experiment = run.info["kind"], settings_of(run, options.root)
    names = sampler_names(experiment, options.sampler)
    if options.show != "samples":
        check_grid(kind, options.show)
        if options.sampler:
            raise ConfigError(f"sampler: got '{options.sampler}', but show={options.show} has none")
    if options.label is not None and kind != "prior":
        raise ConfigError(
            f"label: got {options.label}, but a {kind} has no classes; sample a prior run"
        )
    if options.out and len(names) > 1:
        raise ConfigError(
            f"out: got one file, but sampler=all draws {len(names)} pictures; leave out empty"
        )
    check_writable(Path(options.out) if options.out else run.images / "samples.png", "out")

    module: Any = load_run(run)
    module.to(own_device())
    if options.show != "samples":
        images, columns = GRIDS[options.show][1](module, experiment, options)
        path = (
            Path(options.out)
            if options.out
            else run.images / f"{options.show}{_unusual(options)}.png"
        )
        write_picture(path, grid_image(images, columns))
        return [path]
    train, paths = TrainLatents(module.net, experiment), []
    for name in names:
        file = (
            f"samples-{name}" if options.sampler else "samples" if options.seed else "samples-seed0"
        )
        path = Path(options.out) if options.out else run.images / f"{file}{_unusual(options)}.png"
        write_picture(path, grid_image(draw(module, train, name, options), options.columns))
        paths.append(path)
    return paths


def _unusual(options: SampleOptions) -> str:
    """What the settings change in a picture, for the end of its name: `-seed1-temperature0.5`."""
    given = {
        "seed": options.seed or None,
        "label": options.label,
        **changed_sampling(plain(options)),
    }
    return "".join(f"-{name}{value}" for name, value in given.items() if value is not None)
