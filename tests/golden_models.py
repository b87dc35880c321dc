"""Tiny models whose weights are the same to the last bit on every machine, and images for them.

tests/codec/golden/NAME.vqz is what `compress` made of them; tests/programs/make_golden.py writes
the files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import small
import torch
from torch import Tensor

from vqvae_lightning import AE, VAE, VQVAE, CodePrior
from vqvae_lightning.config import merge_overrides
from vqvae_lightning.experiment import load_experiment

FOLDER = Path(__file__).parent / "codec" / "golden"
LOSSY, LOSSLESS = (1, 20, 20), (1, 4, 4)  # shapes: 25 codes, and few pixels
# More images than any batch of the format, and not a multiple of one.
IMAGES = 300
LOGISTIC = [
    "model.likelihood.name=discretized_logistic",
    "model.likelihood.learned=true",
    "model.likelihood.per_pixel=true",
]
BERNOULLI = ["model.likelihood.name=bernoulli", "data.binarize=static"]


def exact(module: Any, spread: int) -> Any:
    """A module whose weights are whole 256ths, up to `spread` of them, drawn from a fixed seed."""
    random = np.random.RandomState(0)  # its numbers never change from one numpy to the next
    for name, tensor in sorted(module.state_dict().items()):
        if tensor.is_floating_point():
            drawn = random.randint(-spread, spread + 1, tuple(tensor.shape))
            value = torch.full_like(tensor, -2.0) if name.endswith("log_scale") else None
            tensor.copy_(torch.from_numpy(np.asarray(drawn)) / 256 if value is None else value)
    return module.eval()


def autoencoder(cls: Any, shape: tuple[int, ...], *more: str) -> Any:
    settings = merge_overrides([*small.NETWORK, "model.latent_dim=4"], more)
    return exact(cls(load_experiment(None, [f"kind={cls.kind}", *settings]).model, shape), 96)


def vqvae(*more: str, shape: tuple[int, ...] = LOSSY) -> Any:
    return autoencoder(VQVAE, shape, "model.quantizer.codebook_size=16", *more)


def prior(network: str) -> Any:
    settings = [
        f"model.network.name={network}",
        "model.network.layers=1",
        "model.network.width=8",
        "model.network.heads=2",
    ]
    config = load_experiment(None, ["kind=prior", *settings]).model
    return exact(CodePrior(config, vqvae().tokenizer(), classes=3), 512)


def images(shape: tuple[int, ...], levels: int = 256) -> Tensor:
    """Images uint8 (IMAGES, C, H, W) of so many levels, in blocks that differ."""
    channels, height, width = shape
    blocks = np.random.RandomState(1).randint(
        0, levels, (IMAGES, channels, height // 4, width // 4)
    )
    pixels = blocks.repeat(4, 2).repeat(4, 3) * (255 // (levels - 1))
    return torch.from_numpy(pixels.astype(np.uint8))


class Golden(NamedTuple):
    """A model, and how `compress` was called."""

    model: Callable[[], Any]
    shape: tuple[int, ...] = LOSSY
    levels: int = 256
    settings: dict[str, Any] = {}  # noqa: RUF012


WHOLE = {"lossless": True}
GOLDEN = {
    "vqvae": Golden(vqvae, settings={"group": 25}),
    "transformer": Golden(lambda: prior("transformer"), settings={"group": 25}),
    "masked": Golden(lambda: prior("masked"), settings={"group": 25}),
    "ae": Golden(lambda: autoencoder(AE, LOSSY, "model.latent=grid"), settings={"step": 0.25}),
    "vqvae_lossless": Golden(lambda: vqvae(*LOGISTIC, shape=LOSSLESS), LOSSLESS, 256, WHOLE),
    "vae_lossless": Golden(lambda: autoencoder(VAE, LOSSLESS, *LOGISTIC), LOSSLESS, 256, WHOLE),
    "vae_binary": Golden(lambda: autoencoder(VAE, LOSSLESS, *BERNOULLI), LOSSLESS, 2, WHOLE),
}
