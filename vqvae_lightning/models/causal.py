"""Causal convolution over a grid of codes: all places at once in training, and piece by piece in
sampling.

What is known at place (r, c), the codes before it in raster order, is cut in two, and the input
shifted to match:

```
 · a a a a a ·   a: rows above, from the input shifted down by a row; done when row r begins
 · l l ? · · ·   l: row r left of c, from the input shifted right by a column; done at each place
```

With shifted inputs no weight needs a mask: a convolution may see its own place. While sampling,
every convolution keeps its inputs and is applied where they are new, so that a sequence takes the
arithmetic of one pass over it (Ramachandran et al. 2017, arXiv 1704.06001).
"""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.models.autoregressive import AutoregressivePrior


@dataclass
class GridCache:
    """What the layers of a `GridPrior` keep of the places seen so far."""

    grid: tuple[int, int]
    # N,width,1,w  the last w codes, embedded: column c holds row r−1 until (r, c) is known
    codes: Tensor
    above: list[Tensor] = field(
        default_factory=list
    )  # what the rows above say of row r, N,·,1,w each
    kept: dict[nn.Module, Tensor] = field(
        default_factory=dict
    )  # by layer: its inputs, or what it made of them
    length: int = 0

    @property
    def place(self) -> tuple[int, int]:
        """(r, c) of the position under way."""
        return divmod(self.length, self.grid[1])

    def of_place(self, x: Tensor) -> Tensor:
        """Column c of a row, (N, ·, 1, w) → (N, ·, 1, 1)."""
        _, c = self.place
        return x[..., c : c + 1]


def half(kernel: int) -> int:
    """⌈kernel/2⌉: what causality leaves of the side of a square that is centred on the place it
    predicts.
    """
    return (kernel + 1) // 2


class CausalConv(nn.Conv2d):
    """kh×kw convolution whose output at (r, c) sees the kh rows that end with r, and kw columns.

    These are the columns that end with c, or with `centred` those around c, for inputs that are
    shifted down. x is the whole grid (N, C, h, w); or with a cache what is new, row r (N, C, 1, w)
    or place (r, c) (N, C, 1, 1), and so is the output.
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
        (height, width), (r, c), new = cache.grid, cache.place, x.shape[3]
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

    A subclass says what the two halves of the network are.
    """

    @abstractmethod
    def look_above(self, x: Tensor, start: Tensor, cache: GridCache | None = None) -> list[Tensor]:
        """Features (N, ·, h, w) that row r has of the rows above it.

        x (N, width, h, w) holds the code above each place, embedded; start (N, width, 1, 1) the
        label. With a cache only row r is given and returned, (N, ·, 1, w).
        """

    @abstractmethod
    def look_left(self, x: Tensor, above: list[Tensor], cache: GridCache | None = None) -> Tensor:
        """Logits (N, K, h, w), from x (N, width, h, w), the code left of each place, and the
        features from above.

        With a cache only place (r, c) is given and returned, (N, ·, 1, 1).
        """

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        x = self.code_embedding(codes).transpose(1, 2).unflatten(2, self.grid)  # N,width,h,w
        start = self.start(labels, len(codes))[:, :, None, None]
        above = self.look_above(F.pad(x, (0, 0, 1, -1)), start)
        return self.look_left(F.pad(x, (1, -1)), above).flatten(2).transpose(1, 2)  # N,T,K

    def new_cache(self, n: int) -> GridCache:
        weight = self.code_embedding.weight
        return GridCache(self.grid, weight.new_zeros(n, weight.shape[1], 1, self.grid[1]))

    def step(self, previous: Tensor | None, start: Tensor, cache: GridCache) -> Tensor:
        _, c = cache.place
        if previous is not None:
            cache.codes[:, :, 0, c - 1] = self.code_embedding(
                previous
            )  # c = 0: the last of the row above
        if c == 0:
            cache.above = self.look_above(cache.codes, start[:, :, None, None], cache)
        x = (
            cache.codes[..., c - 1 : c]
            if c
            else cache.codes.new_zeros(*cache.codes.shape[:2], 1, 1)
        )
        return self.look_left(x, [cache.of_place(features) for features in cache.above], cache)[
            :, :, 0, 0
        ]
