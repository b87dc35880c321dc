"""`train(experiment)`: from settings to a finished run folder."""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytorch_lightning as pl

from vqvae_lightning import interrupts
from vqvae_lightning.config import ConfigError, Experiment, own_command, plugins_of
from vqvae_lightning.data.own.build import resolve
from vqvae_lightning.data.own.store import OwnImages
from vqvae_lightning.experiment import checked
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.surroundings import own_surroundings
from vqvae_lightning.training.build import DataModule, build
from vqvae_lightning.training.launch import check_launch, device_count, is_first_process
from vqvae_lightning.training.loading import (
    first_stage_record,
    keep_first_stage,
    replaced_first_stage,
    with_first_stage,
)
from vqvae_lightning.training.resume import check_settings, newest_checkpoint, resumed_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.stages import Generates, HasNet
from vqvae_lightning.training.stopping import end_ranks
from vqvae_lightning.training.tracking import RunWandbLogger
from vqvae_lightning.training.trainer import build_trainer, silence_known_warnings


@dataclass(frozen=True)
class TrainResult:
    """The result of a training."""

    run: Run
    test: dict[str, float]  # test/… metrics of the best checkpoint


@own_surroundings()
def train(experiment: Experiment) -> TrainResult:
    """Trains, tests the best checkpoint and draws its pictures.

    An experiment that a program made is checked as one of a file is. Raises ConfigError, DataError
    or CheckpointError, one line each, before a run folder exists if the experiment cannot run. With
    `experiment.resume` a run goes on from its newest valid checkpoint; a finished one is left
    alone.
    """
    silence_known_warnings()
    experiment = checked(experiment)
    experiment = replace(experiment, data=resolve(experiment.data))
    devices = device_count(experiment)
    check_launch(devices, experiment.trainer.nodes)
    run = resumed_run(experiment)
    return _go_on(experiment, devices, run) if run else _begin(experiment, devices)


def _begin(experiment: Experiment, devices: int) -> TrainResult:
    """Trains a new run."""
    experiment = with_first_stage(experiment)
    check_new(experiment)
    data, module = _prepared(experiment)
    if not is_first_process():
        return fit_and_test(experiment, devices, module, data, None, None)
    described = lineage(experiment, module)
    run = Run.create(experiment, parameters=parameter_count(module), **described)
    with run.lock():
        return fit_and_test(experiment, devices, module, data, run, None)


def _go_on(experiment: Experiment, devices: int, run: Run) -> TrainResult:
    """Trains a run on from its newest valid checkpoint, or leaves it alone if it is finished."""
    check_settings(run, experiment)
    steps = experiment.trainer.steps
    if run.record.status == "finished" and newest_checkpoint(run).step >= steps:
        if is_first_process():
            print(f"resume    {run.path} is finished: nothing to do", flush=True)
        return TrainResult(run, run.record.test)
    data, module = _prepared(experiment, run)
    if not is_first_process():
        checkpoint = newest_checkpoint(run).checkpoint
        return fit_and_test(experiment, devices, module, data, None, checkpoint)
    with run.lock():
        checkpoint, step = newest_checkpoint(run)
        damaged = [path for path in (run.best, run.last) if path.is_file()]
        if not checkpoint and damaged and experiment.resume != "auto":
            raise ConfigError(
                f"resume: {damaged[-1]} cannot be resumed from; move {run.path} away to start anew"
            )
        print(f"resume    {run.path} from step {step} of {steps}", flush=True)
        if other := replaced_first_stage(run):
            print(
                f"replaced  {other} holds other weights now; {run.name} goes on with its own copy",
                flush=True,
            )
        run.rewind(step)
        run.record_steps(steps)
        run.write(status="running", parameters=parameter_count(module))
        return fit_and_test(experiment, devices, module, data, run, checkpoint)


def _prepared(
    experiment: Experiment, run: Run | None = None
) -> tuple[DataModule, pl.LightningModule]:
    """The data of an experiment, fetched, and its module, ready to be trained."""
    data, module = build(experiment, run)
    if isinstance(data.dataset, OwnImages) and is_first_process():
        # Each training says what it learns from, and what of the path it does not see.
        print(data.dataset.describe(), flush=True)
    if experiment.trainer.precision == "64-true":
        # Lightning converts after it has loaded a checkpoint, whose last bits would be lost.
        module.double()
    if experiment.trainer.compile:
        cast(HasNet, module).net.compile_layers()
    # Before any process group exists: a failure is then one error, and no rank waits for another.
    data.prepare_data()
    return data, module


