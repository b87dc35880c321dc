"""A folder of recordings: WAV, FLAC and OGG files, which are read as log-mel windows.

```
file ─► soundfile ─► mean of the channels ─► soxr to the window's rate ─► LogMel ─► 1,bands,frames
        no more of it than the window holds
```

Classes, splits and what is left out are those of a folder of images. Nothing here trusts its
input: whatever libsndfile makes of hostile bytes becomes an `ImageError`. A file that ends too soon
is used as far as it goes, where its format allows that.
"""

import math
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.config.data import MelWindow
from vqvae_lightning.config.values import visible
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.own.folders import ImageFolder, Tree
from vqvae_lightning.data.own.pixels import (
    DAMAGED,
    EMPTY,
    ImageError,
    Picture,
    Size,
    cannot_be_read,
    regular_file,
)

if TYPE_CHECKING:
    from vqvae_lightning.signals.mel import LogMel

SOUND_ENDINGS = frozenset({"wav", "flac", "ogg"})
NO_RECORDING, NO_SAMPLES = "is no recording", "has no samples"
# Files that start so are recordings, even if libsndfile makes nothing of the rest.
MAGIC = (b"RIFF", b"fLaC", b"OggS")
HIGHEST_RATE, MOST_CHANNELS = 768_000, 64  # what is above them is taken for an attack
MARGIN = 1024  # samples beyond the window that are read, for the filter of a resampling


class SoundFolder(ImageFolder):
    """Recordings below a folder; see `ImageFolder`.

    Raises DataError for a folder without recordings, and without the extra `speech`.
    """

    channels = 1
    wanted = "recordings"
    no_wanted = NO_RECORDING

    def __init__(self, root: Path, tree: Tree, window: MelWindow) -> None:
        self.window: MelWindow = window
        _soundfile(root)
        super().__init__(root, tree)

    @staticmethod
    def may_be(kind: str) -> bool:
        return kind in SOUND_ENDINGS

    def read(self, index: int, channels: int, size: Size | None = None) -> Picture:
        """The window of one recording; it has one size, whatever is asked for."""
        import torch

        path = self.root / self.names[index]
        mel = _mel(self.window)
        found = waveform(path, self.window.rate, mel.samples)
        padded = np.zeros((1, mel.samples), np.float32)
        padded[0, : len(found)] = found
        levels = mel.levels(torch.from_numpy(padded), torch.tensor([len(found)]))
        return Picture(levels[0].numpy())


def waveform(path: Path, rate: int, samples: int) -> NDArray[np.float32]:
    """The first samples of a recording in [-1, 1], (n,) with n ≤ samples, at a rate.

    Raises ImageError: no recording, or one without samples or with some that are no numbers.
    """
    import soxr

    try:
        with regular_file(path) as file:
            given, own_rate = _first(file, rate, samples)
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(cannot_be_read(error)) from error
    if not len(given):
        raise ImageError(NO_SAMPLES)
    mono = given.mean(1)
    if not np.isfinite(mono).all():
        raise ImageError("has samples that are no numbers")
    if own_rate != rate:
        mono = soxr.resample(mono, own_rate, rate)
    # One sample at a high rate is less than one at a low one.
    found: NDArray[np.float32] = mono[:samples] if len(mono) else np.zeros(1, np.float32)
    return found


def _first(file: IO[bytes], rate: int, samples: int) -> tuple[NDArray[np.float32], int]:
    """The beginning of a file (n, channels) float32, no more than is needed, and its own rate."""
    import soundfile

    head = file.read(4)
    file.seek(0)
    if not head:
        raise ImageError(EMPTY)
    try:
        with soundfile.SoundFile(file) as sound:
            own_rate, channels = sound.samplerate, sound.channels
            if own_rate <= HIGHEST_RATE and channels <= MOST_CHANNELS:
                wanted = math.ceil(samples * own_rate / rate) + MARGIN
                return sound.read(wanted, dtype="float32", always_2d=True), own_rate
    except Exception as error:  # soundfile's own, and those of its callbacks
        raise ImageError(DAMAGED if head in MAGIC else NO_RECORDING) from error
    raise ImageError(f"has {own_rate:,} samples per second and {channels} channels")


@cache
def _mel(window: MelWindow) -> "LogMel":
    # Whoever reads images needs no torch, which takes seconds to import.
    from vqvae_lightning.signals.mel import LogMel

    return LogMel(window)


def _soundfile(root: Path) -> None:
    """Raises DataError unless the packages that read recordings are installed."""
    try:
        import soundfile  # noqa: F401
        import soxr  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: soundfile without its library
        raise DataError(
            f"{visible(str(root))}: recordings need the packages soundfile and soxr, which are not"
            " installed; run pip install 'vqvae_lightning[speech]'"
        ) from error
