"""A flow's densities and draws are those that closed forms say, whatever network it follows."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqvae_lightning.models.priors.matching import FlowMatching, MatchedSampling, VelocityNetwork
from vqvae_lightning.models.priors.ode import integrate, trace
from vqvae_lightning.models.priors.velocity import CellTransformer, ResidualMLP

MEANS = torch.tensor([[1.5, -1.0], [-1.0, 0.5]], dtype=torch.float64)  # of two components, D = 2
STDS = torch.tensor([0.5, 0.8], dtype=torch.float64)
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)


class Time(nn.Module):
    """Time as the whole condition."""

    def forward(self, time: Tensor, label: Tensor) -> Tensor:
        return time[:, None]


class Mixture(VelocityNetwork):
    """E[u − x₀ | x_t] in closed form, for u of a mixture of isotropic Gaussians."""

    def __init__(self, means: Tensor, stds: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.means, self.stds, self.weights = means, stds, weights

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        t, at = condition[:, :1], x.flatten(1)[:, None]  # N,1 and N,1,D
        variance = (1 - t) ** 2 + (t * self.stds) ** 2  # N,K, of x_t in each component
        error = at - t[:, :, None] * self.means  # N,K,D
        size = x[0].numel()
        log_share = -0.5 * (error.square().sum(2) / variance + size * variance.log())
        share = (log_share + self.weights.log()).softmax(1)[:, :, None]  # N,K,1
        slope = (t * self.stds**2 - (1 - t)) / variance  # N,K
        velocity = self.means + slope[:, :, None] * error
        return (share * velocity).sum(1).view_as(x)


def flow_to(means: Tensor, stds: Tensor, weights: Tensor, **settings: int) -> FlowMatching:
    """A flow in float64 to a mixture of Gaussians."""
    flow = FlowMatching(
        Mixture(means, stds, weights), (means.shape[1], 1, 1), 1, **settings
    ).double()
    flow.condition = Time()  # type: ignore[assignment]
    return flow


def closed_form(count: int = 2, steps: int = 32) -> FlowMatching:
    """A flow in float64 to the first components of the mixture."""
    weights = WEIGHTS[:count] / WEIGHTS[:count].sum()
    return flow_to(MEANS[:count], STDS[:count], weights, density_steps=steps)


def log_density(z: Tensor, count: int = 2) -> Tensor:
    """log p(z) of that mixture, (N,), for z (N, 2, 1, 1)."""
    error = z.flatten(1)[:, None] - MEANS[:count]  # N,K,D
    nats = 0.5 * error.square().sum(2) / STDS[:count] ** 2 + 2 * STDS[:count].log()
    weights = WEIGHTS[:count] / WEIGHTS[:count].sum()
    return (weights.log() - nats - math.log(2 * math.pi)).logsumexp(1)


def made_of(network: type[VelocityNetwork], width: int) -> Any:
    """The settings of a network of one block."""
    member: Any = network
    return member.Config(layers=1, width=width)


def random_flow(
    network: type[VelocityNetwork], shape: tuple[int, int, int], std: float = 0.2, **more: Any
) -> FlowMatching:
    """A flow with weights that are not zero anywhere."""
    width = 16
    flow = FlowMatching(network(shape, made_of(network, width)), shape, width, **more)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=std)
    return flow.double().eval()


@pytest.mark.parametrize("solver", ["heun", "midpoint"])
def test_solvers_are_of_second_order(solver):
    def field(x: Tensor, time: float) -> Tensor:
        return -x * (1 + time)

    start = torch.ones(1, 1, dtype=torch.float64)
    errors = [
        abs(integrate(field, start, 0.0, 1.0, steps, solver).item() - math.exp(-1.5))
        for steps in (20, 40)
    ]
    assert 3.7 < errors[0] / errors[1] < 4.3


@pytest.mark.parametrize("solver", ["heun", "midpoint"])
def test_a_solver_goes_back_where_it_came_from(solver):
    flow = closed_form()
    noise = torch.randn(20, 2, 1, 1, dtype=torch.float64)
    settings = MatchedSampling(steps=60, solver=solver)
    z = flow.from_noise(noise, None, settings)
    assert not torch.allclose(z, noise, atol=0.1)
    torch.testing.assert_close(flow.to_noise(z, None, settings), noise, atol=1e-3, rtol=0)


def test_the_trace_is_that_of_the_jacobian_and_the_mean_of_its_estimates():
    matrix = torch.randn(3, 3, dtype=torch.float64)
    x = torch.randn(2, 3, dtype=torch.float64)
    y, exact = trace(lambda x: x @ matrix.T, x)
    torch.testing.assert_close(y, x @ matrix.T)
    torch.testing.assert_close(exact, matrix.trace().expand(2))
    probes = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    estimates = [trace(lambda x: x @ matrix.T, x, probe.expand(2, 3))[1] for probe in probes]
    assert torch.stack(estimates).std() > 0.1
    torch.testing.assert_close(torch.stack(estimates).mean(0), exact)


@pytest.mark.parametrize("network", [ResidualMLP, CellTransformer])
def test_the_trace_of_a_network_is_that_of_its_jacobian(network):
    flow = random_flow(network, (2, 2, 1))
    condition = flow.condition(torch.tensor([0.3]).double(), torch.tensor([0]))
    x = torch.randn(1, 4, dtype=torch.float64)

    def velocity(x: Tensor) -> Tensor:
        found: Tensor = flow.network(x.view(-1, 2, 2, 1), condition)
        return found.flatten(1)

    jacobian = torch.autograd.functional.jacobian(velocity, x)[0, :, 0]
    assert jacobian.abs().min() > 0
    torch.testing.assert_close(trace(velocity, x)[1][0], jacobian.trace())


@pytest.mark.parametrize("count", [1, 2])
def test_a_density_is_that_of_the_closed_form(count):
    flow, wanted = closed_form(count, steps=64), log_density
    flow.fit_statistics(torch.tensor([0.5, 2.0]), torch.tensor([2.0, 0.25]))
    u = torch.randn(30, 2, 1, 1, dtype=torch.float64) * 1.5
    z = u * flow.std + flow.mean
    scale = math.log(2.0 * 0.25)
    torch.testing.assert_close(flow.log_prob(z), wanted(u, count) - scale, atol=4e-3, rtol=0)
    doubled = closed_form(count, steps=128).log_prob(u)
    half = closed_form(count, steps=32).log_prob(u)
    error = flow.log_prob_error(z, None, torch.randn_like)
    torch.testing.assert_close(error, (flow.log_prob(z) + scale - half).abs())
    assert (doubled - wanted(u, count)).abs().max() < (
        flow.log_prob(z) + scale - wanted(u, count)
    ).abs().max() / 2


@pytest.mark.parametrize(("std", "size"), [(0.1, 16), (0.05, 2), (0.05, 16), (0.02, 16)])
def test_a_density_of_narrow_latents_is_right_with_the_usual_number_of_steps(std, size):
    means = torch.ones(2, size, dtype=torch.float64) * torch.tensor([[1.0], [-1.0]])
    flow = flow_to(means, torch.tensor([std, std]).double(), torch.tensor([0.5, 0.5]).double())
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(50, size, generator=generator, dtype=torch.float64)
    z = means.repeat_interleave(25, 0) + std * drawn
    # The other component is too far away to count.
    wanted = -0.5 * drawn.square().sum(1) - size * math.log(std * math.sqrt(2 * math.pi))
    error = flow.log_prob(z.view(50, size, 1, 1)) - (wanted - math.log(2))
    assert error.mean().abs() < 0.01
    assert error.abs().max() < 0.05


def test_draws_have_the_moments_of_the_closed_form():
    z = (
        closed_form()
        .generate(8000, generator=torch.Generator().manual_seed(0), steps=30)
        .flatten(1)
    )
    mean = WEIGHTS @ MEANS
    torch.testing.assert_close(z.mean(0), mean, atol=0.05, rtol=0)
    second = WEIGHTS @ (MEANS**2 + STDS[:, None] ** 2)
    torch.testing.assert_close(z.square().mean(0), second, atol=0.08, rtol=0)
    # Of each component, the share on the left of 0.25: Φ(−2.5) and Φ(1.5625).
    left = (z[:, 0] < 0.25).double().mean()
    assert abs(left - (0.3 * 0.0062 + 0.7 * 0.9409)) < 0.02


@pytest.mark.parametrize("network", [ResidualMLP, CellTransformer])
def test_a_density_integrates_to_one_in_two_dimensions(network):
    flow = random_flow(network, (2, 1, 1), std=0.12)
    flow.fit_statistics(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0]))
    axes = [
        torch.linspace(-6, 6, 40, dtype=torch.float64) * flow.std[d] + flow.mean[d] for d in (0, 1)
    ]
    a, b = (axis.flatten() for axis in axes)
    z = torch.cartesian_prod(a, b).view(-1, 2, 1, 1)
    cell = (a[1] - a[0]) * (b[1] - b[0])
    density = flow.log_prob(z).exp()
    # That of N(0, I) would have 1/2π at most.
    assert density.max() > 0.2
    assert abs(float(density.sum() * cell) - 1) < 1e-2


def test_a_density_of_many_numbers_is_estimated_without_bias():
    flow = random_flow(CellTransformer, (3, 2, 2))
    z = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    probes = torch.randint(2, (200, 1, 3, 2, 2), generator=generator).double() * 2 - 1
    repeated = z.repeat(200, 1, 1, 1)
    signs = probes.expand(-1, 2, -1, -1, -1).flatten(0, 1)
    found = flow.log_prob_along(repeated, None, signs, 64).view(200, 2)
    error = found.std(0) / math.sqrt(200)
    assert (error > 0).all()
    assert ((found.mean(0) - flow.log_prob(z)).abs() < 4 * error).all()


def test_a_label_is_forgotten_by_the_share_of_steps_that_is_set():
    flow = random_flow(ResidualMLP, (4, 1, 1), classes=3, label_dropout=0.25)
    z, noise = torch.randn(2, 4, 4, 1, 1, dtype=torch.float64)
    time, number = torch.full((4,), 0.5).double(), torch.tensor([0.0, 0.24, 0.25, 0.9])

    def losses() -> list[Tensor]:
        numbers = torch.stack([time, number], 1)
        labels = (torch.full((4,), label) for label in (0, 2))
        return [flow.loss(z, of, lambda z: noise, lambda x: numbers) for of in labels]

    one, other = losses()
    assert not (one == other).any()
    flow.train()
    one, other = losses()
    assert (one == other).tolist() == [True, True, False, False]
    without = flow.velocity(0.5 * (noise + z), time, torch.full((4,), flow.classes))
    wanted = (without - (z - noise)).square().flatten(1).mean(1)
    torch.testing.assert_close(one[:2], wanted[:2])


def test_guidance_of_one_is_none_and_of_zero_forgets_the_label():
    flow = random_flow(ResidualMLP, (4, 1, 1), classes=3, label_dropout=0.5)
    labels = torch.tensor([0, 1, 2])

    def drawn(of: Tensor, **sampling: Any) -> Tensor:
        return flow.generate(3, of, generator=torch.Generator().manual_seed(0), **sampling)

    assert torch.equal(drawn(labels), drawn(labels, guidance=1.0))
    assert not torch.allclose(drawn(labels), drawn(labels.flip(0)))
    assert torch.equal(drawn(labels, guidance=0.0), drawn(labels.flip(0), guidance=0.0))
    torch.testing.assert_close(drawn(labels, guidance=1 + 1e-9), drawn(labels))
    assert not torch.allclose(drawn(labels, guidance=2.0), drawn(labels))


def test_guidance_needs_a_flow_that_has_forgotten_labels():
    flow = random_flow(ResidualMLP, (4, 1, 1), classes=3)
    with pytest.raises(ValueError, match=r"guidance: got 2\.0, wanted 1: this flow was trained"):
        flow.generate(2, torch.tensor([0, 1]), guidance=2.0)
    with pytest.raises(ValueError, match=r"guidance: got 2\.0, wanted 1: this flow was trained"):
        flow.to_noise(torch.zeros(2, 4, 1, 1), torch.tensor([0, 1]), MatchedSampling(guidance=2.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: got 0, wanted at least 1"),
        ({"solver": "euler"}, "solver: got 'euler', wanted one of heun, midpoint"),
        ({"guidance": -1}, "guidance: got -1, wanted 0 to 1000"),
        ({"top_k": 2}, "top_k: got 2, but this flow has steps, solver, guidance"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        closed_form().generate(2, **settings)


def test_draws_are_a_function_of_the_seed():
    flow = closed_form()
    first, again, other = (
        flow.generate(5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_known_numbers_stay_as_they_are():
    flow = random_flow(CellTransformer, (3, 2, 2))
    flow.fit_statistics(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.3, 0.7, 1.1]))
    z = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    mask = torch.zeros(4, 3, 2, 2, dtype=torch.bool)
    mask[:, :, :1] = True
    drawn = flow.generate(4, known=(z, mask), generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn[mask], z[mask])
    changed = flow.generate(4, known=(z + 1, mask), generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(drawn[~mask], changed[~mask])
    with pytest.raises(ValueError, match="known: got latents"):
        flow.generate(4, known=(z, mask[:, :1]))


def test_the_loss_is_smallest_for_the_velocity_of_the_closed_form():
    flow, generator = closed_form(), torch.Generator().manual_seed(0)
    n = 4000
    component = torch.multinomial(WEIGHTS, n, replacement=True, generator=generator)
    drawn = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    z = (MEANS[component] + STDS[component][:, None] * drawn).view(n, 2, 1, 1)
    noise = torch.randn(n, 2, 1, 1, generator=generator, dtype=torch.float64)
    time = torch.rand(n, generator=generator, dtype=torch.float64)
    numbers = torch.stack([time, time], 1)

    def loss(of: FlowMatching) -> Tensor:
        return of.loss(z, None, lambda z: noise, lambda x: numbers).mean()

    right, network = loss(flow), flow.network
    for factor in (0.9, 1.1):
        wrong = closed_form()
        wrong.network.forward = lambda *a, f=factor: f * network(*a)  # type: ignore[method-assign]
        assert loss(wrong) > right
