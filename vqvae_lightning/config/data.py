"""Settings of data: which images or recordings, and how they are cut into batches."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from vqvae_lightning.config.setting import ConfigError, setting

STORES = "stores"  # the folder in `data.root` of own images


def _datasets() -> Collection[str]:
    """The names of the datasets; imported when one is read, for that table lies above settings."""
    from vqvae_lightning.data.sources import DATASETS

    return DATASETS


DatasetName = Annotated[str, _datasets]


class MelWindow(NamedTuple):
    """The log-mel window of a recording, of which every number is known."""

    rate: int  # samples per second
    bands: int
    window: int  # samples of a frame
    hop: int  # samples from frame to frame
    frames: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a window."""
        return 1, self.bands, self.frames


@dataclass
class SoundConfig:
    """The log-mel window that a recording becomes: an image of 1 × bands × frames."""

    rate: int | None = setting(
        None, "samples per second; empty: that of the dataset, of own recordings 16000",
        at_least=4000, at_most=48000,
    )  # fmt: skip
    bands: int | None = setting(
        None, "mel bands, the height of a window; empty: 64 below 12000 samples per second, else"
        " 80", at_least=8, at_most=512,
    )  # fmt: skip
    window: int | None = setting(
        None, "samples of a frame, a multiple of hop; empty: 4 hops", at_least=32, at_most=8192
    )
    hop: int | None = setting(
        None, "samples from frame to frame; empty: the power of two next to 16 ms", at_least=8,
        at_most=4096,
    )  # fmt: skip
    frames: int | None = setting(
        None,
        "frames, the width of a window; empty: 64, about a second, of prompts 128",
        at_least=8,
        at_most=4096,
    )

    @property
    def described(self) -> str:
        """What is set, for the name of what has it; nothing if nothing is."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return "".join(f" {name}={value}" for name, value in given.items())

    @property
    def pinned(self) -> MelWindow | None:
        """The window of own recordings, whose rate is known once they are stored; else None."""
        return self.resolved() if self.rate else None

    def resolved(self, rate: int | None = None, frames: int = 64) -> MelWindow:
        """The window with the usual numbers in the place of what is empty. Raises ConfigError.

        `rate` is that of a dataset, whose recordings have no other; `frames` are its usual ones.
        """
        if None not in (rate, self.rate) and rate != self.rate:
            raise ConfigError(f"data.sound.rate: got {self.rate}, but the recordings have {rate}")
        known = self.rate or rate or 16000
        hop = self.hop or 2 ** round(math.log2(known * 0.016))
        window, bands = self.window or 4 * hop, self.bands or (64 if known < 12000 else 80)
        if window % hop or window < 2 * hop:
            raise ConfigError(
                f"data.sound.window: got {window} with data.sound.hop={hop}, wanted 2 hops, 3, 4, …"
            )
        return MelWindow(known, bands, window, hop, self.frames or frames)


@dataclass
class OwnImagesConfig:
    """Own images, in the place of a dataset."""

    path: str | None = setting(
        None,
        "folder of own images or recordings, or an .npy, .npz or .parquet file; empty: the dataset",
        place="file",
    )
    size: int | list[int] | None = setting(
        None,
        "pixels of an own image, a number or [height, width]: the shorter side is resized to it,"
        " and the middle cut out; empty: the size that all images have",
    )
    channels: int | None = setting(
        None, "of an own image: 1 (grey) or 3 (colours); empty: 3, of an array its own"
    )
    sound: SoundConfig = field(
        default_factory=SoundConfig, metadata={"meaning": "the window of a recording"}
    )


@dataclass
class DataConfig(OwnImagesConfig):
    """Where images come from and how they are cut into batches."""

    name: DatasetName = setting("mnist", "dataset, where there is no path")
    test_fraction: float = setting(
        0.1, "share of own images held out for test, if the path has no test split of its own",
        above=0, below=1,
    )  # fmt: skip
    fingerprint: str | None = setting(
        None, "SHA-256 of the own images, which a run records; empty: those that are there"
    )
    root: str = setting("data", "folder that holds the datasets", place="folder")
    download: bool = setting(True, "fetch what is missing; false: fail instead")
    batch_size: int = setting(
        128, "images per optimizer step, over all devices and accumulated micro-batches", at_least=1
    )
    eval_batch_size: int = setting(500, "images per batch of validation and test", at_least=1)
    validation_size: int = setting(
        5000, "training images held out for validation, stratified by label", at_least=1
    )
    flip: bool = setting(False, "mirror half of the training images, drawn anew every epoch")
    binarize: Literal["none", "static", "dynamic"] = setting(
        "none",
        "pixels become 0 or 1 with their grey value as probability: once (static) or at every use"
        " (dynamic)",
    )

    label: str | None = setting(
        None, "which labels are the classes, of a dataset with several; empty: its first"
    )

    def __post_init__(self) -> None:
        for name in ("size", "channels", "fingerprint"):
            if self.path is None and getattr(self, name) is not None:
                got = getattr(self, name)
                raise ConfigError(f"data.{name}: got {got} without data.path, of own images only")
        sides = [] if self.size is None else self.size
        sides = [sides, sides] if isinstance(sides, int) else sides
        if self.size is not None and not (len(sides) == 2 and all(0 < n <= 4096 for n in sides)):
            raise ConfigError(
                f"data.size: got {self.size}, wanted 1 to 4096 pixels, such as 64 or [48, 64]"
            )
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"data.channels: got {self.channels}, wanted 1 or 3")
        if self.fingerprint is not None and not re.fullmatch("[0-9a-f]{64}", self.fingerprint):
            raise ConfigError(
                "data.fingerprint: wanted a SHA-256 of 64 digits, as a run records it"
            )

    @property
    def levels(self) -> int:
        """How many values a pixel can have."""
        return 256 if self.binarize == "none" else 2

    @property
    def dataset(self) -> str:
        """The name of the images: a dataset's, or own ones' with the first digits of their hash."""
        if self.path is None:
            return self.name
        stem = re.sub("[^a-z0-9]+", "-", Path(self.path).stem.lower()).strip("-")[:40]
        return f"{stem or 'own'}-{(self.fingerprint or '')[:8]}"

    @property
    def described(self) -> str:
        """The name of the images, with the share for test of own ones, and with a window of one's
        own.
        """
        if self.path is None:
            window = self.sound.described
            return self.dataset + (f" with data.sound of{window}" if window else "")
        return f"{self.dataset} with data.test_fraction={self.test_fraction}"

    @property
    def folder(self) -> str:
        """The folder in `root` that holds them."""
        return self.name if self.path is None else f"{STORES}/{(self.fingerprint or '')[:16]}"

    @property
    def identity(self) -> tuple[str, str]:
        """What two settings of the same images and splits have in common, wherever these lie."""
        if self.path is None:
            return f"{self.name}{self.sound.described}", self.binarize
        return f"{self.fingerprint} {self.test_fraction}", self.binarize

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width of an own image, if they are set."""
        if self.size is None:
            return None
        height, width = [self.size] * 2 if isinstance(self.size, int) else self.size
        return height, width
