"""The convolutional trunk.

Strided convolutions and residual blocks in the shape of van den Oord et al. 2017 (arXiv 1711.00937,
§4.1) and of DeepMind's Sonnet example. No BatchNorm: a batch's statistics would depend on how many
ranks cut it.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import documented, setting
from vqvae_lightning.models.trunks.trunk import ImageShape, Trunk, feature_grid


class ConvTrunk(Trunk):
    """Halves the sides of an image `downsamples` times, and doubles those of a latent as often."""

    @documented
    @dataclass
    class Config:
        """Width and depth of encoder and decoder."""

        hidden: int = setting(128, "channels of the trunk", at_least=2)
        residual_hidden: int = setting(32, "channels inside a residual block", at_least=1)
        residual_blocks: int = setting(
            2, "residual blocks in encoder and in decoder", at_least=0, at_most=256
        )
        downsamples: int = setting(2, "halvings of the image's sides", at_least=1, at_most=6)

    def __init__(self, config: Config, image_shape: ImageShape, vector: bool) -> None:
        """Raises ValueError if the image's sides cannot be halved `downsamples` times."""
        self.config, self.image_shape, self.vector = config, image_shape, vector
        self.features = feature_grid(image_shape, config.downsamples, "model.trunk.downsamples")
        self.grid = (1, 1) if vector else self.features

    def encoder(self, out_channels: int) -> nn.Module:
        """Images (N, C, H, W) → h (N, out_channels, h, w); (N, out_channels, 1, 1) for a vector."""
        # A projection over the whole grid is a convolution with a kernel of the grid's size.
        last = self.features if self.vector else (1, 1)
        return Encoder(self.config, self.image_shape[0], out_channels, last)

    def decoder(self, in_channels: int, channels: int) -> nn.Module:
        """Latents z (N, in_channels, h, w), with `vector` (N, in_channels, 1, 1) → (N, channels,
        H, W).
        """
        first: nn.Module
        if self.vector:
            first = nn.ConvTranspose2d(in_channels, self.config.hidden, self.features)  # 1,1 → h,w
        else:
            first = nn.Conv2d(in_channels, self.config.hidden, 3, padding=1)
        return Decoder(self.config, first, channels)


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
        for i in range(config.downsamples):
            width = config.hidden if i == config.downsamples - 1 else config.hidden // 2
            layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()]  # H,W halved
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
        for i in range(config.downsamples):
            width = out_channels if i == config.downsamples - 1 else config.hidden // 2
            # H,W doubled
            layers += [nn.ReLU(), nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1)]
            channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        decoded: Tensor = self.layers(z)
        return decoded
