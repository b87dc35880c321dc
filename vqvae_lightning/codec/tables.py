"""Integer frequency tables: what the coder sees, on two machines the same to the last bit.

```
 logits, float64 ──► steps uint8: whole eighths of a nat below the likeliest ──► weights int64
                     └──► certain: no logit so near to a rounding edge that another build
                          of torch could round it otherwise
```

A float softmax cannot be trusted: logits that differ by 1e-6 decode another symbol, without an
error. From the steps on, everything here is integer arithmetic, so that what two builds agree on is
`steps` alone. Rounding to an eighth of a nat costs 0.0007 nats per symbol.
"""

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Steps = NDArray[np.uint8]
Weights = NDArray[np.int64]

PRECISION = 24  # bits: the frequencies of a table sum to 2^24, as constriction has it
GRID = 8  # steps per nat
CLIP = 144  # steps: 18 nats below the likeliest symbol, where a weight is 0
# Two builds may differ by this much in a logit, in nats. float64 differs by some 1e-13.
MARGIN = 4e-9
# Grids, by their shift in steps: 0, 1/16, −1/16, 2/16 … −7/16. A number beside a rounding edge of
# one is far from those of the others. The nearest come first, for a shift is an error of that size.
SHIFTS = np.array([0.0, *(sign * k / 16 for k in range(1, 8) for sign in (1, -1))])
BY_TABLE = len(SHIFTS)  # what stands for a table without a model among the grids


def _exponentials() -> Weights:
    """round(2^30 · exp(−d/8)) for d = 0 … CLIP − 1, then 0. Decimal rounds correctly everywhere;
    exp of a C library may not.
    """
    with localcontext(prec=40):
        found = [int((Decimal(-d) / GRID).exp() * 2**30 + Decimal("0.5")) for d in range(CLIP)]
    return np.array([*found, 0], np.int64)


EXPONENTIALS = _exponentials()


def steps_of(logits: Floats, shift: Floats | float = 0.0) -> tuple[Steps, NDArray[np.bool_]]:
    """Logits on a grid, and whether another build is sure to find the same.

    Args:
        logits: (…, K) float64.
        shift: the grid: one of SHIFTS, of each logit or of all.

    Returns:
        Steps (…, K) below the likeliest symbol, at most CLIP; and a mask (…).

    Raises:
        ValueError: a logit that is not finite.
    """
    # In place, for this is what a code costs beside its logits. min and max pass on NaN.
    if not (np.isfinite(logits.min(initial=0)) and np.isfinite(logits.max(initial=0))):
        raise ValueError("codec: the model gives logits that are not finite, which code nothing")
    scaled = logits * GRID
    scaled += shift
    nearest = np.rint(scaled)
    scaled -= nearest
    off_grid = np.abs(scaled, out=scaled)
    below = np.subtract(nearest.max(-1, keepdims=True), nearest, out=nearest)
    # A symbol of nil weight has it on both sides of its edge, unless it is the edge of CLIP.
    certain = ((off_grid < 0.5 - MARGIN * GRID) | (below > CLIP)).all(-1)
    return np.minimum(below, CLIP, out=below).astype(np.uint8), certain


def histogram_steps(counts: NDArray[Any]) -> Steps:
    """The steps (…, K) of symbols that occurred so often, (…, K); uniform ones for no symbol."""
    most = counts.max(-1, keepdims=True)
    share = np.where(most > 0, counts / np.maximum(most, 1), 1.0)
    below = np.rint(-np.log(np.maximum(share, 1e-30)) * GRID)
    found: Steps = np.minimum(below, CLIP).astype(np.uint8)
    return found


def weights_of(steps: Steps) -> Weights:
    """Weights (…, K) that sum to 2^24 − K: a symbol's frequency is its weight + 1, of 2^24.

    Integers only. What the divisions leave over goes to the first of the likeliest symbols.
    """
    masses: Weights = EXPONENTIALS.take(steps)  # …,K: at most 2^30 each
    total = 2**PRECISION - steps.shape[-1]
    sums = masses.sum(-1, keepdims=True)
    masses *= total
    weights: Weights = np.floor_divide(masses, sums, out=masses)
    first = steps.argmin(-1)[..., None]
    left_over = total - weights.sum(-1, keepdims=True)
    np.put_along_axis(weights, first, np.take_along_axis(weights, first, -1) + left_over, -1)
    return weights


def nats_of(counts: NDArray[Any], steps: Steps) -> float:
    """The nats of symbols that occur so often, (…, K), coded by the table of these steps."""
    frequencies = (weights_of(steps) + 1) / 2**PRECISION
    return float(-(counts * np.log(frequencies)).sum())


# Steps of each of SHIFTS and, last, of the static table: the first five fall by e^-4 each, and all
# others have the least weight that a table gives.
GRIDS = weights_of(np.minimum(32 * np.arange(BY_TABLE + 1), CLIP).astype(np.uint8))
