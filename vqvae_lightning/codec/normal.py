"""The latents of a VAE as whole numbers: bins of equal mass under N(0, 1), and q(z|x) over them.

```
 z ──► one of 4096 bins, each of mass 2^-12 under the prior: 12 bits, exactly
 q(z|x) = N(μ, σ²), μ and σ on a grid ──► weights over the bins
```

The distribution function is summed up once, by operations that every machine rounds in one way.
"""

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.codec.blocks import BlockTables, Borders
from vqvae_lightning.codec.locations import INVERSE_SCALES, MEANS, Keys, exponential
from vqvae_lightning.codec.streams import Symbols
from vqvae_lightning.codec.tables import Floats, weights_of

BINS = 4096
REACH, STEP = 10.0, 1 / 512  # the table of the distribution function: from −REACH to REACH


class NormalBins(BlockTables):
    """Bins of z, their medians, and the tables of prior and posterior."""

    blocks = (64, BINS // 64)

    def __init__(self) -> None:
        x = np.arange(-REACH, REACH + STEP, STEP)
        density = exponential(-x * x / 2.0)
        # The trapezoid rule, whose error is far below 2^-24 here.
        area = np.cumsum((density[1:] + density[:-1]) / 2.0)
        self._below = np.concatenate([np.zeros(1), area]) / area[-1]
        self.edges = self._quantile(np.arange(1, BINS) / BINS)
        self.medians = self._quantile((np.arange(BINS) + 0.5) / BINS)
        # Nothing is below border 0, and everything below the last one.
        self.borders = np.concatenate([[-REACH], self.edges, [REACH]])
        self.prior = weights_of(np.zeros(BINS, np.uint8))  # 2^12 each, of 2^24

    def below(self, keys: Keys, first: Borders, step: int, count: int) -> Floats:
        """The mass of q(z|x) below some borders of bins, by keys (m, 2) of mean and log scale."""
        steps, inverse = keys[:, :1] / MEANS, INVERSE_SCALES[keys[:, 1:]]
        borders = first[:, None] + step * np.arange(count)
        u = self.borders[borders] * inverse - steps
        position = (np.clip(u, -REACH, REACH - STEP) + REACH) / STEP
        whole = np.floor(position)
        index, rest = whole.astype(np.int64), position - whole
        found = self._below[index] * (1.0 - rest) + self._below[index + 1] * rest
        # Rounding could make a border a last bit less than the one before it.
        return np.maximum.accumulate(found, 1)

    def likeliest(self, keys: Keys) -> Symbols:
        """The bins (m,) of the means, by keys (m, 2)."""
        means = keys[:, 0] / MEANS / INVERSE_SCALES[keys[:, 1]]
        return np.searchsorted(self.edges, means).astype(np.int32)

    def _quantile(self, shares: Floats) -> Floats:
        """z of which such a share of the prior's mass lies below."""
        after: NDArray[np.int64] = np.searchsorted(self._below, shares)
        low, high = self._below[after - 1], self._below[after]
        found: Floats = (after - 1 + (shares - low) / (high - low)) * STEP - REACH
        return found
