"""In which order, and how many at a time, a masked prior makes codes known.

```
 step s of S:  U unknown codes ──► U·cos(π/2 · s/S) stay masked, at least one less than before
```
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.sampling import Sampling

Order = Literal["halton", "confidence", "random"]

# Of the Gumbel noise on the confidence: at the first step, falling linearly to 0 at the last one.
# That of MaskGIT's published code; without it every image of a class is much the same.
CONFIDENCE_NOISE = 4.5


@dataclass(frozen=True)
class MaskedSampling(Sampling):
    """How a masked prior draws codes."""

    steps: int = 8  # passes through the network; as many as codes: one code at a time
    order: Order = "halton"  # in which codes are drawn

    def check(self, codebook_size: int) -> None:
        """Raises ValueError for values out of range."""
        super().check(codebook_size)
        if self.steps < 1:
            raise ValueError(f"steps: got {self.steps}, wanted at least 1")
        if self.order not in get_args(Order):
            wanted = ", ".join(get_args(Order))
            raise ValueError(f"order: got {self.order!r}, wanted one of {wanted}")


def left(unknown: Tensor, step: int, steps: int) -> Tensor:
    """How many of `unknown` codes (N,) are still masked after step 1 … `steps`, (N,).

    MaskGIT's cosine schedule (Chang et al. 2022, arXiv 2202.04200, section 3.2), with at least one
    code at each step. With as many steps as codes it is exactly one: cos(πx/2) ≥ 1 − x on [0, 1].
    """
    cosine = (unknown * math.cos(math.pi / 2 * step / steps)).floor().long()
    return torch.minimum(cosine, (unknown - step).clamp_min(0))


def first(priority: Tensor, masked: Tensor, count: Tensor) -> Tensor:
    """Of each row the `count` (N,) masked positions of the highest priority: a mask (N, T)."""
    order = priority.masked_fill(~masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return ranks(order) < count[:, None]


def ranks(order: Tensor) -> Tensor:
    """The rank (…, T) of each position, of positions (…, T) in order."""
    return order.argsort(dim=-1)


def halton_order(layout: CodeLayout) -> Tensor:
    """Positions (T,) in the order in which a Halton sequence first meets their grid cells.

    Codes that become known at the same step then lie far apart, so that they say little of each
    other (Besnier et al. 2025, arXiv 2503.17076). Bases are 2 for rows and 3 for columns. Of
    several codes per cell the first ones of all cells come first: in a residual quantizer they are
    the coarse ones.
    """
    height, width = layout.grid
    cells: dict[int, None] = {}  # in order
    point = 0
    while len(cells) < layout.cells:
        row = int(radical_inverse(point, 2) * height)
        cells.setdefault(row * width + int(radical_inverse(point, 3) * width))
        point += 1
    several = layout.num_codebooks
    return torch.tensor([cell * several + m for m in range(several) for cell in cells])


def radical_inverse(number: int, base: int) -> float:
    """The digits of a whole number mirrored at the point: a number in [0, 1)."""
    found, weight = 0.0, 1.0
    while number:
        weight /= base
        number, digit = divmod(number, base)
        found += digit * weight
    return found
