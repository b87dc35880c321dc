"""SIGTERM and Ctrl-C: every rank stops at the same step, with a checkpoint to go on from."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint

from vqvae_lightning.training.launch import is_first_process


class Stopped(SystemExit):
    """The end of a process whose training a signal has ended: 128 + the signal's number, the first process's to say.

    The others end with 0: Lightning kills the first one, which is closing its files, when it sees one of them fail.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number if is_first_process() else 0)


class StopOnSignal(Checkpoint):
    """Saves `path` at the end of the step in which a signal reached any rank, and raises `Stopped` on all of them.

    ```
    signal ──► handler: a flag, nothing else ──► end of a step: the ranks agree ──► checkpoint ──► Stopped
    ```

    A validation that is due is finished first: a run that goes on must not miss it. Several ranks ask each other every
    `ask_every` steps, one asks itself at every step. A second signal ends the process at once. As a `Checkpoint` it is
    called after the callbacks whose state it saves.
    """

    signals = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, path: Path, validate_every: int, ask_every: int) -> None:
        self.path, self.validate_every, self.ask_every = path, validate_every, ask_every
        self.received = 0  # the first signal that reached this process
        self.agreed = 0  # the one that all ranks know of
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Here, for Lightning has set handlers of its own before.
        self.previous = {number: signal.signal(number, self._receive) for number in self.signals}
        self.step = trainer.global_step

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        ended, self.step = trainer.global_step != self.step, trainer.global_step
        if not ended or self.step % self.validate_every == 0:  # still accumulating, or `on_validation_end` follows
            return
        if trainer.world_size == 1 or self.step % self.ask_every == 0:
            self._agree(trainer)
            if self.agreed:
                trainer.save_checkpoint(self.path, weights_only=False)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._agree(trainer)  # `LastCheckpoint` has saved

    def _agree(self, trainer: pl.Trainer) -> None:
        number = torch.tensor(self.received, device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            dist.all_reduce(number, op=dist.ReduceOp.MAX)
        self.agreed = int(number)

    # Only here, for Lightning logs a step's metrics after the hooks at its end.
    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.agreed:
            raise Stopped(self.agreed)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._give_back()
        self._stop()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}
