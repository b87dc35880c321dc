"""Means and log scales on grids, so that two builds of torch read the same whole numbers.

```
 mean, log scale, float64, and the shift of a grid ──► keys: whole numbers
                                                   └──► certain: none beside a rounding edge
```

A grid is shifted by a part of a step before it is rounded to, and not shifted back: what is coded
is that little off, and the tables know of no shifts. From the keys on, only operations are used
that IEEE 754 rounds in one way (+, −, ×, ÷, floor): `exp` of a library may differ in its last bit
from one machine to the next.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vqvae_lightning.codec.tables import BY_TABLE, SHIFTS, Floats
from vqvae_lightning.models.likelihoods import LOG_SCALES

Mask = NDArray[np.bool_]
Keys = NDArray[np.int64]  # whole numbers for each pixel or latent, which say its table
Grids = NDArray[np.int64]  # of each image: which of SHIFTS, or BY_TABLE
Numbers = Callable[[NDArray[np.int64], Floats | float], tuple[Keys, Mask]]

MEANS = 8  # steps of a mean in a scale: 0.0002 nats per pixel
SCALES = 16  # steps of a log scale: 0.0005 nats per pixel
LOWEST, HIGHEST = (int(SCALES * bound) for bound in LOG_SCALES)
FARTHEST = 2**40  # steps of a mean: beyond it all mass is in one level
# Two builds may differ by this in what a network says, relative to 1 + its size.
NETWORK_MARGIN = 2e-10
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
        found *= rest
        found += 1 / factorial
    return np.ldexp(found, whole.astype(np.int32))


# 1/s of each scale s of the grid.
INVERSE_SCALES = exponential(-np.arange(LOWEST, HIGHEST + 1) / SCALES)


def on_grid(scaled: Floats, shift: Floats | float, margin: Floats) -> tuple[Floats, Mask]:
    """Whole numbers nearest to `scaled`, (n, …), and where another build is sure to find the same.

    The shifts (n,) are those of images, or one of all.
    """
    shifted = scaled + np.reshape(shift, (-1, *[1] * (scaled.ndim - 1)))
    nearest: Floats = np.rint(shifted)
    return nearest, 0.5 - np.abs(shifted - nearest) > NETWORK_MARGIN * margin


def location_keys(
    mean: Tensor, log_scale: Tensor, shift: Floats | float
) -> tuple[Keys, Keys, Mask]:
    """Keys of means (n, …), in steps of their scale, and of log scales of the same shape.

    The mask says which of them another build is sure to find.
    """
    centre, log = mean.numpy(), log_scale.clamp(*LOG_SCALES).numpy()
    scale, sure = on_grid(log * SCALES, shift, SCALES * (1 + np.abs(log)))
    keys = scale.astype(np.int64) - LOWEST
    per_unit = MEANS * INVERSE_SCALES[keys]  # steps of the mean in a unit
    steps, certain = on_grid(centre * per_unit, shift, per_unit * (1 + np.abs(centre)))
    return np.clip(steps, -FARTHEST, FARTHEST).astype(np.int64), keys, sure & certain


def every(certain: Mask) -> Mask:
    """The images (n,) all of whose numbers (n, …) are certain."""
    found: Mask = np.all(certain, axis=tuple(range(1, certain.ndim)))
    return found


def on_first_grids(numbers: Numbers, n: int) -> tuple[Keys, Grids]:
    """Keys of n images, each on the first grid where all of its numbers are certain; and which.

    An image for which there is none has the grid BY_TABLE, and keys that are of no use.

    Args:
        numbers: the keys of images, given their rows and the shift of their grid, and a mask of
            the images that are certain.
        n: how many images there are.
    """
    keys, certain = numbers(np.arange(n), SHIFTS[0])
    grids = np.where(certain, 0, BY_TABLE)
    for number in range(1, BY_TABLE):
        rows = np.flatnonzero(grids == BY_TABLE)
        if not len(rows):
            break
        keys[rows], certain = numbers(rows, SHIFTS[number])
        grids[rows[certain]] = number
    return keys, grids
