"""Networks that a flow follows: the velocity of a latent at a time, given its label.

Both are told time and label by the scale, shift and gate of each block, whose gates begin at zero
(Peebles & Xie 2023, arXiv 2212.09748, adaLN-Zero).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import documented, setting
from vqvae_lightning.models.priors.matching import VelocityNetwork
from vqvae_lightning.models.priors.prior import check_heads


class Modulation(nn.Module):
    """`parts` tensors (N, width) of a condition (N, width), which are zero at the beginning."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.linear, self.parts = nn.Linear(width, parts * width), parts
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        chunks: tuple[Tensor, ...] = self.linear(condition).chunk(self.parts, dim=1)
        return chunks


class ResidualMLP(VelocityNetwork):
    """Blocks h + gate · MLP(norm(h)) on all numbers of a latent at once: for vectors."""

    @documented
    @dataclass
    class Config(VelocityNetwork.Config):
        """The size of the network."""

        width: int = setting(256, "channels of the network", at_least=1)
        layers: int = setting(3, "blocks", at_least=1, at_most=256)

    def __init__(self, shape: tuple[int, int, int], config: Config) -> None:
        super().__init__()
        size, width = math.prod(shape), config.width
        self.into, self.out = nn.Linear(size, width), nn.Linear(width, size)
        self.norms = nn.ModuleList(plain_norm(width) for _ in range(config.layers + 1))
        self.ups = nn.ModuleList(nn.Linear(width, width) for _ in range(config.layers))
        self.downs = nn.ModuleList(nn.Linear(width, width) for _ in range(config.layers))
        self.modulations = nn.ModuleList(Modulation(width, 3) for _ in range(config.layers))
        self.last = Modulation(width, 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.into(x.flatten(1))  # N,width
        *norms, last = self.norms
        for norm, up, down, modulation in zip(
            norms, self.ups, self.downs, self.modulations, strict=True
        ):
            shift, scale, gate = modulation(condition)
            h = h + gate * down(F.silu(up(norm(h) * (1 + scale) + shift)))
        shift, scale = self.last(condition)
        y: Tensor = self.out(last(h) * (1 + scale) + shift)
        return y.view_as(x)


class CellTransformer(VelocityNetwork):
    """Attention between the cells of a grid, with learned positions: a diffusion Transformer."""

    @documented
    @dataclass
    class Config(VelocityNetwork.Config):
        """The size of the network."""

        layers: int = setting(4, "blocks", at_least=1, at_most=256)
        heads: int = setting(4, "attention heads", at_least=1)

        def __post_init__(self) -> None:
            check_heads(self.width, self.heads)

    def __init__(self, shape: tuple[int, int, int], config: Config) -> None:
        super().__init__()
        channels, width = shape[0], config.width
        self.into, self.out = nn.Linear(channels, width), nn.Linear(width, channels)
        self.position = nn.Parameter(0.02 * torch.randn(shape[1] * shape[2], width))
        self.blocks = nn.ModuleList(CellBlock(width, config.heads) for _ in range(config.layers))
        self.norm, self.last = plain_norm(width), Modulation(width, 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.into(x.flatten(2).transpose(1, 2)) + self.position  # N,h·w,width
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.last(condition)
        y: Tensor = self.out(self.norm(h) * (1 + scale[:, None]) + shift[:, None])  # N,h·w,D
        return y.transpose(1, 2).reshape(x.shape)


class CellBlock(nn.Module):
    """h + gate · attention, then h + gate · MLP, (N, h·w, width), given a condition (N, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = plain_norm(width), plain_norm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = Modulation(width, 6)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        parts = [part[:, None] for part in self.modulation(condition)]  # N,1,width each
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        n, cells, width = h.shape
        qkv = self.qkv(self.norm1(h) * (1 + scale1) + shift1)
        # N,heads,h·w,d each
        q, k, v = qkv.view(n, cells, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Written out, for `trace`: vmap has no rule for the gradient of the fused attention.
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5  # N,heads,h·w,h·w
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, cells, width)
        h = h + gate1 * self.out(attended)
        change: Tensor = gate2 * self.down(F.gelu(self.up(self.norm2(h) * (1 + scale2) + shift2)))
        return h + change


def plain_norm(width: int) -> nn.LayerNorm:
    """A layer norm without weights: scale and shift come from the condition."""
    return nn.LayerNorm(width, elementwise_affine=False)
