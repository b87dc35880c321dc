"""Causal convolution over a grid of codes: all cells at once in training, and piece by piece in
sampling.

The codes before cell (r, c) in raster order are read by two stacks, each with a shifted input:

```
 · a a a a a ·   a: rows above, from the input shifted down by a row; computed when row r begins
 · l l ? · · ·   l: row r left of c, from the input shifted right by a column; computed at each cell
```

With shifted inputs no weight needs a mask: a convolution may see its own cell. While sampling,
every convolution keeps its inputs and is applied where they are new, so that a sequence takes the
arithmetic of one pass over it (Ramachandran et al. 2017, arXiv 1704.06001).
"""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior


@dataclass
class GridCache:
    """What the layers of a `GridPrior` keep of the positions seen so far."""

    grid: tuple[int, int]
    # N,width,1,w  the last w codes, embedded: column c holds row r−1 until (r, c) is known
    codes: Tensor
    # features of the rows above row r, N,·,1,w each
    above: list[Tensor] = field(default_factory=list)
    # by layer: its inputs, or its outputs
    kept: dict[nn.Module, Tensor] = field(default_factory=dict)
    length: int = 0

    @property
    def cell(self) -> tuple[int, int]:
        """(r, c) of the current position."""
        return divmod(self.length, self.grid[1])

    def at_cell(self, x: Tensor) -> Tensor:
        """Column c of a row, (N, ·, 1, w) → (N, ·, 1, 1)."""
        _, c = self.cell
        return x[..., c : c + 1]


def half(kernel: int) -> int:
    """⌈kernel/2⌉: the rows or columns of a centred kernel that are not after the predicted cell."""
    return (kernel + 1) // 2


class CausalConv(nn.Conv2d):
    """kh×kw convolution whose output at (r, c) sees the kh rows that end with r, and kw columns.

    These are the columns that end with c, or with `centred` those around c, for inputs that are
    shifted down. x is the whole grid (N, C, h, w); or with a cache what is new, row r (N, C, 1, w)
    or cell (r, c) (N, C, 1, 1), and so is the output.
    """

    def __init__(
        self, channels: int, out_channels: int, kernel: tuple[int, int], centred: bool = False
    ) -> None:
        super().__init__(channels, out_channels, kernel)
        self.right = kernel[1] // 2 if centred else 0
        self.left = kernel[1] - 1 - self.right

    def forward(self, x: Tensor, cache: GridCache | None = None) -> Tensor:
        kh, kw = self.kernel_size
        if cache is None:
            return super().forward(F.pad(x, (self.left, self.right, kh - 1, 0)))
        (height, width), (r, c), new = cache.grid, cache.cell, x.shape[3]
        if self not in cache.kept:
            cache.kept[self] = x.new_zeros(
                *x.shape[:2], kh - 1 + height, self.left + width + self.right
            )
        inputs = cache.kept[self]  # N,C,h,w, padded
        inputs[:, :, kh - 1 + r, self.left + c : self.left + c + new] = x[:, :, 0]
        seen = inputs[:, :, r : r + kh, c : c + new + kw - 1]
        if new > 1:
            return super().forward(seen)
        # One output is a matrix product; a convolution would put its weights in another order
        # first, at every call.
        return F.linear(seen.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class GridPrior(AutoregressivePrior):
    """A prior whose network reads the codes on their grid.

    A subclass says what the two stacks of the network are (van den Oord et al. 2016).
    """

    @abstractmethod
    def vertical_stack(
        self, x: Tensor, start: Tensor, cache: GridCache | None = None
    ) -> list[Tensor]:
        """Features (N, ·, h, w) of the rows above each row.

        Args:
            x: the embedded code above each cell, (N, width, h, w).
            start: the embedded label, (N, width, 1, 1).
            cache: if given, only row r is given and returned, (N, ·, 1, w).
        """

    @abstractmethod
    def horizontal_stack(
        self, x: Tensor, above: list[Tensor], cache: GridCache | None = None
    ) -> Tensor:
        """Logits (N, K, h, w).

        Args:
            x: the embedded code left of each cell, (N, width, h, w).
            above: the features of `vertical_stack`.
            cache: if given, only cell (r, c) is given and returned, (N, ·, 1, 1).
        """

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        x = self.code_embedding(codes).transpose(1, 2).unflatten(2, self.grid)  # N,width,h,w
        start = self.start(labels, codes.shape[0])[:, :, None, None]
        above = self.vertical_stack(F.pad(x, (0, 0, 1, -1)), start)
        return self.horizontal_stack(F.pad(x, (1, -1)), above).flatten(2).transpose(1, 2)  # N,T,K

    def new_cache(self, n: int) -> GridCache:
        weight = self.code_embedding.weight
        return GridCache(self.grid, weight.new_zeros(n, weight.shape[1], 1, self.grid[1]))

    def step(self, previous: Tensor | None, start: Tensor, cache: GridCache) -> Tensor:
        _, c = cache.cell
        if previous is not None:
            # c = 0: the last of the row above
            cache.codes[:, :, 0, c - 1] = self.code_embedding(previous)
        if c == 0:
            cache.above = self.vertical_stack(cache.codes, start[:, :, None, None], cache)
            x = cache.codes.new_zeros(*cache.codes.shape[:2], 1, 1)
        else:
            x = cache.codes[..., c - 1 : c]
        above = [cache.at_cell(features) for features in cache.above]
        return self.horizontal_stack(x, above, cache)[:, :, 0, 0]


def check_kernel(kernel: int) -> None:
    """Raises ConfigError unless the size of a kernel is odd."""
    if kernel % 2 == 0:
        raise ConfigError(f"model.network.kernel: got {kernel}, wanted an odd number")
