"""Bits-back coding of a VAE: pixels at −ELBO bits (Townsend et al. 2019, arXiv 1901.04866).

```
 a batch of images:  pop z by q(z|x) ──► push x by p(x|z) ──► push z by N(0, I)
 and back:           pop z by N(0, I) ──► pop x by p(x|z) ──► push z by q(z|x)
```

What is popped by q is what earlier batches pushed, so that −log q(z|x) is paid back. The first
image of a group has nothing to pop: its z are the means of q, and nothing is paid back. The grids
of a batch are pushed last, so that they are known before what needs them.
"""

import zlib

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.codec.blocks import push_levels, take_levels
from vqvae_lightning.codec.container import Group
from vqvae_lightning.codec.locations import Grids, Keys, Mask, every, location_keys, on_first_grids
from vqvae_lightning.codec.normal import NormalBins
from vqvae_lightning.codec.pixels import PixelCoder, Pixels, listed
from vqvae_lightning.codec.streams import Stack, Symbols
from vqvae_lightning.codec.tables import (
    BY_TABLE,
    GRIDS,
    PRECISION,
    SHIFTS,
    Floats,
    weights_of,
)
from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.bottlenecks import Gaussian

BATCH = 32  # images of a step of the chain, at most
LEAST_BITS = 64  # that a stack is left with: a coder that has run out gives zeros
EVEN = weights_of(np.zeros(2, np.uint8))


def steps_of_chain(n: int) -> list[slice]:
    """The batches of n images: each an eighth of what is before it, from one image up to BATCH.

    So a single image has nothing to pop, not a whole batch; and what is coded holds the z of the
    next batch even where z takes several times as many bits as an image.
    """
    found, start = [], 0
    while start < n:
        end = min(n, start + min(BATCH, max(start // 8, 1)))
        found.append(slice(start, end))
        start = end
    return found


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
        for rows in steps_of_chain(len(pixels)):
            self._push(stack, pixels[rows])
        return Group(stack.data(), zlib.crc32(pixels.tobytes()))

    def read(self, group: Group, n: int) -> Pixels:
        """The pixels of a group. Raises ValueError unless they are those that were coded."""
        stack, found = Stack(group.data), []
        for rows in reversed(steps_of_chain(n)):
            found.append(self._pop(stack, rows.stop - rows.start))
        pixels = np.concatenate(found[::-1])
        if zlib.crc32(pixels.tobytes()) != group.check:
            raise ValueError("codec: another CRC32")
        return pixels

    def _push(self, stack: Stack, pixels: Pixels) -> None:
        levels = self.pixels.tables.symbols(pixels).reshape(len(pixels), -1)  # n,dims
        posterior, of_posterior = self._posterior(pixels)
        by_z = of_posterior != BY_TABLE
        pays_back = self._holds_z(stack, listed(posterior[by_z]))
        while True:
            given = listed(posterior[by_z])
            bins = (
                take_levels(stack.pop, given, self.bins)
                if pays_back
                else self.bins.likeliest(given)
            )
            keys, of_pixels = self.pixels.keys(self._z(bins))
            on_some = of_pixels != BY_TABLE
            if on_some.all():
                break
            # An image that no grid is for goes without z, and the others take other bits.
            if pays_back:
                push_levels(stack, bins, given, self.bins)
            by_z[np.flatnonzero(by_z)[~on_some]] = False
        grids = np.full(len(pixels), BY_TABLE, np.int32)
        grids[by_z] = of_pixels
        push_levels(stack, levels[by_z].ravel(), listed(keys), self.pixels.tables)
        stack.push(levels[~by_z].ravel(), self.pixels.uniform)
        stack.push(bins, self.bins.prior)
        if pays_back:
            stack.push(of_posterior[by_z].astype(np.int32), GRIDS)
        stack.push(grids, GRIDS)
        stack.push(np.array([pays_back], np.int32), EVEN)

    def _holds_z(self, stack: Stack, keys: Keys) -> bool:
        """Whether a stack has the bits of z by keys (m, 2).

        Near the beginning of a chain it is tried on a copy: bits enough for any z are there only
        after many an image, each of which would go without its bits back.
        """
        if stack.bits > PRECISION * len(keys):
            return True
        copy = Stack(stack.data())
        take_levels(copy.pop, keys, self.bins)
        return copy.bits >= LEAST_BITS

    def _pop(self, stack: Stack, n: int) -> Pixels:
        pays_back = bool(stack.pop(1, EVEN)[0])
        grids = stack.pop(n, GRIDS)
        by_z = grids != BY_TABLE
        count = int(by_z.sum())
        of_posterior = stack.pop(count if pays_back else 0, GRIDS)
        bins = stack.pop(count * self.latents, self.bins.prior)
        levels = np.zeros((n, self.net.dims), np.int32)
        others = stack.pop((n - count) * self.net.dims, self.pixels.uniform)
        levels[~by_z] = others.reshape(-1, self.net.dims)
        keys = self.pixels.keys_on(self._z(bins), grids[by_z])
        found = take_levels(stack.pop, listed(keys), self.pixels.tables)
        levels[by_z] = found.reshape(-1, self.net.dims)
        pixels = self.pixels.tables.pixels(levels).reshape(-1, *self.net.image_shape)
        if pays_back:
            posterior = self._posterior_on(pixels[by_z], of_posterior)
            push_levels(stack, bins, listed(posterior), self.bins)
        return pixels

    def _posterior(self, pixels: Pixels) -> tuple[Keys, Grids]:
        """Keys (n, latents, 2) of q(z|x), on the first grids (n,) that do."""
        mean, log_scale = self._encoded(pixels)
        return on_first_grids(
            lambda rows, shift: latent_keys(mean[rows], log_scale[rows], shift), len(pixels)
        )

    def _posterior_on(self, pixels: Pixels, grids: Symbols) -> Keys:
        """Keys (n, latents, 2) of q(z|x), on these grids (n,). Raises ValueError for BY_TABLE."""
        if (grids == BY_TABLE).any():
            raise ValueError("codec: got z on no grid, which is not coded")
        return latent_keys(*self._encoded(pixels), SHIFTS[grids])[0]

    def _encoded(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """The mean and the log scale (n, latents) of q(z|x)."""
        x = torch.from_numpy(pixels).double() / 127.5 - 1
        # As `Gaussian` reads them: μ, then log σ².
        mean, log_variance = self.net.encoder(x).flatten(2).chunk(2, dim=1)
        if not (torch.isfinite(mean).all() and torch.isfinite(log_variance).all()):
            raise ValueError("codec: the encoder gives numbers that are not finite")
        return mean.flatten(1), log_variance.flatten(1) / 2

    def _z(self, bins: Symbols) -> Tensor:
        """z (n, D, h, w) of the bins of images, one after the other."""
        z = torch.from_numpy(self.bins.medians[bins])
        channels = self.net.bottleneck.out_channels
        return z.reshape(len(bins) // self.latents, channels, *self.net.grid)


def latent_keys(mean: Tensor, log_scale: Tensor, shift: Floats | float) -> tuple[Keys, Mask]:
    """Keys (n, latents, 2) of means and log scales (n, latents), and a mask (n,), certain."""
    steps, scales, certain = location_keys(mean, log_scale, shift)
    return np.stack([steps, scales], -1), every(certain)
