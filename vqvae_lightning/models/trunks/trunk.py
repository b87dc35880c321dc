"""What a trunk is: the networks that all autoencoders share, whatever their bottleneck."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

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


def feature_grid(image_shape: ImageShape, downsamples: Sequence[int], key: str) -> tuple[int, int]:
    """(h, w) of the features after halving the sides of an image.

    Args:
        image_shape: (C, H, W). H and W need be neither equal nor powers of two.
        downsamples: How often the height is halved, and how often the width.
        key: The setting that says so, for the message.

    Raises:
        ValueError: If the sides cannot be halved so often.
    """
    _, height, width = image_shape
    down, across = (2**halvings for halvings in downsamples)
    if height % down or width % across:
        alike = down == across
        raise ValueError(
            f"{key}: {downsamples[0] if alike else list(downsamples)} halvings need sides divisible"
            f" by {down if alike else f'{down} and {across}'}, got images of {height}x{width}"
        )
    return height // down, width // across
