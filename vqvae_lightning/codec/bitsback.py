"""Bits-back coding of a VAE: pixels at −ELBO bits (Townsend et al. 2019, arXiv 1901.04866).

```
 a batch of images:  pop z by q(z|x) ──► push x by p(x|z) ──► push z by N(0, I)
 and back:           pop z by N(0, I) ──► pop x by p(x|z) ──► push z by q(z|x)
```

What is popped by q is what earlier batches pushed, so that −log q(z|x) is paid back. The first
batch of a group has nothing to pop: its z are the likeliest ones, and nothing is paid back.
"""

import zlib
from typing import Protocol

import numpy as np
import torch

from vqvae_lightning.codec.container import Group
from vqvae_lightning.codec.normal import NormalBins
from vqvae_lightning.codec.pixels import (
    CHUNK,
    Keys,
    Mask,
    PixelCoder,
    Pixels,
    listed,
    location_keys,
)
from vqvae_lightning.codec.streams import Stack, Symbols
from vqvae_lightning.codec.tables import FLAGS, PRECISION, Weights, weights_of
from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.bottlenecks import Gaussian

BATCH = 32  # images of a step of the chain
LATENTS = 512  # latents whose tables are made together: 16 MiB
EVEN = weights_of(np.zeros(2, np.uint8))


class Tables(Protocol):
    """What makes tables of keys."""

    def weights(self, keys: Keys) -> Weights:
        """Weights (m, K) by keys (m,)."""


class ChainCoder:
    """Pixels (n, C, H, W) of groups of images, chained."""

    def __init__(self, net: Autoencoder) -> None:
        """Takes a copy of an autoencoder, which becomes float64.

        Raises ConfigError for a bottleneck that is not Gaussian, and a likelihood without levels.
        """
        if type(net.bottleneck) is not Gaussian:
            raise ConfigError(
                f"codec: {type(net.bottleneck).__name__} is no bottleneck whose bits can be had"
                " back, wanted model.bottleneck.name=gaussian"
            )
        self.pixels, self.bins = PixelCoder(net), NormalBins()
        self.net = self.pixels.net
        self.latents = net.bottleneck.out_channels * net.grid[0] * net.grid[1]

    def write(self, pixels: Pixels) -> Group:
        """The group of images. Raises ValueError for levels that the likelihood has not."""
        stack = Stack()
        for start in range(0, len(pixels), BATCH):
            self._push(stack, pixels[start : start + BATCH])
        return Group(stack.data(), zlib.crc32(pixels.tobytes()))

    def read(self, group: Group, n: int) -> Pixels:
        """The pixels of a group. Raises ValueError unless they are those that were coded."""
        stack, found = Stack(group.data), []
        for start in reversed(range(0, n, BATCH)):
            found.append(self._pop(stack, min(BATCH, n - start)))
        pixels = np.concatenate(found[::-1])
        if zlib.crc32(pixels.tobytes()) != group.check:
            raise ValueError("codec: another CRC32")
        return pixels

    def _push(self, stack: Stack, pixels: Pixels) -> None:
        levels = self.pixels.tables.symbols(pixels).reshape(len(pixels), -1)  # n,dims
        posterior, certain = self._posterior(pixels)
        pays_back = stack.bits > PRECISION * posterior.size
        while True:
            given = posterior[certain].ravel()
            bins = (
                taken(stack, given, self.bins, LATENTS)
                if pays_back
                else likeliest(given, self.bins)
            )
            keys, sure = self._keys(bins)
            if sure.all():
                break
            # An image beside a rounding edge goes without z, and the others take other bits.
            if pays_back:
                put(stack, bins, given, self.bins, LATENTS)
            certain[np.flatnonzero(certain)[~sure]] = False
        put(stack, levels[certain].ravel(), listed(keys), self.pixels, CHUNK)
        stack.push(levels[~certain].ravel(), self.pixels.uniform)
        stack.push(bins, self.bins.prior)
        stack.push((~certain).astype(np.int32), FLAGS)
        stack.push(np.array([pays_back], np.int32), EVEN)

    def _pop(self, stack: Stack, n: int) -> Pixels:
        pays_back = bool(stack.pop(1, EVEN)[0])
        certain = stack.pop(n, FLAGS) == 0
        bins = stack.pop(int(certain.sum()) * self.latents, self.bins.prior)
        levels = np.zeros((n, self.net.dims), np.int32)
        others = stack.pop(int((~certain).sum()) * self.net.dims, self.pixels.uniform)
        levels[~certain] = others.reshape(-1, self.net.dims)
        keys, _ = self._keys(bins)
        levels[certain] = taken(stack, listed(keys), self.pixels, CHUNK).reshape(keys.shape[:2])
        pixels = self.pixels.tables.pixels(levels).reshape(-1, *self.net.image_shape)
        if pays_back:
            posterior, _ = self._posterior(pixels)
            put(stack, bins, posterior[certain].ravel(), self.bins, LATENTS)
        return pixels

    @torch.no_grad()
    def _posterior(self, pixels: Pixels) -> tuple[Keys, Mask]:
        """Keys (n, latents) of q(z|x), and a mask (n,), certain."""
        x = torch.from_numpy(pixels).double() / 127.5 - 1
        # As `Gaussian` reads them: μ, then log σ².
        mean, log_variance = self.net.encoder(x).chunk(2, dim=1)
        if not (torch.isfinite(mean).all() and torch.isfinite(log_variance).all()):
            raise ValueError("codec: the encoder gives numbers that are not finite")
        keys, certain = location_keys(mean.contiguous(), log_variance.contiguous() / 2)
        return keys, np.all(certain, axis=1)

    def _keys(self, bins: Symbols) -> tuple[Keys, Mask]:
        """Keys (n, dims, …) of pixels, and a mask (n,), of the bins of z, n after one another."""
        shape = (-1, self.net.bottleneck.out_channels, *self.net.grid)
        z = torch.from_numpy(self.bins.medians[bins]).reshape(shape)
        if not len(z):
            return np.zeros((0, self.net.dims), np.int64), np.ones(0, bool)
        return self.pixels.keys(z)


def put(stack: Stack, symbols: Symbols, keys: Keys, tables: Tables, chunk: int) -> None:
    """Pushes symbols (m,) by the tables of keys (m,), such that `taken` gives them in order."""
    for start in reversed(range(0, len(symbols), chunk)):
        rows = slice(start, start + chunk)
        stack.push(symbols[rows], tables.weights(keys[rows]))


def taken(stack: Stack, keys: Keys, tables: Tables, chunk: int) -> Symbols:
    """Pops symbols (m,) by the tables of keys (m,)."""
    parts = [keys[start : start + chunk] for start in range(0, len(keys), chunk)]
    found = [stack.pop(len(part), tables.weights(part)) for part in parts]
    return np.concatenate([np.zeros(0, np.int32), *found])


def likeliest(keys: Keys, bins: NormalBins) -> Symbols:
    """The bins (m,) of most weight, by keys (m,)."""
    parts = [keys[start : start + LATENTS] for start in range(0, len(keys), LATENTS)]
    found = [bins.weights(part).argmax(1) for part in parts]
    return np.concatenate([np.zeros(0, np.int32), *found]).astype(np.int32)
