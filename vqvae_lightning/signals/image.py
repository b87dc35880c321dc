"""Images: pixels, which are seen."""

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, DataConfig, to_dict
from vqvae_lightning.metrics.reconstruction import PIXELS
from vqvae_lightning.signals.signal import Clip, Signal, moved

SHIFT = 2  # pixels: images of a classifier's training are moved by up to this much


class Images(Signal):
    """Pixels of one or three channels."""

    errors = PIXELS
    rate = samples = 0
    completed_side = "height"
    feature_networks = ("inception", "classifier")

    def sounds(self, x: Tensor) -> list[Clip]:
        return []

    def played(self, x: Tensor) -> Tensor:
        return x

    def varied(self, x: Tensor) -> Tensor:
        """Each moved by up to SHIFT whole pixels in both directions; the border is repeated."""
        up, left = torch.randint(-SHIFT, SHIFT + 1, (2, len(x), 1), device=x.device)  # n,1 each
        return moved(x, up, left)

    def check_data(self, data: DataConfig) -> None:
        for name, value in to_dict(data.sound).items():
            if value is not None:
                raise ConfigError(
                    f"data.sound.{name}: got {value}, but {data.dataset} holds images, no"
                    " recordings"
                )
