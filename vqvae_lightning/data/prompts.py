"""Prompts: the English voice of a telephone exchange, read out of a package of Debian.

```
asterisk-core-sounds-en-wav_1.6.1-1_all.deb ──► clips/*.wav ──► pieces ──► <split>-names.txt
   a .deb, or the tar file that it holds        551 clips       ≤ 2 s  └─► <split>-recordings.wavs
```

25 minutes of one speaker at 8 kHz, licensed under CC BY-SA 3.0. A clip that is longer than a window
is cut into pieces, each at its quietest point. Neither a clip nor a text is in two splits.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from vqvae_lightning.config import ConfigError, DataConfig, MelWindow, SoundConfig
from vqvae_lightning.data.archives import members_below
from vqvae_lightning.data.dataset import Dataset, Recording, Split
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.formats import Arrays, DataError, Format, stated_sizes
from vqvae_lightning.data.prompt_texts import is_spoken, text_of
from vqvae_lightning.data.waveforms import recordings, windows
from vqvae_lightning.wav import wav_file

RATE = 8000  # samples per second
SPLITS: tuple[Split, ...] = ("train", "val", "test")
LONGEST = 16_384  # samples of a piece: 2.048 s, as long as a usual window
SHORTEST = 1_600  # … of the last piece of a clip; a shorter one is left out
BLOCK = 160  # samples over which the power is summed to find where a clip is quietest
GROUPS = ("sentences", "digits", "letters", "phonetic")
PART = "(a part)"  # the label of a piece of a longer clip: what it says is not known
# The clips that are no longer than a piece. They are known before the package is there, because a
# model is built of their texts.
WHOLE = (Path(__file__).parent / "prompt_names.txt").read_text("utf-8").split()
LARGEST, TOGETHER = 2**22, 2**26  # bytes of a clip, and of all clips
FOLDER = "./usr/share/asterisk/sounds/en_US_f_Allison/"


def pieces_of(clip: Recording) -> list[Recording]:
    """A clip (n,) in pieces of at most LONGEST samples.

    A piece ends in the middle of the quietest block in the second half of what it may hold. The sum
    is one of integers, so that every machine cuts at the same sample.
    """
    pieces = []
    while len(clip) > LONGEST:
        half = LONGEST // 2
        blocks = clip[half : half + (LONGEST - half) // BLOCK * BLOCK].astype(np.int64)
        power = np.square(blocks).reshape(-1, BLOCK).sum(1)
        end = half + int(power.argmin()) * BLOCK + BLOCK // 2
        pieces.append(clip[:end])
        clip = clip[end:]
    if len(clip) >= SHORTEST or not pieces:
        pieces.append(clip)
    return pieces


def split_of(text: str) -> Split:
    """The split of all clips of a text: a tenth each are for test and for validation."""
    digit = hashlib.sha256(text.encode()).digest()[0] % 10
    return {0: "test", 1: "val"}.get(digit, "train")  # type: ignore[return-value]


def members(archive: Path, prefix: str, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """The layout of the package: the pieces of each split's clips, and their names, joined."""
    names: dict[Split, list[str]] = {split: [] for split in SPLITS}
    sounds: dict[Split, list[bytes]] = {split: [] for split in SPLITS}
    for member, data in sorted(members_below(archive, prefix, ".wav", LARGEST, TOGETHER)):
        name = member.removeprefix(prefix).removesuffix(".wav")
        if not is_spoken(name):
            continue
        clips = list(recordings(data, RATE))
        if len(clips) != 1:
            raise DataError(f"{member}: holds {len(clips)} recordings, wanted one")
        pieces, split = pieces_of(clips[0]), split_of(text_of(name))
        for number, piece in enumerate(pieces, start=1):
            names[split].append(f"{name} {number}/{len(pieces)}\n")
            sounds[split].append(wav_file(piece.astype("<i2").tobytes(), RATE))
    for split in SPLITS:
        yield f"{split}-names.txt", "".join(names[split]).encode()
        yield f"{split}-recordings.wavs", b"".join(sounds[split])


def group_of(name: str) -> str:
    """The label of a clip: its folder, or `sentences`."""
    folder = name.rpartition("/")[0]
    return folder if folder in GROUPS else "sentences"


