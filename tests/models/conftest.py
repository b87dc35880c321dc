"""Small models for every test of this folder; every test starts from the same random state, on one
thread.
"""

import dataclasses

import pytest
import torch

from vqvae_lightning.models.build import AEConfig, VAEConfig, VQVAEConfig, build_autoencoder
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer, VectorQuantizer
from vqvae_lightning.models.trunks.conv import ConvTrunk

CONFIGS = {
    "ae": AEConfig(latent_dim=4),
    "vae": VAEConfig(latent_dim=4),
    "vq-ema": VQVAEConfig(latent_dim=4, quantizer=EMAVectorQuantizer.Config(16)),
    "vq-gradient": VQVAEConfig(latent_dim=4, quantizer=VectorQuantizer.Config(16)),
}


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(params=CONFIGS)
def kind(request):
    """Every autoencoder by name: a test that takes it runs for all of them."""
    return request.param


@pytest.fixture
def build():
    """(kind, image shape, settings of the quantizer, fields of the model's config …) → a small
    Autoencoder.
    """

    def build(kind, shape=(1, 8, 8), *, hidden=8, downsamples=2, quantizer=None, **fields):
        trunk = ConvTrunk.Config(
            hidden=hidden, residual_hidden=4, residual_blocks=1, downsamples=downsamples
        )
        config = dataclasses.replace(CONFIGS[kind], trunk=trunk, **fields)
        if quantizer:
            changed = dataclasses.replace(config.quantizer, **quantizer)
            config = dataclasses.replace(config, quantizer=changed)
        return build_autoencoder(config, shape)

    return build
