"""`train(experiment)`: from settings to a finished run folder. The only place that builds a Trainer for training."""

import logging
import os
import re
import secrets
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.strategies import DDPStrategy

from vqvae_lightning import interrupts
from vqvae_lightning.config import ConfigError, Experiment, own_command
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.storage import read_checkpoint, write_checkpoint
from vqvae_lightning.training.autoencoders import AUTOENCODERS
from vqvae_lightning.training.callbacks import BestCheckpoint, LastCheckpoint, Pictures, Progress, Throughput
from vqvae_lightning.training.launch import check_launch, device_count, is_first_process
from vqvae_lightning.training.loading import (
    check_tokenizer,
    codes_folder,
    describe_tokenizer,
    keep_tokenizer,
    kept_tokenizer,
    own_checkpoint,
    replaced_tokenizer,
    tokenizer_of,
    tokenizer_record,
    with_tokenizer,
)
from vqvae_lightning.training.prior import CodePrior
from vqvae_lightning.training.resume import check_settings, newest_checkpoint, resumed_run
from vqvae_lightning.training.runs import Run, computed_settings
from vqvae_lightning.training.signals import StopOnSignal, end_ranks
from vqvae_lightning.training.tracking import JsonLinesLogger, RunWandbLogger, choose_wandb_mode

DataModule = ImageDataModule | CodeDataModule
ANY_TOKENIZER = {"run": "", "fingerprint": "", "codebook_size": 512, "grid": (7, 7), "dims": 784}


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind."""

    run: Run
    test: dict[str, float]  # test/… metrics of the best checkpoint


class VerifiedCheckpointIO(CheckpointIO):
    """Lightning's checkpoints through `storage`: whole or not there, verified at reading, plain types only.

    Each names the `run` that it is of, and the settings that it was trained with.
    """

    def __init__(self, run: str, settings: dict[str, Any]) -> None:
        self.known = {"run": run, "settings": settings}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(Path(path), {**checkpoint, **self.known})

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Nothing: a checkpoint takes the place of the older one of its name."""


def train(experiment: Experiment) -> TrainResult:
    """Trains, tests the best checkpoint and draws its pictures.

    Raises ConfigError, DataError or CheckpointError, one line each, before a run folder exists if the experiment
    cannot run. With `experiment.resume` a run goes on from its newest valid checkpoint; a finished one is left alone.
    """
    quieten()
    devices = device_count(experiment)
    check_launch(devices * experiment.trainer.nodes)
    run = resumed_run(experiment)
    return _go_on(experiment, devices, run) if run else _begin(experiment, devices)


def _begin(experiment: Experiment, devices: int) -> TrainResult:
    """Trains a new run."""
    experiment = with_tokenizer(experiment)
    check_new(experiment)
    data, module = _prepared(experiment)
    if not is_first_process():
        return fit_and_test(experiment, devices, module, data, None, None)
    run = Run.create(experiment, parameters=parameter_count(module), **lineage(module))
    with run.lock():
        return fit_and_test(experiment, devices, module, data, run, None)


def _go_on(experiment: Experiment, devices: int, run: Run) -> TrainResult:
    """Trains a run on from its newest valid checkpoint, or leaves it alone if it is finished."""
    check_settings(run, experiment)
    steps = experiment.trainer.steps
    if run.info["status"] == "finished" and newest_checkpoint(run).step >= steps:
        if is_first_process():
            print(f"resume    {run.path} is finished: nothing to do", flush=True)
        return TrainResult(run, run.info["test"])
    data, module = _prepared(experiment, run)
    if not is_first_process():
        checkpoint = newest_checkpoint(run).checkpoint
        return fit_and_test(experiment, devices, module, data, None, checkpoint)
    with run.lock():
        checkpoint, step = newest_checkpoint(run)
        damaged = [path for path in (run.best, run.last) if path.is_file()]
        if not checkpoint and damaged and experiment.resume != "auto":
            raise ConfigError(f"resume: {damaged[-1]} cannot be gone on from; move {run.path} away to start anew")
        print(f"resume    {run.path} from step {step} of {steps}", flush=True)
        if other := replaced_tokenizer(run):
            print(f"tokenizer {other} holds other weights now; {run.name} goes on with its own copy", flush=True)
        run.rewind(step)
        run.record_steps(steps)
        run.write(status="running", parameters=parameter_count(module))
        return fit_and_test(experiment, devices, module, data, run, checkpoint)


def _prepared(experiment: Experiment, run: Run | None = None) -> tuple[DataModule, pl.LightningModule]:
    """The data of an experiment, at hand, and its module, ready to be trained."""
    data, module = build(experiment, run)
    if experiment.trainer.precision == "64-true":
        # Lightning does it after it has loaded a checkpoint, whose last bits would be lost.
        module.double()
    if experiment.trainer.compile:
        net: Any = module.net
        net.compile_layers()
    # Before any process group exists, so that a failure is one error and no rank waits.
    data.prepare_data()
    return data, module


def parameter_count(module: pl.LightningModule) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in module.parameters())


def check_new(experiment: Experiment) -> None:
    """Raises ConfigError for a new run that can have no folder, or whose tokenizer may still become another one."""
    if is_first_process():
        Run.check_new(experiment)
    if experiment.kind == "prior":
        tokenizer = Run.open(experiment.model.tokenizer)
        if tokenizer.info["status"] != "finished":
            status = tokenizer.info["status"]
            raise ConfigError(f"model.tokenizer: {tokenizer.path} has status={status}, wanted a finished run")


