"""FSQ and LFQ against loops: levels, indices and back, and the entropies of LFQ by their
definition.
"""

import itertools
import math

import pytest
import torch
from torch.distributions import Categorical

from vqvae_lightning.models.quantizers.lookup_free import (
    FSQ,
    LFQ,
    TEMPERATURE,
    assignment_entropies,
)

LEVELS = [[8, 8, 8], [8, 5, 5, 5], [3], [4, 7]]


def features(rows):
    """Rows (M, d) as features (M, d, 1, 1)."""
    return rows[:, :, None, None]


class TestFSQ:
    @pytest.mark.parametrize("levels", LEVELS)
    def test_every_channel_takes_exactly_its_levels(self, levels):
        module = FSQ(levels).eval()
        rows = torch.linspace(-20, 20, 4001)[:, None].expand(-1, len(levels))
        z = module(features(rows)).z
        for channel, level in zip(z[:, :, 0, 0].T, levels, strict=True):
            values = channel.unique()
            assert len(values) == level
            torch.testing.assert_close(values, (torch.arange(level) - level // 2) / (level // 2))
            assert channel.diff().min() >= 0

    @pytest.mark.parametrize("levels", LEVELS)
    def test_all_codes_and_their_vectors_are_one_to_one(self, levels):
        """The vector of every code is quantized to that code, and code i is digits i_0 + i_1·L_0 +
        …
        """
        module = FSQ(levels).eval()
        assert module.codebook_size == math.prod(levels)
        codes = torch.arange(module.codebook_size)
        vectors = module.codes_to_latents(codes[:, None, None])
        assert len(vectors.unique(dim=0)) == len(codes)
        digits = torch.tensor(list(itertools.product(*map(range, reversed(levels))))).flip(1)
        half = torch.tensor(levels) // 2
        torch.testing.assert_close(vectors[:, :, 0, 0], (digits - half) / half)
        limit, offset = (
            (module.levels - 1) * (1 + 1e-3) / 2,
            torch.where(module.levels % 2 == 0, 0.5, 0.0),
        )
        inner = torch.atanh(
            ((digits - half + offset) / limit).clamp(-0.9999, 0.9999)
        ) - torch.atanh(offset / limit)
        latent = module(features(inner))
        assert torch.equal(latent.codes[:, 0, 0], codes)
        assert torch.equal(latent.z, vectors)

    @pytest.mark.parametrize("levels", [[1001], [1024, 4], [5000]])
    def test_levels_without_end_make_no_code_beyond_the_last(self, levels):
        module = FSQ(levels).eval()
        latent = module(features(torch.tensor([[-30.0], [30.0]]).expand(-1, len(levels))))
        assert latent.codes.flatten().tolist() == [0, module.codebook_size - 1]
        assert torch.equal(module.codes_to_latents(latent.codes), latent.z)

    def test_0_is_in_the_middle_of_a_level(self):
        for level in range(3, 20):
            module = FSQ([level]).eval()
            edge = 0.2 / level
            assert module(torch.tensor([-edge, 0.0, edge]).view(3, 1, 1, 1)).z.abs().max() == 0

    def test_gradient_is_that_of_the_bound(self):
        """Straight-through the rounding only: tanh saturates, and outputs far out have no
        gradient.
        """
        module = FSQ([5, 8]).double().train()
        h = 2 * torch.randn(7, 2, 3, 3, dtype=torch.float64, requires_grad=True)
        weights = torch.randn_like(h)
        half = torch.tensor([2.0, 4.0]).view(2, 1, 1)
        (gradient,) = torch.autograd.grad((module(h).z * weights).sum(), h)
        bounded = module.bound(h.movedim(1, -1)).movedim(-1, 1) / half
        torch.testing.assert_close(gradient, torch.autograd.grad((bounded * weights).sum(), h)[0])

    def test_fsq_has_no_penalty_and_nothing_to_learn(self):
        module = FSQ([5, 8])
        assert module(torch.randn(2, 2, 3, 3)).penalty == 0
        assert not list(module.parameters())
        assert module.statistics() == []


class TestLFQ:
    def test_codes_are_the_signs(self):
        module = LFQ(3, 0.25, 0.1).eval()
        codes = module(
            features(torch.tensor([[-1, -2, -3.0], [0.1, -1, -1], [-1, 0.1, -1], [1, 1, 5]]))
        ).codes
        assert codes.flatten().tolist() == [0, 1, 2, 7]

    def test_an_lfq_code_is_the_nearest_corner(self):
        module, rows = LFQ(4, 0.25, 0.1).eval(), torch.randn(50, 4)
        corners = module.codes_to_latents(torch.arange(16)[:, None, None])[:, :, 0, 0]
        assert len(corners.unique(dim=0)) == 16
        assert (corners.abs() == 1).all()
        assert torch.equal(
            module(features(rows)).codes.flatten(), torch.cdist(rows, corners).argmin(1)
        )

    @pytest.mark.parametrize("bits", [1, 2, 5, 6])
    @pytest.mark.parametrize("scale", [1e-3, 1e-2, 1.0])
    def test_entropies_are_those_of_the_softmax_over_all_codes(self, bits, scale):
        rows = (scale * torch.randn(40, bits, dtype=torch.float64)).requires_grad_()
        corners = LFQ(bits, 0.25, 0.1).double().decode(torch.arange(2**bits))
        p = (-(rows[:, None] - corners).square().sum(-1) / TEMPERATURE).softmax(1)  # M,K
        expected = (
            Categorical(p).entropy().mean(),
            bits * math.log(2) - Categorical(p.mean(0)).entropy(),
        )
        for found, wanted in zip(assignment_entropies(rows), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
            gradients = [
                torch.autograd.grad(x, rows, retain_graph=True)[0] for x in (found, wanted)
            ]
            torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)

    def test_a_large_codebook_costs_its_square_root(self):
        """2^18 codes, as in the paper: 1000 rows by 512 and 512, not by 262,144."""
        rows = (0.01 * torch.randn(1000, 18)).requires_grad_()
        entropy, divergence = assignment_entropies(rows)
        (entropy + divergence).backward()
        assert 0 < entropy < 18 * math.log(2)
        assert 0 < divergence < 18 * math.log(2)
        assert rows.grad is not None
        assert torch.isfinite(rows.grad).all()

    @pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
    def test_lfq_entropy_is_finite_where_probabilities_underflow(self, scale):
        rows = (scale * torch.ones(10, 8)).requires_grad_()
        entropy, divergence = assignment_entropies(rows)
        (entropy + divergence).backward()
        assert rows.grad is not None
        assert torch.isfinite(rows.grad).all()
        assert divergence.item() == pytest.approx(8 * math.log(2) if scale else 0, abs=1e-4)

    def test_the_penalty_is_the_sum_of_its_weighted_terms(self):
        h = torch.randn(5, 4, 3, 3)
        latent = LFQ(4, commitment=0.3, entropy=0.7).train()(h)
        terms = latent.logs
        commitment = (h - h.sign()).square().mean()
        entropies = assignment_entropies(h.movedim(1, -1).reshape(-1, 4))
        torch.testing.assert_close(terms["commitment"], commitment)
        torch.testing.assert_close(
            (terms["assignment_entropy"], terms["usage_divergence"]), entropies
        )
        torch.testing.assert_close(latent.penalty, 0.3 * commitment + 0.7 * sum(entropies))
        torch.testing.assert_close(LFQ(4, 0.3, 0.7).eval()(h).penalty, 0.3 * commitment)
