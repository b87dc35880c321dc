"""`sample(run)`: PNG files of images drawn from a run, or of what it makes of test images; WAV
files beside those of recordings.
"""

from pathlib import Path
from typing import Any

from vqvae_lightning.config import ConfigError, SampleOptions, run_options, to_dict
from vqvae_lightning.evaluation.samplers import (
    changed_sampling,
    check_sampling,
    draw,
    labels_of,
    sampler_names,
)
from vqvae_lightning.evaluation.show import SHOWS, check_completes, check_labels, check_show
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.pictures import Grid, named_grid, write_picture
from vqvae_lightning.signals.clips import heard, write_sounds
from vqvae_lightning.storage import check_writable
from vqvae_lightning.surroundings import own_surroundings
from vqvae_lightning.training.runs import Run


@own_surroundings()
def sample(
    run: Run | str | Path, options: SampleOptions | None = None, **settings: Any
) -> list[Path]:
    """Draws what is asked for, writes a picture of each sampler or grid, and returns their paths.

    Of a run on recordings, the file after a picture, of the same name, is what is heard of it.

    `samples-seed0.png` is the default sampler's, `samples-<sampler>.png` that of a named one, and
    `interpolation.png`, `completion.png` and `inpainting.png` are grids of test images. The name
    ends with the seed, label, temperature … that are not the usual ones, so that a comparison finds
    by its name the picture that it shows.

    Args:
        run: a finished run, or its folder.
        options: settings; by default those of `vqvae sample`.
        settings: single ones on top, such as `n=16`.

    Raises:
        ConfigError: a setting is unknown or out of range, or this kind of run has no such sampler
            or grid (before anything is loaded), or the prior has no such label.
        ValueError: `top_k` is above K.
    """
    run = Run.of(run)
    options = run_options(SampleOptions, run.path, options, settings)
    subject = Subject(run, options.root, options.vocoder)
    names = sampler_names(subject.experiment, options.sampler)
    _check(subject, names, options)
    if options.show != "samples":
        grid = SHOWS[options.show].draw(subject, options)
        return _write(subject, options.show, grid, options)
    paths = []
    labels = None
    if subject.kind.stage == 2 and subject.prior.config.class_conditional and options.guidance:
        labels = labels_of(options, subject.prior.classes)
    for name in names:
        stem = "samples" if options.seed else "samples-seed0"
        stem = f"samples-{name}" if options.sampler else stem
        grid = Grid(draw(subject, name, options), options.columns, labels)
        paths += _write(subject, stem, grid, options)
    return paths


def _check(subject: Subject, names: list[str], options: SampleOptions) -> None:
    """Raises ConfigError for settings that do not fit together, or not the kind of the run."""
    kind = subject.kind
    check_sampling(subject.experiment, options)
    if options.show != "samples":
        check_show(kind, options.show)
        check_completes(subject.experiment, options.show)
        if options.sampler:
            raise ConfigError(f"sampler: got '{options.sampler}', but show={options.show} has none")
    if options.label is not None and kind.stage == 1:
        raise ConfigError(
            f"label: got {options.label}, but a run of kind {kind.name} has no classes; sample a"
            " prior"
        )
    if options.label is not None and not subject.experiment.model.class_conditional:
        raise ConfigError(
            f"label: got {options.label}, but {subject.path} was trained with"
            " model.class_conditional=false; wanted none"
        )
    _check_decoded_as(subject, options)
    if options.out and len(names) > 1:
        raise ConfigError(
            f"out: got one file, but sampler=all draws {len(names)} pictures; leave out empty"
        )
    out = Path(options.out) if options.out else subject.run.images / "samples.png"
    check_writable(out, "out")


def _check_decoded_as(subject: Subject, options: SampleOptions) -> None:
    """Raises ConfigError for a class that the decoder of a run of stage 1 does not know.

    That of a run of stage 2 is known once its first stage is loaded, which checks it.
    """
    if options.decoded_as is None or subject.kind.stage == 2:
        return
    check_labels(subject, f"decoded_as: got {options.decoded_as}, which")
    classes = subject.net.classes
    if options.decoded_as >= classes:
        raise ConfigError(f"decoded_as: got {options.decoded_as}, wanted 0 to {classes - 1}")


def _write(subject: Subject, stem: str, grid: Grid, options: SampleOptions) -> list[Path]:
    """Writes a picture to `out`, or else among the run's under its stem, and beside it what is
    heard of it; returns their paths.
    """
    run = subject.run
    path = Path(options.out) if options.out else run.images / f"{stem}{_unusual(options)}.png"
    write_picture(path, named_grid(grid, run.record.images.classes))
    return [path, *write_sounds(path.with_suffix(".wav"), heard(grid, subject.signal))]


def _unusual(options: SampleOptions) -> str:
    """What the settings change in a picture, for the end of its name: `-seed1-temperature0.5`."""
    given = {
        "seed": options.seed or None,
        "label": options.label,
        "decoded_as": options.decoded_as,
        **changed_sampling(to_dict(options)),
    }
    return "".join(f"-{name}{value}" for name, value in given.items() if value is not None)
