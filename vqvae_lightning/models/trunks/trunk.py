"""What a trunk is: the networks that all autoencoders share, whatever their bottleneck."""

from abc import ABC, abstractmethod

from torch import nn

ImageShape = tuple[int, int, int]  # C, H, W


class Trunk(ABC):
    """Makes the encoder and the decoder of images (C, H, W); a member of `TRUNKS`.

    ```
    x N,C,H,W ──► encoder ──► h N,out_channels,h,w        (h, w) = grid
    z N,in_channels,h,w ──► decoder ──► N,channels,H,W, unbounded
    ```

    With `vector` the latent is one vector: `grid` is then (1, 1). A member is built as
    `Member(config, image_shape, vector)` and owns a dataclass `Config`.
    """

    grid: tuple[int, int]  # (h, w) of the latent

    @abstractmethod
    def encoder(self, out_channels: int) -> nn.Module:
        """A new encoder, of images (N, C, H, W) in [-1, 1]."""

    @abstractmethod
    def decoder(self, in_channels: int, channels: int) -> nn.Module:
        """A new decoder to `channels` numbers per pixel."""


def feature_grid(image_shape: ImageShape, downsamples: int, key: str) -> tuple[int, int]:
    """(h, w) of the features after halving the sides of an image.

    Args:
        image_shape: (C, H, W). H and W need be neither equal nor powers of two.
        downsamples: How often both sides are halved.
        key: The setting that says so, for the message.

    Raises:
        ValueError: If the sides cannot be halved `downsamples` times.
    """
    factor = 2**downsamples
    _, height, width = image_shape
    if height % factor or width % factor:
        raise ValueError(
            f"{key}: {downsamples} halvings need sides divisible by {factor}, got images of"
            f" {height}x{width}"
        )
    return height // factor, width // factor
