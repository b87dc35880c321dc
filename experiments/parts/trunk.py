from dataclasses import dataclass

from torch import nn

from vqvae_lightning.config import ConfigError, setting
from vqvae_lightning.models.trunks.trunk import ImageShape, Trunk


class Patches(Trunk):
    """One linear map for each patch of an image, and one back."""

    @dataclass
    class Config:
        side: int = setting(4, "sides of a patch, in pixels", at_least=1)

    def __init__(self, config: Config, image_shape: ImageShape, vector: bool) -> None:
        channels, height, width = image_shape
        if height % config.side or width % config.side:
            raise ConfigError(f"model.trunk.side: {config.side} divides no image of {image_shape}")
        self.channels = channels
        self.kernel = (height, width) if vector else (config.side, config.side)
        self.grid = (height // self.kernel[0], width // self.kernel[1])

    def encoder(self, out_channels: int) -> nn.Module:
        return nn.Conv2d(self.channels, out_channels, self.kernel, stride=self.kernel)

    def decoder(self, in_channels: int, channels: int) -> nn.Module:
        return nn.ConvTranspose2d(in_channels, channels, self.kernel, stride=self.kernel)
