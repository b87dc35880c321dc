"""PixelSNAIL over code grids (Chen et al. 2018, arXiv 1712.09763): causal convolution looks near,
attention far.

```
 codes above and left, label ──► features ──► [ convolutions ──► attention ] × layers ──► logits
 codes ─────────────────────────────────── to the keys of each ──┘
```
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import documented, setting
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.causal import (
    CausalConv,
    GridCache,
    GridPrior,
    check_kernel,
    half,
)
from vqvae_lightning.models.priors.prior import check_heads

# Residual convolutions before each attention: a grid of codes is smaller than one of pixels.
RESIDUALS = 2


class GatedResidual(nn.Module):
    """x + a · σ(b), where (a, b) is two causal k×k convolutions of x, with ELU; shape (N, width, h,
    w) kept.

    `beside` (N, width, h, w) is added between the two.
    """

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = CausalConv(width, width, (kernel, kernel))
        self.conv2 = CausalConv(width, 2 * width, (kernel, kernel))
        self.dropout = dropout

    def forward(self, x: Tensor, cache: GridCache | None, beside: Tensor | float = 0.0) -> Tensor:
        hidden = F.elu(self.conv1(F.elu(x), cache) + beside)
        a, b = self.conv2(F.dropout(hidden, self.dropout, self.training), cache).chunk(2, dim=1)
        change: Tensor = a * torch.sigmoid(b)
        return x + change


class CausalAttention(nn.Module):
    """Every cell attends to itself and to the cells before it in raster order.

    Queries are made of (features, background), keys and values of (before, features, background),
    where `before` is the code before a cell. The background is the row and the column of a cell in
    [-0.5, 0.5], which attention by itself does not know. The paper joins a cell with its own code
    and masks the diagonal; we shift the keys by one cell instead, so that the first cell has
    something to attend to.
    """

    background: Tensor  # 2,h,w

    def __init__(self, width: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(width + 2, width, 1)
        self.key_value = nn.Conv2d(2 * width + 2, 2 * width, 1)
        rows, columns = (torch.linspace(-0.5, 0.5, side) for side in grid)
        self.register_buffer(
            "background",
            torch.stack(torch.meshgrid(rows, columns, indexing="ij")),
            persistent=False,
        )

    def forward(self, before: Tensor, features: Tensor, cache: GridCache | None) -> Tensor:
        """The attended values (N, width, h, w), from inputs of that shape; with a cache (N, width,
        1, 1).
        """
        n, _, height, width = features.shape
        background = self.background
        if cache is not None:
            r, c = cache.cell
            background = background[:, r : r + 1, c : c + 1]
        background = background.expand(n, -1, -1, -1)
        query = self.query(torch.cat([features, background], dim=1))
        query = self._sequence(query)  # N,heads,t,D
        joined = self.key_value(torch.cat([before, features, background], dim=1))
        joined = self._sequence(joined)  # N,heads,t,2·D
        if cache is not None:
            if self not in cache.kept:
                cache.kept[self] = joined.new_empty(
                    n, self.heads, self.background[0].numel(), joined.shape[3]
                )
            cache.kept[self][:, :, cache.length] = joined[:, :, 0]
            joined = cache.kept[self][:, :, : cache.length + 1]
        key, value = joined.chunk(2, dim=3)
        found = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        return found.transpose(2, 3).reshape(n, -1, height, width)

    def _sequence(self, x: Tensor) -> Tensor:
        """(N, heads·D, h, w) → (N, heads, h·w, D)."""
        by_head: Tensor = x.flatten(2).unflatten(1, (self.heads, -1))  # N,heads,D,h·w
        return by_head.transpose(2, 3)


class Block(nn.Module):
    """Residual convolutions, attention, and a 1×1 residual block that joins the two."""

    def __init__(
        self, width: int, heads: int, kernel: int, dropout: float, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(
            GatedResidual(width, kernel, dropout) for _ in range(RESIDUALS)
        )
        self.attention = CausalAttention(width, heads, grid)
        self.found = nn.Conv2d(width, width, 1)
        self.join = GatedResidual(width, 1, dropout)

    def forward(self, before: Tensor, features: Tensor, cache: GridCache | None) -> Tensor:
        for residual in self.residuals:
            features = residual(features, cache)
        found = F.elu(self.attention(before, features, cache))
        joined: Tensor = self.join(features, cache, beside=self.found(found))
        return joined


class PixelSNAIL(GridPrior):
    """PixelSNAIL: the convolutions see ⌈kernel/2⌉ rows and columns up to a cell, attention all
    cells before it.

    The label joins the features once, before the first block.
    """

    @documented
    @dataclass
    class Config:
        """The size of the network."""

        layers: int = setting(4, "blocks", at_least=1, at_most=256)
        width: int = setting(128, "channels of the network", at_least=1)
        heads: int = setting(4, "attention heads", at_least=1)
        kernel: int = setting(5, "kernel size of the masked convolutions; odd", at_least=3)
        dropout: float = setting(0.1, "dropout probability", at_least=0, below=1)

        def __post_init__(self) -> None:
            check_heads(self.width, self.heads)
            check_kernel(self.kernel)

    def __init__(
        self, layout: CodeLayout, classes: int, config: Config, label_dropout: float = 0.0
    ) -> None:
        super().__init__(layout, classes, config.width, label_dropout)
        width, rows = config.width, half(config.kernel)
        self.above = CausalConv(width, width, (rows, config.kernel), centred=True)
        self.left = CausalConv(width, width, (1, rows))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, rows, config.dropout, self.grid)
            for _ in range(config.layers)
        )
        self.head = nn.Conv2d(width, self.codebook_size, 1)
        # features grow with depth; a new prior should be about uniform
        nn.init.normal_(self.head.weight, std=0.02)

    def vertical_stack(
        self, x: Tensor, start: Tensor, cache: GridCache | None = None
    ) -> list[Tensor]:
        # at column 0 the code before is the last of the row above
        wrapped = F.pad(x[..., -1:], (0, x.shape[3] - 1))
        return [self.above(x, cache) + start, wrapped]

    def horizontal_stack(
        self, x: Tensor, above: list[Tensor], cache: GridCache | None = None
    ) -> Tensor:
        features = self.left(x, cache) + above[0]
        before = x + above[1]  # N,width,h,w: the code before each cell, in raster order
        for block in self.blocks:
            features = block(before, features, cache)
        logits: Tensor = self.head(F.elu(features))
        return logits
