"""Recordings: log-mel windows, which are seen as spectrograms and heard through a vocoder."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, DataConfig, MelWindow
from vqvae_lightning.metrics.reconstruction import Errors
from vqvae_lightning.signals.mel import DB_PER_LEVEL, LogMel, recorded
from vqvae_lightning.signals.signal import Clip, Signal

# What `data` offers for images and has no meaning for windows: a mirrored word is no word.
OF_IMAGES = {"flip": False, "binarize": "none"}


class Recordings(Signal):
    """Windows (1, bands, frames) of a recording's log-mel levels; see `mel`."""

    completed_side = "width"
    feature_networks = ("classifier",)

    def __init__(self, window: MelWindow) -> None:
        self.mel = LogMel(window)
        self.errors = SpectralErrors()
        self.rate, self.samples = self.mel.rate, self.mel.samples

    def sounds(self, x: Tensor) -> list[Clip]:
        return [Clip(samples.numpy(), self.rate) for samples in self.mel.waveforms(x)]

    def check_data(self, data: DataConfig) -> None:
        for name, usual in OF_IMAGES.items():
            got = getattr(data, name)
            if got != usual:
                raise ConfigError(
                    f"data.{name}: got {got}, but {data.dataset} holds recordings, wanted {usual}"
                )


class SpectralErrors(Errors):
    """The log-spectral distance in dB: the lower, the better.

    Of a frame it is the root mean square of the differences over the bands; of a recording the mean
    over its frames, without those of padding (Gray & Markel 1976, "Distance measures for speech
    processing", on mel bands). A vocoder takes no part in it.
    """

    terms = 1

    def of_batch(self, x: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        return {"log_spectral_distance": log_spectral_distance(x, reconstruction).mean()}

    def sums(self, x: Tensor, reconstruction: Tensor) -> list[Tensor]:
        return [log_spectral_distance(x, reconstruction).double().sum()]

    def values(self, means: Sequence[Tensor]) -> dict[str, Tensor]:
        (distance,) = means
        return {"log_spectral_distance": distance}


def log_spectral_distance(x: Tensor, reconstruction: Tensor) -> Tensor:
    """dB, (N,), between windows (N, 1, bands, frames) in [-1, 1], over the frames of recordings x.

    A window of nothing but padding has distance 0.
    """
    with torch.autocast(x.device.type, enabled=False):
        difference = (reconstruction.float() - x.float()) * (127.5 * DB_PER_LEVEL)
        of_frames = difference.square().mean((1, 2)).sqrt()  # N,frames
    frames = recorded(x)  # N,frames
    return (of_frames * frames).sum(1) / frames.sum(1).clamp_min(1)
