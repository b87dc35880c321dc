"""Residual, product and projected quantizers against their parts; SimVQ and cosine by hand; the
config's table.
"""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vqvae_lightning.config import ConfigError, section_config
from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.layout import histogram
from vqvae_lightning.models.parts import QUANTIZERS, build_quantizer
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
from vqvae_lightning.models.settings import VQVAEConfig
from vqvae_lightning.models.tokenizer import Tokenizer

K, D = 6, 4


def vq(d, quantizer=VectorQuantizer, reset_below=0.0):
    module = quantizer(K, d, 0.25, 0.9, reset_below).double()
    module.initialized.fill_(True)
    return module


@pytest.fixture
def h():
    return torch.randn(5, D, 2, 3, dtype=torch.float64, requires_grad=True)


class TestResidual:
    def test_a_residual_quantizer_is_a_loop_over_what_is_left(self, h):
        parts = [vq(D) for _ in range(3)]
        latent = ResidualQuantizer(parts).eval()(h)
        for n, r, c in itertools.product(range(5), range(2), range(3)):
            left = h[n, :, r, c].detach()
            total = torch.zeros_like(left)
            for m, part in enumerate(parts):
                code = (part.codebook - left).square().sum(1).argmin()
                assert latent.codes[n, r, c, m] == code
                left, total = left - part.codebook[code], total + part.codebook[code]
            torch.testing.assert_close(latent.z[n, :, r, c], total.detach())

    def test_penalty_is_the_sum_over_levels_of_what_each_left(self, h):
        module = ResidualQuantizer([vq(D) for _ in range(3)]).train()
        latent = module(h)
        left, commitment = h.movedim(1, -1), h.new_zeros(())
        for m, part in enumerate(module.parts):
            z_q = part.decode(latent.codes[..., m]).detach()
            commitment = commitment + (left - z_q).square().mean()
            left = left - z_q
        torch.testing.assert_close(latent.logs["commitment"], commitment.detach())
        torch.testing.assert_close(latent.penalty, 1.25 * commitment.detach())
        found, wanted = (
            torch.autograd.grad(x, h, retain_graph=True)[0]
            for x in (latent.penalty, 0.25 * commitment)
        )
        torch.testing.assert_close(found, wanted)

    def test_the_decoders_gradient_is_counted_once(self, h):
        weights = torch.randn_like(h)
        (gradient,) = torch.autograd.grad(
            (ResidualQuantizer([vq(D) for _ in range(3)])(h).z * weights).sum(), h
        )
        assert torch.equal(gradient, weights)

    def test_more_levels_are_nearer(self, h):
        module = ResidualQuantizer(
            [EMAVectorQuantizer(K, D, 0.25, 0.9, 0.0).double() for _ in range(4)]
        )
        for _ in module.parts:  # each starts at what those before it leave over
            module.train()(h)
            module.update()
        z_e, codes = h.movedim(1, -1), module.eval()(h).codes
        levels = torch.stack(
            [part.decode(codes[..., m]) for m, part in enumerate(module.parts)]
        ).cumsum(0)
        errors = (levels - z_e).square().mean((1, 2, 3, 4))
        assert (errors.diff() < 0).all()


class TestProduct:
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("quantizer", [VectorQuantizer, EMAVectorQuantizer])
    def test_equals_independent_quantizers(self, h, quantizer, training):
        parts = [vq(2, quantizer, 0.5) for _ in range(2)]
        alone = copy.deepcopy(parts)
        module = ProductQuantizer(parts).train(training)
        torch.manual_seed(1)
        latent = module(h)
        module.update()
        torch.manual_seed(1)
        latents = [
            part.train(training)(channels)
            for part, channels in zip(alone, h.chunk(2, 1), strict=True)
        ]
        for part in alone:
            part.update()
        assert torch.equal(latent.z, torch.cat([one.z for one in latents], 1))
        assert torch.equal(latent.codes, torch.stack([one.codes for one in latents], -1))
        torch.testing.assert_close(latent.rate, sum(one.rate for one in latents))
        torch.testing.assert_close(latent.penalty, sum(one.penalty for one in latents) / 2)
        for part, other in zip(module.parts, alone, strict=True):
            for name, value in part.state_dict().items():
                assert torch.equal(value, other.state_dict()[name]), name

    def test_one_collective_per_update_whatever_it_is_made_of(self, h, monkeypatch):
        from vqvae_lightning.models.quantizers import quantizer

        calls = []
        monkeypatch.setattr(quantizer, "all_reduce_sum", lambda x: calls.append(x.numel()) or x)
        module = ProductQuantizer(
            [ResidualQuantizer([vq(2, reset_below=0.1) for _ in range(3)]) for _ in range(2)]
        )
        module.train()(h)
        module.update()
        assert calls == [6 * (K + 2 * K * 2)]  # counts, sums and candidates of six codebooks

    def test_codes_of_residual_groups_stand_level_by_level_in_each_group(self, h):
        groups = [ResidualQuantizer([vq(2) for _ in range(3)]) for _ in range(2)]
        codes = ProductQuantizer(groups).eval()(h).codes
        for i, (group, channels) in enumerate(zip(groups, h.chunk(2, 1), strict=True)):
            assert torch.equal(codes[..., 3 * i : 3 * i + 3], group(channels).codes)


