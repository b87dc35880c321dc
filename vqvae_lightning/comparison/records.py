"""run.json and config.yaml of the runs that are compared: every value is there and of its type, or
the run is refused by name.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vqvae_lightning.config import ConfigError, Experiment
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.metrics.measures import in_table
from vqvae_lightning.training.loading import first_stage_runs, neighbours
from vqvae_lightning.training.record import RunRecord
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.shapes import check_shape

# What a figure of samples is quoted with.
FIGURE = {
    "sampler": str,
    "network": str,
    "weights_sha256": str,
    "preprocessing": str,
    "samples": int,
    "reference": str,
    "reference_images": int,
    "seed": int,
}


class Records:
    """run.json and config.yaml of run folders, checked.

    Each is read once, also where many priors share a tokenizer.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = {run.path: run for run in runs}
        self.beside: dict[Path, list[Run]] = {}
        self.known: dict[Path, tuple[RunRecord, Experiment]] = {}

    def read(self, run: Run) -> tuple[RunRecord, Experiment]:
        """run.json and config.yaml of a run. Raises ConfigError if it cannot be compared."""
        if run.path not in self.known:
            check_record(run.record)
            self.known[run.path] = run.record, run.experiment()
        return self.known[run.path]

    def first_stage(self, prior: Run, experiment: Experiment) -> Run | None:
        """The run that holds a prior's first stage now, if it can be compared."""
        root = prior.path.parent
        if root not in self.beside:
            others = [run for run in neighbours(prior.path) if run.path not in self.runs]
            self.beside[root] = [*self.runs.values(), *others]
        for run in first_stage_runs(prior, experiment.model.first_stage_run, self.beside[root]):
            # A folder in its place that cannot be compared is not its first stage.
            with suppress(ConfigError):
                self.read(run)
                return run
        return None


def check_record(record: RunRecord) -> None:
    """Raises ConfigError, one line, unless `record` is of a finished run with all that is
    compared.
    """
    if record.status != "finished":
        raise ConfigError(f"run.json has status={record.status}, wanted finished")
    if KINDS[record.kind].is_vocoder:
        raise ConfigError("it is a vocoder, which makes nothing that could be compared")
    test = {f"test/{name}": float for name in KINDS[record.kind].required}
    check_shape(record.test, test, "run.json: test")
    check_figures(record)


def check_figures(record: RunRecord) -> None:
    """Raises ConfigError, one line, for a measurement of samples that lacks its protocol or is no
    number.
    """
    check_shape(record.generation, [FIGURE], "run.json: generation")
    for figure in record.generation:
        measured = {column.key: float for column in in_table("samplers") if column.key in figure}
        check_shape(figure, measured, "run.json: generation")
