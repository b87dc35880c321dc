"""The run folder: `runs/<name>/`, the record of one training, the same whatever the tracker."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vqvae_lightning.config import ConfigError, Experiment, check_name, command_line, describe_record, read_experiment
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.storage import check_writable, write_json, write_whole


class Run:
    """One run folder.

    ```
    runs/<name>/
      config.yaml      every setting
      run.json         kind, dataset, status, lineage, versions, data hashes, results
      metrics.jsonl    one line per logged step
      checkpoints/     best.ckpt (lowest val/loss) and last.ckpt, each with its .sha256
      images/          PNG grids
      wandb/           what `wandb sync` uploads
    ```
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_path, self.images = path / "metrics.jsonl", path / "images"
        self.best, self.last = path / "checkpoints" / "best.ckpt", path / "checkpoints" / "last.ckpt"

    @classmethod
    def create(cls, experiment: Experiment) -> "Run":
        """A new folder for an experiment. Raises ConfigError for a bad name, one that is taken, or a closed place."""
        now = datetime.now(UTC)
        name = experiment.name or (
            f"{experiment.data.name}-{experiment.kind}-s{experiment.seed}-{now.strftime('%Y%m%d-%H%M%S')}"
        )
        check_name(name)
        run = cls(Path(experiment.runs) / name)
        try:
            run.path.mkdir(parents=True)
        except FileExistsError:
            again = command_line(f"resume={run.path}")
            raise ConfigError(f"name: {run.path} exists already; choose another name, or {again}") from None
        except OSError as error:
            raise ConfigError(f"runs: {run.path} cannot be made ({error.strerror}); name another folder") from None
        run.images.mkdir()
        write_whole(run.path / "config.yaml", describe_record(experiment).encode())
        run.write(
            name=name,
            kind=experiment.kind,
            dataset=experiment.data.name,
            seed=experiment.seed,
            status="running",
            created=now.isoformat(timespec="seconds"),
            command=sys.argv,
            versions=versions(),
            data=dict(DATASETS[experiment.data.name].files),
        )
        return run

    @staticmethod
    def check_new(experiment: Experiment) -> None:
        """Raises ConfigError where `create` would, as far as that can be known before."""
        path = Path(experiment.runs) / (experiment.name or "")
        if experiment.name and path.exists():
            again = command_line(f"resume={path}")
            raise ConfigError(f"name: {path} exists already; choose another name, or {again}")
        check_writable(path / "run.json", "runs")

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """An existing folder. Raises ConfigError if it is none."""
        run = cls(Path(path))
        if not (run.path / "run.json").is_file():
            raise ConfigError(f"run: {run.path} is no run folder (it holds no run.json)")
        return run

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def info(self) -> dict[str, Any]:
        """What run.json holds. Raises ConfigError if it is no JSON."""
        try:
            return json.loads((self.path / "run.json").read_text())
        except ValueError as error:
            raise ConfigError(f"run: {self.path}/run.json is damaged ({error}); move that folder away") from error

    def write(self, **values: Any) -> None:
        """Puts values into run.json, whole or not at all; None takes one out."""
        known = self.info if (self.path / "run.json").is_file() else {}
        kept = {key: value for key, value in {**known, **values}.items() if value is not None}
        write_json(self.path / "run.json", kept)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps every other training out of the folder. Raises ConfigError naming the process that does."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.path / ".lock", timeout=0):  # an flock: it dies with the process that holds it
                self.write(process=f"{os.getpid()} on {platform.node()}")
                yield
        except Timeout:
            holder = self.info.get("process", "another")
            raise ConfigError(f"run: {self.path} is being trained by process {holder}; wait, or stop that") from None

    def rewind(self, step: int) -> None:
        """Makes the folder what it was after `step` optimizer steps, but for its checkpoints.

        What was logged later will be logged again. Unfinished files and lines are those of a process that was killed.
        """
        for stale in self.path.rglob(".*.tmp"):
            stale.unlink()
        if self.metrics_path.is_file():
            rows = [row for row in self.metrics() if row["step"] < step]  # numbered from 0
            write_whole(self.metrics_path, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def experiment(self) -> Experiment:
        """The settings of the run. Raises ConfigError if its config.yaml is gone, or holds none that are known here."""
        return read_experiment(self.path, self.info["kind"])

    def metrics(self) -> list[dict[str, float]]:
        """Every logged line, in order. A line cut off by a kill is left out."""
        rows = []
        if self.metrics_path.is_file():
            for line in self.metrics_path.read_text().splitlines():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:
                    continue
        return rows

    def pictures(self) -> list[Path]:
        return sorted(self.images.glob("*.png"))


def find_runs(root: str | Path, kind: str | None = None, dataset: str | None = None) -> list[Run]:
    """Finished runs under `root`, oldest first, of one kind and dataset if named."""
    runs = [Run(path.parent) for path in Path(root).glob("*/run.json")]
    chosen = [
        run
        for run in runs
        if run.info["status"] == "finished"
        and kind in (None, run.info["kind"])
        and dataset in (None, run.info["dataset"])
    ]
    return sorted(chosen, key=lambda run: run.info["finished"])


def differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ between two nested mappings, with both values (None where there is none)."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**a, **b}:
        old, new = a.get(key), b.get(key)
        if isinstance(old, dict) or isinstance(new, dict):
            found |= differences(old or {}, new or {}, f"{prefix}{key}.")
        elif old != new:
            found[prefix + key] = (old, new)
    return found


def versions() -> dict[str, str]:
    """Versions of what a result depends on, and the commit of the code where git knows it."""
    from importlib.metadata import version

    packages = ("vqvae_lightning", "torch", "pytorch-lightning", "torchmetrics", "wandb", "pyyaml", "numpy")
    found = {"python": platform.python_version(), "platform": platform.platform()}
    found |= {package: version(package) for package in packages}
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
        found["commit"] = commit.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass  # installed without its repository
    return found
