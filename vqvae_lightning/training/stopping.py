"""Signals in training: all ranks stop at the same step, with a checkpoint to resume from."""

from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint

from vqvae_lightning import interrupts
from vqvae_lightning.interrupts import Stopped
from vqvae_lightning.training.launch import is_first_process


class StopOnSignal(Checkpoint):
    """Stops all ranks at the end of the step in which a signal reached one of them.

    It saves `path`, and then raises Stopped.

    ```
    signal ──► noted (interrupts.py) ──► end of a step: the ranks agree ──► checkpoint ──► Stopped
    ```

    A validation that is due is finished first, so that a resumed run does not miss it. With several
    ranks the signal is all-reduced every `sync_every` steps; a single rank looks at every step.
    If another rank does not answer, the process ends after `interrupts.PATIENCE` seconds without a
    batch. As a `Checkpoint` it is called after the callbacks whose state it saves.
    """

    def __init__(self, path: Path, validate_every: int, sync_every: int) -> None:
        self.path, self.validate_every, self.sync_every = path, validate_every, sync_every
        self.agreed = 0  # the signal that all ranks know of

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        # Lightning's handler of SIGTERM runs a collective wherever the signal arrives.
        connector = trainer._signal_connector
        connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        interrupts.hold(limited=trainer.world_size > 1, saved=self.path)
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: object
    ) -> None:
        interrupts.moved()
        ended, self.step = trainer.global_step != self.step, trainer.global_step
        # still accumulating, or `on_validation_end` follows
        if not ended or self.step % self.validate_every == 0:
            return
        if trainer.world_size == 1 or self.step % self.sync_every == 0:
            self._agree(trainer)
            if self.agreed:
                trainer.save_checkpoint(self.path, weights_only=False)

    def on_validation_batch_end(self, *_: object) -> None:
        interrupts.moved()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._agree(trainer)  # `LastCheckpoint` has saved

    def _agree(self, trainer: pl.Trainer) -> None:
        number = torch.tensor(interrupts.received(), device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            dist.all_reduce(number, op=dist.ReduceOp.MAX)
        self.agreed = int(number)

    # The next step raises, not the end of this one: Lightning logs a step's metrics after the hooks
    # at its end.
    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: object
    ) -> None:
        interrupts.moved()
        self._stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.agreed:
            # The first process closes the files; a launcher ends it when it sees another one fail.
            raise Stopped(self.agreed, code=None if is_first_process() else 0)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        interrupts.release()
        self._stop()
        interrupts.end_if_received()

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        interrupts.release()


def end_ranks(trainer: pl.Trainer) -> None:
    """Kills the ranks that this process started; they write nothing and may wait for this one."""
    processes = getattr(trainer.strategy.launcher, "procs", [])
    ranks = processes.copy()
    # Lightning watches this list, and kills this process too when it sees a rank killed.
    processes.clear()
    for rank in ranks:
        rank.kill()
