"""Encoder, bottleneck, decoder and likelihood as one model; and the frozen tokenizer made of it."""

import copy
import math
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.first_stage import fingerprint
from vqvae_lightning.models.likelihoods import BernoulliLikelihood, DiscretizedLogistic
from vqvae_lightning.models.settings import AEConfig
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.models.trunks.conv import ConvTrunk

SHAPES = [(1, 28, 28), (3, 32, 32)]
QUANTIZERS = ["vq-ema", "vq-gradient"]


def images(shape=(1, 8, 8), n=3):
    return 2 * torch.rand(n, *shape) - 1


def train_step(net, x, optimizer):
    optimizer.zero_grad()
    objective = net(x)
    objective.loss.backward()
    net.bottleneck.update()
    optimizer.step()
    return objective


@pytest.mark.parametrize("latent", ["vector", "grid"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
class TestEveryModel:
    def test_builds_learns_and_samples(self, build, kind, shape, latent):
        net, x = build(kind, shape, latent=latent), images(shape)
        grid = (1, 1) if latent == "vector" else (shape[1] // 4, shape[2] // 4)
        assert net.grid == grid
        assert net.dims == math.prod(shape)
        objective = net(x)
        objective.loss.backward()
        net.bottleneck.update()
        assert objective.latent.z.shape == (3, 4, *grid)
        assert objective.reconstruction.shape == x.shape
        assert objective.distortion.shape == objective.latent.rate.shape == (3,)
        assert objective.loss.shape == ()
        assert torch.isfinite(objective.loss)
        for name, parameter in net.named_parameters():
            assert not parameter.requires_grad or parameter.grad is not None, name
        sample = net.eval().sample(5)
        assert sample.shape == (5, *shape)
        assert -1 <= sample.min() <= sample.max() <= 1

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("beta", [1.0, 0.0, 3.5])
    def test_objective_is_the_formula(self, build, kind, shape, latent, beta, training):
        """loss = mean(distortion)/dims + beta · mean(rate)/dims, and in training + penalty."""
        net, x = build(kind, shape, latent=latent).train(training), images(shape)
        objective = net(x, beta)
        decoded = net.decoder(objective.latent.z)
        distortion = -Normal(decoded, 0.4).log_prob(x).flatten(1).sum(1)
        torch.testing.assert_close(objective.distortion, distortion)
        torch.testing.assert_close(objective.reconstruction, decoded.clamp(-1, 1))
        rate = {"ae": 0.0, "vae": objective.latent.rate.mean()}.get(
            kind, math.prod(net.grid) * math.log(16)
        )
        penalty = objective.latent.penalty if training else 0.0
        assert (objective.latent.penalty > 0) == kind.startswith("vq")
        expected = distortion.mean() / net.dims + beta * rate / net.dims + penalty
        torch.testing.assert_close(objective.loss, expected)

    def test_memory_layout_does_not_matter(self, build, kind, shape, latent):
        net, x = build(kind, shape, latent=latent).eval(), images(shape)
        # a VAE's noise is the same, too
        other = copy.deepcopy(net).to(memory_format=torch.contiguous_format)
        results = []
        last, first = torch.channels_last, torch.contiguous_format
        for model, layout in ((net, last), (net, first), (other, first)):
            torch.manual_seed(1)
            results.append(model(x.contiguous(memory_format=layout)))
        for result in results[1:]:
            torch.testing.assert_close(result.loss, results[0].loss, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(
                result.latent.mean, results[0].latent.mean, rtol=1e-5, atol=1e-5
            )
            torch.testing.assert_close(
                result.reconstruction, results[0].reconstruction, rtol=1e-5, atol=1e-5
            )

    def test_an_image_is_encoded_and_decoded_on_its_own(self, build, kind, shape, latent):
        net, x = build(kind, shape, latent=latent).eval(), images(shape, n=4)
        together, alone = net.encode(x), [net.encode(image[None]) for image in x]
        torch.testing.assert_close(
            torch.cat([a.mean for a in alone]), together.mean, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            torch.cat([a.rate for a in alone]), together.rate, rtol=1e-5, atol=1e-5
        )
        if together.codes is not None:
            assert torch.equal(torch.cat([a.codes for a in alone]), together.codes)
        decoded = torch.cat([net.decode(z[None]) for z in together.mean])
        torch.testing.assert_close(decoded, net.decode(together.mean), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 12), (1, 16, 16)], ids=str)
def test_images_of_another_shape_are_refused(build, kind, shape):
    with pytest.raises(ValueError, match="images"):
        build(kind).encode(images(shape))


def test_sides_that_cannot_be_halved_are_refused(build, kind):
    with pytest.raises(ValueError, match=r"model\.trunk\.\w+: 3 halvings need sides"):
        build(kind, (1, 28, 28), downsamples=3)


def test_a_doubled_batch_has_the_same_loss(build, kind):
    net, x = build(kind).double().eval(), images().double()
    losses = []
    for batch, beta in ((x, 0.0), (torch.cat([x, x]), 0.0), (x, 1.0), (torch.cat([x, x]), 1.0)):
        objective = net(batch, beta)
        # a VAE's z is drawn in evaluation too
        noiseless = objective.loss - objective.distortion.mean() / net.dims
        losses.append(noiseless if kind == "vae" else objective.loss)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[2], losses[3])


def test_vae_loss_is_minus_elbo_per_dimension(build):
    net, x = build("vae").double(), images().double()
    objective = net(x)
    mean, log_variance = net.encoder(x).chunk(2, dim=1)
    q = Normal(mean, (0.5 * log_variance).exp())
    kl = kl_divergence(q, Normal(torch.zeros_like(mean), 1.0)).flatten(1).sum(1)
    scale = net.likelihood.log_scale.exp()
    log_p = Normal(net.decoder(objective.latent.z), scale).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(objective.loss, -(log_p - kl).mean() / net.dims)


def test_loss_is_linear_in_beta(build, kind):
    net, x = build(kind).double().eval(), images().double()
    losses = []
    for beta in (0.0, 1.0, 2.0):
        torch.manual_seed(1)
        losses.append(net(x, beta).loss)
    torch.testing.assert_close(losses[2] - losses[1], losses[1] - losses[0])


def test_bernoulli_needs_no_scale(build, kind):
    net = build(kind, likelihood=BernoulliLikelihood.Config())
    objective = net(torch.sign(images()))
    assert (objective.distortion > 0).all()
    assert objective.reconstruction.abs().max() <= 1


def test_loss_is_float32_and_close_under_autocast(build, kind):
    net, x = build(kind).eval(), images()
    objectives = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            objectives.append(net(x))
    assert objectives[1].loss.dtype == objectives[1].distortion.dtype == torch.float32
    torch.testing.assert_close(objectives[1].loss, objectives[0].loss, rtol=0.05, atol=0.05)


def test_an_autoencoder_samples_in_float64(build, kind):
    """`trainer.precision: 64-true` makes a float64 model; its pictures must not fail."""
    assert build(kind).double().eval().sample(2).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_every_model_has_the_right_gradient(build, kind):
    """Analytic against numerical gradients, with the VAE's noise held fixed."""
    net = build(kind, (1, 4, 4), hidden=2, downsamples=1, latent_dim=2).double()
    x = images((1, 4, 4), n=2).double()
    names, values = zip(
        *((n, p) for n, p in net.named_parameters() if p.requires_grad), strict=True
    )

    def loss(x, *parameters):
        torch.manual_seed(1)
        return torch.func.functional_call(net, dict(zip(names, parameters, strict=True)), (x,)).loss

    # Every weight of a larger net would take a minute: random directions of them instead.
    many = sum(value.numel() for value in values) > 500
    assert torch.autograd.gradcheck(
        loss,
        (x.requires_grad_(), *(v.detach().requires_grad_() for v in values)),
        fast_mode=many,
    )


class TestFreeBits:
    def test_the_loss_has_the_charged_rate_and_the_ledger_the_true_one(self, build):
        net, x, free, beta = build("vae").double(), images().double(), 0.3, 1.7
        objectives = []
        for arguments in ((x, beta), (x, beta, free)):
            torch.manual_seed(1)
            objectives.append(net(*arguments))
        plain, charged = objectives
        assert torch.equal(plain.latent.rate, charged.latent.rate)
        means = plain.latent.rate_per_dim.mean(0).flatten().tolist()
        assert min(means) < free
        excess = sum(max(free, mean) - mean for mean in means)
        torch.testing.assert_close(
            charged.loss - plain.loss, charged.loss.new_tensor(beta * excess / net.dims)
        )

    def test_dimensions_that_are_free_are_moved_by_the_distortion_alone(self, build):
        net, x = build("vae").double(), images().double()
        gradients = []
        for arguments in ((x, 1.0, 1e3), (x, 0.0)):
            torch.manual_seed(1)
            net.zero_grad()
            net(*arguments).loss.backward()
            gradients.append([p.grad.clone() for p in net.parameters() if p.requires_grad])
        for free, without in zip(*gradients, strict=True):
            assert torch.equal(free, without)


class TestImportanceWeights:
    def test_importance_weights_are_those_by_hand(self, build):
        """log p(x|z) + log p(z) − log q(z|x) of each draw, and the loss −log of their mean."""
        net, x, k = build("vae").double(), images().double(), 6
        torch.manual_seed(1)
        log_weights = net.log_weights(x, k)
        mean, log_variance = net.encoder(x).chunk(2, dim=1)
        torch.manual_seed(1)
        drawn = []
        for _ in range(k):
            z = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, dtype=mean.dtype)
            log_p = (
                Normal(net.decoder(z), net.likelihood.log_scale.exp()).log_prob(x).flatten(1).sum(1)
            )
            log_prior = Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
            log_q = Normal(mean, (0.5 * log_variance).exp()).log_prob(z).flatten(1).sum(1)
            drawn.append(log_p + log_prior - log_q)
        expected = torch.stack(drawn)
        torch.testing.assert_close(log_weights, expected, rtol=0, atol=1e-10)
        torch.manual_seed(1)
        objective = net.importance_weighted(x, k)
        bound = (
            expected.exp().mean(0).log()
            if expected.min() > -700
            else expected.logsumexp(0) - math.log(k)
        )
        torch.testing.assert_close(objective.loss, -bound.mean() / net.dims, rtol=0, atol=1e-12)

    def test_one_weight_is_the_one_sample_elbo(self, build):
        """With the same noise, and log p(z) − log q(z|x) in the place of its mean, −rate."""
        net, x = build("vae").double(), images().double()
        torch.manual_seed(1)
        (log_weight,) = net.log_weights(x, 1)
        torch.manual_seed(1)
        objective = net(x)
        torch.manual_seed(1)
        _, (log_ratio,) = net.bottleneck.rsample(net.encoder(x), 1)
        torch.testing.assert_close(log_weight, log_ratio - objective.distortion, rtol=0, atol=1e-12)
        torch.manual_seed(1)
        weighted = net.importance_weighted(x, 1)
        torch.testing.assert_close(weighted.distortion, objective.distortion, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            weighted.reconstruction, objective.reconstruction, rtol=0, atol=1e-12
        )
        torch.testing.assert_close(weighted.latent.z, objective.latent.z, rtol=0, atol=1e-12)
        torch.testing.assert_close(weighted.latent.rate, objective.latent.rate, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("kind", QUANTIZERS)
    def test_a_quantizers_weights_are_minus_distortion_and_rate(self, build, kind):
        net, x = build(kind).eval(), images()
        objective = net(x)
        weights = net.log_weights(x, 3)
        assert weights.shape == (3, 3)
        torch.testing.assert_close(
            weights, -(objective.distortion + objective.latent.rate).expand(3, 3)
        )

    def test_an_ae_has_none(self, build):
        with pytest.raises(ValueError, match="no likelihood"):
            build("ae").log_weights(images(), 2)

    def test_every_parameter_learns_from_them(self, build):
        net = build("vae", likelihood=DiscretizedLogistic.Config(learned=True))
        objective = net.importance_weighted(torch.randint(256, (3, 1, 8, 8)) / 127.5 - 1, 4)
        objective.loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
        assert not objective.latent.rate.requires_grad


class TestLearning:
    def test_ae_overfits_eight_images(self):
        """From a variance of 1/3; of 3 seeds the worst is at 0.001, for Adam's error rises now and
        then.
        """
        network = ConvTrunk.Config(hidden=32, residual_hidden=16, residual_blocks=1, downsamples=2)
        net = build_autoencoder(AEConfig(latent_dim=16, trunk=network), (1, 8, 8))
        x = images(n=8)
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(150):
            objective = train_step(net, x, optimizer)
        assert (objective.reconstruction - x).square().mean() < 1e-2

    @pytest.fixture
    def colours(self):
        """Eight images, each of one colour, (8, 3, 8, 8)."""
        corners = torch.cartesian_prod(*[torch.tensor([-0.8, 0.8])] * 3)  # 8,3
        return corners[:, :, None, None].expand(8, 3, 8, 8)

    @pytest.mark.parametrize("kind", QUANTIZERS)
    def test_vq_starts_with_a_code_for_every_image(self, build, kind, colours):
        """k-means of as many rows as there are codes."""
        net = build(kind, (3, 8, 8), latent="vector", quantizer={"codebook_size": 8})
        net(colours)
        net.bottleneck.update()
        assert len(net.eval()(colours).latent.codes.unique()) == 8

    @pytest.mark.parametrize("seed", range(3))
    def test_vq_with_resets_learns_more_than_one_grey(self, build, colours, seed):
        """The error falls by more than an eighth.

        Of 16 seeds the worst lost a quarter; how many codes is chance.
        """
        torch.manual_seed(seed)
        net = build(
            "vq-ema",
            (3, 8, 8),
            hidden=16,
            latent="vector",
            quantizer={"codebook_size": 8, "decay": 0.5, "reset_below": 0.2},
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(120):
            train_step(net, colours, optimizer)
        objective = net.eval()(colours)
        grey = colours.square().mean()  # 0.64, the error of the mean image
        assert (objective.reconstruction - colours).square().mean() < 7 / 8 * grey
        assert len(objective.latent.codes.unique()) > 1


@pytest.mark.parametrize("kind", QUANTIZERS)
class TestTokenizer:
    @pytest.fixture
    def net(self, build, kind):
        net = build(kind, (1, 8, 16), latent="grid")
        train_step(net, images((1, 8, 16), n=8), torch.optim.Adam(net.parameters()))
        return net

    @pytest.fixture
    def x(self):
        return images((1, 8, 16), n=5)

    def test_decoded_codes_are_the_reconstruction(self, net, x):
        tokenizer = Tokenizer(net)
        assert torch.equal(tokenizer.decode(tokenizer.encode(x)), net.eval()(x).reconstruction)

    def test_codes_are_in_raster_order(self, net, x):
        tokenizer = Tokenizer(net)
        codes, grid = tokenizer.encode(x), net.eval()(x).latent.codes
        assert (tokenizer.length, tokenizer.grid) == (8, (2, 4))
        assert codes.shape == (5, 8)
        assert codes.dtype == torch.int64
        for r in range(2):
            for c in range(4):
                assert torch.equal(codes[:, r * 4 + c], grid[:, r, c])

    def test_weights_never_change(self, net, x):
        tokenizer = Tokenizer(net)
        before = fingerprint(net)
        holder: Any = torch.nn.Module()
        holder.tokenizer = tokenizer
        holder.train()
        for _ in range(3):
            tokenizer.decode(tokenizer.encode(x))
        assert tokenizer.fingerprint == before == fingerprint(net)
        assert not list(holder.parameters())
        assert not holder.state_dict()
        assert not any(parameter.requires_grad for parameter in net.parameters())
        assert not any(module.training for module in net.modules())

    def test_fingerprint_tells_models_apart(self, net):
        other = copy.deepcopy(net)
        assert fingerprint(other) == fingerprint(net)
        next(other.parameters()).data.add_(1e-6)
        assert fingerprint(other) != fingerprint(net)

    def test_an_image_that_is_not_finite_has_no_codes(self, net, x):
        x[3, 0, 2, 2] = torch.nan
        for ask in (Tokenizer(net).encode, Tokenizer(net).distortion):
            with pytest.raises(ArithmeticError, match=r"1 of 5 images is not finite \(row 3\)"):
                ask(x)

    @pytest.mark.parametrize("code", [-1, 16])
    def test_a_tokenizer_refuses_codes_outside_the_codebook(self, net, code):
        with pytest.raises(ValueError, match="codes"):
            Tokenizer(net).decode(torch.full((1, 8), code))


@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_a_model_without_codes_is_no_tokenizer(build, kind):
    with pytest.raises(ValueError, match="codebook"):
        Tokenizer(build(kind))
