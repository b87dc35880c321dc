"""Bounds on log p(x): on a model whose log p(x) is known, and from weights that are used once
each.
"""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vqvae_lightning.config import EvaluateOptions
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.evaluation.likelihood import (
    ImportanceWeightedBound,
    iwae_bound,
    kl_per_dim,
    log_mean_weight,
    mean_distortion,
)
from vqvae_lightning.evaluation.subject import Plan
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.metrics.information import bits_per_dim
from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.likelihoods import DiscretizedLogistic
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer
from vqvae_lightning.models.settings import VAEConfig, VQVAEConfig
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.models.trunks.conv import ConvTrunk

NETWORK = ConvTrunk.Config(hidden=4, residual_hidden=2, residual_blocks=1, downsamples=1)


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


class LinearEncoder(nn.Module):
    """The posterior of x = Wz + b + noise, moved by `shift` and widened by `stretch`: (N, 3, 1, 1)
    → (N, 4, 1, 1).
    """

    def __init__(self, w, b, s, shift=0.0, stretch=1.0):
        super().__init__()
        # W's columns are orthogonal: a diagonal posterior
        self.variance = 1 / (1 + w.square().sum(0) / s**2)
        self.w, self.b, self.s, self.shift, self.stretch = w, b, s, shift, stretch

    def forward(self, x):
        mean = self.variance * ((x.flatten(1) - self.b) @ self.w) / self.s**2 + self.shift
        log_variance = (self.variance * self.stretch).log().expand_as(mean)
        return torch.cat([mean, log_variance], dim=1)[:, :, None, None]


class LinearDecoder(nn.Module):
    def __init__(self, w, b):
        super().__init__()
        self.w, self.b = w, b

    def forward(self, z):
        return (z.flatten(1) @ self.w.T + self.b)[:, :, None, None]


def linear_gaussian(shift=0.0, stretch=1.0):
    """p(z) = N(0, I₂), p(x|z) = N(Wz + b, s² I₃), q as asked; and log p(x) = log N(x; b, WWᵀ + s²
    I₃).
    """
    net = build_autoencoder(VAEConfig(latent_dim=2, trunk=NETWORK), (1, 2, 2)).double().eval()
    w = torch.tensor([[1.0, 0.5], [0.5, -1.0], [0.8, 0.0]], dtype=torch.float64)
    likelihood: Any = net.likelihood
    b, s = (
        torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64),
        likelihood.log_scale.exp().item(),
    )
    net.encoder, net.decoder, net.image_shape = (
        LinearEncoder(w, b, s, shift, stretch),
        LinearDecoder(w, b),
        (3, 1, 1),
    )
    p_x = MultivariateNormal(b, w @ w.T + s**2 * torch.eye(3, dtype=torch.float64))
    return net, p_x


def images(p_x, n):
    return p_x.sample((n,))[:, :, None, None]


