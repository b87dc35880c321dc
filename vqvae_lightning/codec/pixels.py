"""Pixels by p(x|z), to a stream and back: what makes a file lossless.

```
 z ──► decoder, float64 ──► parameters on a grid, per pixel ──► weights n,levels ──► the coder
                            └──► certain: no parameter beside a rounding edge; else a uniform table
```

From the grid on, only operations are used that IEEE 754 rounds in one way (+, −, ×, ÷, floor):
`exp` of a library may differ in its last bit from one machine to the next.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_lightning.codec.streams import Reader, Symbols, Writer
from vqvae_lightning.codec.tables import FLAGS, PRECISION, Floats, Weights, steps_of, weights_of
from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.likelihoods import (
    LOG_SCALES,
    BernoulliLikelihood,
    DiscretizedLogistic,
    Likelihood,
    LogisticMixture,
)

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Keys = NDArray[np.int64]  # whole numbers for each pixel, which say its table

BATCH = 32  # images that the decoder sees at once
CHUNK = 8192  # pixels whose tables are made together: 16 MiB of 256 levels
MEANS = 8  # steps of a mean in a scale: 0.0002 nats per pixel
SCALES = 16  # steps of a log scale: 0.0005 nats per pixel
LOWEST = int(SCALES * LOG_SCALES[0])  # the smallest scale
FARTHEST = 2**40  # steps of a mean: beyond it all mass is in one level
WIDE = 4 * FARTHEST  # keys of a scale
# Two builds may differ by this in what a decoder says, relative to 1 + its size.
DECODER_MARGIN = 2e-10
LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
FACTORIALS = [1.0]
for _n in range(1, 15):
    FACTORIALS.append(FACTORIALS[-1] * _n)


def exponential(x: Floats) -> Floats:
    """exp(x) for |x| ≤ 700 to some last bits, the same bits on every machine: a Taylor series."""
    whole = np.rint(x * LOG2E)
    rest = x - whole * LN2
    found = np.full_like(rest, 1 / FACTORIALS[-1])
    for factorial in FACTORIALS[-2::-1]:
        found = found * rest + 1 / factorial
    return np.ldexp(found, whole.astype(np.int32))


class PixelTables(ABC):
    """From what a decoder says of pixels to their tables."""

    levels: ClassVar[int]

    @abstractmethod
    def keys(self, likelihood: Likelihood, decoded: Tensor) -> tuple[Keys, Mask]:
        """Of decoded (n, P·C, H, W): the tables' keys (n, C·H·W, …); and a mask (n,), certain."""

    @abstractmethod
    def weights(self, keys: Keys) -> Weights:
        """Weights (m, levels) by keys (m, …)."""

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

    levels = 256

    def keys(self, likelihood: Likelihood, decoded: Tensor) -> tuple[Keys, Mask]:
        centre, log_scale = cast(DiscretizedLogistic, likelihood).split(decoded)
        keys, certain = location_keys(centre, log_scale.expand_as(centre))
        return keys, np.all(certain, axis=1)

    def __init__(self) -> None:
        self.inverse = inverse_scales()
        # exp(−k · 2/255/s) for k levels, −254 to 254: how it goes on from one border to the others.
        away = np.arange(2 - self.levels, self.levels - 1)[None] * (2.0 / 255.0)
        self.away = exponential(np.clip(-away * self.inverse[:, None], -80.0, 80.0))

    def weights(self, keys: Keys) -> Weights:
        return between(self.below(keys))

    def below(self, keys: Keys) -> Floats:
        """The mass below each border between two levels, (m, levels − 1), by keys (m,)."""
        scale, steps = locations(keys)
        inverse, borders = self.inverse[scale], self.levels - 1
        # The border that is nearest to the mean, of those between the levels.
        nearest = np.clip(np.rint((steps / inverse + 1.0) * 127.5 - 0.5), 0, borders - 1)
        u = ((2.0 * nearest + 1.0) / 255.0 - 1.0) * inverse - steps
        first = borders - 1 - nearest.astype(np.int64)
        others = self.away[scale[:, None], first[:, None] + np.arange(borders)]  # m,levels−1
        below: Floats = 1.0 / (1.0 + exponential(-np.clip(u, -40.0, 40.0))[:, None] * others)
        return below


class MixtureTables(PixelTables):
    """The mass of a mixture of logistics on 256 levels: weights, means and log scales on grids."""

    levels = 256

    def __init__(self) -> None:
        self.one = LogisticTables()

    def keys(self, likelihood: Likelihood, decoded: Tensor) -> tuple[Keys, Mask]:
        logits, centre, log_scale = (
            part.movedim(1, -1).flatten(1, -2)  # n,C·H·W,M
            for part in cast(LogisticMixture, likelihood).split(decoded)
        )
        steps, sure = steps_of(logits.numpy())
        located, certain = location_keys(centre, log_scale)
        keys = np.concatenate([steps.astype(np.int64), located.reshape(steps.shape)], -1)
        return keys, np.all(sure, axis=1) & np.all(certain, axis=1)

    def weights(self, keys: Keys) -> Weights:
        steps, located = np.split(keys, 2, axis=1)  # m,M each
        shares = weights_of(steps.astype(np.uint8)) / (2**PRECISION - steps.shape[1])
        # In this order on every machine: the sum of floats depends on it.
        below = shares[:, :1] * self.one.below(located[:, 0])
        for share, keys_of_one in zip(shares.T[1:], located.T[1:], strict=True):
            below += share[:, None] * self.one.below(keys_of_one)
        return between(np.minimum(below, 1.0))


