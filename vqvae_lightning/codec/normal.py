"""The latents of a VAE as whole numbers: bins of equal mass under N(0, 1), and q(z|x) over them.

```
 z ──► one of 4096 bins, each of mass 2^-12 under the prior: 12 bits, exactly
 q(z|x) = N(μ, σ²), μ and σ on a grid ──► weights over the bins
```

The distribution function is summed up once, by operations that every machine rounds in one way.
"""

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.codec.pixels import Keys, exponential, inverse_scales, locations
from vqvae_lightning.codec.tables import PRECISION, Floats, Weights, weights_of

BINS = 4096
REACH, STEP = 10.0, 1 / 512  # the table of the distribution function: from −REACH to REACH


class NormalBins:
    """Bins of z, their medians, and the tables of prior and posterior."""

    def __init__(self) -> None:
        x = np.arange(-REACH, REACH + STEP, STEP)
        density = exponential(-x * x / 2.0)
        # The trapezoid rule, whose error is far below 2^-24 here.
        area = np.cumsum((density[1:] + density[:-1]) / 2.0)
        self._below = np.concatenate([np.zeros(1), area]) / area[-1]
        self.edges = self._quantile(np.arange(1, BINS) / BINS)
        self.medians = self._quantile((np.arange(BINS) + 0.5) / BINS)
        self.inverse = inverse_scales()
        self.prior = weights_of(np.zeros(BINS, np.uint8))  # 2^12 each, of 2^24

    def below(self, u: Floats) -> Floats:
        """P(Z < u) of a standard normal Z."""
        position = (np.clip(u, -REACH, REACH - STEP) + REACH) / STEP
        whole = np.floor(position)
        index, rest = whole.astype(np.int64), position - whole
        found: Floats = self._below[index] * (1.0 - rest) + self._below[index + 1] * rest
        return found

    def weights(self, keys: Keys) -> Weights:
        """Weights (m, BINS) of q(z|x), by keys (m,) of its mean and log scale."""
        scale, steps = locations(keys)
        u = self.edges * self.inverse[scale][:, None] - steps[:, None]
        total = 2**PRECISION - BINS
        inner = np.maximum.accumulate(np.floor(self.below(u) * total), 1).astype(np.int64)
        ends = np.zeros((len(keys), 1), np.int64)
        return np.diff(np.concatenate([ends, inner, ends + total], 1), axis=1)

    def _quantile(self, shares: Floats) -> Floats:
        """z of which such a share of the prior's mass lies below."""
        after: NDArray[np.int64] = np.searchsorted(self._below, shares)
        low, high = self._below[after - 1], self._below[after]
        found: Floats = (after - 1 + (shares - low) / (high - low)) * STEP - REACH
        return found
