"""The same codes, outputs and gradients as vector-quantize-pytorch 1.32 on shared weights, where it
has the method.

Skipped without it: `pip install vector-quantize-pytorch==1.32.0`.
"""

import pytest
import torch

from vqvae_lightning.models.quantizers.codebook import CodebookQuantizer
from vqvae_lightning.models.quantizers.codebooks import (
    CosineVectorQuantizer,
    SimVQ,
    VectorQuantizer,
)
from vqvae_lightning.models.quantizers.composed import (
    ProductQuantizer,
    ProjectedQuantizer,
    ResidualQuantizer,
)
from vqvae_lightning.models.quantizers.estimators import ESTIMATORS
from vqvae_lightning.models.quantizers.lookup_free import FSQ, LFQ

vqp = pytest.importorskip("vector_quantize_pytorch")

K, D = 16, 6


def vq(d=D, quantizer=VectorQuantizer, estimator="straight_through"):
    """A quantizer with a random codebook, in training mode."""
    module = quantizer(K, d, 1.0, 0.9, 0.0, ESTIMATORS[estimator])
    module.initialized.fill_(True)
    return module.train()


def codebook(part):
    assert isinstance(part, CodebookQuantizer)
    return part.codebook


def learnable(**options):
    """Its VectorQuantize with a codebook that learns by gradient: its commitment is to a codebook
    that is not fixed.
    """
    settings = {
        "dim": D,
        "codebook_size": K,
        "learnable_codebook": True,
        "ema_update": False,
        "rotation_trick": False,
        "commitment_weight": 1.0,
        "accept_image_fmap": True,
    }
    return vqp.VectorQuantize(**{**settings, **options}).train()


class OnMaps(torch.nn.Module):
    """Its module for sequences on maps (N, D, h, w)."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, h):
        z, codes, losses = self.module(h.flatten(2).mT)
        return z.mT.unflatten(2, h.shape[2:]), codes.unflatten(1, h.shape[2:]), losses


def compare(ours, theirs, h, gradient=1.0, codes=lambda codes: codes):
    """Codes, z and dz/dh of both; `gradient` is theirs over ours.

    Returns our latent and their third result.
    """
    weights, found = torch.randn(len(h), ours.out_channels, *h.shape[2:]), []
    for module in (ours, theirs):
        x = h.clone().requires_grad_()
        result = module(x)
        z, indices = (result.z, result.codes) if module is ours else result[:2]
        found.append(
            (z, indices, torch.autograd.grad((z * weights).sum(), x, retain_graph=True)[0], result)
        )
    (z, mine, slope, latent), (their_z, their_codes, their_slope, result) = found
    assert torch.equal(mine, codes(their_codes).long())
    torch.testing.assert_close(z, their_z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient * slope, their_slope, rtol=1e-4, atol=1e-5)
    return latent, result[2] if len(result) > 2 else None


@pytest.fixture
def h():
    return torch.randn(7, D, 3, 4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradient_codebook_by_both_estimators(h, estimator):
    ours, theirs = vq(estimator=estimator), learnable(rotation_trick=estimator == "rotation")
    theirs._codebook.embed.data.copy_(ours.codebook[None])
    latent, loss = compare(ours, theirs, h)
    # its one loss, ‖z_e − e‖² with both free, has the gradients of our two terms of weight 1
    torch.testing.assert_close(latent.penalty, 2 * loss.squeeze())
    latent.penalty.backward()
    loss.backward()
    torch.testing.assert_close(ours.codebook.grad, theirs._codebook.embed.grad[0])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_cosine(h, estimator):
    ours = vq(quantizer=CosineVectorQuantizer, estimator=estimator)
    theirs = learnable(
        use_cosine_sim=True, learnable_codebook=False, rotation_trick=estimator == "rotation"
    )
    theirs._codebook.embed.data.copy_(ours.vectors()[None])
    latent, loss = compare(ours, theirs, h)
    torch.testing.assert_close(latent.logs["commitment"], loss.squeeze())


def test_projected(h):
    ours, theirs = ProjectedQuantizer(vq(2), D).train(), learnable(codebook_dim=2)
    theirs._codebook.embed.data.copy_(codebook(ours.parts[0])[None])
    for name in ("project_in", "project_out"):
        found = getattr(theirs, name)
        (found if hasattr(found, "weight") else found[0]).load_state_dict(
            getattr(ours, name).state_dict()
        )
    compare(ours, theirs, h)


def test_product(h):
    ours = ProductQuantizer([vq(2) for _ in range(3)]).train()
    theirs = learnable(heads=3, separate_codebook_per_head=True, codebook_dim=2)
    theirs._codebook.embed.data.copy_(torch.stack([codebook(part) for part in ours.parts]))
    latent, loss = compare(ours, theirs, h)
    torch.testing.assert_close(latent.penalty, 2 * loss.squeeze())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_simvq(h, estimator):
    ours = SimVQ(K, D, 0.25, ESTIMATORS[estimator]).train()
    theirs = vqp.SimVQ(D, K, channel_first=True, rotation_trick=estimator == "rotation").train()
    theirs.frozen_codebook.copy_(ours.codebook)
    ours.weight.data.normal_()
    theirs.code_transform.weight.data.copy_(ours.weight.T)
    latent, loss = compare(ours, theirs, h)
    torch.testing.assert_close(latent.penalty, loss)
    latent.penalty.backward()
    loss.backward()
    torch.testing.assert_close(ours.weight.grad, theirs.code_transform.weight.grad.T)


def test_residual(h):
    """Its decoder's gradient is counted once per level."""
    ours = ResidualQuantizer([vq() for _ in range(3)]).train()
    theirs = vqp.ResidualVQ(
        dim=D,
        codebook_size=K,
        num_quantizers=3,
        ema_update=False,
        learnable_codebook=True,
        rotation_trick=False,
        commitment_weight=1.0,
    ).train()
    for mine, layer in zip(ours.parts, theirs.layers, strict=True):
        layer._codebook.embed.data.copy_(codebook(mine)[None])
    latent, losses = compare(ours, OnMaps(theirs), h, gradient=3.0)
    torch.testing.assert_close(latent.penalty, 2 * losses.sum())


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [8, 8, 8], [3, 4]])
def test_fsq(levels):
    compare(FSQ(levels).train(), vqp.FSQ(levels).train(), 2 * torch.randn(7, len(levels), 3, 4))


def test_lfq(h):
    """Its first channel is the highest bit, ours the lowest; its entropies leave out log K, and
    clamp at 1e-5.
    """
    ours, theirs = LFQ(D, 0.25, 0.1).train(), vqp.LFQ(dim=D, commitment_loss_weight=0.25).train()

    def mirrored(codes):
        return sum((codes >> (D - 1 - i) & 1) << i for i in range(D))

    h = 0.02 * h  # where probabilities are neither 0 nor 1
    latent, loss = compare(ours, theirs, h, codes=mirrored)
    offset = 0.1 * D * torch.log(torch.tensor(2.0))
    torch.testing.assert_close(latent.penalty, loss + offset, rtol=0, atol=1e-4)
    _, breakdown = theirs(h, return_loss_breakdown=True)
    torch.testing.assert_close(
        latent.logs["assignment_entropy"], breakdown.per_sample_entropy, rtol=0, atol=1e-3
    )
    torch.testing.assert_close(latent.logs["commitment"], breakdown.commitment)
