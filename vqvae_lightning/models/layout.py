"""How the codes of an image lie on its grid and in a sequence: the one place that knows it.

```
 grid N,h,w,M:  code m of the cell at row r, column c
 sequence N,T:  the same code at position (r·w + c)·M + m,  T = h·w·M
```

With M = 1 the last axis of the grid is left out. h, w: sides of the grid; M: codes per cell, each
of a codebook of its own; K: codes of a codebook.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CodeLayout:
    """The shape of an image's codes and their order in a sequence."""

    grid: tuple[int, int]  # h, w
    codebook_size: int  # K
    num_codebooks: int = 1  # M

    @classmethod
    def of_shape(cls, shape: Sequence[int], codebook_size: int) -> "CodeLayout":
        """The layout of codes of shape (h, w) or (h, w, M), as a record of a tokenizer has it."""
        height, width, *more = shape
        return cls((height, width), codebook_size, math.prod(more))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's codes: (h, w), or (h, w, M) with several codes per cell."""
        return self.grid if self.num_codebooks == 1 else (*self.grid, self.num_codebooks)

    @property
    def cells(self) -> int:
        """h·w, cells of the grid."""
        return math.prod(self.grid)

    @property
    def length(self) -> int:
        """T, codes per image."""
        return self.cells * self.num_codebooks

    @property
    def sequence_grid(self) -> tuple[int, int]:
        """(h, w·M): the grid of single codes on which a sequence is in raster order."""
        return self.grid[0], self.grid[1] * self.num_codebooks

    @property
    def uniform_nats(self) -> float:
        """T log K, the nats of an image's codes where all K are equally likely."""
        return self.length * math.log(self.codebook_size)

    def flatten(self, codes: Tensor) -> Tensor:
        """Sequences (N, T) of codes (N, *shape)."""
        return codes.flatten(1)

    def unflatten(self, sequences: Tensor) -> Tensor:
        """Codes (N, *shape) of sequences (N, T); undoes `flatten`."""
        codes: Tensor = sequences.unflatten(1, self.shape)
        return codes

    def from_cells(self, codes: Tensor) -> Tensor:
        """Codes (N, *shape) of the codes of each cell in raster order, (N·h·w, M)."""
        return codes.reshape(-1, *self.shape)

    def filled(self, codes: Tensor) -> Tensor:
        """Codes (N, *shape) of images that have the same codes (N, M) in every cell."""
        return self.from_cells(codes.repeat_interleave(self.cells, 0))

    def positions(self, cells: Tensor) -> Tensor:
        """A mask (N, T) of the positions whose grid cells a mask (N, h, w) has."""
        return cells.flatten(1).repeat_interleave(self.num_codebooks, 1)

    def histogram(self, codes: Tensor) -> Tensor:
        """How often each code of each codebook occurs, (M, K) int64, in codes (N, *shape) or
        sequences (N, T).
        """
        return histogram(codes, self.codebook_size, self.num_codebooks)


def histogram(codes: Tensor, codebook_size: int, num_codebooks: int = 1) -> Tensor:
    """How often each of K codes of each of M codebooks occurs, (M, K) int64.

    Args:
        codes: of shape (…, M), of any shape if M is 1, or sequences (N, T).
        codebook_size: K.
        num_codebooks: M.
    """
    offsets = codebook_size * torch.arange(num_codebooks, device=codes.device)
    rows = codes.reshape(-1, num_codebooks) + offsets  # N·h·w,M
    counts = torch.bincount(rows.flatten(), minlength=num_codebooks * codebook_size)
    return counts.view(num_codebooks, codebook_size)
