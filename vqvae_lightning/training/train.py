"""`train(experiment)`: from settings to a finished run folder. The only place that builds a Trainer for training."""

import logging
import os
import secrets
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.strategies import DDPStrategy

from vqvae_lightning.config import ConfigError, Experiment, command_line
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.storage import hash_path, read_checkpoint, write_checkpoint
from vqvae_lightning.training.autoencoders import AUTOENCODERS
from vqvae_lightning.training.callbacks import LastCheckpoint, Pictures, Progress, Throughput
from vqvae_lightning.training.launch import check_launch, device_count, is_first_process
from vqvae_lightning.training.loading import check_tokenizer, describe_tokenizer, load_tokenizer, with_tokenizer
from vqvae_lightning.training.prior import CodePrior
from vqvae_lightning.training.resume import check_settings, find_resumed
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.signals import StopOnSignal, Stopped
from vqvae_lightning.training.tracking import JsonLinesLogger, RunWandbLogger, choose_wandb_mode

DataModule = ImageDataModule | CodeDataModule
ANY_TOKENIZER = {"run": "", "fingerprint": "", "codebook_size": 512, "grid": (7, 7), "dims": 784}


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind."""

    run: Run
    test: dict[str, float]  # test/… metrics of the best checkpoint


class VerifiedCheckpointIO(CheckpointIO):
    """Lightning's checkpoints through `storage`: whole or not there, verified at reading, plain types only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
        hash_path(Path(path)).unlink(missing_ok=True)


def train(experiment: Experiment) -> TrainResult:
    """Trains, tests the best checkpoint and draws its pictures.

    Raises ConfigError, DataError or CheckpointError, one line each, before a run folder exists if the experiment
    cannot run. With `experiment.resume` a run goes on from its newest valid checkpoint; a finished one is left alone.
    """
    quieten()
    devices = device_count(experiment)
    check_launch(devices * experiment.trainer.nodes)
    resumed = find_resumed(experiment)
    experiment = with_tokenizer(experiment, resumed.run if resumed else None)
    if resumed:
        check_settings(resumed.run, experiment)
        if resumed.run.info["status"] == "finished" and resumed.step >= experiment.trainer.steps:
            if is_first_process():
                print(f"resume    {resumed.run.path} is finished: nothing to do", flush=True)
            return TrainResult(resumed.run, resumed.run.info["test"])
    else:
        check_new(experiment)
    data, module = build(experiment)
    if experiment.trainer.precision == "64-true":
        module.double()  # Lightning does it after it has loaded a checkpoint, whose last bits would be lost
    if experiment.trainer.compile:
        net: Any = module.net
        net.compile_layers()
    data.prepare_data()  # before any process group exists, so that a failure is one error and no rank waits
    checkpoint = resumed.checkpoint if resumed else None
    if not is_first_process():
        return fit_and_test(build_trainer(experiment, devices, None), module, data, None, checkpoint)

    run = resumed.run if resumed else Run.create(experiment)
    with run.lock():
        if resumed:
            print(f"resume    {run.path} from step {resumed.step} of {experiment.trainer.steps}", flush=True)
            run.rewind(resumed.step)
        run.write(status="running", parameters=sum(p.numel() for p in module.parameters()), **lineage(module))
        return fit_and_test(build_trainer(experiment, devices, run), module, data, run, checkpoint)


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
    trainer: pl.Trainer, module: pl.LightningModule, data: DataModule, run: Run | None, checkpoint: Path | None
) -> TrainResult:
    """Trains from `checkpoint` on, if there is one, and tests the best one; `run` is known to the first process."""
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=True)
        run = Run(Path(trainer.strategy.broadcast(str(run.path) if run else "")))
        (test,) = trainer.test(module, datamodule=data, ckpt_path=str(run.best), weights_only=True, verbose=False)
    except BaseException as error:
        if run and trainer.is_global_zero:
            run.write(status="interrupted" if isinstance(error, SystemExit) else "failed")
            if run.last.is_file():
                again = command_line("vqvae", "train", f"resume={run.path}")
                print(f"\nstopped at step {trainer.global_step}; to go on: {again}", flush=True)
        for logger in trainer.loggers:
            if isinstance(logger, RunWandbLogger):
                logger.close(1)
        if isinstance(error, SystemExit) and not isinstance(error, Stopped):  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
        raise
    if trainer.is_global_zero:
        older = dict.fromkeys(("evaluated", "generation", "kl_per_dim"))  # what is of a resumed run's older checkpoint
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        run.write(status="finished", finished=finished, test=dict(test), process=None, **older)
        for logger in trainer.loggers:
            if isinstance(logger, RunWandbLogger):
                logger.complete(run, getattr(data, "path", None))
    return TrainResult(run, dict(test))


def build(experiment: Experiment) -> tuple[DataModule, pl.LightningModule]:
    """The data module and the module of an experiment; nothing is trained, fetched or written."""
    pl.seed_everything(experiment.seed, verbose=False)
    accumulate = experiment.trainer.accumulate
    images = ImageDataModule(experiment.data, experiment.seed, accumulate)
    if experiment.kind in AUTOENCODERS:
        return images, AUTOENCODERS[experiment.kind](experiment.model, images.dataset.shape, experiment.optimizer)
    run = Run.open(experiment.model.tokenizer)
    check_tokenizer(run, experiment.data)
    tokenizer = load_tokenizer(run)
    data = CodeDataModule(images, tokenizer, run.path / "codes")
    description = describe_tokenizer(tokenizer, run)
    prior = CodePrior(experiment.model, description, images.dataset.classes, experiment.optimizer)
    return data, prior.attach(tokenizer)


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
        ModelCheckpoint(folder / "checkpoints", "best", monitor="val/loss", save_top_k=1, enable_version_counter=False),
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
        plugins=[VerifiedCheckpointIO()],
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_autolog_hparams=False,
    )


def start_tracking(experiment: Experiment, run: Run) -> list[Logger]:
    """The run's loggers: metrics.jsonl and W&B."""
    if "wandb_id" not in run.info:
        run.write(wandb_id=os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))  # set by an agent of a W&B sweep
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
