"""Waveforms of recordings: WAV files joined to one file, and their log-mel windows."""

import io
import wave
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.config import MelWindow
from vqvae_lightning.data.dataset import Recording
from vqvae_lightning.data.formats import DataError


def recordings(data: bytes | bytearray, rate: int) -> Iterator[Recording]:
    """The samples of WAV files one after another. Raises DataError for anything else."""
    start = 0
    while start < len(data):
        end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        try:
            with wave.open(io.BytesIO(data[start:end])) as file:
                form = file.getnchannels(), file.getsampwidth(), file.getframerate()
                if form != (1, 2, rate):
                    raise DataError(f"a recording is {form}, wanted 1 channel, 2 bytes, {rate} Hz")
                yield np.frombuffer(file.readframes(file.getnframes()), "<i2")
        except (wave.Error, EOFError) as error:
            raise DataError(f"byte {start} begins no WAV file: {error}") from error
        start = end


def padded(found: Sequence[Recording], samples: int) -> tuple[NDArray[np.float32], list[int]]:
    """Waveforms (N, samples) in [-1, 1] and their lengths; what is longer is cut off."""
    waveforms = np.zeros((len(found), samples), np.float32)
    for waveform, recording in zip(waveforms, found, strict=True):
        waveform[: len(recording)] = recording[:samples] / 32768
    return waveforms, [min(len(recording), samples) for recording in found]


def windows(found: Sequence[Recording], window: MelWindow) -> NDArray[np.uint8]:
    """Log-mel windows uint8 (N, 1, bands, frames) of recordings."""
    # Settings know the names of datasets, and torch takes seconds to import.
    import torch

    from vqvae_lightning.signals.mel import LogMel

    mel = LogMel(window)
    waveforms, lengths = padded(found, mel.samples)
    levels = mel.levels(torch.from_numpy(waveforms), torch.tensor(lengths))
    array: NDArray[np.uint8] = levels.numpy()
    return array