class TestLinearGaussian:
    def test_with_the_exact_posterior_every_weight_is_p_of_x(self):
        net, p_x = linear_gaussian()
        x = images(p_x, 5)
        expected = p_x.log_prob(x.flatten(1))
        log_weights = net.log_weights(x, 64)
        torch.testing.assert_close(log_weights, expected.expand(64, 5), rtol=0, atol=1e-10)
        assert log_weights.var(0).max() < 1e-20
        torch.testing.assert_close(log_mean_weight(net, x, 20, 7), expected, rtol=0, atol=1e-10)

    def test_with_the_exact_posterior_the_elbo_is_log_p(self):
        """E_q[log p(x|z)] − KL, both in closed form."""
        net, p_x = linear_gaussian()
        x = images(p_x, 5)
        latent = net.encode(x)
        w, s = net.decoder.w, net.encoder.s
        at_mean = Normal(net.decoder(latent.mean), s).log_prob(x).flatten(1).sum(1)
        spread = (net.encoder.variance * w.square().sum(0)).sum() / (2 * s**2)  # tr(W Σ Wᵀ) / 2s²
        torch.testing.assert_close(
            at_mean - spread - latent.rate, p_x.log_prob(x.flatten(1)), rtol=0, atol=1e-10
        )

    def test_more_draws_are_a_closer_bound(self):
        """4000 repeats with a wrong posterior: ELBO = mean IWAE_1 < IWAE_5 < IWAE_50 <= log p."""
        net, p_x = linear_gaussian(shift=0.3, stretch=1.7)
        x = images(p_x, 1)
        log_p = p_x.log_prob(x.flatten(1)).item()
        repeats = x.expand(4000, 3, 1, 1)
        bounds = {k: log_mean_weight(net, repeats, k, 10) for k in (1, 5, 50)}
        means = {k: bound.mean().item() for k, bound in bounds.items()}
        errors = {k: bound.std().item() / 4000**0.5 for k, bound in bounds.items()}
        assert means[1] + 3 * errors[1] < means[5]
        assert means[5] + 3 * errors[5] < means[50]
        assert means[50] <= log_p + 3 * errors[50]
        assert log_p - means[50] < 0.05
        objective = net(repeats)
        elbo = -(objective.distortion + objective.latent.rate)
        assert abs(elbo.mean() - means[1]) < 4 * (errors[1] + elbo.std().item() / 4000**0.5)

    def test_its_own_prior_given_as_another_one_changes_no_weight(self):
        net, p_x = linear_gaussian(shift=0.3, stretch=1.7)
        x, fixed = images(p_x, 4), torch.randn(4, 2, 1, 1, dtype=torch.float64)
        of = Normal(torch.zeros(()).double(), torch.ones(()).double())
        own, given = (
            net.log_weights(x, 3, lambda _: fixed, log_prior)
            for log_prior in (None, lambda z: of.log_prob(z).flatten(1).sum(1))
        )
        torch.testing.assert_close(own, given)

    def test_under_another_prior_the_weights_have_the_mean_of_its_p_of_x(self):
        """p(z) = N(m, vI): p(x) = N(Wm + b, vWWᵀ + s²I)."""
        net, p_x = linear_gaussian(stretch=1.3)
        x, mean, variance = images(p_x, 3), torch.tensor([0.4, -0.3]).double(), 0.6
        of = Normal(mean[:, None, None], variance**0.5)
        w, s = net.decoder.w, net.encoder.s
        covariance = variance * w @ w.T + s**2 * torch.eye(3).double()
        wanted = MultivariateNormal(w @ mean + net.decoder.b, covariance).log_prob(x.flatten(1))
        torch.manual_seed(0)
        found = log_mean_weight(
            net, x, 20_000, 5000, log_prior=lambda z: of.log_prob(z).flatten(1).sum(1)
        )
        assert (wanted - p_x.log_prob(x.flatten(1))).abs().min() > 0.05
        torch.testing.assert_close(found, wanted, atol=0.02, rtol=0)


def counted(net):
    """The net, and the weights that were asked of it, call by call."""
    calls, log_weights = [], net.log_weights
    net.log_weights = lambda *given: calls.append(log_weights(*given)) or calls[-1]
    return net, calls


@pytest.mark.parametrize("samples", [64, 60, 1])
@pytest.mark.parametrize("chunk", [64, 8, 7, 1])
def test_every_weight_is_used_once_whatever_the_chunk(samples, chunk):
    net, calls = counted(linear_gaussian(shift=0.3)[0])
    x = torch.rand(3, 3, 1, 1, dtype=torch.float64)
    torch.manual_seed(1)
    bound = log_mean_weight(net, x, samples, chunk)
    weights = torch.cat(calls)
    assert weights.shape == (samples, 3)
    assert len(calls) == math.ceil(samples / chunk)
    torch.testing.assert_close(bound, weights.exp().mean(0).log(), rtol=0, atol=1e-12)
    torch.manual_seed(1)
    torch.testing.assert_close(bound, log_mean_weight(net, x, samples, samples), rtol=0, atol=1e-12)


def test_weights_far_below_the_smallest_number_still_count():
    net: Any = SimpleNamespace(log_weights=lambda x, k, *_: torch.full((k, 2), -5000.0))
    torch.testing.assert_close(
        log_mean_weight(net, torch.zeros(2, 1), 11, 4), torch.full((2,), -5000.0).double()
    )


