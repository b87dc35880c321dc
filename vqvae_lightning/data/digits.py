"""The Free Spoken Digit Dataset: 3,000 recordings of ten digits by six speakers, 8 kHz.

```
recordings/7_jackson_32.wav, … ──► train-, val- and test-recordings.wavs ──► waveforms ──► windows
        3,000 members of an archive       WAV files one after another            log-mel levels
```

Its own split: recordings 0 … 4 of each digit and speaker are for test. Recordings 5 … 9 are for
validation, which is ours: the splits so depend on no seed and on no label, and a tokenizer serves
priors of any labels. Licence of the recordings: CC BY-SA 4.0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from vqvae_lightning.config import ConfigError, DataConfig, MelWindow, SoundConfig
from vqvae_lightning.data.archives import read_members
from vqvae_lightning.data.dataset import Dataset, Recording, Split
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.formats import Arrays, DataError, Format, stated_sizes
from vqvae_lightning.data.texts import said_by
from vqvae_lightning.data.waveforms import recordings, windows

RATE = 8000  # samples per second
DIGITS = tuple(map(str, range(10)))
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
# File → which of the fifty recordings of each digit and speaker it holds.
INDICES = {
    "train-recordings.wavs": range(10, 50),
    "val-recordings.wavs": range(5, 10),
    "test-recordings.wavs": range(5),
}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LARGEST = 2**20  # bytes of a recording


def labels_of(speakers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What `data.label` may be → the classes."""
    both = tuple(f"{digit} {speaker}" for digit, speaker in product(DIGITS, speakers))
    return {"digit": DIGITS, "speaker": tuple(speakers), "digit_and_speaker": both}


def texts_of(speakers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What `data.label` may be → what recordings of each label say."""
    both = tuple(said_by(speaker, word) for word, speaker in product(WORDS, speakers))
    return {"digit": WORDS, "speaker": (), "digit_and_speaker": both}


def members(archive: Path, prefix: str, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """The layout of an archive with a WAV file for each recording: those of a split, joined."""
    names = {file: [prefix + name for name in names_of(file)] for file in sizes}
    limits = dict.fromkeys((name for some in names.values() for name in some), LARGEST)
    found = dict(read_members(archive, limits))
    for file, of_file in names.items():
        yield file, b"".join(found[name] for name in of_file)


def names_of(file: str) -> Iterator[str]:
    """The recordings that a file holds, in order: by index, digit, speaker, so that the first of
    them are of all digits.
    """
    for index, digit, speaker in product(INDICES[file], DIGITS, SPEAKERS):
        yield f"{digit}_{speaker}_{index}.wav"


def decode(
    files: Iterable[bytes | bytearray], count: int, window: MelWindow, label: str, speakers: int
) -> Arrays:
    """Windows uint8 (N, 1, bands, frames) and labels (N,) of the recordings of a split.

    The recordings are in order of index, digit, speaker, and there are so many speakers.
    """
    found = [recording for data in files for recording in recordings(data, RATE)]
    if len(found) != count:
        raise DataError(f"got {len(found)} recordings, wanted {count}")
    both = np.arange(count) % (len(DIGITS) * speakers)
    labels = {"digit": both // speakers, "speaker": both % speakers}
    return windows(found, window), labels.get(label, both).astype(np.int64)


SIZES = {
    "train-recordings.wavs": 16_921_530,
    "val-recordings.wavs": 2_126_058,
    "test-recordings.wavs": 2_081_260,
}
SHA256 = {
    "train-recordings.wavs": "8ae630f15ebf35ae415b9fa0b730fa588c4d668b2cda66bb0327e146371dbf20",
    "val-recordings.wavs": "81012f82ab03a8d4ed9e93e8b41b04a9c16b98ca3b37d0329b93f6ff1534f384",
    "test-recordings.wavs": "18b74684a7a3e8418a4af10b5d04fd657a3c262404bdce61b1569631663abd5e",
}


@dataclass(frozen=True)
class SpokenDigits(Dataset):
    """Recordings of digits by several speakers."""

    speakers: tuple[str, ...] = SPEAKERS

    def chosen(self, data: DataConfig) -> "SpokenDigits":
        label, sound, labels = data.label or "digit", data.sound, labels_of(self.speakers)
        if label not in labels:
            raise ConfigError(
                f"data.label: got {label}, but {self.name} has {', '.join(labels)}; wanted one of"
                " them"
            )
        window = sound.resolved(RATE)
        if label == "digit" and window == self.sound:
            return self
        return replace(
            self,
            shape=window.shape,
            classes=len(labels[label]),
            names=labels[label],
            texts=texts_of(self.speakers)[label],
            label=label,
            told=frozenset(label.split("_and_")),
            format=replace(
                self.format,
                decode=partial(decode, window=window, label=label, speakers=len(self.speakers)),
            ),
            sound=window,
        )

    def recordings(self, root: Path, split: Split) -> list[Recording]:
        """The recordings of a split in root/name, verified, whole. Raises DataError."""
        return [
            recording
            for name in self.split(split)
            for recording in recordings(self.at(root).read(name), RATE)
        ]


_WINDOW = SoundConfig().resolved(RATE)
_HOST = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"

FSDD = SpokenDigits(
    "fsdd",
    "Free Spoken Digit Dataset",
    _WINDOW.shape,
    len(DIGITS),
    2_400,
    300,
    SHA256,
    Format(
        partial(decode, window=_WINDOW, label="digit", speakers=len(SPEAKERS)),
        partial(stated_sizes, SIZES),
    ),
    (
        Source("fsdd.tar.xz", members, "recordings/"),  # placed by hand in root/name
        Source("fsdd.tar.gz", members, "free-spoken-digit-dataset-1.0.10/recordings/"),
        Source(_HOST, members, "free-spoken-digit-dataset-1.0.10/recordings/"),
    ),
    DIGITS,
    label="digit",
    told=frozenset({"digit"}),
    validation_size=300,
    sound=_WINDOW,
    texts=WORDS,
    licence="CC BY-SA 4.0",
)
