"""The bar of a training shows the loss that is logged, and costs no step that is not."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vqvae_lightning.training.callbacks import Progress


class Logged:
    """A trainer that counts how often its metrics were read: on a GPU each time is a wait."""

    is_global_zero, max_steps, log_every_n_steps = True, 100, 25

    def __init__(self) -> None:
        self.global_step, self.reads = 0, 0

    @property
    def callback_metrics(self) -> dict[str, torch.Tensor]:
        self.reads += 1
        return {"train/loss": torch.tensor(1 / (1 + self.global_step))}


def trained(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> tuple[Logged, list[str]]:
    """The trainer after 60 steps, and the loss that the bar showed after each."""
    trainer: Any = Logged()
    monkeypatch.setattr(progress.bar, "start", lambda: None)
    module: Any = SimpleNamespace()
    progress.on_train_start(trainer, module)
    shown = []
    for step in range(1, 61):
        trainer.global_step = step
        progress.on_train_batch_end(trainer)
        shown.append(progress.bar.tasks[0].fields["loss"])
    return trainer, shown


def test_the_bar_shows_the_loss_of_the_last_logged_step(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress()
    progress.bar.disable = False
    trainer, shown = trained(progress, monkeypatch)
    assert shown == [""] * 24 + ["loss 0.03846"] * 25 + ["loss 0.01961"] * 11
    assert trainer.reads == 2


def test_without_a_terminal_no_loss_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress()
    assert progress.bar.disable
    trainer, _ = trained(progress, monkeypatch)
    assert trainer.reads == 0