def labels_of(clips: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What `data.label` may be → the classes, where these are the clips of one piece.

    The texts of test come first, so that a prior is seen and heard on what it did not learn.
    """
    texts = dict.fromkeys(text_of(name) for name in clips)
    order = sorted(texts, key=lambda text: (SPLITS[::-1].index(split_of(text)), text))
    return {"group": GROUPS, "text": (*order, PART)}


LABELS = labels_of(WHOLE)


def label_of(line: str, label: str) -> str:
    """The class of a piece, of whose clip and number a line of names tells."""
    name, number = line.split()
    if label == "group":
        return group_of(name)
    return text_of(name) if number == "1/1" else PART


def decode(files: Iterable[bytes | bytearray], count: int, window: MelWindow, label: str) -> Arrays:
    """Windows uint8 (N, 1, bands, frames) and labels (N,) of the pieces of a split."""
    names, sounds = files
    found = bytes(names).decode().splitlines()
    levels = windows(list(recordings(sounds, RATE)), window)
    if not len(found) == len(levels) == count:
        raise DataError(f"got {len(levels)} pieces and {len(found)} names, wanted {count}")
    classes = {name: number for number, name in enumerate(LABELS[label])}
    return levels, np.array([classes[label_of(line, label)] for line in found], np.int64)


@dataclass(frozen=True)
class Prompts(Dataset):
    """Recordings of one speaker, whose names say what is spoken."""

    def chosen(self, data: DataConfig) -> "Prompts":
        label, window = data.label or "group", data.sound.resolved(RATE, FRAMES)
        if label not in LABELS:
            raise ConfigError(
                f"data.label: got {label}, but {self.name} has {', '.join(LABELS)}; wanted one of"
                " them"
            )
        if label == "group" and window == self.sound:
            return self
        names = LABELS[label]
        return replace(
            self,
            shape=window.shape,
            classes=len(names),
            names=names,
            texts=(*names[:-1], "") if label == "text" else (),
            label=label,
            format=replace(self.format, decode=partial(decode, window=window, label=label)),
            sound=window,
        )

    def recordings(self, root: Path, split: Split) -> list[Recording]:
        """The pieces of a split in root/name, verified. Raises DataError."""
        _, sounds = self.split(split)
        return list(recordings(self.at(root).read(sounds), RATE))


FRAMES = 128  # of a usual window
_WINDOW = SoundConfig().resolved(RATE, FRAMES)
_PACKAGE = "asterisk-core-sounds-en-wav"
SIZES = {
    "train-names.txt": 17_528,
    "train-recordings.wavs": 18_951_800,
    "val-names.txt": 1_854,
    "val-recordings.wavs": 2_108_076,
    "test-names.txt": 1_977,
    "test-recordings.wavs": 2_239_756,
}
SHA256 = {
    "train-names.txt": "f9b3c59ca4a8c8c8f86e5f1299d1bdd62d37f9f438ffa4f873a0eac3df1f37a4",
    "train-recordings.wavs": "21593ee6452da43805b340898680baf2c655444216d4991a2ddfb4b279b5d290",
    "val-names.txt": "142b17a8e147ee05c9e38883d87b280036ecbf90d3760c10c83cf56cae82d8f9",
    "val-recordings.wavs": "8cb4d8b302e891d2371ef4209f80f409daebf5c466e09990587d7f85a23b4491",
    "test-names.txt": "737c99c42dbb9108a7f8527d92de73a9f26309bacffa89818375f1c0951c0ee4",
    "test-recordings.wavs": "7c98b7cf3cf53c4eb115427e1fb467c5f39cd49e369690e4556b01cb362ecc13",
}

PROMPTS = Prompts(
    "prompts",
    "Telephone prompts",
    _WINDOW.shape,
    len(GROUPS),
    875,
    108,
    SHA256,
    Format(partial(decode, window=_WINDOW, label="group"), partial(stated_sizes, SIZES)),
    (
        Source(f"{_PACKAGE}_1.6.1-1_all.deb", members, FOLDER),  # placed by hand in root/name
        Source(f"apt:{_PACKAGE}", members, FOLDER),
    ),
    GROUPS,
    label="group",
    # A text has its group.
    told=frozenset({"clip"}),
    validation_size=97,
    sound=_WINDOW,
    licence="CC BY-SA 3.0",
)
