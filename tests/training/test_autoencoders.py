"""What a VAE's training options change: the training step, and never the loss of validation and
test.
"""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vqvae_lightning.data.loader import Batch
from vqvae_lightning.models.bottlenecks import fresh_noise
from vqvae_lightning.models.settings import VAEConfig
from vqvae_lightning.models.trunks.conv import ConvTrunk
from vqvae_lightning.training.autoencoders import VAE, warmed_up

NETWORK = ConvTrunk.Config(hidden=4, residual_hidden=2, residual_blocks=1)


def vae(step=0, **fields):
    """A small VAE in float64 whose trainer is at `step` and logs nothing."""
    torch.manual_seed(0)
    module = VAE(VAEConfig(latent_dim=3, trunk=NETWORK, **fields), (1, 8, 8)).double()
    trainer: Any = SimpleNamespace(global_step=step, log_every_n_steps=10**9)
    module._trainer = trainer
    return module


@pytest.fixture
def x():
    torch.manual_seed(1)
    return 2 * torch.rand(5, 1, 8, 8, dtype=torch.float64) - 1


def training_objective(module, x):
    torch.manual_seed(2)
    return module.training_objective(x, fresh_noise)


@pytest.mark.parametrize(
    ("step", "warmup", "beta"),
    [
        (0, 4, 0.0),
        (1, 4, 0.5),
        (2, 4, 1.0),
        (4, 4, 2.0),
        (5, 4, 2.0),
        (0, 0, 2.0),
        (9, 0, 2.0),
        (0, 1, 0.0),
        (1, 1, 2.0),
    ],
)
def test_warm_up_by_hand(step, warmup, beta):
    assert warmed_up(2.0, step, warmup) == pytest.approx(beta, abs=1e-15)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (3, 0.3), (10, 1.0), (40, 1.0)])
def test_the_training_loss_has_the_beta_of_its_step(x, step, factor):
    module = vae(step, beta=2.0, kl_warmup_steps=10)
    objective = training_objective(module, x)
    expected = (objective.distortion + 2.0 * factor * objective.latent.rate).mean() / 64
    torch.testing.assert_close(objective.loss, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"kl_warmup_steps": 10, "beta": 2.0}, {"free_bits": 9.0}, {"importance_samples": 3}]
)
def test_validation_and_test_losses_are_those_without_the_option(x, options):
    module = vae(**options).eval()
    assert (
        training_objective(module, x).loss
        != training_objective(vae(beta=module.beta()).eval(), x).loss
    )
    for split in ("val", "test"):
        torch.manual_seed(3)
        module._evaluation_step(split, Batch(x, torch.zeros(5), torch.arange(5), 0))
        values = module.split_metrics[split].compute()
        expected = (values["distortion"] + module.beta() * values["rate"]) / 64
        assert values["loss"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_free_bits_reach_the_training_loss(x):
    module, plain = vae(free_bits=0.3, beta=1.5), vae(beta=1.5)
    a, b = training_objective(module, x), training_objective(plain, x)
    excess = sum(max(0.3 - mean, 0.0) for mean in b.latent.rate_per_dim.mean(0).flatten().tolist())
    assert excess > 0
    assert a.loss.item() - b.loss.item() == pytest.approx(1.5 * excess / 64, rel=1e-9)
    assert torch.equal(a.latent.rate, b.latent.rate)


def test_importance_samples_train_the_bound(x):
    objective = training_objective(vae(importance_samples=7), x)
    module = vae(importance_samples=7)
    torch.manual_seed(2)
    log_weights = module.net.log_weights(x, 7)
    expected = -(log_weights.logsumexp(0) - math.log(7)).mean() / 64
    torch.testing.assert_close(objective.loss, expected, rtol=0, atol=1e-12)
    one = training_objective(vae(), x)
    torch.testing.assert_close(
        one.loss, (one.distortion + one.latent.rate).mean() / 64, rtol=0, atol=1e-12
    )