def parameter_count(module: pl.LightningModule) -> int:
    """How many numbers the parameters hold, trained or not."""
    return sum(p.numel() for p in module.parameters())


def check_new(experiment: Experiment) -> None:
    """Raises ConfigError if a new run cannot have its folder, or its first stage is unfinished."""
    if is_first_process():
        Run.check_new(experiment)
    if KINDS[experiment.kind].stage == 2:
        source = Run.open(experiment.model.first_stage_run)
        if source.record.status != "finished":
            raise ConfigError(
                f"model.{experiment.model.first_stage_at}: {source.path} has"
                f" status={source.record.status}, wanted a finished run"
            )


def fit_and_test(
    experiment: Experiment,
    devices: int,
    module: pl.LightningModule,
    data: DataModule,
    run: Run | None,
    checkpoint: Path | None,
) -> TrainResult:
    """Trains, and tests the best checkpoint.

    Args:
        experiment: the settings.
        devices: devices per machine.
        module: the module to train.
        data: its data.
        run: the run folder; None in every process but the first.
        checkpoint: the checkpoint to resume from, if there is one.
    """
    trainer: pl.Trainer | None = None
    try:
        with interrupts.caught():
            if run and run.record.source:
                keep_first_stage(run)
            trainer = build_trainer(experiment, devices, run)
            start = str(checkpoint) if checkpoint else None
            trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
            trained = Run(Path(trainer.strategy.broadcast(str(run.path) if run else "")))
            best = str(trained.best)
            (test,) = trainer.test(
                module, datamodule=data, ckpt_path=best, weights_only=True, verbose=False
            )
    except BaseException as error:
        _end(error, trainer, run)
        raise
    if run:
        _finish(run, trainer, dict(test), getattr(data, "path", None))
    return TrainResult(trained, dict(test))


def _end(error: BaseException, trainer: pl.Trainer | None, run: Run | None) -> None:
    """Records why a training did not finish, and ends its tracker and its ranks."""
    stopped = isinstance(error, interrupts.Stopped | KeyboardInterrupt)
    if run:
        # A full disk must not hide the first error, nor keep the tracker and the ranks alive.
        with suppress(OSError):
            run.write(status="interrupted" if stopped else "failed")
        if run.last.is_file():
            again = own_command("train", f"resume={run.path}")
            step = trainer.global_step if trainer else 0
            print(f"\nstopped at step {step}; to go on: {again}", flush=True)
    if trainer:
        # W&B's end is bounded by its own timeout.
        interrupts.wait()
        for logger in trainer.loggers:
            if isinstance(logger, RunWandbLogger):
                logger.close(1)
        if stopped:
            end_ranks(trainer)


def _finish(run: Run, trainer: pl.Trainer, test: dict[str, float], codes: Path | None) -> None:
    """Records a finished training."""
    # These entries belong to a resumed run's older checkpoint.
    older = dict.fromkeys(("evaluated", "generation", "kl_per_dim", "process", "heard_by"))
    finished = datetime.now(UTC).isoformat(timespec="milliseconds")
    run.write(status="finished", finished=finished, test=test, **older, **first_stage_record(run))
    for logger in trainer.loggers:
        if isinstance(logger, RunWandbLogger):
            logger.complete(run, codes)


def lineage(experiment: Experiment, module: pl.LightningModule) -> dict[str, object]:
    """The entries of run.json about what a run builds on: a first stage, and files of own parts."""
    found: dict[str, object] = {}
    plugins = plugins_of(experiment)
    if KINDS[experiment.kind].stage == 2:
        found[experiment.model.first_stage_at] = cast(Generates, module).description
        of_source = Run.open(experiment.model.first_stage_run).record.plugins
        plugins += [plugin for plugin in of_source if plugin not in plugins]
    return found | ({"plugins": plugins} if plugins else {})
