"""Each likelihood is a distribution over images: against torch.distributions, or by summing to
one.
"""

import itertools
import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.likelihoods import (
    BernoulliLikelihood,
    DiscretizedLogistic,
    GaussianLikelihood,
    LogisticMixture,
)

SHAPE = (3, 2, 4, 5)


def gaussian(scale, learned=False, bounded=False, growth=0.0):
    return GaussianLikelihood(GaussianLikelihood.Config(scale, learned, bounded, growth))


def logistic(scale, learned=False, per_pixel=False):
    return DiscretizedLogistic(DiscretizedLogistic.Config(scale, learned, per_pixel))


def mixture(components, scale=0.1):
    return LogisticMixture(LogisticMixture.Config(components, scale))


def bernoulli():
    return BernoulliLikelihood(BernoulliLikelihood.Config())


@pytest.fixture
def decoded():
    return torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("scale", [0.1, 1.0, 2.5])
def test_gaussian_is_the_normal_density(decoded, scale, learned):
    x = 2 * torch.rand(SHAPE, dtype=torch.float64) - 1
    expected = -Normal(decoded, scale).log_prob(x).flatten(1).sum(1)
    actual = gaussian(scale, learned).double().nll(x, decoded)
    # the scale itself is stored in float32
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("growth", [0.5, 2.77])
def test_a_gaussian_of_grown_values_is_a_density_of_the_values_themselves(growth):
    x = torch.linspace(-20, 4, 200_001, dtype=torch.float64)
    decoded = torch.full((len(x), 1, 1, 1), 0.7, dtype=torch.float64)
    nll = gaussian(0.05, growth=growth).double().nll(x.view(-1, 1, 1, 1), decoded)
    assert float(torch.trapezoid((-nll).exp(), x)) == pytest.approx(1, abs=1e-4)
    # the likeliest value is where a narrow one has its mean
    mean = gaussian(0.05, growth=growth).mean(torch.full((1, 1, 1, 1), 0.7))
    narrow = gaussian(1e-3, growth=growth).double().nll(x.view(-1, 1, 1, 1), decoded)
    assert float(x[narrow.argmin()]) == pytest.approx(float(mean), abs=1e-3)


def test_without_values_below_the_lowest_nothing_is_darker_than_black():
    likelihood = gaussian(0.5, growth=2.0)
    found = likelihood.mean(torch.tensor([-9.0, -0.6, 0.0, 50.0]))
    assert found[0] == pytest.approx(-1, abs=1e-6)
    assert found[2:].tolist() == [0, 1]


def test_growth_and_a_bounded_mean_exclude_each_other():
    with pytest.raises(ConfigError, match=r"^model.likelihood.bounded: got true with growth=1"):
        gaussian(0.5, bounded=True, growth=1.0)


def test_a_bounded_mean_is_clamped_and_comes_back_from_beyond_the_edge():
    """Black pixels (−1) and others, decoded within the range and beyond it."""
    x = torch.tensor([-1, -1, -1, 0.5, 0.5, 0.5], dtype=torch.float64).view(6, 1, 1, 1)
    decoded = (
        torch.tensor([-3, -0.5, 2, -3, 0, 2], dtype=torch.float64).view(6, 1, 1, 1).requires_grad_()
    )
    likelihood = gaussian(0.5, learned=False, bounded=True).double()
    nll = likelihood.nll(x, decoded)
    clamped = decoded.detach().clamp(-1, 1)
    torch.testing.assert_close(nll, -Normal(clamped, 0.5).log_prob(x).flatten(), rtol=1e-6, atol=0)
    nll.sum().backward()
    # 0 for the first
    torch.testing.assert_close(decoded.grad, (clamped - x) / 0.25, rtol=1e-6, atol=0)


@pytest.mark.parametrize("learned", [True, False])
def test_only_a_learned_scale_gets_a_gradient(decoded, learned):
    likelihood = gaussian(0.4, learned).double()
    likelihood.nll(torch.zeros_like(decoded), decoded).sum().backward()
    assert (likelihood.log_scale.grad is not None) == learned
    if learned:  # d/ds of −log N summed: 1 − error²/scale² for every pixel
        expected = (1 - decoded.detach().square() / likelihood.log_scale.detach().exp() ** 2).sum()
        torch.testing.assert_close(likelihood.log_scale.grad, expected)


