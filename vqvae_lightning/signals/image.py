"""Images: pixels, which are seen."""

from torch import Tensor

from vqvae_lightning.config import ConfigError, DataConfig, to_dict
from vqvae_lightning.metrics.reconstruction import PIXELS
from vqvae_lightning.signals.signal import Clip, Signal


class Images(Signal):
    """Pixels of one or three channels."""

    errors = PIXELS
    rate = samples = 0
    completed_side = "height"
    feature_networks = ("inception", "classifier")

    def sounds(self, x: Tensor) -> list[Clip]:
        return []

    def check_data(self, data: DataConfig) -> None:
        for name, value in to_dict(data.sound).items():
            if value is not None:
                raise ConfigError(
                    f"data.sound.{name}: got {value}, but {data.dataset} holds images, no"
                    " recordings"
                )
