"""Dataset: a published data set: what it holds, the files that hold it, and where to get them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.config import ConfigError, DataConfig, MelWindow
from vqvae_lightning.data import formats
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.published import PublishedFiles

if TYPE_CHECKING:
    from vqvae_lightning.data.rows import Rows

Split = Literal["train", "val", "test"]
Recording = NDArray[np.int16]  # n samples


@dataclass(frozen=True)
class Dataset:
    """One data set: what it holds, the files on disk that hold it, and where to get them."""

    name: str  # in settings, run.json and on disk
    title: str  # in tables and pages
    shape: formats.Shape
    classes: int
    train_size: int  # images
    test_size: int  # images
    # canonical decoded file name -> sha256, in reading order; None: not published
    files: Mapping[str, str | None]
    format: formats.Format
    sources: tuple[Source, ...]  # in the order in which they are asked
    names: tuple[str, ...] = ()  # of the classes; empty: their numbers
    label: str = ""  # the sort of its labels, where there are several
    told: frozenset[str] = frozenset()  # what labels of this sort tell of

    validation_size: int = 0  # images; 0: there is no split of that name
    sound: MelWindow | None = None  # the window of its recordings; None: it holds images
    texts: tuple[str, ...] = ()  # what recordings of each label say; empty: not known
    licence: str = ""  # of its recordings, where pages say it beside them

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class."""
        return self.names or tuple(map(str, range(self.classes)))

    def hashes(self) -> Mapping[str, str | None]:
        """SHA-256 of each file."""
        return dict(self.files)

    def chosen(self, data: DataConfig) -> "Dataset":
        """The data set with the labels and windows that settings choose. Raises ConfigError."""
        if data.label is not None:
            raise ConfigError(
                f"data.label: got {data.label}, but {self.name} has labels of one sort"
            )
        return self

    def rows(self, root: Path, split: Split) -> "Rows":
        """The images of a split in root/name, verified. Raises DataError."""
        # Settings know the names of datasets, and torch takes seconds to import.
        import torch

        from vqvae_lightning.data.rows import MemoryRows

        return MemoryRows(*map(torch.from_numpy, self.load(root, split)))

    def load(self, root: Path, split: Split) -> formats.Arrays:
        """The arrays of a split, read from root/name and verified. Raises DataError."""
        return self.format.decode(map(self.at(root).read, self.split(split)), self.count(split))

    def recordings(self, root: Path, split: Split) -> list[Recording]:
        """The recordings of a split, whole, in the order of its rows; none of images."""
        return []

    def count(self, split: Split) -> int:
        """How many images a split has."""
        return {"train": self.train_size, "val": self.validation_size, "test": self.test_size}[
            split
        ]

    def split(self, split: Split) -> list[str]:
        """Names of the files of a split: of test are those that begin so, or with "t10k", and of
        validation those that begin with "val".
        """
        return [name for name in self.files if _split_of(name) == split]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        splits: tuple[Split, ...] = ("train", "val", "test")
        of_splits = [(self.split(split), self.count(split)) for split in splits]
        found: dict[str, int] = {}
        for names, count in of_splits:
            found |= self.format.sizes(names, count, self.shape) if names else {}
        return found

    def at(self, root: Path | str) -> PublishedFiles:
        """Its files in root/name."""
        return PublishedFiles(self.files, self.sizes, Path(root) / self.name)


def _split_of(file: str) -> Split:
    if file.startswith(("test", "t10k")):
        return "test"
    return "val" if file.startswith("val") else "train"