def test_the_best_learned_scale_is_the_root_mean_squared_error(decoded):
    likelihood = gaussian(1.0, learned=True).double()
    x = torch.zeros_like(decoded)
    likelihood.log_scale.data.fill_(0.5 * decoded.detach().square().mean().log())
    likelihood.nll(x, decoded).sum().backward()
    assert abs(likelihood.log_scale.grad) < 1e-9


def test_bernoulli_sums_to_one_over_all_images():
    images = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64).view(
        16, 1, 2, 2
    )
    logits = 3 * torch.randn(1, 1, 2, 2, dtype=torch.float64).expand(16, -1, -1, -1)
    likelihood = bernoulli()
    probability = torch.exp(-likelihood.nll(images, logits))
    assert abs(probability.sum() - 1) < 1e-12
    mean = (probability.view(-1, 1, 1, 1) * images).sum(0)
    torch.testing.assert_close(likelihood.mean(logits)[0], mean, rtol=0, atol=1e-12)


def test_bernoulli_is_that_of_torch_distributions(decoded):
    x = (torch.rand(SHAPE) < 0.5).double()
    expected = -Bernoulli(logits=decoded).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli().nll(2 * x - 1, decoded), expected)


LEVELS = torch.arange(256, dtype=torch.float64) * 2 / 255 - 1  # of a pixel


def level_nll(likelihood, location, levels=LEVELS):
    """−log p of each level for one pixel with its logistic at `location`, (256,)."""
    x = levels.view(-1, 1, 1, 1)
    return likelihood.nll(x, torch.as_tensor(location, dtype=x.dtype).expand_as(x))


