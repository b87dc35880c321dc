"""Encoder and decoder: the trunk that AE, VAE and VQ-VAE share.

Strided convolutions and residual blocks in the shape of van den Oord et al. 2017 (arXiv 1711.00937,
§4.1) and of DeepMind's Sonnet example. No BatchNorm: a batch's statistics would depend on how many
ranks cut it.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import NetworkConfig


class Residual(nn.Module):
    """x + Conv1×1(ReLU(Conv3×3(ReLU(x)))), shape kept."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(channels, hidden, 3, padding=1)
        self.conv1 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv1(F.relu(self.conv3(F.relu(x))))


class Encoder(nn.Module):
    """Images (N, C, H, W) in [-1, 1] → features h (N, out_channels, h, w), h = H / 2**downsamples.

    With `vector`, the features are projected to one vector: (N, out_channels, 1, 1).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        config: NetworkConfig,
        out_channels: int,
        vector: bool,
    ) -> None:
        super().__init__()
        grid = feature_grid(image_shape, config)
        layers: list[nn.Module] = []
        channels = image_shape[0]
        for i in range(config.downsamples):
            width = config.hidden if i == config.downsamples - 1 else config.hidden // 2
            layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()]  # H,W halved
            channels = width
        layers += [nn.Conv2d(channels, config.hidden, 3, padding=1)]
        layers += [
            Residual(config.hidden, config.residual_hidden) for _ in range(config.residual_blocks)
        ]
        layers += [nn.ReLU()]
        # A projection over the whole grid is a convolution with a kernel of the grid's size.
        layers += [nn.Conv2d(config.hidden, out_channels, grid if vector else 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(nn.Module):
    """Latents z (N, in_channels, h, w), or (N, in_channels, 1, 1) with `vector` → (N, C, H, W),
    unbounded.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        config: NetworkConfig,
        in_channels: int,
        vector: bool,
    ) -> None:
        super().__init__()
        grid = feature_grid(image_shape, config)
        first: nn.Module
        if vector:
            first = nn.ConvTranspose2d(in_channels, config.hidden, grid)  # 1,1 → h,w
        else:
            first = nn.Conv2d(in_channels, config.hidden, 3, padding=1)
        layers: list[nn.Module] = [first]
        layers += [
            Residual(config.hidden, config.residual_hidden) for _ in range(config.residual_blocks)
        ]
        channels = config.hidden
        for i in range(config.downsamples):
            width = image_shape[0] if i == config.downsamples - 1 else config.hidden // 2
            layers += [
                nn.ReLU(),
                nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1),
            ]  # H,W doubled
            channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


def feature_grid(image_shape: tuple[int, int, int], config: NetworkConfig) -> tuple[int, int]:
    """(h, w) of the features.

    Raises ValueError if the image's sides cannot be halved `downsamples` times.
    """
    factor = 2**config.downsamples
    _, height, width = image_shape
    if height % factor or width % factor:
        raise ValueError(
            f"model.network.downsamples: {config.downsamples} halvings need sides divisible by"
            f" {factor}, got images of {height}x{width}"
        )
    return height // factor, width // factor
