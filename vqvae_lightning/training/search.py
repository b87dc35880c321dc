"""Searches among run folders. A folder that cannot be read is named and left out."""

from pathlib import Path

from vqvae_lightning.config import ConfigError, canonical
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.training.folders import read_each, run_folders
from vqvae_lightning.training.runs import Run


def all_runs(root: str | Path) -> list[Run]:
    """The run folders under `root` that can be read, oldest first."""
    found = read_each(map(Run, run_folders(root)), lambda run: str(run.record.created))
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

    Raises:
        ConfigError: there is no such kind, or `root` or `path` is no path.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"kind: got {kind!r}, wanted one of {', '.join(KINDS)}")
    chosen = [
        run
        for run in all_runs(canonical(root, "runs"))
        if run.record.status == "finished"
        and kind in (None, run.record.kind)
        and dataset in (None, run.record.dataset)
    ]
    if path is not None:
        wanted = Path(canonical(path, "path")).resolve()
        of_path = read_each(chosen, lambda run: run.experiment().data.path)
        chosen = [run for run, its in of_path if its and Path(its).resolve() == wanted]
    return sorted(chosen, key=lambda run: str(run.record.finished))
