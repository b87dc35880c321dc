"""Pictures and progress: the module says what to show, the callbacks say when and where."""

import sys
import time
from pathlib import Path
from typing import Any, Protocol, cast

import pytorch_lightning as pl
import rich.progress
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint
from torch import Tensor

from vqvae_lightning.metrics.measures import in_progress, sign
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.pictures import Grid, named_grid, write_picture
from vqvae_lightning.signals.clips import heard, write_sounds
from vqvae_lightning.training.tracking import RunWandbLogger


class Pictures(Callback):
    """Writes the module's pictures to `folder` and to W&B; of recordings, what is heard, too.

    A validation shows validation images, the test shows test images. They are the first of their
    split, so every model of a dataset shows the same ones. The test removes all other pictures,
    because they were drawn from an older checkpoint.
    """

    shown = 32

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._write(trainer, module, "val")

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._write(trainer, module, "test")

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, split: str) -> None:
        if not trainer.is_global_zero:
            return
        # Lightning sets it outside of Trainer's own class.
        data = trainer.datamodule  # type: ignore[attr-defined]
        labels = data.splits[split].labels[: self.shown]
        grids = render(module, data.references(split, self.shown), labels)
        for path in self.folder.iterdir() if split == "test" else ():
            if path.suffix in (".png", ".wav") and path.stem not in grids:
                path.unlink()
        trackers = [logger for logger in trainer.loggers if isinstance(logger, RunWandbLogger)]
        for name, grid in grids.items():
            picture = named_grid(grid, data.dataset.class_names)
            write_picture(self.folder / f"{name}.png", picture)
            sounds = write_sounds(self.folder / f"{name}.wav", heard(grid, data.signal))
            for logger in trackers:
                logger.log_grid(f"{split}/{name}", grid, picture, trainer.global_step, sounds)
        counts = cast(HasPictures, module).code_counts(split)
        if counts is not None:
            for logger in trackers:
                logger.log_code_use(f"{split}/code_use", counts, trainer.global_step)


class HasPictures(Protocol):
    """A module that says what to show."""

    def pictures(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Grid]:
        """Named grids for the first references of a split, and their labels."""

    def code_counts(self, split: str) -> Tensor | None:
        """How often each code occurred in the split that was measured last, (M, K), if it has
        codes.
        """


def render(
    module: pl.LightningModule, references: Tensor, labels: Tensor | None = None
) -> dict[str, Grid]:
    """The module's grids, drawn in evaluation mode; training's random state stays as it is."""
    own = [module.device] if module.device.type == "cuda" else []
    with evaluating(module), torch.random.fork_rng(devices=own), torch.no_grad():
        torch.manual_seed(0)
        given = None if labels is None else labels.to(module.device)
        return cast(HasPictures, module).pictures(references.to(module.device), given)


class BestCheckpoint(ModelCheckpoint):
    """Saves `best.ckpt` in a folder after each validation whose val/loss is the lowest so far."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, "best", monitor="val/loss", save_top_k=1, enable_version_counter=False
        )
        self.path = str(folder / "best.ckpt")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the lowest loss, but no path.

        The run folder may have been moved, and a checkpoint from elsewhere may name any file.
        """
        score = state_dict.get("best_model_score")
        if isinstance(score, Tensor):
            self.best_model_score = self.kth_value = score
            self.best_model_path = self.kth_best_model_path = self.path
            self.best_k_models = {self.path: score}


class LastCheckpoint(Checkpoint):
    """Saves `path` after every validation.

    Lightning calls a `Checkpoint` after all other callbacks, in the order given, so the saved state
    includes that validation. Lightning's own `save_last` is no substitute: beside a monitor it
    keeps the last *best* checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)  # the optimizer's state too


class Throughput(Callback):
    """Logs the learning rate, images seen and images per second.

    Over images seen, curves of different batch sizes can be compared.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started, self.first_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: object
    ) -> None:
        # Lightning sets it outside of Trainer's own class.
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            steps, seconds = trainer.global_step - self.first_step, time.monotonic() - self.started
            module.log("train/lr", trainer.optimizers[0].param_groups[0]["lr"])
            module.log("train/images_seen", float(trainer.global_step * self.batch_size))
            module.log("train/images_per_second", steps * self.batch_size / seconds)


class Progress(Callback):
    """One line per validation; on a terminal, also a bar over the steps with the logged loss."""

    def __init__(self) -> None:
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("step {task.completed}/{task.total}"),
            rich.progress.BarColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[loss]}"),
            disable=not (sys.stdout and sys.stdout.isatty()),
            transient=True,
        )

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.started = time.monotonic()
            self.task = self.bar.add_task(
                "", total=trainer.max_steps, completed=trainer.global_step, loss=""
            )
            self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if not trainer.is_global_zero:
            return
        self.bar.update(self.task, completed=trainer.global_step)
        # Only where the loggers read the loss, too: to read it waits for the GPU.
        logs_now = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if logs_now and not self.bar.disable:
            loss = trainer.callback_metrics.get("train/loss")
            self.bar.update(self.task, loss="" if loss is None else f"loss {float(loss):.4g}")

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        values = {name: trainer.callback_metrics.get(f"val/{name}") for name in in_progress()}
        known = [name.removeprefix("val/") for name in trainer.callback_metrics]
        words = "  ".join(
            f"{name} {sign(name, known)}{float(value):.4g}"
            for name, value in values.items()
            if value is not None
        )
        seconds = time.monotonic() - self.started
        print(
            f"step {trainer.global_step}/{trainer.max_steps}  {seconds:.0f} s  val: {words}",
            flush=True,
        )

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self.bar.stop()
