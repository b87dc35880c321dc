"""A flow of one pass is an exact change of variables, in both directions."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqvae_lightning.models.priors.coupling import (
    CouplingFlow,
    Couplings,
    CouplingSampling,
    halves,
)
from vqvae_lightning.models.priors.splines import BOUND, bend, parameters_of, unbend

USUAL = CouplingSampling()


def flow_of(
    shape: tuple[int, int, int], std: float = 0.3, layers: int = 4, **more: Any
) -> CouplingFlow:
    """A flow in float64 whose weights are nowhere zero; with std=0 it is still the identity."""
    config = Couplings.Config(layers=layers, width=8, blocks=1, bins=4)
    flow = CouplingFlow(Couplings(shape, config), shape, 8, **more)
    if std:
        for parameter in flow.parameters():
            nn.init.normal_(parameter, std=std)
    return flow.double().eval()


def normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), (N,)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def test_parameters_of_zero_make_a_spline_the_identity():
    x = torch.linspace(-7, 7, 200, dtype=torch.float64)
    y, log_slope = bend(x, torch.zeros(200, parameters_of(6), dtype=torch.float64))
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), atol=1e-12, rtol=0)


def test_a_spline_rises_with_the_slope_that_it_says_and_is_the_identity_outside_of_its_bounds():
    parameters = torch.randn(1, parameters_of(5), dtype=torch.float64).mul(2).expand(4001, -1)
    x = torch.linspace(-1.2 * BOUND, 1.2 * BOUND, 4001, dtype=torch.float64).requires_grad_()
    y, log_slope = bend(x, parameters)
    assert (y.diff() > 0).all()
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope.exp(), slope)
    assert slope.std() > 0.1
    outside = x.abs() >= BOUND
    assert torch.equal(y[outside], x[outside])
    # No jump at a knot: the largest step is that of the steepest slope.
    assert y.diff().max() < 1.1 * slope.max() * x.diff().max()


def test_a_spline_is_undone_exactly():
    parameters = torch.randn(500, 3, parameters_of(8), dtype=torch.float64) * 2
    x = torch.randn(500, 3, dtype=torch.float64) * BOUND
    y, _ = bend(x, parameters)
    assert not torch.allclose(y, x, atol=0.5)
    torch.testing.assert_close(unbend(y, parameters), x, atol=1e-8, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_two_couplings_in_turn_move_every_number_once_and_early_ones_mix_all(size):
    found = halves(size, 12)
    assert sorted(found[0] + (found[1] if size > 1 else [])) == list(range(size))
    apart = {(a, b) for moved in found for a in moved for b in range(size) if b not in moved}
    assert len(apart) == size * (size - 1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 1), (2, 2, 1)])
def test_a_log_determinant_is_that_of_the_jacobian(shape):
    flow = flow_of(shape)
    condition = flow.condition(torch.tensor([0]))
    u = torch.randn(1, flow.size, dtype=torch.float64)
    noise, change = flow.network(u, condition)
    jacobian = torch.autograd.functional.jacobian(lambda u: flow.network(u, condition)[0], u)
    torch.testing.assert_close(change, jacobian[0, :, 0].slogdet().logabsdet[None])
    assert change.abs() > 1e-3
    assert not torch.allclose(noise, u, atol=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 1), (2, 2, 1)])
def test_noise_leads_back_to_the_latents_that_it_is_of(shape):
    flow = flow_of(shape, std=0.2, classes=3)
    flow.fit_statistics(torch.arange(shape[0]).double(), torch.full(shape[:1], 0.4).double())
    z = flow.denormalized(torch.randn(50, *shape, dtype=torch.float64) * 3)
    labels = torch.arange(50) % 3
    noise = flow.to_noise(z, labels, USUAL)
    assert not torch.allclose(noise, z, atol=0.5)
    torch.testing.assert_close(flow.from_noise(noise, labels, USUAL), z, atol=1e-8, rtol=0)


def test_a_density_is_that_of_the_noise_and_of_the_change_of_volume():
    flow = flow_of((3, 1, 1))
    flow.fit_statistics(torch.tensor([0.5, 2.0, -1.0]), torch.tensor([2.0, 0.25, 1.0]))
    z = torch.randn(4, 3, 1, 1, dtype=torch.float64)

    def noise_of(z: Tensor) -> Tensor:
        found: Tensor = flow.network(flow.normalized(z).flatten(1), flow.condition.weight[:1])[0]
        return found

    jacobians = [torch.autograd.functional.jacobian(noise_of, one[None]).view(3, 3) for one in z]
    change = torch.stack([jacobian.slogdet().logabsdet for jacobian in jacobians])
    torch.testing.assert_close(flow.log_prob(z), normal(noise_of(z)) + change)


def test_a_density_integrates_to_one_in_two_dimensions():
    flow = flow_of((2, 1, 1), std=0.2)
    flow.fit_statistics(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0]))
    side = torch.linspace(-12, 12, 300, dtype=torch.float64)
    a, b = (side * flow.std[d, 0, 0] + flow.mean[d, 0, 0] for d in (0, 1))
    density = flow.log_prob(torch.cartesian_prod(a, b).view(-1, 2, 1, 1)).exp()
    # That of the N(0, I) which it begins as would have 1/2π at most.
    assert density.max() > 0.2
    assert abs(float(density.sum() * (a[1] - a[0]) * (b[1] - b[0])) - 1) < 1e-4


def test_an_untrained_flow_is_a_gaussian_of_the_latents_mean_and_deviation():
    flow, mean, std = flow_of((2, 1, 1), std=0), torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.1])
    flow.fit_statistics(mean, std)
    z = torch.randn(20, 2, 1, 1, dtype=torch.float64)
    of = torch.distributions.Normal(mean.double(), std.double())
    torch.testing.assert_close(flow.log_prob(z), of.log_prob(z.flatten(1)).sum(1))
    assert flow.log_prob_error(z, None, torch.randn_like).tolist() == [0.0] * 20


def correlated(share: float) -> CouplingFlow:
    """A flow of two couplings to the Gaussian of variances 1 and correlation `share`.

    Coupling 0 moves number 1: x₁ = (u₁ − share · u₀) / √(1 − share²). All that bends is off.
    """
    flow = flow_of((2, 1, 1), std=0, layers=2)
    coupling: Any = flow.network.couplings[0]
    scale = -0.5 * math.log(1 - share**2)
    # u₀ goes through the network as two slopes of SiLU, whose difference is linear.
    for parameter in (coupling.into.weight, coupling.into.bias, coupling.ups[0].weight):
        nn.init.zeros_(parameter)
    for parameter in (coupling.downs[0].weight, coupling.downs[0].bias, flow.condition.weight):
        nn.init.zeros_(parameter)
    with torch.no_grad():
        coupling.into.weight[0, 0], coupling.into.weight[1, 0] = 1.0, -1.0
        # SiLU(a) − SiLU(−a) = a
        slope = -share / math.sqrt(1 - share**2)
        coupling.out.weight[1, 0], coupling.out.weight[1, 1] = slope, -slope
        coupling.out.bias[0] = 3 * math.atanh(scale / 3)
    return flow


def test_a_correlated_gaussian_has_the_density_and_the_draws_of_the_closed_form():
    share = 0.8
    flow, covariance = correlated(share), torch.tensor([[1.0, share], [share, 1.0]]).double()
    z = torch.randn(30, 2, 1, 1, dtype=torch.float64)
    of = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    torch.testing.assert_close(flow.log_prob(z), of.log_prob(z.flatten(1)))
    drawn = flow.generate(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    torch.testing.assert_close(drawn.T.cov(), covariance, atol=0.03, rtol=0)


def test_training_leads_a_flow_to_a_density_that_is_no_gaussian():
    torch.manual_seed(0)
    config = Couplings.Config(layers=4, width=32, blocks=1, bins=8)
    flow = CouplingFlow(Couplings((2, 1, 1), config), (2, 1, 1), 32)
    # A ring: log p = −½ ((r − 2)/0.2)² − log r, up to its constant 2π · 0.2 · √(2π).
    angle, radius = torch.rand(4000) * 2 * math.pi, 2 + 0.2 * torch.randn(4000)
    z = torch.stack([radius * angle.cos(), radius * angle.sin()], 1).view(-1, 2, 1, 1)
    flow.fit_statistics(z.mean((0, 2, 3)), z.std((0, 2, 3)))
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    for step in range(150):
        batch = z[step * 200 % 4000 :][:200]
        loss = flow.loss(batch, None, torch.randn_like, torch.rand_like).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    entropy = 0.5 + math.log(2 * math.pi * 0.2 * math.sqrt(2 * math.pi)) + math.log(2)
    gaussian = 2 * (0.5 + math.log(math.sqrt(2 * math.pi) * math.sqrt(2)))
    found = -flow.log_prob(z).mean().item()
    assert entropy - 0.1 < found < entropy + 0.4 < gaussian - 0.5


def test_a_label_is_forgotten_by_the_share_that_is_set_and_in_training_only():
    flow = flow_of((4, 1, 1), classes=3, label_dropout=0.25)
    z, number = torch.randn(4, 4, 1, 1).double(), torch.tensor([[0.0], [0.24], [0.25], [0.9]])

    def losses(label: int) -> Tensor:
        return flow.loss(z, torch.full((4,), label), torch.randn_like, lambda x: number)

    assert not (losses(0) == losses(2)).any()
    flow.train()
    assert (losses(0) == losses(2)).tolist() == [True, True, False, False]
    torch.testing.assert_close(losses(0)[:2], losses(flow.classes)[:2])


def test_guidance_of_zero_ignores_the_label_and_a_temperature_of_zero_the_noise():
    flow, labels = flow_of((4, 1, 1), classes=3, label_dropout=0.5), torch.tensor([0, 1, 2])

    def drawn(of: Tensor, seed: int = 0, **sampling: Any) -> Tensor:
        return flow.generate(3, of, generator=torch.Generator().manual_seed(seed), **sampling)

    assert not torch.allclose(drawn(labels), drawn(labels.flip(0)))
    assert torch.equal(drawn(labels, guidance=0), drawn(labels.flip(0), guidance=0))
    assert not torch.allclose(drawn(labels), drawn(labels, 1))
    assert torch.equal(drawn(labels, temperature=0), drawn(labels, 1, temperature=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, r"temperature: got -1\.0, wanted at least 0"),
        ({"guidance": 2}, "guidance: got 2, but a coupling flow has no velocity to lead; wanted 1"),
        ({"guidance": 0}, "guidance: got 0.0, wanted 1: this flow was trained with model.label_dr"),
        ({"steps": 4}, "steps: got 4, but this flow has temperature, guidance"),
        ({"known": (torch.zeros(2, 2, 1, 1), torch.zeros(2, 2, 1, 1) > 0)}, "known: got latents"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        flow_of((2, 1, 1)).generate(2, **settings)
