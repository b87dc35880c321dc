"""The runs in a folder at a glance, unfinished and failed ones too. Nothing heavy is imported."""

import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vqvae_lightning.config import ConfigError, read_yaml
from vqvae_lightning.config.schema import TrainerConfig
from vqvae_lightning.metrics.measures import MEASURES, in_progress
from vqvae_lightning.storage import is_locked
from vqvae_lightning.training.folders import read_each, run_folders
from vqvae_lightning.training.record import RUN_LOCK, RunRecord, logged_row, read_record
from vqvae_lightning.training.shapes import is_number

TAIL = 2**18  # bytes of metrics.jsonl that are read: some hundred of its last lines
# Those of the terminal's line of a validation that the comparison's page ranks or shows as well.
FIGURES = tuple(MEASURES[key] for key in in_progress() if "page" in MEASURES[key].tables)


@dataclass(frozen=True)
class Overview:
    """One run folder."""

    name: str
    record: RunRecord
    status: str  # that of the record, or "killed"
    step: int | None  # the last one that was logged
    steps: int | None  # how many there are to be
    split: str  # of the figures: test, or val of a run that is not finished; "" if it has none
    figures: dict[
        str, float
    ]  # in the unit that is shown, by the keys of FIGURES, with `bound_draws`


def overviews(root: Path, dataset: str | None = None, path: str | None = None) -> list[Overview]:
    """The run folders in `root`, oldest first, of a dataset and of the own images at a path.

    A folder that cannot be read is named on stderr and left out.
    """
    found = read_each(run_folders(root), overview)
    chosen = [
        run
        for folder, run in found
        if dataset in (None, run.record.dataset)
        and (path is None or Path(path).absolute() == images_path(folder / "config.yaml"))
    ]
    return sorted(chosen, key=lambda run: run.record.created)


def overview(folder: Path) -> Overview:
    """What a run folder says of its run. Raises ConfigError for a folder that is no run's."""
    record = RunRecord.of(read_record(folder))
    step, validated = last_logged(folder / "metrics.jsonl", record.status != "finished")
    split, values = ("val", validated) if record.status != "finished" else ("test", record.test)
    dims = math.prod(record.images.shape)
    figures = {
        measure.key: measure.shown(values[key], dims)
        for measure in (*FIGURES, MEASURES["bound_draws"])
        if (key := f"{split}/{measure.key}") in values
    }
    gone = record.status == "running" and is_gone(folder, record.process)
    status = "killed" if gone else record.status
    steps = planned_steps(folder / "config.yaml")
    return Overview(folder.name, record, status, step, steps, split if figures else "", figures)


def is_gone(folder: Path, process: str | None) -> bool:
    """Whether a run of a process of this machine, `PID on HOST`, is trained by none any more.

    A training holds the lock of its folder. That of another machine may not be seen here.
    """
    _, _, host = (process or "").partition(" on ")
    return host == platform.node() and not is_locked(folder / RUN_LOCK)


def images_path(config: Path) -> Path | None:
    """`data.path` of a run's config.yaml, which is absolute; None of a run of a dataset."""
    try:
        data = read_yaml(config).get("data", {})
    except ConfigError:
        return None
    found = data.get("path") if isinstance(data, dict) else None
    return Path(found) if found else None


def planned_steps(config: Path) -> int | None:
    """`trainer.steps` of a run's config.yaml; None if that cannot be read.

    Only this setting is read, for a whole experiment needs the networks' modules.
    """
    try:
        trainer = read_yaml(config).get("trainer", {})
    except ConfigError:
        return None
    text = str(trainer.get("steps", TrainerConfig.steps)) if isinstance(trainer, dict) else ""
    return int(text) if text.isdecimal() and len(text) < 15 else None


def last_logged(path: Path, validation: bool) -> tuple[int | None, dict[str, float]]:
    """How many steps a metrics.jsonl has logged, and its last validation, if that is asked for."""
    step = None
    for row in newest_rows(path):
        # Steps are numbered from 0. The line of the test has the number of all of them.
        if step is None and not any(key.startswith("test/") for key in row):
            step = int(row["step"]) + 1
        if "val/loss" in row or (step is not None and not validation):
            return step, row
    return step, {}


def newest_rows(path: Path) -> Iterator[dict[str, float]]:
    """The last lines of a metrics.jsonl that are whole, the newest first; none without a file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        lines = file.read(TAIL).splitlines()
    for line in reversed(lines[1:] if size > TAIL else lines):
        if row := logged_row(line):
            yield {key: value for key, value in row.items() if is_number(value)}
