"""PixelSNAIL over code grids (Chen et al. 2018, arXiv 1712.09763): causal convolution looks near,
attention far.

```
 codes above and left, label ──► features ──► [ convolutions ──► attention ] × layers ──► logits
 codes ─────────────────────────────────── to the keys of each ──┘
```
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import PriorConfig
from vqvae_lightning.models.causal import CausalConv, GridCache, GridPrior, half

RESIDUALS = (
    2  # residual convolutions before each attention; a grid of codes is smaller than one of pixels
)


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
        return x + a * torch.sigmoid(b)


class CausalAttention(nn.Module):
    """Every place attends to those before it and to itself, and finds there features and the code
    before that place.

    Queries are of (features, background), keys and values of (before, features, background). The
    background is where a place is, row and column in [-0.5, 0.5], which attention by itself does
    not know. In the paper a place is joined with its own code, and attended to only from later
    ones; one further on, the first has something to attend to, too.
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
        """What was found, (N, width, h, w), from inputs of that shape; with a cache (N, width, 1,
        1).
        """
        n, _, height, width = features.shape
        background = self.background
        if cache is not None:
            r, c = cache.place
            background = background[:, r : r + 1, c : c + 1]
        background = background.expand(n, -1, -1, -1)
        query = self._sequence(self.query(torch.cat([features, background], dim=1)))  # N,heads,t,D
        joined = self._sequence(
            self.key_value(torch.cat([before, features, background], dim=1))
        )  # N,heads,t,2·D
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
        return x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)


class Block(nn.Module):
    """Residual convolutions, attention, and a 1×1 residual block that joins the two."""

    def __init__(self, config: PriorConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        width, kernel, dropout = config.width, half(config.kernel), config.dropout
        self.residuals = nn.ModuleList(
            GatedResidual(width, kernel, dropout) for _ in range(RESIDUALS)
        )
        self.attention = CausalAttention(width, config.heads, grid)
        self.found = nn.Conv2d(width, width, 1)
        self.join = GatedResidual(width, 1, dropout)

    def forward(self, before: Tensor, features: Tensor, cache: GridCache | None) -> Tensor:
        for residual in self.residuals:
            features = residual(features, cache)
        found = F.elu(self.attention(before, features, cache))
        return self.join(features, cache, beside=self.found(found))


class PixelSNAIL(GridPrior):
    """PixelSNAIL: the convolutions see ⌈kernel/2⌉ rows and columns up to a place, attention all
    places before it.

    The label joins the features once, before the first block.
    """

    def __init__(
        self, codebook_size: int, grid: tuple[int, int], classes: int, config: PriorConfig
    ) -> None:
        super().__init__(codebook_size, grid, classes, config)
        width, rows = config.width, half(config.kernel)
        self.above = CausalConv(width, width, (rows, config.kernel), centred=True)
        self.left = CausalConv(width, width, (1, rows))
        self.blocks = nn.ModuleList(Block(config, grid) for _ in range(config.layers))
        self.head = nn.Conv2d(width, codebook_size, 1)
        nn.init.normal_(
            self.head.weight, std=0.02
        )  # features grow with depth; a new prior should be about uniform

    def look_above(self, x: Tensor, start: Tensor, cache: GridCache | None = None) -> list[Tensor]:
        wrapped = F.pad(
            x[..., -1:], (0, x.shape[3] - 1)
        )  # at column 0 the code before is the last of the row above
        return [self.above(x, cache) + start, wrapped]

    def look_left(self, x: Tensor, above: list[Tensor], cache: GridCache | None = None) -> Tensor:
        features = self.left(x, cache) + above[0]
        before = x + above[1]  # N,width,h,w: the code before each place, in raster order
        for block in self.blocks:
            features = block(before, features, cache)
        return self.head(F.elu(features))
