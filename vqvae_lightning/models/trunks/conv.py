"""The convolutional trunk.

Strided convolutions and residual blocks in the shape of van den Oord et al. 2017 (arXiv 1711.00937,
§4.1) and of DeepMind's Sonnet example. No BatchNorm: a batch's statistics would depend on how many
ranks cut it. Those of one image do not: instance normalization of the encoder as for the conversion
of voices (Chou et al. 2019, arXiv 1904.05742).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError, documented, setting
from vqvae_lightning.models.trunks.trunk import ImageShape, Trunk, feature_grid

KEY = "model.trunk.downsamples"


class ConvTrunk(Trunk):
    """Halves the sides of an image `downsamples` times, and doubles those of a latent as often.

    Height and width can be halved another number of times: of recordings, bands and time.
    """

    @documented
    @dataclass
    class Config:
        """Width and depth of encoder and decoder."""

        hidden: int = setting(128, "channels of the trunk", at_least=2)
        residual_hidden: int = setting(32, "channels inside a residual block", at_least=1)
        residual_blocks: int = setting(
            2, "residual blocks in encoder and in decoder", at_least=0, at_most=256
        )
        downsamples: int | list[int] = setting(
            2,
            "halvings of the image's sides, a number or [of the height, of the width]",
            at_least=1,
            at_most=6,
        )
        instance_norm: bool = setting(
            False,
            "normalize each channel over the image after each strided convolution of the encoder,"
            " to keep from z what is alike all over the image, such as who speaks",
        )

        def __post_init__(self) -> None:
            both = self.both_downsamples
            if len(both) != 2 or min(both) < 0 or not 1 <= max(both) <= 8:
                raise ConfigError(
                    f"{KEY}: got {self.downsamples}, wanted 1 to 6 halvings, or two numbers of 0 to"
                    " 8, such as [6, 2]"
                )

        @property
        def both_downsamples(self) -> list[int]:
            """Halvings of the height and of the width."""
            given = self.downsamples
            return [given, given] if isinstance(given, int) else given

        @property
        def strides(self) -> list[tuple[int, int]]:
            """What each layer divides height and width by, that of the whole image first."""
            height, width = self.both_downsamples
            layers = range(max(height, width))
            return [(1 + (layer < height), 1 + (layer < width)) for layer in layers]

    def __init__(self, config: Config, image_shape: ImageShape, vector: bool) -> None:
        """Raises ValueError if the image's sides cannot be halved `downsamples` times, or if
        nothing is left to normalize.
        """
        self.config, self.image_shape, self.vector = config, image_shape, vector
        self.feature_grid = feature_grid(image_shape, config.both_downsamples, KEY)
        self.grid = (1, 1) if vector else self.feature_grid
        if config.instance_norm and self.feature_grid == (1, 1):
            raise ValueError(
                "model.trunk.instance_norm: got true, but the encoder's features are one cell,"
                " which has nothing to be normalized over; wanted fewer downsamples than"
                f" {config.downsamples}"
            )

    def encoder(self, out_channels: int) -> nn.Module:
        """Images (N, C, H, W) → h (N, out_channels, h, w); (N, out_channels, 1, 1) for a vector."""
        # A projection over the whole grid is a convolution with a kernel of the grid's size.
        last = self.feature_grid if self.vector else (1, 1)
        return Encoder(self.config, self.image_shape[0], out_channels, last)

    def decoder(self, in_channels: int, channels: int) -> nn.Module:
        """Latents z (N, in_channels, h, w), with `vector` (N, in_channels, 1, 1) → (N, channels,
        H, W).
        """
        first: nn.Module
        if self.vector:
            # 1,1 → h,w
            first = nn.ConvTranspose2d(in_channels, self.config.hidden, self.feature_grid)
        else:
            first = nn.Conv2d(in_channels, self.config.hidden, 3, padding=1)
        return Decoder(self.config, first, channels)


def kernel_of(stride: tuple[int, int]) -> tuple[int, int]:
    """Sides of the kernel that with a padding of 1 divides by a stride of 1 or 2 exactly."""
    height, width = stride
    return height + 2, width + 2


class Residual(nn.Module):
    """x + Conv1×1(ReLU(Conv3×3(ReLU(x)))), shape kept."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(channels, hidden, 3, padding=1)
        self.conv1 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv1(F.relu(self.conv3(F.relu(x))))
        return x + change


class Encoder(nn.Module):
    """Images (N, in_channels, H, W) in [-1, 1] → features (N, out_channels, h, w).

    The features are on a grid with h = H / 2**downsamples. `kernel` is that of the last layer,
    which projects them.
    """

    def __init__(
        self,
        config: ConvTrunk.Config,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        *others, last = config.strides
        widths = [config.hidden // 2] * len(others) + [config.hidden]
        for stride, width in zip([*others, last], widths, strict=True):
            # H,W divided by the stride
            layers += [nn.Conv2d(channels, width, kernel_of(stride), stride, 1)]
            layers += [nn.InstanceNorm2d(width)] if config.instance_norm else []
            layers += [nn.ReLU()]
            channels = width
        layers += [nn.Conv2d(channels, config.hidden, 3, padding=1)]
        layers += [
            Residual(config.hidden, config.residual_hidden) for _ in range(config.residual_blocks)
        ]
        layers += [nn.ReLU(), nn.Conv2d(config.hidden, out_channels, kernel)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x)
        return h


class Decoder(nn.Module):
    """Latents z (N, D, h, w) or (N, D, 1, 1) → (N, out_channels, H, W), unbounded.

    `first` is the layer that makes features (N, hidden, h, w) of them.
    """

    def __init__(self, config: ConvTrunk.Config, first: nn.Module, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [first]
        layers += [
            Residual(config.hidden, config.residual_hidden) for _ in range(config.residual_blocks)
        ]
        channels = config.hidden
        *others, last = config.strides[::-1]
        widths = [config.hidden // 2] * len(others) + [out_channels]
        for stride, width in zip([*others, last], widths, strict=True):
            # H,W multiplied by the stride
            layers += [nn.ReLU(), nn.ConvTranspose2d(channels, width, kernel_of(stride), stride, 1)]
            channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        decoded: Tensor = self.layers(z)
        return decoded
