"""Rotary positions on the grid of codes: attention that depends on where codes lie to each other.

Queries and keys are turned by angles that follow from cells of the grid (Su et al. 2021, arXiv
2104.09864). A token reads one code and predicts another, so it has two cells:

```
 token t reads z_t−1:  key by the cell of z_t−1 ──┐
                                                  ├─► score: a function of cell − cell
 token s predicts z_s: query by the cell of z_s ──┘
```

A code above the predicted one is thus always one row away, where a row begins, too. All that
stands before the codes lies on a line that leads to the cell before the first: −1 on each axis.

Letters: A axes of the layout's shape, row and column and codebook, of those longer than 1; L tokens
of a text; T codes; d channels of a head.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vqvae_lightning.models.layout import CodeLayout

# The fastest turn is 1 rad per cell, the slowest stays above 1/BASE. Grids are short: the base of
# texts is 10,000 (Heo et al. 2024, arXiv 2403.13298, section 3.2).
BASE = 100.0


class Turn(NamedTuple):
    """Rotations of pairs of channels."""

    cos: Tensor  # …,t,d/2
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x (…, t, d), turned: channel i with channel i + d/2."""
        a, b = x.chunk(2, dim=-1)
        turned = torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], dim=-1)
        return turned.to(x.dtype)


class Rotation(NamedTuple):
    """How a block turns its queries and keys."""

    queries: Turn
    keys: Turn

    def at(self, t: int) -> "Rotation":
        """That of one token, for (N, heads, d)."""
        (of_queries, of_keys) = self
        return Rotation(
            Turn(of_queries.cos[t], of_queries.sin[t]), Turn(of_keys.cos[t], of_keys.sin[t])
        )


def cells_of(layout: CodeLayout) -> Tensor:
    """The cell of each position of a sequence, (T, A) int64."""
    sides = [side for side in layout.shape if side > 1] or [1]
    return torch.cartesian_prod(*(torch.arange(side) for side in sides)).view(-1, len(sides))


def rotation_of(cells: Tensor, before: int, channels: int, like: Tensor) -> Rotation:
    """The rotation of tokens that read and predict codes in an order.

    Args:
        cells: of the codes in that order, (…, T, A).
        before: L, tokens that stand before the one that starts the sequence.
        channels: d, of a head; at least two for each axis.
        like: gives device and dtype; angles are float32 or better.

    Returns:
        The turns of L + T tokens.
    """
    line = torch.arange(-1 - before, 0, device=cells.device)  # L+1
    line = line[:, None].expand(*cells.shape[:-2], -1, cells.shape[-1])  # …,L+1,A
    turn = turn_of(torch.cat([line, cells], dim=-2), channels, like)  # of L+1+T cells
    return Rotation(
        Turn(turn.cos[..., 1:, :], turn.sin[..., 1:, :]),
        Turn(turn.cos[..., :-1, :], turn.sin[..., :-1, :]),
    )


def turn_of(cells: Tensor, channels: int, like: Tensor) -> Turn:
    """The turn of cells (…, A): each axis in turn has a pair of channels, ever slower ones."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    axes, pairs = cells.shape[-1], channels // 2
    pair = torch.arange(pairs, device=cells.device)
    of_axis = -(-pairs // axes)  # pairs of an axis, rounded up
    speed = BASE ** -((pair // axes).to(dtype) / of_axis)
    angles = cells[..., pair % axes].to(dtype) * speed  # …,d/2
    return Turn(angles.cos(), angles.sin())
