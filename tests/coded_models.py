"""Models with random weights whose codes differ, and images for them."""

from typing import Any

import numpy as np
import small
import torch

from vqvae_lightning import AE, VAE, VQVAE, CodePrior
from vqvae_lightning.codec.blocks import BlockTables
from vqvae_lightning.codec.locations import Keys
from vqvae_lightning.codec.tables import PRECISION, Floats
from vqvae_lightning.config import merge_overrides
from vqvae_lightning.experiment import load_experiment

SHAPE = (1, 28, 28)
NETWORKS = {
    "transformer": [],
    "transformer, all parts": [
        "model.network.positions=both",
        "model.network.norm=rms",
        "model.network.mlp=swiglu",
        "model.network.qk_norm=true",
    ],
    "pixelcnn": ["model.network.name=pixelcnn", "model.network.kernel=3"],
    "pixelsnail": ["model.network.name=pixelsnail", "model.network.kernel=3"],
    "masked": ["model.network.name=masked"],
}
# Of pixel levels: those that a lossless file is coded by.
LOGISTIC = ["model.likelihood.name=discretized_logistic", "model.likelihood.scale=0.1"]
LIKELIHOODS = {
    "bernoulli": ["model.likelihood.name=bernoulli", "data.binarize=static"],
    "one scale": LOGISTIC,
    "a scale per pixel": [
        *LOGISTIC, "model.likelihood.learned=true", "model.likelihood.per_pixel=true",
    ],
    "mixture": ["model.likelihood.name=logistic_mixture", "model.likelihood.components=3"],
}  # fmt: skip
SIZES = ["model.network.layers=1", "model.network.width=16"]


def vqvae(*more: str) -> VQVAE:
    """A VQ-VAE with random weights, in which images have different codes."""
    settings = [
        *small.NETWORK,
        "model.latent_dim=8",
        *(more or ("model.quantizer.codebook_size=16",)),
    ]
    model = VQVAE(load_experiment(None, ["kind=vqvae", *settings]).model, SHAPE)
    for _ in range(2):
        model.net.train()(torch.rand(64, *SHAPE) * 2 - 1)
        model.net.bottleneck.update()
    return model.eval()


def ae(*more: str) -> AE:
    """An AE with random weights, whose z is a grid of some breadth."""
    usual = [*small.NETWORK, "model.latent_dim=3", "model.latent=grid"]
    settings = merge_overrides(usual, more)
    model = AE(load_experiment(None, ["kind=ae", *settings]).model, SHAPE).eval()
    with torch.no_grad():
        for parameter in model.net.encoder.parameters():
            parameter.mul_(2)
    return model


def vae(*more: str) -> VAE:
    """A VAE with random weights whose z says something of the image."""
    settings = [*small.NETWORK, "model.latent_dim=3", *more]
    model = VAE(load_experiment(None, ["kind=vae", *settings]).model, SHAPE).eval()
    with torch.no_grad():
        for parameter in model.net.encoder.parameters():
            parameter.mul_(1.5)
    return model


def prior(network: str = "transformer", tokenizer: VQVAE | None = None, *more: str) -> CodePrior:
    """A prior with random weights that finds some codes far likelier than others."""
    heads = ["model.network.heads=2"] if network != "pixelcnn" else []
    config = load_experiment(None, ["kind=prior", *SIZES, *heads, *NETWORKS[network], *more]).model
    module = CodePrior(config, (tokenizer or vqvae()).tokenizer(), classes=3).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
        module.net.start_embedding.weight.mul_(5)
    return module


def images(n: int = 40) -> torch.Tensor:
    """Images that are not all alike."""
    x = torch.rand(n, 1, 7, 7).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return (x * 255).round().to(torch.uint8)


def coded(model: Any, x: torch.Tensor) -> np.ndarray:
    tokenizer: Any = model.tokenizer if isinstance(model, CodePrior) else model.tokenizer()
    found: np.ndarray = tokenizer.encode(x / 127.5 - 1).numpy()
    return found


def joint(tables: BlockTables, keys: Keys) -> Floats:
    """The probabilities (m, levels) by which levels are coded, in both steps."""
    count, size = tables.blocks
    of_blocks = tables.of_blocks(keys)
    in_blocks = [tables.in_blocks(keys, np.full(len(keys), b, np.int32)) for b in range(count)]
    for weights in (of_blocks, *in_blocks):
        assert (weights >= 0).all()
        # The coder adds 1 to each.
        assert (weights.sum(1) == 2**PRECISION - weights.shape[1]).all()
    places = np.stack(in_blocks, 1)  # m,A,B
    found: Floats = (of_blocks[..., None] + 1.0) * (places + 1.0) / 4**PRECISION
    return np.reshape(found, (len(keys), count * size))
