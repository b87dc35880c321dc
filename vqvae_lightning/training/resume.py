"""Resuming: which run, from which checkpoint, and with the same settings."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vqvae_lightning.config import ConfigError, Experiment, one_line
from vqvae_lightning.training.averaging import STATE
from vqvae_lightning.training.folders import read_each
from vqvae_lightning.training.launch import is_first_process
from vqvae_lightning.training.loading import own_checkpoint
from vqvae_lightning.training.record import RECORD
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.search import all_runs
from vqvae_lightning.training.settings import computed_settings, differences
from vqvae_lightning.verified import CheckpointError

# The entries of a checkpoint that Lightning restores a training from.
TRAINING = {
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


class Resumed(NamedTuple):
    """The point a run resumes from. Without a valid checkpoint it starts over in its folder."""

    checkpoint: Path | None
    step: int  # optimizer steps that the checkpoint has seen


def resumed_run(experiment: Experiment) -> Run | None:
    """The run that `resume` names; None for a new run.

    `auto` is the run `name`, or without a name the newest unfinished run with these settings, if
    there is one. Raises ConfigError for a named folder that is no run; one that a search finds is
    left out.
    """
    if not experiment.resume:
        return None
    if experiment.resume != "auto":
        return Run.open(experiment.resume)
    if experiment.name:
        named = Path(experiment.runs) / experiment.name
        return Run.open(named) if (named / RECORD).is_file() else None
    runs = [run for run in all_runs(experiment.runs) if run.record.kind == experiment.kind]
    unfinished = [run for run in runs if run.record.status != "finished"]
    same = read_each(unfinished, lambda run: not changed_settings(run, experiment))
    return next((run for run, is_same in reversed(same) if is_same), None)


def newest_checkpoint(run: Run) -> Resumed:
    """The run's own checkpoint with the most steps; one that is not valid is named and skipped.

    The caller holds the run's lock: without it another process may be training the run.
    """
    wanted = TRAINING | (STATE if run.experiment().trainer.ema_decay else {})
    valid: list[tuple[int, Path]] = []
    # `max` takes the first of two checkpoints of the same step.
    for path in (run.last, run.best):
        if path.is_file():
            try:
                valid.append((_step(own_checkpoint(run, path), wanted, path), path))
            except CheckpointError as error:
                if is_first_process():
                    print(f"resume: {one_line(error)}", flush=True)
    step, checkpoint = max(valid, key=lambda found: found[0], default=(0, None))
    return Resumed(checkpoint, step)


def _step(checkpoint: dict[str, Any], wanted: dict[str, type], path: Path) -> int:
    """The steps of a checkpoint with all `wanted` entries. Raises CheckpointError for another."""
    for key, kind in wanted.items():
        if not isinstance(checkpoint.get(key), kind) or not checkpoint[key]:
            raise CheckpointError(f"checkpoint: {path} holds no {key} to resume from")
    step = checkpoint["global_step"]
    if not 0 < step < 2**40:
        raise CheckpointError(
            f"checkpoint: {path} holds global_step={step}, wanted a number of steps"
        )
    return int(step)


def check_settings(run: Run, experiment: Experiment) -> None:
    """Raises ConfigError if `experiment` differs from the resumed run in more than its steps."""
    for key, (old, new) in changed_settings(run, experiment).items():
        raise ConfigError(
            f"resume: {key} was {old} in {run.path} and is {new} now; start a new run to change it"
        )


def changed_settings(run: Run, experiment: Experiment) -> dict[str, tuple[object, object]]:
    """Settings in which a run and an experiment differ, except the number of steps: both values."""
    recorded = run.experiment().model.first_stage_run
    if recorded and experiment.model.first_stage_run == recorded:
        # The recorded folder may hold another first stage now. The prior keeps a copy of its own.
        experiment = replace(experiment, model=experiment.model.learning_from(None))
    changed = computed_otherwise(run, experiment)
    return {key: values for key, values in changed.items() if key != "trainer.steps"}


def computed_otherwise(run: Run, experiment: Experiment) -> dict[str, tuple[object, object]]:
    """Settings in which a run and an experiment differ, the number of steps too: both values.

    First stages are equal if their fingerprints are, wherever they lie.
    """
    then = run.experiment()
    changed = differences(computed_settings(then), computed_settings(experiment))
    changed |= differences(
        {"trainer.steps": then.trainer.steps}, {"trainer.steps": experiment.trainer.steps}
    )
    place, source = experiment.model.first_stage_run, run.record.source
    if place and source:
        setting = f"model.{experiment.model.first_stage_at}"
        now = {setting: Run.open(place).record.fingerprint}
        changed |= differences({setting: source.fingerprint}, now)
    return changed
