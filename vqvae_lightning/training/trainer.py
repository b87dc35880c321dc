"""The Trainer of a run, with its loggers, its callbacks and its checkpoints."""

import logging
import os
import re
import secrets
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import DoublePrecision
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.strategies import DDPStrategy, Strategy

from vqvae_lightning.config import Experiment, TrainerConfig
from vqvae_lightning.training.averaging import AveragedWeights
from vqvae_lightning.training.callbacks import (
    BestCheckpoint,
    LastCheckpoint,
    Pictures,
    Progress,
    Throughput,
)
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.settings import computed_settings
from vqvae_lightning.training.sharding import ShardedStrategy, WholeInEvaluation
from vqvae_lightning.training.stopping import StopOnSignal
from vqvae_lightning.training.tracking import JsonLinesLogger, RunWandbLogger, choose_wandb_mode
from vqvae_lightning.verified import read_checkpoint, write_checkpoint


class VerifiedCheckpointIO(CheckpointIO):
    """Lightning's checkpoints: written atomically, verified when read, of plain types only.

    Each names its `run` and the settings that it was trained with.
    """

    def __init__(self, run: str, settings: dict[str, object]) -> None:
        self.known = {"run": run, "settings": settings}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        write_checkpoint(Path(path), {**checkpoint, **self.known})

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Does nothing: a checkpoint replaces the older one of its name."""


def build_trainer(experiment: Experiment, devices: int, run: Run | None) -> pl.Trainer:
    """The Trainer of a run. Ranks other than the first have no run folder and log nothing."""
    settings = experiment.trainer
    folder = run.path if run else Path()
    every = min(settings.validate_every, settings.steps)
    world = devices * settings.nodes
    sharded = world > 1 and settings.strategy == "fsdp"
    callbacks: list[Callback] = [
        Pictures(folder / "images"),
        Throughput(experiment.data.batch_size),
        Progress(),
        *([WholeInEvaluation()] if sharded else []),
        *([AveragedWeights(settings.ema_decay)] if settings.ema_decay else []),
        BestCheckpoint(folder / "checkpoints"),
        LastCheckpoint(folder / "checkpoints" / "last.ckpt"),
        StopOnSignal(folder / "checkpoints" / "last.ckpt", every, settings.log_every),
    ]
    io = VerifiedCheckpointIO(run.record.id if run else "", computed_settings(experiment))
    # Lightning refuses this precision by its name for a sharded module, which does not mind it.
    by_plugin = sharded and settings.precision == "64-true"
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=devices,
        num_nodes=settings.nodes,
        strategy=strategy_of(settings, world),
        precision=None if by_plugin else settings.precision,
        # A warning names what has no such kernel on a GPU, such as the sums of a prior's draws.
        deterministic="warn" if settings.deterministic else False,
        max_steps=settings.steps,
        max_epochs=-1,
        val_check_interval=every * settings.accumulate,
        check_val_every_n_epoch=None,
        log_every_n_steps=settings.log_every,
        accumulate_grad_batches=settings.accumulate,
        num_sanity_val_steps=0,
        # the loaders know their rank; Lightning's sampler would repeat samples
        use_distributed_sampler=False,
        logger=start_tracking(experiment, run) if run else False,
        callbacks=callbacks,
        plugins=[io, DoublePrecision()] if by_plugin else [io],
        # What is gathered in an evaluation is trained on later.
        inference_mode=not sharded,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_autolog_hparams=False,
    )


def strategy_of(settings: TrainerConfig, world: int) -> Strategy | str:
    """How `world` processes train together."""
    timeout = timedelta(seconds=settings.timeout)
    if world == 1:
        return "auto"
    if settings.strategy == "fsdp":
        return ShardedStrategy(world, timeout)
    # DDP must not overwrite codebooks with rank 0's: they are equal because their statistics are
    # summed.
    return DDPStrategy(forward_sync_buffers=False, gradient_as_bucket_view=True, timeout=timeout)


def start_tracking(experiment: Experiment, run: Run) -> list[Logger]:
    """The run's loggers: metrics.jsonl and W&B."""
    if not run.record.wandb_id:
        # An agent of a W&B sweep gives its runs an id.
        named = os.environ.get("WANDB_RUN_ID", "")
        run.write(
            wandb_id=named if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", named) else secrets.token_hex(4)
        )
    warning = choose_wandb_mode(run.path)
    if warning:
        print(warning, flush=True)
    return [JsonLinesLogger(run.metrics_path), RunWandbLogger(experiment, run)]


def silence_known_warnings() -> None:
    """Silences warnings of the libraries that do not concern a user of this one."""
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*have no `validation_step`.*")
    # of a sharded network; nothing is written into what it returns
    warnings.filterwarnings("ignore", message=".*returned a view tensor.*")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
