"""Gated PixelCNN over code grids (van den Oord et al. 2016, arXiv 1606.05328).

```
 rows above ──► k×k conv ─┬─► gate ──► … next layer   vertical stack: no blind spot
                          ▼ 1×1
 row, left ──► 1×k conv ──+──► gate ──► 1×1 ──(+ input)──► … next layer   horizontal stack
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


def gate(x: Tensor) -> Tensor:
    """tanh(a) · σ(b) of x = (a, b), (N, 2C, h, w) → (N, C, h, w)."""
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


class VerticalLayer(nn.Module):
    """A layer of the vertical stack (the paper's figure 2); the label is a bias of the gates (its
    equation 4).
    """

    def __init__(self, width: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.conv = CausalConv(width, 2 * width, kernel, centred=True)
        self.label = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.link = nn.Conv2d(2 * width, 2 * width, 1)

    def forward(self, x: Tensor, start: Tensor, cache: GridCache | None) -> tuple[Tensor, Tensor]:
        """The next layer's x (N, width, h, w), and what the horizontal layer adds, (N, 2·width, h,
        w).
        """
        bias, horizontal_bias = self.label(start).chunk(2, dim=1)  # N,2·width,1,1 each
        features = self.conv(x, cache) + bias
        return gate(features), self.link(features) + horizontal_bias


class HorizontalLayer(nn.Module):
    """A layer of the horizontal stack: x (N, width, h, w) + what the gate lets through; the shape
    is kept.
    """

    def __init__(self, width: int, kernel: tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.conv = CausalConv(width, 2 * width, kernel)
        self.out = nn.Conv2d(width, width, 1)
        self.dropout = dropout

    def forward(self, x: Tensor, above: Tensor, cache: GridCache | None) -> Tensor:
        features = gate(self.conv(x, cache) + above)
        change: Tensor = self.out(F.dropout(features, self.dropout, self.training))
        return x + change


class PixelCNN(GridPrior):
    """Gated PixelCNN: a cell sees layers × (kernel // 2) + 1 rows up, and there a column less to
    both sides.

    The shift of the inputs takes the place of the type-A mask of the paper's first layer.
    """

    @documented
    @dataclass
    class Config:
        """The size of the network."""

        layers: int = setting(4, "gated layers", at_least=1, at_most=256)
        width: int = setting(128, "channels of the network", at_least=1)
        kernel: int = setting(5, "kernel size of the masked convolutions; odd", at_least=3)
        dropout: float = setting(0.1, "dropout probability", at_least=0, below=1)

        def __post_init__(self) -> None:
            check_kernel(self.kernel)

    def __init__(
        self, layout: CodeLayout, classes: int, config: Config, label_dropout: float = 0.0
    ) -> None:
        super().__init__(layout, classes, config.width, label_dropout)
        width, rows = config.width, half(config.kernel)
        self.vertical = nn.ModuleList(
            VerticalLayer(width, (rows, config.kernel)) for _ in range(config.layers)
        )
        self.horizontal = nn.ModuleList(
            HorizontalLayer(width, (1, rows), config.dropout) for _ in range(config.layers)
        )
        last = nn.Conv2d(width, width, 1), nn.Conv2d(width, self.codebook_size, 1)
        self.head = nn.Sequential(nn.ReLU(), last[0], nn.ReLU(), last[1])

    def vertical_stack(
        self, x: Tensor, start: Tensor, cache: GridCache | None = None
    ) -> list[Tensor]:
        above = []
        for layer in self.vertical:
            x, link = layer(x, start, cache)
            above.append(link)
        return above

    def horizontal_stack(
        self, x: Tensor, above: list[Tensor], cache: GridCache | None = None
    ) -> Tensor:
        for layer, link in zip(self.horizontal, above, strict=True):
            x = layer(x, link, cache)
        logits: Tensor = self.head(x)
        return logits
