"""Small models for every test of this folder; every test starts from the same random state, on one
thread.
"""

from dataclasses import replace

import pytest
import torch
from small import model_config

from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.trunks.conv import ConvTrunk
from vqvae_lightning.models.trunks.residual import ResidualTrunk

FOUR = "model.latent_dim=4"
CONFIGS = {
    "ae": model_config("ae", FOUR),
    "vae": model_config("vae", FOUR),
    "vq-ema": model_config("vqvae", FOUR, "model.quantizer.name=ema"),
    "vq-gradient": model_config("vqvae", FOUR, "model.quantizer.name=gradient"),
}


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(params=CONFIGS)
def kind(request):
    """Every autoencoder by name: a test that takes it runs for all of them."""
    return request.param


# (hidden, halvings) → a small trunk: every law of an autoencoder holds with each.
TRUNKS = {
    "conv": lambda hidden, downsamples: ConvTrunk.Config(hidden, 4, 1, downsamples),
    "residual": lambda hidden, downsamples: ResidualTrunk.Config(
        hidden, [1] * downsamples + [2], residual_blocks=1
    ),
}


@pytest.fixture(params=TRUNKS)
def build(request):
    """(kind, image shape, settings of the quantizer, fields of the model's config …) → a small
    Autoencoder.
    """

    def build(kind, shape=(1, 8, 8), *, hidden=8, downsamples=2, quantizer=None, **fields):
        config = CONFIGS[kind]
        trunk = TRUNKS[request.param](hidden, downsamples)
        changed = replace(config.quantizer, **quantizer) if quantizer else None
        parts = {"trunk": trunk, **({"quantizer": changed} if changed else {})}
        return build_autoencoder(replace(config, **parts, **fields), shape)

    return build
