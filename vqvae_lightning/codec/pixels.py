"""Pixels by p(x|z), to a stream and back: what makes a file lossless.

```
 z ──► decoder, float64 ──► parameters on a grid, per pixel ──► weights, in two steps ──► the coder
                            └──► the grid of each image: the first with no parameter beside a
                                 rounding edge; an image for which there is none goes by a uniform
                                 table
```
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_lightning.codec.blocks import BlockTables, Borders, take_levels, write_levels
from vqvae_lightning.codec.locations import (
    INVERSE_SCALES,
    MEANS,
    Grids,
    Keys,
    Mask,
    every,
    exponential,
    location_keys,
    on_first_grids,
)
from vqvae_lightning.codec.streams import Reader, Symbols, Writer
from vqvae_lightning.codec.tables import (
    BY_TABLE,
    GRIDS,
    PRECISION,
    SHIFTS,
    Floats,
    steps_of,
    weights_of,
)
from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.likelihoods import (
    BernoulliLikelihood,
    DiscretizedLogistic,
    Likelihood,
    LogisticMixture,
)

Pixels = NDArray[np.uint8]

BATCH = 32  # images that the decoder sees at once


class PixelTables(BlockTables):
    """From what a decoder says of pixels to their tables."""

    @property
    def levels(self) -> int:
        """How many levels a pixel has."""
        return self.blocks[0] * self.blocks[1]

    @abstractmethod
    def keys(
        self, likelihood: Likelihood, decoded: Tensor, shift: Floats | float
    ) -> tuple[Keys, Mask]:
        """The tables' keys (n, C·H·W, …) of decoded (n, P·C, H, W), on grids with a shift.

        The shifts (n,) are those of images, or one of all. The mask (n,) is: certain.
        """

    def symbols(self, pixels: Pixels) -> Symbols:
        """Levels of pixels uint8. Raises ValueError for a pixel that is none of them."""
        step = 255 // (self.levels - 1)
        if (pixels % step).any():
            raise ValueError(
                "compress: got grey levels between 0 and 255, wanted binary images for this"
                " likelihood"
            )
        return (pixels // step).astype(np.int32)

    def pixels(self, symbols: Symbols) -> Pixels:
        """Pixels uint8 of levels."""
        return (symbols * (255 // (self.levels - 1))).astype(np.uint8)


class LogisticTables(PixelTables):
    """The mass of a logistic on 256 levels, with its mean and its log scale on a grid."""

    blocks = (16, 16)

    def __init__(self) -> None:
        count, size = self.blocks
        # By the step and the count of borders, as `BlockTables` asks for them.
        self.falling = {of: falling(*of) for of in ((size, count - 1), (1, size + 1))}

    def keys(
        self, likelihood: Likelihood, decoded: Tensor, shift: Floats | float
    ) -> tuple[Keys, Mask]:
        centre, log_scale = cast(DiscretizedLogistic, likelihood).split(decoded)
        steps, scales, certain = location_keys(
            centre.flatten(1), log_scale.expand_as(centre).flatten(1), shift
        )
        return np.stack([steps, scales], -1), every(certain)  # n,C·H·W,2

    def below(self, keys: Keys, first: Borders, step: int, count: int) -> Floats:
        steps, scale = keys[:, 0] / MEANS, keys[:, 1]
        inverse = INVERSE_SCALES[scale]
        # The border that is nearest to the mean. How the mass goes on from there is in a table,
        # whose rows do not fall, so that what is made of them does not.
        mean = (steps / inverse + 1.0) * 127.5 + 0.5  # in levels, as borders are counted
        nearest = np.clip(np.rint((mean - first) / step), 0, count - 1)
        u = ((2.0 * (first + step * nearest) - 1.0) / 255.0 - 1.0) * inverse - steps
        beyond: Floats = self.falling[step, count][scale, nearest.astype(np.int64)]
        beyond *= exponential(-np.clip(u, -40.0, 40.0))[:, None]
        beyond += 1.0
        return np.reciprocal(beyond, out=beyond)


class MixtureTables(PixelTables):
    """The mass of a mixture of logistics on 256 levels: weights, means and log scales on grids."""

    blocks = LogisticTables.blocks

    def __init__(self) -> None:
        self.one = LogisticTables()

    def keys(
        self, likelihood: Likelihood, decoded: Tensor, shift: Floats | float
    ) -> tuple[Keys, Mask]:
        logits, centre, log_scale = (
            part.movedim(1, -1).flatten(1, -2).contiguous()  # n,C·H·W,M
            for part in cast(LogisticMixture, likelihood).split(decoded)
        )
        weights, sure = steps_of(logits.numpy(), np.reshape(shift, (-1, 1, 1)))
        steps, scales, certain = location_keys(centre, log_scale, shift)
        keys = np.concatenate([weights.astype(np.int64), steps, scales], -1)  # n,C·H·W,3M
        return keys, every(sure) & every(certain)

    def below(self, keys: Keys, first: Borders, step: int, count: int) -> Floats:
        weights, steps, scales = np.split(keys, 3, axis=1)  # m,M each
        shares = weights_of(weights.astype(np.uint8)) / (2**PRECISION - weights.shape[1])
        found = np.zeros((len(keys), count))
        # In this order on every machine: the sum of floats depends on it.
        for share, *located in zip(shares.T, steps.T, scales.T, strict=True):
            mass = self.one.below(np.stack(located, 1), first, step, count)
            mass *= share[:, None]
            found += mass
        return np.minimum(found, 1.0, out=found)


class BernoulliTables(PixelTables):
    """Two levels, whose logit is on the grid of all tables."""

    blocks = (2, 1)

    def keys(
        self, likelihood: Likelihood, decoded: Tensor, shift: Floats | float
    ) -> tuple[Keys, Mask]:
        logit = decoded.flatten(1).numpy()
        steps, certain = steps_of(
            np.stack([np.zeros_like(logit), logit], -1), np.reshape(shift, (-1, 1, 1))
        )
        return steps.astype(np.int64), every(certain)

    def below(self, keys: Keys, first: Borders, step: int, count: int) -> Floats:
        share = weights_of(keys.astype(np.uint8))[:, :1] / (2**PRECISION - 2)
        return np.repeat(share, count, 1)


TABLES: dict[type[Likelihood], Callable[[], PixelTables]] = {
    DiscretizedLogistic: LogisticTables,
    LogisticMixture: MixtureTables,
    BernoulliLikelihood: BernoulliTables,
}


def falling(step: int, count: int) -> Floats:
    """exp(−k · 2/255/s) by scale, border i and border j of a row, k levels above i."""
    away = step * (np.arange(count) - np.arange(count)[:, None]) * (2.0 / 255.0)
    exponents = -away * INVERSE_SCALES[:, None, None]  # scales,count,count
    return np.minimum.accumulate(exponential(np.clip(exponents, -80.0, 80.0)), -1)


def listed(keys: Keys) -> Keys:
    """Keys (n·d, …) of keys (n, d, …)."""
    return keys.reshape(-1, keys.shape[-1])


def has_tables(likelihood: type[Likelihood]) -> bool:
    """Whether pixels are coded by such a p(x|z): one of pixel levels that is known here."""
    return likelihood in TABLES


class PixelCoder:
    """Pixels (n, C, H, W) of groups of images, given their z (n, D, h, w)."""

    def __init__(self, net: Autoencoder) -> None:
        """Takes a copy of an autoencoder, which becomes float64.

        Raises ConfigError for a likelihood that is no probability of pixel levels.
        """
        if not has_tables(type(net.likelihood)):
            raise ConfigError(
                f"lossless: {type(net.likelihood).__name__} gives no probabilities of pixel levels,"
                " wanted model.likelihood.name=discretized_logistic, logistic_mixture or bernoulli"
            )
        self.net = net.to("cpu", torch.float64).eval().requires_grad_(False)
        self.tables = TABLES[type(net.likelihood)]()
        self.uniform = weights_of(np.zeros(self.tables.levels, np.uint8))

    def write(self, writer: Writer, z: Tensor, pixels: Pixels) -> None:
        """Appends pixels uint8. Raises ValueError for levels that the likelihood has not."""
        symbols = self.tables.symbols(pixels).reshape(len(pixels), -1)  # n,dims
        for start in range(0, len(pixels), BATCH):
            part = symbols[start : start + BATCH]
            keys, grids = self.keys(z[start : start + BATCH])
            certain = grids != BY_TABLE
            writer.write(grids.astype(np.int32), GRIDS)
            writer.write(part[~certain].ravel(), self.uniform)
            write_levels(writer, part[certain].ravel(), listed(keys[certain]), self.tables)

    def read(self, reader: Reader, z: Tensor) -> Pixels:
        """The next pixels (n, C, H, W)."""
        found = np.zeros((len(z), self.net.dims), np.int32)
        for start in range(0, len(z), BATCH):
            part = found[start : start + BATCH]
            grids = reader.read(len(part), GRIDS)
            certain = grids != BY_TABLE
            others = reader.read(int((~certain).sum()) * self.net.dims, self.uniform)
            part[~certain] = others.reshape(-1, self.net.dims)
            keys = self.keys_on(z[start : start + BATCH][certain], grids[certain])
            levels = take_levels(reader.read, listed(keys), self.tables)
            part[certain] = levels.reshape(-1, self.net.dims)
        return self.tables.pixels(found).reshape(-1, *self.net.image_shape)

    def keys(self, z: Tensor) -> tuple[Keys, Grids]:
        """The tables' keys (n, C·H·W, …) of z (n, D, h, w), on the first grids (n,) that do."""
        decoded, tables = self._decoded(z), self.tables
        return on_first_grids(
            lambda rows, shift: tables.keys(self.net.likelihood, decoded[rows], shift), len(z)
        )

    def keys_on(self, z: Tensor, grids: Symbols) -> Keys:
        """The tables' keys (n, C·H·W, …) of z (n, D, h, w), on these grids (n,)."""
        return self.tables.keys(self.net.likelihood, self._decoded(z), SHIFTS[grids])[0]

    def _decoded(self, z: Tensor) -> Tensor:
        """What the decoder says (n, P·C, H, W) of z (n, D, h, w)."""
        decoded = self.net.decoder(z.double())
        if not torch.isfinite(decoded).all():
            raise ValueError("codec: the decoder gives numbers that are not finite")
        return cast(Tensor, decoded.contiguous())
