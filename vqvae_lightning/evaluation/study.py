"""`study`: every kind of model on one dataset with several seeds, trained, compared, and summed up as mean and spread.

Each run is a process of its own, in a folder whose name says kind and seed. A study that was stopped goes on when it is
called again: finished runs are skipped, a run with a checkpoint is resumed, a run without one starts over.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vqvae_lightning.config import ConfigError, StudyOptions, load_experiment
from vqvae_lightning.training.runs import Run

KINDS = ("ae", "vae", "vqvae", "prior")  # a prior after its tokenizer


@dataclass(frozen=True)
class Spread:
    """A metric over seeds."""

    mean: float
    deviation: float  # sample standard deviation; 0 for one run
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.deviation:.2g}" if self.count > 1 else f"{self.mean:.4g}"


def study(options: StudyOptions, settings: Sequence[str]) -> list[Run]:
    """Trains what is not yet trained and returns all runs of the study, seed by seed.

    `settings` are `key=value` for every run. Raises ConfigError, before anything runs, if one does not fit a kind, and
    after a run that failed, naming its log.
    """
    plan = [(seed, kind) for seed in range(options.seeds) for kind in KINDS]
    root = Path(options.runs or f"runs/study-{options.dataset}")
    for kind in KINDS:
        load_experiment(_file(options, kind), _places(root, kind, 0, settings))
    for number, (seed, kind) in enumerate(plan, start=1):
        started = time.monotonic()
        done = _train(options, root, kind, seed, settings)
        seconds = "skipped, finished before" if done else f"{time.monotonic() - started:.0f} s"
        print(f"study {number}/{len(plan)}  {kind} seed {seed}: {seconds}", flush=True)
    return [Run.open(root / _name(kind, seed)) for seed, kind in plan]


def _train(options: StudyOptions, root: Path, kind: str, seed: int, settings: Sequence[str]) -> bool:
    """Trains one run in a process of its own. Returns whether it had been finished before."""
    run = Run(root / _name(kind, seed))
    words = _places(root, kind, seed, settings)
    if (run.path / "run.json").is_file():
        if run.info["status"] == "finished":
            return True
        if run.last.is_file():
            words.append(f"resume={run.path}")
        else:  # nothing was learnt in it; what it logged is kept
            run.path.rename(root / f"{run.path.name}.stopped-{time.time_ns()}")
    root.mkdir(parents=True, exist_ok=True)
    log = root / f"{_name(kind, seed)}.log"
    code = launch(["train", str(_file(options, kind)), *words], log)
    if code:
        lines = log.read_text().strip().splitlines() or [""]
        raise ConfigError(f"study: {kind} seed {seed} ended with code {code} ({lines[-1]}); see {log}")
    return False


def launch(words: Sequence[str], log: Path) -> int:
    """Runs the command line in a process of its own, its output appended to `log`; returns its exit code."""
    with log.open("a") as output:
        command = [sys.executable, "-m", "vqvae_lightning", *words]
        return subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL).returncode


def _name(kind: str, seed: int) -> str:
    return f"{kind}-s{seed}"


def _file(options: StudyOptions, kind: str) -> Path:
    return Path(options.experiments) / options.dataset / f"{kind}.yaml"


def _places(root: Path, kind: str, seed: int, settings: Sequence[str]) -> list[str]:
    """Settings of one run: the study's own last, so that no setting moves a run out of its folder."""
    tokenizer = [f"model.tokenizer={root / _name('vqvae', seed)}"] if kind == "prior" else []
    own = [f"runs={root}", f"name={_name(kind, seed)}", f"seed={seed}", f"tracking.group={root.name}"]
    return [*settings, *own, *tokenizer]


def spreads(runs: Iterable[Run]) -> dict[str, dict[str, Spread]]:
    """Mean and spread over seeds of every test metric, by kind."""
    values: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for key, value in run.info["test"].items():
            if not isinstance(value, int | float):
                continue  # a list, such as the KL of every dimension
            values.setdefault(run.info["kind"], {}).setdefault(key.removeprefix("test/"), []).append(value)
    return {
        kind: {
            key: Spread(statistics.mean(v), statistics.stdev(v) if len(v) > 1 else 0.0, len(v))
            for key, v in metrics.items()
        }
        for kind, metrics in values.items()
    }


def print_spreads(summary: dict[str, dict[str, Spread]], console: Console | None = None) -> None:
    """The spreads as a table: a row per metric, a column per kind."""
    table = Table(title="mean ± standard deviation over seeds")
    table.add_column("test metric")
    for kind in summary:
        table.add_column(kind, justify="right")
    for key in sorted({key for metrics in summary.values() for key in metrics}):
        table.add_row(key, *(str(metrics.get(key, "–")) for metrics in summary.values()))
    (console or Console()).print(table)
