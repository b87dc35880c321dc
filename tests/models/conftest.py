"""Small models for every test of this folder; every test starts from the same random state, on one
thread.
"""

import dataclasses

import pytest
import torch

from vqvae_lightning.config import AEConfig, NetworkConfig, VAEConfig, VQVAEConfig
from vqvae_lightning.models.autoencoder import Autoencoder

CONFIGS = {
    "ae": AEConfig(latent_dim=4),
    "vae": VAEConfig(latent_dim=4),
    "vq-ema": VQVAEConfig(latent_dim=4, codebook_size=16, codebook="ema"),
    "vq-gradient": VQVAEConfig(latent_dim=4, codebook_size=16, codebook="gradient"),
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
    """(kind, image shape, fields of the model's config …) → a small Autoencoder."""

    def build(kind, shape=(1, 8, 8), *, hidden=8, downsamples=2, **fields):
        network = NetworkConfig(
            hidden=hidden, residual_hidden=4, residual_blocks=1, downsamples=downsamples
        )
        return Autoencoder(shape, dataclasses.replace(CONFIGS[kind], network=network, **fields))

    return build
