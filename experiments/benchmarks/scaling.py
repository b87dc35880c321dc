"""How each cost grows with batch, K, N, T and ranks: seconds of the product alone, for the
figure.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from experiments.benchmarks.quantizers import features
from experiments.benchmarks.timing import Row, interleave, spread
from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.transformer import CodeTransformer
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer
from vqvae_lightning.models.settings import VQVAEConfig


def scaling() -> Iterator[Row]:
    """Curves: rows of the same `work`, their x-value after `against`."""
    for k in (128, 512, 2048, 8192):
        yield _row("quantizer, N=8192", "K", k, _quantizer(8192, k))
    for n in (1024, 4096, 16384):
        yield _row("quantizer, K=512", "N", n, _quantizer(n, 512))
    for batch in (16, 32, 64, 128):
        yield _row("VQ-VAE step", "batch", batch, _step(batch))
    for length in (16, 64, 256, 1024):
        layout = CodeLayout((1, length), 512)
        prior = CodeTransformer(layout, 0, CodeTransformer.Config(dropout=0.0)).eval()
        yield _row("sampling, batch 8", "T", length, partial(prior.generate, 8))


def _row(work: str, name: str, value: int, run: Callable[[], Any]) -> Row:
    times = interleave({"ours": run}, rounds=5, seconds=8)["ours"]
    return spread(times, work, name, unit="s", detail={"x": value})


def _quantizer(n: int, k: int) -> Callable[[], None]:
    h, module = features(n, 64), EMAVectorQuantizer(k, 64, 0.25, 0.99, 0.1)

    def run() -> None:
        module(h)
        module.update()

    return run


def _step(batch: int) -> Callable[[], None]:
    net = build_autoencoder(VQVAEConfig(), (3, 32, 32))
    x = torch.rand(batch, 3, 32, 32) * 2 - 1

    def run() -> None:
        net(x).loss.backward()
        net.bottleneck.update()
        net.zero_grad()

    return run