class TestDiscretizedLogistic:
    @pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e-3, 0.02, 0.4, 5.0, 1e4])
    @pytest.mark.parametrize("location", [-40.0, -1.0, -0.998, 0.0, 1 / 255, 0.3, 0.9975, 1.0, 7.0])
    def test_sums_to_one_over_the_256_levels(self, location, scale):
        probability = torch.exp(-level_nll(logistic(scale, False).double(), location))
        assert abs(probability.sum() - 1) < 1e-12

    @pytest.mark.parametrize("scale", [0.01, 0.4, 3.0])
    def test_the_discretized_logistic_is_the_formula(self, scale):
        likelihood = logistic(scale, False).double()
        s = likelihood.log_scale.exp().item()
        for location in (-1.3, -1.0, 0.1, 0.99):
            upper = torch.sigmoid((LEVELS + 1 / 255 - location) / s)
            lower = torch.sigmoid((LEVELS - 1 / 255 - location) / s)
            upper[-1], lower[0] = 1.0, 0.0
            expected, actual = upper - lower, torch.exp(-level_nll(likelihood, location))
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-14)

    @pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e-2, 0.4, 1e3])
    def test_float32_is_finite_and_close(self, scale):
        """Every level, at locations near and far: the value and both gradients."""
        likelihood = logistic(scale, True)
        x = (torch.arange(256) / 127.5 - 1).view(-1, 1, 1, 1)
        assert x.min() == -1
        assert x.max() == 1
        for location in (-5.0, -1.0, -0.2, 0.0, 1.0, 60.0):
            decoded = torch.full_like(x, location, requires_grad=True)
            nll = likelihood.nll(x, decoded)
            gradients = torch.autograd.grad(nll.sum(), (decoded, likelihood.log_scale))
            assert all(torch.isfinite(value).all() for value in (nll, *gradients))
            assert (nll >= 0).all()
            if scale >= 1e-2:
                exact = level_nll(logistic(scale, False).double(), location)
                torch.testing.assert_close(nll.detach(), exact.float(), rtol=1e-4, atol=1e-4)

    def test_the_discretized_logistic_has_the_right_gradient(self, decoded):
        likelihood = logistic(0.05, True).double()
        x = LEVELS[torch.randint(256, SHAPE)]
        x[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])

        def nll(decoded, log_scale):
            return torch.func.functional_call(
                _Nll(likelihood), {"likelihood.log_scale": log_scale}, (x, decoded)
            )

        log_scale = likelihood.log_scale.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(nll, (decoded, log_scale))

    @pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.01, 0.1, 2.0])
    def test_mean_is_that_of_the_levels(self, scale):
        likelihood = logistic(scale, False).double()
        for location in (-3.0, -1.0, -0.6, 0.123, 0.999, 2.0):
            expected = (torch.exp(-level_nll(likelihood, location)) * LEVELS).sum()
            actual = likelihood.mean(torch.tensor(location, dtype=torch.float64))
            # at most half a level
            assert abs(actual - expected) < (1e-4 if scale >= 0.01 else 1 / 255 + 1e-9)

    def test_the_discretized_logistic_of_a_pixel_is_that_of_its_own_scale(self):
        """Means, then logarithms of factors of the scale: each pixel as if its scale were the only
        one.
        """
        likelihood = logistic(0.1, True, per_pixel=True).double()
        centre, factor = torch.randn(SHAPE).double(), torch.rand(SHAPE).double() * 4 + 0.1
        x = LEVELS[torch.randint(256, SHAPE)]
        decoded = torch.cat([centre, factor.log()], dim=1)
        ones = [logistic(0.1 * f.item(), False).double() for f in factor.flatten()]
        each = zip(ones, x.flatten(), centre.flatten(), strict=True)
        expected = torch.stack(
            [one.nll(v.view(1, 1, 1, 1), c.view(1, 1, 1, 1)) for one, v, c in each]
        )
        torch.testing.assert_close(
            likelihood.nll(x, decoded), expected.view(len(x), -1).sum(1), rtol=1e-6, atol=0
        )
        means = [one.mean(c) for one, c in zip(ones, centre.flatten(), strict=True)]
        torch.testing.assert_close(
            likelihood.mean(decoded), torch.stack(means).view(SHAPE), rtol=1e-5, atol=1e-7
        )

    def test_a_pixels_scale_has_bounds_and_finite_gradients(self):
        likelihood = logistic(0.1, True, per_pixel=True)
        decoded = (
            torch.tensor([[0.3, -1e4], [0.3, 1e4], [-50.0, -80.0]])
            .view(3, 2, 1, 1)
            .requires_grad_()
        )
        nll = likelihood.nll(torch.full((3, 1, 1, 1), 77 / 255), decoded)
        (gradient,) = torch.autograd.grad(nll.sum(), decoded)
        assert torch.isfinite(nll).all()
        assert torch.isfinite(gradient).all()
        assert gradient[:2, 1].abs().max() == 0  # beyond the bounds

    def test_a_huge_scale_puts_all_on_the_edges(self):
        nll = level_nll(logistic(1e4, False).double(), 0.0)
        torch.testing.assert_close(nll[1:-1], nll[1:2].expand(254), rtol=1e-6, atol=0)
        torch.testing.assert_close(
            nll[[0, -1]], torch.full((2,), math.log(2), dtype=torch.float64), rtol=1e-3, atol=0
        )


