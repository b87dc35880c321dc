"""How each cost grows with K, N, batch, resolution, T and the size of a store: seconds of the
product alone, for the figure. Ranks are those of the suite `ddp`.
"""

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.benchmarks.quantizers import features
from experiments.benchmarks.timing import Row, interleave, spread
from vqvae_lightning.data.shards import Column, StoredArray
from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.transformer import CodeTransformer
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer
from vqvae_lightning.models.settings import VQVAEConfig

GIGABYTE = 10**9


def scaling() -> Iterator[Row]:
    """Curves: rows of the same `work`, their x-value after `against`."""
    for k in (64, 512, 4096, 65536):
        yield _row("quantizer, N=8192", "K", k, _quantizer(8192, k))
    for n in (1024, 4096, 16384):
        yield _row("quantizer, K=512", "N", n, _quantizer(n, 512))
    for batch in (16, 32, 64, 128):
        yield _row("VQ-VAE step, 32x32", "batch", batch, _step(batch, 32))
    for side in (28, 64, 128, 256):
        yield _row("VQ-VAE step, batch 4", "pixels a side", side, _step(4, side))
    for length in (49, 256, 1024):
        prior = _prior(length)
        yield _row("sampling, batch 8", "T", length, partial(prior.eval().generate, 8))
        yield _row("prior step, batch 8", "T", length, _prior_step(prior, length))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for size in (GIGABYTE // 10, GIGABYTE, 10 * GIGABYTE, 3 * memory):
        with tempfile.TemporaryDirectory() as folder:
            yield _row(
                "a batch of a store", "GB", round(size / GIGABYTE, 1), _batch(Path(folder), size)
            )


def _row(work: str, name: str, value: float, run: Callable[[], Any]) -> Row:
    times = interleave({"ours": run}, rounds=5, seconds=8)["ours"]
    return spread(times, work, name, unit="s", detail={"x": value})


def _quantizer(n: int, k: int) -> Callable[[], None]:
    h, module = features(n, 64), EMAVectorQuantizer(k, 64, 0.25, 0.99, 0.1)

    def run() -> None:
        module(h)
        module.update()

    return run


def _step(batch: int, side: int) -> Callable[[], None]:
    net = build_autoencoder(VQVAEConfig(), (3, side, side))
    x = torch.rand(batch, 3, side, side) * 2 - 1

    def run() -> None:
        net(x).loss.backward()
        net.bottleneck.update()
        net.zero_grad()

    return run


def _prior(length: int) -> CodeTransformer:
    return CodeTransformer(CodeLayout((1, length), 512), 0, CodeTransformer.Config(dropout=0.0))


def _prior_step(prior: CodeTransformer, length: int) -> Callable[[], None]:
    codes = torch.randint(512, (8, length))

    def run() -> None:
        prior.train().nll(codes, None).mean().backward()
        prior.zero_grad()

    return run


def _batch(folder: Path, size: int) -> Callable[[], None]:
    """Reads 64 images of 64×64 anywhere in a store of so many bytes.

    Its files are holes: what is measured is the product and the page cache, and no disk.
    """
    column = Column((3, 64, 64), np.dtype(np.uint8))
    rows = size // column.size
    paths = [folder / str(number) for number in range(math.ceil(rows / column.per_shard))]
    for path in paths:
        path.touch()
        os.truncate(path, column.per_shard * column.size)
    store = StoredArray(paths, rows, column)

    def run() -> None:
        store.take(torch.randint(rows, (64,)))

    return run