class TestProjected:
    def test_a_projected_quantizer_is_one_between_two_linear_maps(self, h):
        module = ProjectedQuantizer(vq(2), D).double()
        found = module(h)
        # N,h,w,2
        inner = F.linear(h.movedim(1, -1), module.project_in.weight, module.project_in.bias)
        latent = module.parts[0](inner.movedim(-1, 1))
        expected = F.linear(
            latent.z.movedim(1, -1), module.project_out.weight, module.project_out.bias
        )
        torch.testing.assert_close(found.z, expected.movedim(-1, 1))
        assert torch.equal(found.codes, latent.codes)
        torch.testing.assert_close(found.penalty, latent.penalty)
        (found.z.square().sum() + found.penalty).backward()
        gradients = [parameter.grad for parameter in module.parameters()]
        assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


class TestCosine:
    def test_a_cosine_code_is_that_of_the_largest_cosine(self, h):
        module = vq(D, CosineVectorQuantizer)
        latent = module.eval()(h)
        # N,K,h,w
        cosines = F.cosine_similarity(h[:, None], module.codebook[None, :, :, None, None], dim=2)
        assert torch.equal(latent.codes, cosines.argmax(1))
        torch.testing.assert_close(latent.z.norm(dim=1), torch.ones(5, 2, 3, dtype=torch.float64))

    def test_lengths_change_nothing(self, h):
        module = vq(D, CosineVectorQuantizer)
        scaled = copy.deepcopy(module)
        scaled.codebook.data *= torch.arange(1, K + 1)[:, None]
        one, other = module(h), scaled(h * torch.rand(5, 1, 2, 3))
        assert torch.equal(one.codes, other.codes)
        torch.testing.assert_close(one.z, other.z)
        torch.testing.assert_close(one.penalty, other.penalty)


class TestSimVQ:
    def test_only_the_map_learns_and_moves_every_code(self, h):
        module = SimVQ(K, D, 0.25).double()
        before, fixed = module.vectors().detach().clone(), module.codebook.clone()
        module(h).penalty.backward()
        module.update()
        assert module.codebook.grad is None
        gradient = module.weight.grad
        assert gradient is not None
        module.weight.data -= 0.1 * gradient
        assert torch.equal(module.codebook, fixed)
        assert ((module.vectors() - before).abs().sum(1) > 0).all()

    def test_a_simvq_code_is_the_nearest_of_the_mapped_codebook(self, h):
        module = SimVQ(K, D, 0.25).double().eval()
        module.weight.data.normal_()
        other = vq(D).eval()
        other.codebook.data.copy_(module.codebook @ module.weight)
        assert torch.equal(module(h).z, other(h).z)
        torch.testing.assert_close(module(h).penalty, other(h).penalty)


class TestOrder:
    def test_a_tokenizers_codes_go_cell_by_cell_and_in_each_cell_codebook_by_codebook(self):
        quantizer = EMAVectorQuantizer.Config(K)
        config = VQVAEConfig(quantizer=quantizer, latent_dim=6, groups=3)
        net = build_autoencoder(config, (1, 8, 16)).eval()
        x, tokenizer = torch.rand(5, 1, 8, 16) * 2 - 1, Tokenizer(net)
        codes, grid = tokenizer.encode(x), net(x).latent.codes
        assert (tokenizer.grid, tokenizer.length, grid.shape) == ((2, 4, 3), 24, (5, 2, 4, 3))
        for r, c, m in itertools.product(range(2), range(4), range(3)):
            assert torch.equal(codes[:, (r * 4 + c) * 3 + m], grid[:, r, c, m])
        torch.testing.assert_close(tokenizer.decode(codes), net.decode(net.encode(x).z))

    def test_histogram_counts_each_codebook(self):
        codes = torch.randint(K, (5, 2, 4, 3))
        counts = histogram(codes, K, 3)
        for m, k in itertools.product(range(3), range(K)):
            assert counts[m, k] == (codes[..., m] == k).sum()
        assert torch.equal(histogram(codes.flatten(1).int(), K, 3), counts)