class TestLogisticMixture:
    def test_it_is_the_weighted_sum_of_its_logistics(self):
        """A level's mass, and the mean, of each channel by its own weights, means and scales."""
        likelihood = mixture(3).double()
        parts = torch.randn(3, 3, *SHAPE).double()  # logits, locations, log scales of 3
        decoded = parts.permute(2, 0, 1, 3, 4, 5).flatten(1, 3)  # N,3·3·C,H,W
        weights = parts[0].softmax(0)
        ones = [logistic(0.1, True, per_pixel=True).double() for _ in range(3)]
        told = [
            torch.cat([c + start, s], 1)
            for c, s, start in zip(parts[1], parts[2], (-1, 0, 1), strict=True)
        ]
        for level in (-1.0, 33 / 127.5 - 1, 1.0):
            x = torch.full(SHAPE, level).double()
            expected = torch.zeros(SHAPE).double()
            for one, what, weight in zip(ones, told, weights, strict=True):
                for n, c, h, w in itertools.product(*map(range, SHAPE)):
                    pixel = what[n, [c, 2 + c], h, w].view(1, 2, 1, 1)
                    mass = torch.exp(-one.nll(x[:1, :1, :1, :1], pixel))
                    expected[n, c, h, w] += weight[n, c, h, w] * mass[0].detach()
            nll = -expected.log().flatten(1).sum(1)
            torch.testing.assert_close(likelihood.nll(x, decoded).detach(), nll, rtol=1e-6, atol=0)
        means = sum(w * one.mean(t) for w, one, t in zip(weights, ones, told, strict=True))
        torch.testing.assert_close(likelihood.mean(decoded), means, rtol=1e-5, atol=1e-7)

    def test_a_mixture_of_equals_is_one_logistic(self):
        likelihood = mixture(2).double()
        likelihood.location.data.zero_()
        x, centre = LEVELS[torch.randint(256, SHAPE)], torch.randn(SHAPE).double()
        zeros = torch.zeros_like(centre)
        decoded = torch.cat([zeros, zeros + 1.5, centre, centre, zeros, zeros], 1)
        expected = logistic(0.1).double().nll(x, centre)
        torch.testing.assert_close(likelihood.nll(x, decoded), expected, rtol=1e-6, atol=0)

    def test_a_mixture_sums_to_one_over_the_256_levels(self):
        likelihood = mixture(4).double()
        decoded = 3 * torch.randn(1, 12, 1, 1).double().expand(256, -1, -1, -1)
        probability = torch.exp(-likelihood.nll(LEVELS.view(-1, 1, 1, 1), decoded))
        assert abs(probability.sum() - 1) < 1e-12

    def test_a_mixture_far_from_what_it_sees_has_finite_gradients(self):
        likelihood = mixture(3)
        decoded = (1e4 * torch.randn(6, 9, 1, 1)).requires_grad_()
        nll = likelihood.nll(torch.full((6, 1, 1, 1), 77 / 255), decoded)
        gradients = torch.autograd.grad(nll.sum(), [decoded, *likelihood.parameters()])
        assert all(torch.isfinite(value).all() for value in (nll, *gradients))


class _Nll(torch.nn.Module):
    """A likelihood's nll as a forward pass."""

    def __init__(self, likelihood):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, x, decoded):
        return self.likelihood.nll(x, decoded)


@pytest.mark.parametrize(
    "likelihood",
    [
        gaussian(0.4, True),
        bernoulli(),
        logistic(0.4, True),
    ],
)
class TestEvery:
    def test_one_number_per_image_summed_over_its_pixels(self, likelihood):
        x, decoded = torch.sign(torch.randn(SHAPE)), torch.randn(SHAPE)
        nll = likelihood.nll(x, decoded)
        assert nll.shape == SHAPE[:1]
        pixels = [
            likelihood.nll(x[:, :, r : r + 1], decoded[:, :, r : r + 1]) for r in range(SHAPE[2])
        ]
        torch.testing.assert_close(sum(pixels), nll)

    def test_the_mean_image_is_in_range(self, likelihood):
        mean = likelihood.mean(10 * torch.randn(SHAPE))
        assert mean.shape == SHAPE
        assert -1 <= mean.min() <= mean.max() <= 1

    def test_every_likelihood_has_the_right_gradient(self, likelihood, decoded):
        x = torch.sign(torch.randn(SHAPE, dtype=torch.float64))
        assert torch.autograd.gradcheck(lambda d: likelihood.nll(x, d), decoded)


def test_half_the_data_variance_gives_the_normalised_squared_error(decoded):
    """With scale² = variance / 2, −log p per dimension is error²/variance plus a constant."""
    variance = 0.3
    likelihood = gaussian(math.sqrt(variance / 2), learned=False).double()
    dims = math.prod(SHAPE[1:])
    zero = torch.zeros_like(decoded)
    difference = likelihood.nll(zero, decoded) - likelihood.nll(zero, zero)
    torch.testing.assert_close(
        difference / dims, decoded.square().flatten(1).mean(1) / variance, rtol=1e-6, atol=0
    )
