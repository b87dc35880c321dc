"""Recordings: log-mel windows, which are seen as spectrograms and heard through a vocoder."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, DataConfig, MelWindow
from vqvae_lightning.metrics.reconstruction import Errors
from vqvae_lightning.signals.mel import DB_PER_LEVEL, LogMel, Vocoder, recorded
from vqvae_lightning.signals.signal import Clip, Signal, moved

# What `data` offers for images and has no meaning for windows: a mirrored word is no word.
OF_IMAGES = {"flip": False, "binarize": "none"}
# How a recording of a classifier's training is changed.
BANDS = 2  # up or down by so many bands
HISS = 80  # its padding gets a constant level of up to this, −55 dB
MASK = 8  # at most so many bands, and as many frames, get …
LEVELLED = -0.2  # about the mean of recorded frames


class Recordings(Signal):
    """Windows (1, bands, frames) of a recording's log-mel levels; see `mel`."""

    completed_side = "width"
    feature_networks = ("classifier",)

    def __init__(self, window: MelWindow, vocoder: Vocoder | None = None) -> None:
        """`vocoder` makes the waveforms that are heard; None: Griffin-Lim."""
        self.mel, self.vocoder = LogMel(window), vocoder
        self.errors = SpectralErrors()
        self.rate, self.samples = self.mel.rate, self.mel.samples

    def sounds(self, x: Tensor) -> list[Clip]:
        return [Clip(samples.numpy(), self.rate) for samples in self._waveforms(x)]

    def played(self, x: Tensor) -> Tensor:
        """Windows of what windows sound like after the vocoder, (N, 1, bands, frames), on the
        CPU.
        """
        found = self._waveforms(x)
        waveforms = torch.zeros(len(x), self.samples)
        for row, waveform in zip(waveforms, found, strict=True):
            row[: len(waveform)] = waveform
        return self.mel.windows(waveforms, torch.tensor([len(waveform) for waveform in found]))

    def _waveforms(self, x: Tensor) -> list[Tensor]:
        return self.mel.waveforms(x, self.vocoder)

    def varied(self, x: Tensor) -> Tensor:
        """Each later by as much as its window has room for, and up or down by BANDS bands.

        What is around it becomes a constant hiss in three of four, and a few bands and frames are
        levelled (Park et al. 2019, arXiv 1904.08779, without warping): neither when a word is said,
        nor where padding begins, nor a single sound is enough to tell a class.
        """
        frames = x.shape[-1]
        drawn = torch.rand(3, len(x), 1, device=x.device)  # 3,N,1
        later = (drawn[0] * (frames + 1 - last_recorded(x))).long()
        up = (drawn[1] * (2 * BANDS + 1)).long() - BANDS
        x = moved(x, up, -later)
        around = ~recorded(x) | (torch.arange(frames, device=x.device) < later)  # N,frames
        hiss = -1 + (drawn[2] * 4 / 3 - 1 / 3).clamp_min(0) * (HISS / 127.5)  # N,1
        x = torch.where(around[:, None, None], hiss[:, :, None, None], x)
        return x.masked_fill(stripe(x, 2) | stripe(x, 3), LEVELLED)

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


def last_recorded(x: Tensor) -> Tensor:
    """How many frames, (N, 1), stored windows x (N, 1, bands, frames) have up to the last one that
    is no padding.
    """
    numbers = torch.arange(1, x.shape[-1] + 1, device=x.device)
    return (recorded(x) * numbers).amax(1, keepdim=True)


def stripe(x: Tensor, dim: int) -> Tensor:
    """Up to MASK positions in a row along a dimension of windows x (N, 1, bands, frames), as a mask
    that is broadcast along the others.
    """
    size, drawn = x.shape[dim], torch.rand(2, len(x), 1, 1, 1, device=x.device)
    start, count = (drawn[0] * size).long(), (drawn[1] * (MASK + 1)).long()  # N,1,1,1 each
    at = torch.arange(size, device=x.device).view(-1, *[1] * (3 - dim))
    return (at >= start) & (at < start + count)
