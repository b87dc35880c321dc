"""Monotone rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032).

Inside of [−B, B] each of K bins has a quotient of two quadratics, which meet with equal slopes.
Outside it is the identity. Both directions are in closed form.

```
 y                    ╱
  B ┤            ╭──╯        K bins of widths w and heights h, each at least MIN_BIN of the whole
    │        ╭──╯            K − 1 slopes between them, and slope 1 at both ends
 −B ┤  ╭────╯
   ╱─────────────────► x
     −B          B
```

Letters: K bins.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BOUND = 5.0  # B, in standard deviations of what is bent
MIN_BIN = 1e-3
MIN_SLOPE = 1e-3
# softplus of it is 1 − MIN_SLOPE, so that parameters of 0 are the identity.
SLOPE_OF_ONE = math.log(math.expm1(1 - MIN_SLOPE))


class Bins(NamedTuple):
    """The bin that each number lies in: its left and lower end, size, and slopes at both ends."""

    left: Tensor
    width: Tensor
    bottom: Tensor
    height: Tensor
    slope: Tensor
    next_slope: Tensor


def parameters_of(bins: int) -> int:
    """How many parameters a spline of so many bins has."""
    return 3 * bins - 1


def bend(x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """y of x, both of any shape (…), and log dy/dx (…); parameters (…, 3K − 1)."""
    inside = x.abs() < BOUND
    at = torch.where(inside, x, 0)
    b = _bins(at, parameters, by_height=False)
    share = (at - b.left) / b.width
    both, mean = share * (1 - share), b.height / b.width
    over = mean + (b.slope + b.next_slope - 2 * mean) * both
    y = b.bottom + b.height * (mean * share.square() + b.slope * both) / over
    return torch.where(inside, y, x), torch.where(inside, _log_slope(b, share, over), 0)


def unbend(y: Tensor, parameters: Tensor) -> Tensor:
    """x of y, both of any shape (…): the inverse of `bend` with the same parameters."""
    inside = y.abs() < BOUND
    at = torch.where(inside, y, 0)
    b = _bins(at, parameters, by_height=True)
    above, mean = at - b.bottom, b.height / b.width
    curve = b.slope + b.next_slope - 2 * mean
    # The share of the bin's width is the root of a·share² + b·share + c that is in [0, 1].
    quadratic = b.height * (mean - b.slope) + above * curve
    linear = b.height * b.slope - above * curve
    constant = -mean * above
    # Never negative, but for rounding.
    root = (linear.square() - 4 * quadratic * constant).clamp_min(0).sqrt()
    share = 2 * constant / (-linear - root)
    return torch.where(inside, b.left + share * b.width, y)


def _log_slope(b: Bins, share: Tensor, over: Tensor) -> Tensor:
    """log dy/dx at a share of the bin's width, with the denominator `over` of y there."""
    mean = b.height / b.width
    rest = 1 - share
    slope = b.next_slope * share.square() + 2 * mean * share * rest + b.slope * rest.square()
    return 2 * mean.log() + slope.log() - 2 * over.log()


def _bins(at: Tensor, parameters: Tensor, by_height: bool) -> Bins:
    """The bins of numbers (…): of x, or of y with `by_height`."""
    bins = (parameters.shape[-1] + 1) // 3
    of_widths, of_heights, of_slopes = parameters.split([bins, bins, bins - 1], dim=-1)
    widths, heights = _sizes(of_widths), _sizes(of_heights)  # …,K
    lefts, bottoms = (size.cumsum(-1) - size - BOUND for size in (widths, heights))  # …,K
    slopes = F.pad(MIN_SLOPE + F.softplus(of_slopes + SLOPE_OF_ONE), (1, 1), value=1.0)  # …,K+1
    starts = bottoms if by_height else lefts
    index = (at[..., None] >= starts[..., 1:]).sum(-1, keepdim=True)  # …,1  in 0 … K−1
    found = (lefts, widths, bottoms, heights, slopes[..., :-1], slopes[..., 1:])
    return Bins(*(one.gather(-1, index)[..., 0] for one in found))


def _sizes(parameters: Tensor) -> Tensor:
    """Sizes (…, K) of bins, which are 2B together."""
    bins = parameters.shape[-1]
    return 2 * BOUND * (MIN_BIN + (1 - MIN_BIN * bins) * parameters.softmax(-1))