def batches(x, size):
    return [
        Batch(
            x[i : i + size],
            torch.zeros(len(x[i : i + size])),
            torch.arange(i, i + len(x[i : i + size])),
            0,
        )
        for i in range(0, len(x), size)
    ]


class TestWholeSplit:
    def test_a_bound_is_a_mean_over_images_whose_draws_are_their_own(self):
        """Neither how images are batched nor how many draws are made at once changes it, up to the
        order of sums.
        """
        net, p_x = linear_gaussian(shift=0.3)
        x = images(p_x, 8)
        alone = [iwae_bound(net, [batch], 12, 12) for batch in batches(x, 1)]
        for size in (1, 3, 5, 8):
            for chunk in (None, 12, 5):
                bound = iwae_bound(net, batches(x, size), 12, chunk)
                assert bound == pytest.approx(sum(alone) / 8, abs=1e-12)
        assert len(set(alone)) == 8
        other = [batch._replace(seed=1) for batch in batches(x, 8)]
        assert iwae_bound(net, other, 12) != pytest.approx(sum(alone) / 8, abs=1e-3)

    def test_one_draw_of_a_quantizer_says_all(self):
        config = VQVAEConfig(
            latent_dim=4,
            quantizer=EMAVectorQuantizer.Config(8),
            trunk=NETWORK,
            likelihood=DiscretizedLogistic.Config(),
        )
        net = build_autoencoder(config, (1, 4, 4)).eval()
        x = torch.randint(256, (7, 1, 4, 4)) / 127.5 - 1
        objective = net(x)
        expected = -(objective.distortion + objective.latent.rate).mean().item()
        assert not net.bottleneck.random
        for samples in (1, 6):
            assert iwae_bound(net, batches(x, 3), samples) == pytest.approx(expected, rel=1e-5)
        tokenizer = Tokenizer(net)
        assert tokenizer.discrete
        assert mean_distortion(tokenizer, batches(x, 3)) == pytest.approx(
            objective.distortion.mean().item(), rel=1e-5
        )
        assert kl_per_dim(net, batches(x, 3)) is None

    def test_kl_per_dimension_sums_to_the_rate(self):
        config = VAEConfig(latent="grid", latent_dim=3, trunk=NETWORK)
        net = build_autoencoder(config, (1, 4, 4)).double().eval()
        x = torch.rand(7, 1, 4, 4, dtype=torch.float64) * 2 - 1
        rates = kl_per_dim(net, batches(x, 3))
        mean, log_variance = net.encoder(x).chunk(2, dim=1)
        kl = kl_divergence(
            Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros_like(mean), 1.0)
        )
        assert rates is not None
        assert len(rates) == 3 * 2 * 2
        assert rates == pytest.approx(kl.mean(0).flatten().tolist(), abs=1e-12)
        assert sum(rates) == pytest.approx(net(x).latent.rate.mean().item(), abs=1e-12)


def test_bits_by_hand():
    """784 ln 2 nats for 784 pixels are one bit for each."""
    assert bits_per_dim(784 * math.log(2), 784) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("ae", "kind ae, which has no p(z)"),
        ("prior", "wanted a run of kind vae, vqvae or vae_flow"),
    ],
)
def test_kinds_without_a_bound_are_refused(kind, line):
    bound, plan = ImportanceWeightedBound(), of_kind(kind)
    assert not bound.asked(EvaluateOptions())
    options = EvaluateOptions(iwae_samples=5)
    assert bound.asked(options)
    assert line in (bound.refuses(plan, options) or "")


@pytest.mark.parametrize("kind", ["vae", "vqvae", "vae_flow"])
def test_kinds_with_a_bound_are_not_refused(kind):
    options = EvaluateOptions(iwae_samples=5)
    assert ImportanceWeightedBound().refuses(of_kind(kind), options) is None


def of_kind(kind):
    """A run of that kind that is not trained."""
    return Plan(Path("runs/x"), load_experiment(None, [f"kind={kind}"]))