class BernoulliTables(PixelTables):
    """Two levels, whose logit is on the grid of all tables."""

    levels = 2

    def keys(self, likelihood: Likelihood, decoded: Tensor) -> tuple[Keys, Mask]:
        logit = decoded.flatten(1).numpy()
        steps, certain = steps_of(np.stack([np.zeros_like(logit), logit], -1))
        keys: Keys = steps.astype(np.int64) @ np.array([256, 1])
        return keys, np.all(certain, axis=1)

    def weights(self, keys: Keys) -> Weights:
        return weights_of(np.stack([keys // 256, keys % 256], 1).astype(np.uint8))


TABLES: dict[type[Likelihood], Callable[[], PixelTables]] = {
    DiscretizedLogistic: LogisticTables,
    LogisticMixture: MixtureTables,
    BernoulliLikelihood: BernoulliTables,
}


def between(below: Floats) -> Weights:
    """Weights (m, levels) of the levels between borders that have such a mass below them."""
    total = 2**PRECISION - below.shape[1] - 1
    # Rounding could make a border a last bit less than the one before it.
    inner = np.maximum.accumulate(np.floor(below * total), 1).astype(np.int64)
    ends = np.zeros((len(below), 1), np.int64)
    return np.diff(np.concatenate([ends, inner, ends + total], 1), axis=1)


def listed(keys: Keys) -> Keys:
    """Keys (n·d, …) of keys (n, d, …)."""
    return keys.reshape(-1, *keys.shape[2:])


def on_grid(scaled: Floats, margin: Floats) -> tuple[Floats, Mask]:
    """Whole numbers nearest to `scaled`, and where another build is sure to find the same."""
    nearest: Floats = np.rint(scaled)
    return nearest, 0.5 - np.abs(scaled - nearest) > DECODER_MARGIN * margin


def location_keys(mean: Tensor, log_scale: Tensor) -> tuple[Keys, Mask]:
    """Keys (n, ·) of means and log scales (n, …) on their grids, and which of them are certain."""
    centre, log = mean.flatten(1).numpy(), log_scale.clamp(*LOG_SCALES).flatten(1).numpy()
    scale, sure = on_grid(log * SCALES, SCALES * (1 + np.abs(log)))
    per_unit = MEANS * exponential(-scale / SCALES)  # steps of the mean in a unit
    steps, certain = on_grid(centre * per_unit, per_unit * (1 + np.abs(centre)))
    whole = np.clip(steps, -FARTHEST, FARTHEST).astype(np.int64)
    return (scale.astype(np.int64) - LOWEST) * WIDE + whole + WIDE // 2, sure & certain


def locations(keys: Keys) -> tuple[NDArray[np.int64], Floats]:
    """The position of the scale among `inverse_scales`, and the mean in scales, of keys (m,)."""
    return keys // WIDE, (keys % WIDE - WIDE // 2) / MEANS


def inverse_scales() -> Floats:
    """1/s of each scale of the grid."""
    return exponential(-np.arange(LOWEST, SCALES * LOG_SCALES[1] + 1) / SCALES)


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
        self.net = net.to("cpu", torch.float64).eval()
        self.tables = TABLES[type(net.likelihood)]()
        self.uniform = weights_of(np.zeros(self.tables.levels, np.uint8))

    def write(self, writer: Writer, z: Tensor, pixels: Pixels) -> None:
        """Appends pixels uint8. Raises ValueError for levels that the likelihood has not."""
        symbols = self.tables.symbols(pixels).reshape(len(pixels), -1)  # n,dims
        for start in range(0, len(pixels), BATCH):
            part = symbols[start : start + BATCH]
            keys, certain = self.keys(z[start : start + BATCH])
            writer.write((~certain).astype(np.int32), FLAGS)
            writer.write(part[~certain].ravel(), self.uniform)
            given, sure = listed(keys[certain]), part[certain].ravel()
            for at in range(0, len(sure), CHUNK):
                writer.write(sure[at : at + CHUNK], self.weights(given[at : at + CHUNK]))

    def read(self, reader: Reader, z: Tensor) -> Pixels:
        """The next pixels (n, C, H, W)."""
        found = np.zeros((len(z), self.net.dims), np.int32)
        for start in range(0, len(z), BATCH):
            part = found[start : start + BATCH]
            keys, _ = self.keys(z[start : start + BATCH])
            certain = reader.read(len(part), FLAGS) == 0
            others = reader.read(int((~certain).sum()) * self.net.dims, self.uniform)
            part[~certain] = others.reshape(-1, self.net.dims)
            given = listed(keys[certain])
            chunks = [given[at : at + CHUNK] for at in range(0, len(given), CHUNK)]
            sure = [reader.read(len(chunk), self.weights(chunk)) for chunk in chunks]
            part[certain] = np.concatenate([others[:0], *sure]).reshape(-1, self.net.dims)
        return self.tables.pixels(found).reshape(-1, *self.net.image_shape)

    @torch.no_grad()
    def keys(self, z: Tensor) -> tuple[Keys, Mask]:
        """The tables' keys (n, C·H·W, …) of z (n, D, h, w); and a mask (n,), certain."""
        decoded = self.net.decoder(z.double())  # n,P·C,H,W
        if not torch.isfinite(decoded).all():
            raise ValueError("codec: the decoder gives numbers that are not finite")
        return self.tables.keys(self.net.likelihood, decoded.contiguous())

    def weights(self, keys: Keys) -> Weights:
        """Weights (m, levels), of which those of equal keys are computed once."""
        kinds, which = np.unique(keys, axis=0, return_inverse=True)
        # NumPy 2.0.0 gives a column.
        found: Weights = self.tables.weights(kinds)[which.reshape(-1)]
        return found
