"""A hundred generated recordings in the Free Spoken Digit Dataset's own files, so that tests run
the whole path without a download.
"""

import hashlib
import io
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from vqvae_lightning.data import digits, sources
from vqvae_lightning.data.digits import FSDD, SpokenDigits

# Recordings of each digit and speaker: two for training, one each for validation and test.
INDICES = dict(zip(digits.INDICES, (range(2, 4), range(1, 2), range(1)), strict=True))


def recording(name: str) -> bytes:
    """A WAV file of a tone whose pitch tells the digit, and whose overtones tell the speaker."""
    digit, speaker, index = name.removesuffix(".wav").split("_")
    random = np.random.default_rng([int(digit), digits.SPEAKERS.index(speaker), int(index)])
    samples = int(random.integers(1500, 6000))
    times = np.arange(samples) / digits.RATE
    tone = np.sin(2 * np.pi * (150 + 60 * int(digit)) * times)
    overtone = np.sin(2 * np.pi * (1000 + 400 * digits.SPEAKERS.index(speaker)) * times)
    noise = random.normal(0, 0.01, samples)
    return wav((0.4 * tone + 0.3 * overtone + noise) * 0.5)


def wav(samples: np.ndarray, rate: int = digits.RATE, channels: int = 1) -> bytes:
    """A WAV file of 16 bits of samples (n,) or (n, channels) in [-1, 1]."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


@contextmanager
def installed(root: Path) -> Iterator[SpokenDigits]:
    """Writes the files under root/fsdd, which `fsdd` means until the block ends."""
    with mock.patch.dict(digits.INDICES, INDICES):
        files = {file: b"".join(map(recording, digits.names_of(file))) for file in digits.INDICES}
        folder = root / "fsdd"
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            (folder / file).write_bytes(data)
        fake = replace(
            FSDD,
            train_size=120,
            validation_size=60,
            test_size=60,
            files={file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
            sources=(),
        )
        of_files = {file: len(data) for file, data in files.items()}
        with (
            mock.patch.dict(digits.SIZES, of_files),
            mock.patch.dict(sources.DATASETS, {"fsdd": fake}),
        ):
            yield fake
