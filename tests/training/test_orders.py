"""Codes in random orders: a training step knows how much of the training is done."""

from typing import Any
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from vqvae_lightning import VQVAE, CodePrior
from vqvae_lightning.models.priors.transformer import CodeTransformer

TRUNK = {"hidden": 8, "residual_hidden": 4, "residual_blocks": 1}
VQ = {"trunk": TRUNK, "latent_dim": 8, "quantizer": {"codebook_size": 16}}
NETWORK = {"layers": 1, "width": 16, "heads": 2, "order": "annealed"}
PRIOR = {"network": NETWORK, "class_conditional": False}


def fit(**more: Any) -> list[bool]:
    """Of each pass of a training of 8 steps, or with another end, whether it had an order."""
    prior = CodePrior(PRIOR, VQVAE(VQ, (1, 8, 8)).tokenizer())
    data = DataLoader(TensorDataset(torch.randint(16, (8, prior.layout.length))), batch_size=2)
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": -1,
    }  # fmt: skip
    orders: list[bool] = []
    logits = CodeTransformer.logits

    def watched(net: CodeTransformer, *given: Any) -> torch.Tensor:
        orders.append(len(given) == 3)
        return logits(net, *given)

    with mock.patch.object(CodeTransformer, "logits", watched):
        pl.Trainer(**{**quiet, **more}).fit(prior, data)
    return orders


@pytest.mark.filterwarnings("ignore")
def test_orders_are_random_until_three_quarters_of_the_steps() -> None:
    assert fit(max_steps=8) == [True] * 6 + [False] * 2
    assert fit(max_epochs=2) == [True] * 6 + [False] * 2
    # of a step in two passes both are at the same share
    assert fit(max_steps=4, accumulate_grad_batches=2) == [True] * 6 + [False] * 2


@pytest.mark.filterwarnings("ignore")
def test_a_training_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted a training that says how many steps it has"):
        fit(max_time={"minutes": 1})