class TestBuild:
    @pytest.mark.parametrize("name", QUANTIZERS)
    @pytest.mark.parametrize("groups", [1, 2])
    def test_every_member_has_k_codes_and_z_has_latent_dim_channels(self, name, groups):
        module = build_quantizer(QUANTIZERS[name].Config(), 64, groups)
        latent = module(torch.randn(8, 64, 10, 10))
        assert latent.z.shape == (8, 64, 10, 10)
        assert (module.codebook_size, module.num_codebooks, module.in_channels) == (512, groups, 64)
        torch.testing.assert_close(latent.rate, torch.full((8,), 100 * groups * math.log(512)))

    def test_the_papers_latent_of_cifar10_is_one_setting(self):
        """10 codebooks of 512 codes: 5760 bits. 64 channels are no ten equal shares, so they are
        projected to ten of 6.
        """
        for latent_dim, kind in ((64, ProjectedQuantizer), (60, ProductQuantizer)):
            module = VQVAEConfig(latent_dim=latent_dim, groups=10).build_bottleneck()
            latent = module.eval()(torch.randn(1, latent_dim, 8, 8))
            assert type(module) is kind
            assert latent.codes.shape == (1, 8, 8, 10)
            assert latent.rate.item() == pytest.approx(5760 * math.log(2))

    def test_every_member_has_a_config_of_its_own_with_the_size_of_its_codebook(self):
        configs: list[Any] = [member.Config for member in QUANTIZERS.values()]
        assert len(set(configs)) == len(configs)
        assert [config().codebook_size for config in configs] == [512] * len(configs)

    @pytest.mark.parametrize(
        ("settings", "line"),
        [
            (
                {"name": "vq"},
                "name: got 'vq', wanted one of ema, gradient, cosine, simvq, fsq, lfq",
            ),
            (
                {"name": "fsq", "levels": [8, 8], "codebook_size": 64},
                "model.quantizer.codebook_size: fsq has no such setting; it has levels",
            ),
            ({"name": "fsq", "levels": [2, 256]}, "wanted numbers of at least 3"),
            ({"name": "fsq", "levels": []}, "wanted numbers of at least 3"),
            (
                {"name": "fsq", "levels": [1024, 1025]},
                r"\[1024, 1025\] make 1049600 codes, wanted at most 1048576",
            ),
            (
                {"name": "fsq", "lookup_dim": 8},
                "model.quantizer.lookup_dim: fsq has no such setting; it has levels",
            ),
            (
                {"name": "fsq", "estimator": "rotation"},
                "model.quantizer.estimator: fsq has no such setting",
            ),
            (
                {"name": "lfq", "codebook_size": 500},
                "model.quantizer.codebook_size: got 500, but lfq wants a power of 2",
            ),
            (
                {"name": "lfq", "residual_levels": 2},
                "residual_levels: lfq has no such setting; it has codebook_size, commitment, ent",
            ),
            (
                {"name": "cosine", "residual_levels": 2},
                "model.quantizer.residual_levels: cosine has no such setting; it has codebook",
            ),
            (
                {"name": "simvq", "reset_below": 0.5},
                "model.quantizer.reset_below: simvq has no such setting",
            ),
            (
                {"name": "simvq", "decay": 0.5},
                "model.quantizer.decay: simvq has no such setting",
            ),
            (
                {"levels": [8, 5]},
                "model.quantizer.levels: ema has no such setting",
            ),
        ],
    )
    def test_what_makes_no_sense_is_one_line(self, settings, line):
        with pytest.raises(ConfigError, match=line) as raised:
            section_config(VQVAEConfig, {"quantizer": settings}, "model")
        assert "\n" not in str(raised.value)

    def test_settings_without_a_name_mean_the_default_member(self):
        config = section_config(VQVAEConfig, {"quantizer": {"codebook_size": 8}}, "model")
        assert type(config.build_bottleneck()) is EMAVectorQuantizer


@pytest.mark.parametrize(
    ("parts", "got"),
    [
        ([], "no parts"),
        ([(8, 4), (16, 4)], "8 codes of 4 dimensions, 16 codes of 4 dimensions"),
        ([(8, 4), (8, 6)], "8 codes of 4 dimensions, 8 codes of 6 dimensions"),
    ],
)
@pytest.mark.parametrize("composed", [ResidualQuantizer, ProductQuantizer])
def test_parts_of_different_sizes_are_refused(composed, parts, got):
    with pytest.raises(ConfigError, match=f"^{composed.__name__}: got {got}, wanted one part"):
        composed([VectorQuantizer(k, d) for k, d in parts])
