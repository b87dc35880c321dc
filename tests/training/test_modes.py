"""What a call sets to evaluation for itself is afterwards in the mode that it was in."""

import torch

from vqvae_lightning import VQVAE, CodePrior
from vqvae_lightning.training.callbacks import render

TRUNK = {"hidden": 8, "residual_hidden": 4, "residual_blocks": 1}
VQ = {"trunk": TRUNK, "latent_dim": 8, "quantizer": {"codebook_size": 16}}
PRIOR = {"network": {"layers": 1, "width": 16, "heads": 2}, "class_conditional": False}
SHAPE = (1, 8, 8)


def modes(module: torch.nn.Module) -> list[bool]:
    return [one.training for one in module.modules()]


def test_a_frozen_codebook_stays_frozen_after_every_call() -> None:
    model = VQVAE(VQ, SHAPE).train()
    model.net.bottleneck.eval()
    before, x = modes(model), torch.zeros(2, *SHAPE)
    for call in (
        lambda: model.decode(model.encode(x)),
        lambda: model.sample(2),
        lambda: render(model, x),
    ):
        call()
        assert modes(model) == before


def test_sampling_leaves_frozen_parts_of_a_prior_frozen() -> None:
    prior = CodePrior(PRIOR, VQVAE(VQ, SHAPE).tokenizer()).train()
    next(prior.net.children()).eval()
    before = modes(prior)
    assert not all(before)
    prior.net.generate(1, None)
    assert modes(prior) == before