def fit_and_test(
    experiment: Experiment,
    devices: int,
    module: pl.LightningModule,
    data: DataModule,
    run: Run | None,
    checkpoint: Path | None,
) -> TrainResult:
    """Trains from `checkpoint` on, if there is one, and tests the best one; `run` is known to the first process."""
    trainer: pl.Trainer | None = None
    try:
        with interrupts.caught():
            if run and "tokenizer" in run.info:
                keep_tokenizer(run)
            trainer = build_trainer(experiment, devices, run)
            start = str(checkpoint) if checkpoint else None
            trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
            trained = Run(Path(trainer.strategy.broadcast(str(run.path) if run else "")))
            best = str(trained.best)
            (test,) = trainer.test(module, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
    except BaseException as error:
        _end(error, trainer, run)
        raise
    if run:
        _finish(run, trainer, dict(test), getattr(data, "path", None))
    return TrainResult(trained, dict(test))


def _end(error: BaseException, trainer: pl.Trainer | None, run: Run | None) -> None:
    """Records how a training ended that did not finish, and ends its tracker and its ranks."""
    stopped = isinstance(error, interrupts.Stopped)
    if run:
        # A full disk must not hide the first error, nor keep what follows from being ended.
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
    # What is of a resumed run's older checkpoint.
    older = dict.fromkeys(("evaluated", "generation", "kl_per_dim", "process"))
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    run.write(status="finished", finished=finished, test=test, **older, **tokenizer_record(run))
    for logger in trainer.loggers:
        if isinstance(logger, RunWandbLogger):
            logger.complete(run, codes)


def build(experiment: Experiment, run: Run | None = None) -> tuple[DataModule, pl.LightningModule]:
    """The data module and the module of an experiment; nothing is trained, fetched or written.

    A prior that has a run already keeps the tokenizer that it was trained on, wherever that is now.
    """
    pl.seed_everything(experiment.seed, verbose=False)
    images = ImageDataModule(experiment.data, experiment.seed, experiment.trainer.accumulate)
    shape, classes = images.dataset.shape, images.dataset.classes
    if experiment.kind in AUTOENCODERS:
        module = AUTOENCODERS[experiment.kind](experiment.model, shape, experiment.optimizer)
        return images, module
    if run:
        tokenizer, codes, description = kept_tokenizer(run), codes_folder(run), run.info["tokenizer"]
    else:
        source = Run.open(experiment.model.tokenizer)
        check_tokenizer(source, experiment.data)
        tokenizer = tokenizer_of(own_checkpoint(source, source.best), source.best)
        codes = source.path / "codes"
        description = describe_tokenizer(tokenizer, source)
    prior = CodePrior(experiment.model, description, classes, experiment.optimizer)
    return CodeDataModule(images, tokenizer, codes), prior.attach(tokenizer)


def check(experiment: Experiment) -> None:
    """Raises ConfigError or ValueError, one line, for an experiment that `build` would refuse; costs no memory.

    A prior's tokenizer is not looked for: its codes stand in for any.
    """
    images = ImageDataModule(experiment.data, experiment.seed, experiment.trainer.accumulate)
    with torch.device("meta"):
        if experiment.kind in AUTOENCODERS:
            AUTOENCODERS[experiment.kind](experiment.model, images.dataset.shape, experiment.optimizer)
        else:
            CodePrior(experiment.model, ANY_TOKENIZER, images.dataset.classes, experiment.optimizer)


def build_trainer(experiment: Experiment, devices: int, run: Run | None) -> pl.Trainer:
    """The Trainer of a run; on other ranks than the first there is no run folder, and nothing is logged."""
    settings = experiment.trainer
    folder = run.path if run else Path()
    every = min(settings.validate_every, settings.steps)
    callbacks: list[Callback] = [
        Pictures(folder / "images"),
        Throughput(experiment.data.batch_size),
        Progress(),
        BestCheckpoint(folder / "checkpoints"),
        LastCheckpoint(folder / "checkpoints" / "last.ckpt"),
        StopOnSignal(folder / "checkpoints" / "last.ckpt", every, settings.log_every),
    ]
    # DDP must not overwrite codebooks with rank 0's: they are equal because their statistics are summed.
    strategy = DDPStrategy(forward_sync_buffers=False, gradient_as_bucket_view=True)
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=devices,
        num_nodes=settings.nodes,
        strategy=strategy if devices * settings.nodes > 1 else "auto",
        precision=settings.precision,
        max_steps=settings.steps,
        max_epochs=-1,
        val_check_interval=every * settings.accumulate,
        check_val_every_n_epoch=None,
        log_every_n_steps=settings.log_every,
        accumulate_grad_batches=settings.accumulate,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the loaders know their rank; Lightning's sampler would repeat samples
        logger=start_tracking(experiment, run) if run else False,
        callbacks=callbacks,
        plugins=[VerifiedCheckpointIO(run.info["id"] if run else "", computed_settings(experiment))],
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_autolog_hparams=False,
    )


def start_tracking(experiment: Experiment, run: Run) -> list[Logger]:
    """The run's loggers: metrics.jsonl and W&B."""
    if "wandb_id" not in run.info:
        # An agent of a W&B sweep names it.
        named = os.environ.get("WANDB_RUN_ID", "")
        run.write(wandb_id=named if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", named) else secrets.token_hex(4))
    warning = choose_wandb_mode(run.path)
    if warning:
        print(warning, flush=True)
    return [JsonLinesLogger(run.metrics_path), RunWandbLogger(experiment, run)]


def lineage(module: pl.LightningModule) -> dict[str, Any]:
    """What run.json keeps of the run this one builds on."""
    return {"tokenizer": module.description} if isinstance(module, CodePrior) else {}


def quieten() -> None:
    """Drops messages of the libraries that are advice to their own developers, or advertising."""
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*have no `validation_step`.*")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
