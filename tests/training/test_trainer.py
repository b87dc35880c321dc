"""The Trainer of a run."""

import pytest
import torch

from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.training.trainer import build_trainer


@pytest.mark.parametrize("wanted", [True, False])
def test_only_a_deterministic_training_asks_for_deterministic_algorithms(wanted, monkeypatch):
    # Lightning sets it for all libraries, and for later tests.
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    settings = ["kind=ae", "trainer.accelerator=cpu", f"trainer.deterministic={wanted}"]
    try:
        build_trainer(load_experiment(None, settings), 1, None)
        assert torch.are_deterministic_algorithms_enabled() == wanted
    finally:
        torch.use_deterministic_algorithms(False)
