"""Searches among run folders. A folder that cannot be read is named and left out."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from vqvae_lightning.config import ConfigError, one_line
from vqvae_lightning.training.launch import is_first_process
from vqvae_lightning.training.record import RECORD
from vqvae_lightning.training.runs import Run

Read = TypeVar("Read")


def read_each(runs: Iterable[Run], read: Callable[[Run], Read]) -> list[tuple[Run, Read]]:
    """The candidates of a search, each with the result of `read`.

    A candidate that raises ConfigError is named and left out: the user did not ask for it.
    """
    found = []
    for run in runs:
        try:
            found.append((run, read(run)))
        except ConfigError as error:
            if is_first_process():
                print(f"left out  {one_line(error)}", file=sys.stderr, flush=True)
    return found


def all_runs(root: str | Path) -> list[Run]:
    """The run folders under `root` that can be read, oldest first."""
    candidates = [Run(path.parent) for path in Path(root).glob(f"*/{RECORD}") if path.is_file()]
    found = read_each(candidates, lambda run: str(run.record.created))
    return [run for run, _ in sorted(found, key=lambda item: item[1])]


def find_runs(
    root: str | Path,
    kind: str | None = None,
    dataset: str | None = None,
    path: str | None = None,
) -> list[Run]:
    """Finished runs under `root`, oldest first, of what is named.

    Args:
        root: folder of run folders.
        kind: of the runs.
        dataset: that they were trained on.
        path: of the own images that they were trained on.
    """
    chosen = [
        run
        for run in all_runs(root)
        if run.record.status == "finished"
        and kind in (None, run.record.kind)
        and dataset in (None, run.record.dataset)
    ]
    if path is not None:
        wanted = Path(path).resolve()
        of_path = read_each(chosen, lambda run: run.experiment().data.path)
        chosen = [run for run, its in of_path if its and Path(its).resolve() == wanted]
    return sorted(chosen, key=lambda run: str(run.record.finished))
