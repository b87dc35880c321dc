"""The contract that every bottleneck keeps, and the VAE's Kullback-Leibler divergence."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from vqvae_lightning.models.bottlenecks import (
    Gaussian,
    Identity,
    NonFiniteError,
    kl_elements,
    rate_with_free_bits,
)
from vqvae_lightning.models.quantizers.codebooks import (
    CosineVectorQuantizer,
    EMAVectorQuantizer,
    SimVQ,
    VectorQuantizer,
)
from vqvae_lightning.models.quantizers.composed import (
    ProductQuantizer,
    ProjectedQuantizer,
    ResidualQuantizer,
)
from vqvae_lightning.models.quantizers.estimators import rotation
from vqvae_lightning.models.quantizers.lookup_free import FSQ, LFQ

N, D, K, GRID = 3, 4, 5, (2, 6)


def kl_to_standard_normal(mean, log_variance):
    """KL(N(mean, exp(log_variance)) ‖ N(0, I)) in nats, (N,), of (N, …)."""
    return kl_elements(mean, log_variance).flatten(1).sum(1)


def vq(d):
    return EMAVectorQuantizer(K, d, commitment=0.25, decay=0.9, reset_below=0.1)


# A new bottleneck costs one line here.
BOTTLENECKS = {
    "identity": lambda: Identity(D),
    "gaussian": lambda: Gaussian(D),
    "gradient": lambda: VectorQuantizer(K, D, commitment=0.25, decay=0.9, reset_below=0.1),
    "ema": lambda: EMAVectorQuantizer(K, D, commitment=0.25, decay=0.9, reset_below=0.1),
    "rotation": lambda: EMAVectorQuantizer(
        K, D, commitment=0.25, decay=0.9, reset_below=0.1, estimator=rotation
    ),
    "cosine": lambda: CosineVectorQuantizer(K, D, commitment=0.25, decay=0.9, reset_below=0.1),
    "simvq": lambda: SimVQ(K, D, commitment=0.25),
    "fsq": lambda: FSQ([K]),
    "lfq": lambda: LFQ(2, commitment=0.25, entropy=0.1),
    "residual": lambda: ResidualQuantizer([vq(D) for _ in range(3)]),
    "product": lambda: ProductQuantizer([vq(2), vq(2)]),
    "product of residuals": lambda: ProductQuantizer(
        [ResidualQuantizer([vq(2) for _ in range(3)]) for _ in "ab"]
    ),
    "projected": lambda: ProjectedQuantizer(vq(2), D),
}
RANDOM = {"gaussian"}  # z is a draw in evaluation too


@pytest.fixture(params=BOTTLENECKS)
def name(request):
    return request.param


@pytest.fixture
def bottleneck(name):
    return BOTTLENECKS[name]()


@pytest.fixture
def h(bottleneck):
    return torch.randn(N, bottleneck.in_channels, *GRID, requires_grad=True)


def step(bottleneck):
    """One training step: a forward pass on new data and its update."""
    bottleneck.train()
    bottleneck(torch.randn(N, bottleneck.in_channels, *GRID))
    bottleneck.update()


@pytest.mark.parametrize("training", [True, False])
class TestContract:
    def test_shapes(self, bottleneck, h, training):
        latent = bottleneck.train(training)(h)
        assert latent.z.shape == latent.mean.shape == (N, bottleneck.out_channels, *GRID)
        assert latent.rate.shape == (N,)
        assert latent.penalty.shape == ()
        assert all(term.shape == () and not term.requires_grad for term in latent.logs.values())
        assert (latent.codes is None) == (bottleneck.codebook_size is None)

    def test_rate_and_penalty_are_finite_and_not_negative(self, bottleneck, h, training):
        latent = bottleneck.train(training)(h)
        assert torch.isfinite(latent.rate).all()
        assert (latent.rate >= 0).all()
        assert torch.isfinite(latent.penalty)
        assert latent.penalty >= 0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_rate_and_penalty_are_float32_under_autocast(self, bottleneck, h, training, dtype):
        with torch.autocast("cpu", torch.bfloat16):
            latent = bottleneck.train(training)(h.to(dtype))
        assert latent.rate.dtype == latent.penalty.dtype == torch.float32

    def test_autocast_changes_no_rate(self, name, bottleneck, h, training):
        h = h.to(torch.bfloat16)
        rate = bottleneck.train(training)(h.float()).rate
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(bottleneck(h).rate, rate)

    def test_works_in_float64(self, bottleneck, h, training):
        latent = bottleneck.double().train(training)(h.double())
        assert (
            latent.z.dtype
            == latent.mean.dtype
            == latent.rate.dtype
            == latent.penalty.dtype
            == torch.float64
        )

    def test_codes_are_indices_of_the_codebook(self, bottleneck, h, training):
        codes = bottleneck.train(training)(h).codes
        if codes is None:
            with pytest.raises(ValueError, match="codebook"):
                bottleneck.codes_to_latents(torch.zeros(N, *GRID, dtype=torch.int64))
        else:
            assert codes.shape == (N, *bottleneck.layout(GRID).shape)
            assert codes.dtype == torch.int64
            assert 0 <= codes.min() <= codes.max() < bottleneck.codebook_size


def test_gradient_of_z_reaches_h(bottleneck, h):
    weights = torch.randn(N, bottleneck.out_channels, *GRID)
    (gradient,) = torch.autograd.grad((bottleneck.train()(h).z * weights).sum(), h)
    assert gradient.flatten(1).any(1).all()


def test_codes_look_up_to_z_bit_for_bit_in_evaluation(bottleneck, h):
    step(bottleneck)
    latent = bottleneck.eval()(h)
    if latent.codes is not None:
        assert torch.equal(bottleneck.codes_to_latents(latent.codes), latent.z)


@pytest.mark.parametrize("training", [True, False])
def test_draws_are_of_z_and_their_log_ratio_averages_to_minus_the_rate(
    name, bottleneck, h, training
):
    """E_q[log p(z) − log q(z|x)] = −KL for a VAE; −T log K for a quantizer; an AE has no p(z)."""
    bottleneck.train(training)
    if not bottleneck.has_prior:
        with pytest.raises(ValueError, match="no likelihood"):
            bottleneck.rsample(h, 2)
        return
    z, log_ratio = bottleneck.rsample(h, 4000)
    latent = bottleneck(h)
    assert z.shape == (4000, *latent.z.shape)
    assert log_ratio.shape == (4000, N)
    assert z.dtype == log_ratio.dtype == torch.float32
    assert bottleneck.random == (name in RANDOM)
    error = 4 * log_ratio.std(0) / 4000**0.5 if bottleneck.random else 0
    assert ((log_ratio.mean(0) + latent.rate).abs() <= error + 1e-4 * latent.rate).all()
    assert bottleneck.random or torch.equal(z[-1], latent.z)


@pytest.mark.parametrize("training", [True, False])
def test_draws_do_not_depend_on_how_many_are_made_at_once(bottleneck, h, training):
    bottleneck.train(training)
    if bottleneck.has_prior:
        made = []
        for parts in ((7,), (3, 4), (1,) * 7):
            torch.manual_seed(1)
            z, log_ratio = zip(*[bottleneck.rsample(h, k) for k in parts], strict=True)
            made.append((torch.cat(z), torch.cat(log_ratio)))
        assert all(
            torch.equal(a, b) for other in made[1:] for a, b in zip(made[0], other, strict=True)
        )
        torch.manual_seed(1)
        assert torch.equal(bottleneck(h).z, made[0][0][0])  # the first draw is the forward pass's


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_has_no_code(bottleneck, h, poison):
    """In evaluation. A training step is refused by its gradient, so that no device is waited
    for.
    """
    if bottleneck.codebook_size is None:
        return
    h.data[1, 0, 1, 3] = poison
    bottleneck.train()(h)
    for ask in (bottleneck, lambda h: bottleneck.rsample(h, 2)):
        bottleneck.eval()
        with pytest.raises(
            NonFiniteError, match=r"1 of 3 images is not finite \(row 1\), so they have no codes"
        ):
            ask(h)


@pytest.mark.parametrize("code", [-1, K])
def test_lookup_refuses_codes_outside_the_codebook(bottleneck, code):
    layout = bottleneck.layout(GRID)
    shape = GRID if layout is None else layout.shape
    with pytest.raises(ValueError, match="codes"):
        bottleneck.codes_to_latents(torch.full((N, *shape), code))


def test_the_rate_is_that_of_uniform_codes_in_their_order(bottleneck, h):
    """T log K nats; flattened, codes are a sequence that goes cell by cell, and in each cell
    codebook by codebook.
    """
    latent, k = bottleneck.eval()(h), bottleneck.codebook_size
    if latent.codes is not None:
        layout = bottleneck.layout(GRID)
        sequence = layout.flatten(latent.codes)
        assert sequence.shape[1] == layout.length
        torch.testing.assert_close(latent.rate, torch.full((N,), sequence.shape[1] * math.log(k)))
        assert torch.equal(layout.unflatten(sequence), latent.codes)
        for r, c, m in itertools.product(*map(range, (*GRID, bottleneck.num_codebooks))):
            code = (
                latent.codes[:, r, c] if bottleneck.num_codebooks == 1 else latent.codes[:, r, c, m]
            )
            assert torch.equal(sequence[:, (r * GRID[1] + c) * bottleneck.num_codebooks + m], code)


def test_codes_stay_when_the_places_move(bottleneck, h):
    """A code depends on the features of its own place alone."""
    if bottleneck.codebook_size is not None:
        order = torch.randperm(GRID[1])
        bottleneck.eval()
        assert torch.equal(bottleneck(h[..., order]).codes, bottleneck(h).codes[:, :, order])


def test_sample_has_the_shape_and_dtype_of_z(bottleneck):
    sample = bottleneck.sample(7, GRID, torch.device("cpu"))
    assert sample.shape == (7, bottleneck.out_channels, *GRID)
    assert sample.dtype == torch.float32
    assert torch.isfinite(sample).all()


def test_state_has_the_same_names_before_and_after_training(bottleneck):
    before = {name: value.shape for name, value in bottleneck.state_dict().items()}
    step(bottleneck)
    assert {name: value.shape for name, value in bottleneck.state_dict().items()} == before


def test_state_stays_at_its_place_in_memory(bottleneck):
    before = {name: value.data_ptr() for name, value in bottleneck.state_dict().items()}
    for _ in range(10):
        step(bottleneck)
    assert {name: value.data_ptr() for name, value in bottleneck.state_dict().items()} == before


def test_a_loaded_state_continues_as_the_saved_one(name, bottleneck, h):
    step(bottleneck)
    copy = BOTTLENECKS[name]()
    copy.load_state_dict(bottleneck.state_dict())
    latents = []
    for module in (bottleneck.train(), copy.train()):
        torch.manual_seed(1)
        latents.append(module(h))
        module.update()
    assert torch.equal(latents[0].z, latents[1].z)
    assert all(
        torch.equal(value, copy.state_dict()[key]) for key, value in bottleneck.state_dict().items()
    )


def test_evaluation_changes_no_state(bottleneck, h):
    before = {name: value.clone() for name, value in bottleneck.state_dict().items()}
    bottleneck.eval()(h)
    bottleneck.update()
    assert all(torch.equal(value, before[key]) for key, value in bottleneck.state_dict().items())


def test_a_doubled_batch_costs_the_same(name, bottleneck, h):
    """Catches sums over the batch where means are meant, and means over the latent where sums are
    meant.
    """
    bottleneck.eval()
    once, twice = bottleneck(h), bottleneck(torch.cat([h, h]))
    torch.testing.assert_close(twice.rate, once.rate.repeat(2))
    torch.testing.assert_close(twice.penalty, once.penalty)
    if name not in RANDOM:
        torch.testing.assert_close(twice.z, once.z.repeat(2, 1, 1, 1))


def test_rate_is_a_sum_over_the_latent(bottleneck, h):
    bottleneck.eval()
    torch.testing.assert_close(bottleneck(torch.cat([h, h], dim=2)).rate, 2 * bottleneck(h).rate)


class TestGaussian:
    @pytest.fixture
    def parameters(self):
        """mean and log variance, float64 (64, 4), in [-2, 2]."""
        return 4 * torch.rand(2, 64, 4, dtype=torch.float64) - 2

    def test_kl_is_that_of_torch_distributions(self, parameters):
        mean, log_variance = parameters
        q = Normal(mean, (0.5 * log_variance).exp())
        expected = kl_divergence(q, Normal(torch.zeros_like(mean), 1.0)).sum(1)
        torch.testing.assert_close(
            kl_to_standard_normal(mean, log_variance), expected, rtol=0, atol=1e-12
        )

    def test_kl_is_that_of_monte_carlo(self, parameters):
        mean, log_variance = parameters[:, 0]
        q = Normal(mean, (0.5 * log_variance).exp())
        z = q.sample((200_000,))
        estimate = (q.log_prob(z) - Normal(torch.zeros_like(mean), 1.0).log_prob(z)).sum(1)
        error = estimate.std() / len(estimate) ** 0.5
        assert (
            abs(estimate.mean() - kl_to_standard_normal(mean[None], log_variance[None])) < 4 * error
        )

    def test_kl_is_0_at_the_prior(self):
        assert torch.equal(
            kl_to_standard_normal(torch.zeros(3, 4), torch.zeros(3, 4)), torch.zeros(3)
        )

    @pytest.mark.parametrize("scale", [2.0, 1e-4])
    def test_kl_is_not_negative(self, scale):
        mean, log_variance = scale * (2 * torch.rand(2, 10_000, 4) - 1)
        assert kl_to_standard_normal(torch.zeros_like(mean), log_variance).min() >= 0
        assert kl_to_standard_normal(mean, log_variance).min() >= 0

    def test_kl_of_concatenated_latents_is_the_sum(self, parameters):
        mean, log_variance = parameters
        parts = [
            kl_to_standard_normal(mean[:, i : i + 1], log_variance[:, i : i + 1]) for i in range(4)
        ]
        torch.testing.assert_close(
            kl_to_standard_normal(mean, log_variance), sum(parts), rtol=0, atol=1e-12
        )

    def test_kl_has_the_right_gradient(self, parameters):
        assert torch.autograd.gradcheck(
            kl_to_standard_normal, parameters[:, :3].clone().requires_grad_().unbind()
        )

    @pytest.mark.parametrize("log_variance", [-30.0, 30.0])
    def test_the_rate_of_a_gaussian_is_finite_in_float32_at_extreme_variances(self, log_variance):
        h = torch.cat(
            [torch.ones(2, D, 1, 1), torch.full((2, D, 1, 1), log_variance)], dim=1
        ).requires_grad_()
        latent = Gaussian(D)(h)
        (gradient,) = torch.autograd.grad(latent.rate.sum() + latent.z.sum(), h)
        assert torch.isfinite(latent.rate).all()
        assert torch.isfinite(latent.z).all()
        assert torch.isfinite(gradient).all()

    @pytest.mark.parametrize("training", [True, False])
    def test_z_is_a_draw_from_the_posterior(self, training):
        mean, log_variance = torch.randn(2, D)
        h = torch.cat([mean, log_variance]).view(1, 2 * D, 1, 1).expand(50_000, -1, -1, -1)
        latent = Gaussian(D).train(training)(h)
        z = latent.z.flatten(1)
        deviation = (0.5 * log_variance).exp()
        torch.testing.assert_close(latent.mean.flatten(1)[0], mean)
        assert ((z.mean(0) - mean).abs() < 5 * deviation / 50_000**0.5).all()
        assert ((z.std(0) / deviation - 1).abs() < 5 / 100_000**0.5).all()

    def test_the_rate_is_the_sum_over_latent_dimensions(self, parameters):
        mean, log_variance = (p.view(64, 1, 2, 2) for p in parameters)
        latent = Gaussian(1)(torch.cat([mean, log_variance], dim=1))
        assert latent.rate_per_dim.shape == latent.z.shape
        torch.testing.assert_close(
            latent.rate_per_dim.flatten(1).sum(1), latent.rate, rtol=0, atol=1e-12
        )
        q = Normal(mean, (0.5 * log_variance).exp())
        torch.testing.assert_close(
            latent.rate_per_dim, kl_divergence(q, Normal(torch.zeros_like(mean), 1.0))
        )

    def test_log_ratio_is_that_of_torch_distributions(self, parameters):
        mean, log_variance = (p.view(64, 1, 2, 2) for p in parameters)
        z, log_ratio = Gaussian(1).rsample(torch.cat([mean, log_variance], dim=1), 5)
        q, p = Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros_like(mean), 1.0)
        expected = (p.log_prob(z) - q.log_prob(z)).flatten(2).sum(2)
        torch.testing.assert_close(log_ratio, expected, rtol=0, atol=1e-11)

    @pytest.mark.parametrize("free_bits", [0.01, 0.5, 3.0, 100.0])
    def test_free_bits_charge_each_dimension_at_least_this(self, free_bits):
        """Σ_d max(λ, mean over the batch of KL_d), by a loop; a dimension below λ has no gradient
        at all.
        """
        rates = (4 * torch.rand(N, D, *GRID, dtype=torch.float64) ** 3).requires_grad_()
        charged = rate_with_free_bits(rates, free_bits)
        means = rates.detach().mean(0).flatten().tolist()
        assert charged.item() == pytest.approx(
            sum(max(free_bits, mean) for mean in means), rel=1e-12
        )
        (gradient,) = torch.autograd.grad(charged, rates)
        above = (rates.detach().mean(0) > free_bits).double()
        assert torch.equal(gradient, (above / N).expand_as(gradient))

    @settings(max_examples=20, deadline=None)
    @given(d=st.integers(1, 5), h=st.integers(1, 4), w=st.integers(1, 4), seed=st.integers(0, 1000))
    def test_mean_and_log_variance_are_the_halves_of_h(self, d, h, w, seed):
        torch.manual_seed(seed)
        mean, log_variance = torch.randn(2, N, d, h, w)
        latent = Gaussian(d)(torch.cat([mean, log_variance], dim=1))
        assert torch.equal(latent.mean, mean)
        torch.testing.assert_close(latent.rate, kl_to_standard_normal(mean, log_variance))
