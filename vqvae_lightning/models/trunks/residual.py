"""The residual trunk, for images of 64 to 256 pixels.

Encoder and decoder in the shape of VQGAN's (Esser et al. 2021, arXiv 2012.09841, table 7), which is
that of the U-Net of Ho et al. 2020 (arXiv 2006.11239, app. B) without its skip connections.
GroupNorm, not BatchNorm: an image's features do not depend on the rows beside it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError, documented, setting
from vqvae_lightning.models.trunks.trunk import ImageShape, Trunk, feature_grid

KEY = "model.trunk.multipliers"
LARGEST_GROUPS = 32  # of a GroupNorm: that of Ho et al. 2020


class ResidualTrunk(Trunk):
    """Stages of residual blocks, a halving between two of them, attention on the smallest grid.

    ```
    x N,C,H,W ──► conv ──► stage 1 ──► halving ──► … ──► stage S ──► middle ──► h N,out,h,w
    z N,D,h,w ──► conv ──► middle ──► stage S ──► … ──► doubling ──► stage 1 ──► N,out,H,W
    stage: residual blocks;  middle: block, self-attention, block;  h = H / 2**(S − 1)
    ```
    """

    @documented
    @dataclass
    class Config:
        """Width and depth of encoder and decoder; the number of halvings follows from them."""

        hidden: int = setting(64, "channels that the multipliers multiply", at_least=2)
        multipliers: list[int] = field(
            default_factory=lambda: [1, 2, 4],
            metadata={
                "meaning": "width of each stage, in units of hidden; between two stages the image's"
                " sides are halved"
            },
        )
        residual_blocks: int = setting(
            2,
            "residual blocks of a stage of the encoder; the decoder has one more",
            at_least=1,
            at_most=64,
        )
        attention: bool = setting(True, "self-attention on the smallest grid")

        def __post_init__(self) -> None:
            if not 2 <= len(self.multipliers) <= 6 or min(self.multipliers) < 1:
                raise ConfigError(
                    f"{KEY}: got {self.multipliers}, wanted 2 to 6 numbers of at least 1"
                )

        @property
        def downsamples(self) -> int:
            """Halvings of the image's sides."""
            return len(self.multipliers) - 1

        @property
        def widths(self) -> list[int]:
            """Channels of each stage, that of the whole image first."""
            return [self.hidden * multiplier for multiplier in self.multipliers]

    def __init__(self, config: Config, image_shape: ImageShape, vector: bool) -> None:
        """Raises ValueError if the image's sides cannot be halved between all stages."""
        self.config, self.image_shape, self.vector = config, image_shape, vector
        self.feature_grid = feature_grid(image_shape, [config.downsamples] * 2, KEY)
        self.grid = (1, 1) if vector else self.feature_grid

    def encoder(self, out_channels: int) -> nn.Module:
        """Images (N, C, H, W) → h (N, out_channels, h, w); (N, out_channels, 1, 1) for a vector."""
        width = self.config.widths[-1]
        last: nn.Module
        if self.vector:
            # A projection over the whole grid is a convolution with a kernel of the grid's size.
            last = nn.Conv2d(width, out_channels, self.feature_grid)  # h,w → 1,1
        else:
            last = nn.Conv2d(width, out_channels, 3, padding=1)
        return Encoder(*encoder_layers(self.config, self.image_shape[0]), last)

    def decoder(self, in_channels: int, channels: int) -> nn.Module:
        """Latents z (N, in_channels, h, w), with `vector` (N, in_channels, 1, 1) → (N, channels,
        H, W).
        """
        width = self.config.widths[-1]
        first: nn.Module
        if self.vector:
            first = nn.ConvTranspose2d(in_channels, width, self.feature_grid)  # 1,1 → h,w
        else:
            first = nn.Conv2d(in_channels, width, 3, padding=1)
        return Decoder(first, *decoder_layers(self.config, channels))


class Encoder(nn.Module):
    """Layers in a row, one graph where they are compiled.

    torch.compile would compile each layer of a bare nn.Sequential, and counts what it has compiled
    by the code of a `forward`, so that the decoder has one of its own.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x)
        return h


class Decoder(nn.Module):
    """As `Encoder`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        decoded: Tensor = self.layers(z)
        return decoded


def encoder_layers(config: ResidualTrunk.Config, in_channels: int) -> Iterator[nn.Module]:
    """Layers from images (N, in_channels, H, W) to activated features (N, widths[-1], h, w)."""
    channels = config.widths[0]
    yield nn.Conv2d(in_channels, channels, 3, padding=1)
    for stage, width in enumerate(config.widths):
        if stage:
            yield nn.Conv2d(channels, channels, 3, stride=2, padding=1)  # H,W halved
        for _ in range(config.residual_blocks):
            yield ResidualBlock(channels, width)
            channels = width
    yield from middle_layers(channels, config.attention)
    yield group_norm(channels)
    yield nn.SiLU()


def decoder_layers(config: ResidualTrunk.Config, out_channels: int) -> Iterator[nn.Module]:
    """Layers from features (N, widths[-1], h, w) to (N, out_channels, H, W), unbounded."""
    channels = config.widths[-1]
    yield from middle_layers(channels, config.attention)
    for stage, width in enumerate(reversed(config.widths)):
        if stage:
            yield nn.Upsample(scale_factor=2.0, mode="nearest")  # H,W doubled
            yield nn.Conv2d(channels, channels, 3, padding=1)
        for _ in range(config.residual_blocks + 1):
            yield ResidualBlock(channels, width)
            channels = width
    yield group_norm(channels)
    yield nn.SiLU()
    yield nn.Conv2d(channels, out_channels, 3, padding=1)


def middle_layers(channels: int, attention: bool) -> Iterator[nn.Module]:
    """Layers of the smallest grid, N,channels,h,w → N,channels,h,w."""
    yield ResidualBlock(channels, channels)
    if attention:
        yield SelfAttention(channels)
    yield ResidualBlock(channels, channels)


class ResidualBlock(nn.Module):
    """Shortcut(x) + Conv3×3(SiLU(Norm(Conv3×3(SiLU(Norm(x)))))): N,in_channels,h,w →
    N,out_channels,h,w.

    The shortcut is a 1×1 convolution where the channels change, else x itself.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(in_channels), group_norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv1(F.silu(self.norm1(x)))  # N,out_channels,h,w
        change = self.conv2(F.silu(self.norm2(change)))
        kept: Tensor = self.shortcut(x)
        return kept + change


class SelfAttention(nn.Module):
    """x + Conv1×1(attention among all h·w positions of Norm(x)), of one head, shape kept.

    Memory and time grow with (h·w)², so it stands on the smallest grid only.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.queries_keys_values = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.queries_keys_values(self.norm(x))  # N,3C,h,w
        # N,1,h·w,C each: views if x is channels_last
        query, key, value = rows.permute(0, 2, 3, 1).flatten(1, 2)[:, None].chunk(3, dim=-1)
        found = F.scaled_dot_product_attention(query, key, value)[:, 0]  # N,h·w,C
        # N,C,h,w
        change: Tensor = self.project(found.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2))
        return x + change


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of at most 32 groups that divide the channels, each of at least two channels.

    On a grid of 1×1 a group of one channel would be normalized to zero, whatever its value.
    """
    groups = math.gcd(LARGEST_GROUPS, channels)
    if groups == channels:
        groups //= 2
    return nn.GroupNorm(groups, channels, eps=1e-6)
