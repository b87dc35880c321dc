"""Going on with a run: which one, from which of its checkpoints, and whether it is still the same run."""

from pathlib import Path
from typing import Any, NamedTuple

from vqvae_lightning.config import ConfigError, Experiment, plain
from vqvae_lightning.storage import CheckpointError, read_checkpoint
from vqvae_lightning.training.launch import is_first_process
from vqvae_lightning.training.loading import with_tokenizer
from vqvae_lightning.training.runs import Run, differences

# Settings that say where a run is computed, not what.
PLACE = ("resume", "name", "runs", "trainer.devices", "trainer.nodes", "trainer.accelerator", "trainer.compile",
         "trainer.log_every", "data.root", "data.download", "tracking")  # fmt: skip


class Resumed(NamedTuple):
    """A run to go on with. Without a valid checkpoint it starts over, in the same folder."""

    run: Run
    checkpoint: Path | None
    step: int  # optimizer steps that the checkpoint has seen


def find_resumed(experiment: Experiment) -> Resumed | None:
    """The run that `resume` names and its newest valid checkpoint; None for a new run.

    `auto` is the run `name`, or without a name the newest unfinished run with these settings, if there is one.
    Raises ConfigError for a folder that is no run, or that holds no valid checkpoint although it was named.
    """
    if not experiment.resume:
        return None
    if experiment.resume != "auto":
        found = newest_checkpoint(Run.open(experiment.resume))
        if not found.checkpoint:
            raise ConfigError(
                f"resume: {found.run.path} holds no checkpoint at {found.run.last}; start it again without resume"
            )
        return found
    runs = [Run(path.parent) for path in Path(experiment.runs).glob(f"{experiment.name or '*'}/run.json")]
    if not experiment.name:
        unfinished = [run for run in runs if run.info["status"] != "finished" and run.info["kind"] == experiment.kind]
        runs = [run for run in unfinished if not changed_settings(run, experiment)]
    return newest_checkpoint(max(runs, key=lambda run: run.info["created"])) if runs else None


def newest_checkpoint(run: Run) -> Resumed:
    """The checkpoint of a run with most steps, whatever the files' times; a damaged one is named and passed over."""
    valid: list[tuple[int, Path]] = []
    for path in (run.best, run.last):  # of the same step, the last
        if path.is_file():
            try:
                valid.append((read_checkpoint(path)["global_step"], path))
            except CheckpointError as error:
                if is_first_process():
                    print(f"resume: {error}", flush=True)
    step, checkpoint = max(valid, key=lambda found: found[0], default=(0, None))
    return Resumed(run, checkpoint, step)


def check_settings(run: Run, experiment: Experiment) -> None:
    """Raises ConfigError if a resumed run's `experiment` differs from it in more than its length."""
    for key, (old, new) in changed_settings(run, experiment).items():
        raise ConfigError(f"resume: {key} was {old} in {run.path} and is {new} now; start a new run to change it")


def changed_settings(run: Run, experiment: Experiment) -> dict[str, tuple[Any, Any]]:
    """What a run and an experiment compute differently, but for its length: dotted keys with both values."""
    changed = computed_otherwise(run, with_tokenizer(experiment, run))
    return {key: values for key, values in changed.items() if key != "trainer.steps"}


def computed_otherwise(run: Run, experiment: Experiment) -> dict[str, tuple[Any, Any]]:
    """Dotted keys of what is computed, with its length, in which a run and an experiment differ, with both values."""
    changed = differences(plain(run.experiment()), plain(experiment))
    return {key: values for key, values in changed.items() if not key.startswith(PLACE)}
