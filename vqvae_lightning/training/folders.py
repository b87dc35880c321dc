"""The run folders in a folder. One that cannot be read is named and left out."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from vqvae_lightning.config import ConfigError, one_line
from vqvae_lightning.training.launch import is_first_process
from vqvae_lightning.training.record import RECORD
from vqvae_lightning.verified import StoredError

Candidate = TypeVar("Candidate")
Read = TypeVar("Read")


def run_folders(root: str | Path) -> list[Path]:
    """The folders in `root` that hold a run.json, whatever that is, by name."""
    return [path.parent for path in sorted(Path(root).glob(f"*/{RECORD}"))]


def read_each(
    candidates: Iterable[Candidate], read: Callable[[Candidate], Read]
) -> list[tuple[Candidate, Read]]:
    """The candidates of a search, each with the result of `read`.

    A candidate that raises ConfigError, or whose files are damaged, is named and left out: the
    user did not ask for it.
    """
    found = []
    for candidate in candidates:
        try:
            found.append((candidate, read(candidate)))
        except (ConfigError, StoredError) as error:
            if is_first_process():
                print(f"left out  {one_line(error)}", file=sys.stderr, flush=True)
    return found
