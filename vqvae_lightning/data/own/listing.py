"""The list of the images at a path, made before one is decoded.

Letters: N images, C H W of one.
"""

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from itertools import accumulate
from typing import overload

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.config.data import MelWindow
from vqvae_lightning.config.values import visible
from vqvae_lightning.data.own.pixels import Picture, Size

SPLITS = ("", "train", "val", "test")
SPLIT_OF = {  # names of folders, arrays and files → positions in SPLITS
    **dict.fromkeys(("train", "training"), 1),
    **dict.fromkeys(("val", "valid", "validation", "dev"), 2),
    **dict.fromkeys(("test", "testing"), 3),
}
LeftOut = tuple[str, str]  # the name of a file or of a row, and the reason, which follows the name
PLURALS = (  # how a reason begins, of one and of several
    ("is no image", "are no images"),
    ("is no recording", "are no recordings"),
    ("is no regular file", "are no regular files"),
    ("is a link", "are links"),
    ("is a path", "are paths"),
    ("is ", "are "),
    ("has ", "have "),
    ("holds ", "hold "),
    ("lies ", "lie "),
    ("ends ", "end "),
    ("needs ", "need "),
)
SHOWN_NAMES, SHOWN_REASONS, SHOWN_LETTERS = 3, 6, 60


class Collection(ABC):
    """Images at a path, listed before one is decoded.

    It can be sent to other processes, and read there. No file stays open in it.
    """

    channels: int | None = None  # of an array of images; files have each their own
    window: MelWindow | None = None  # of recordings
    noun = "file"  # one image is a file, or a row of one
    title: str  # the folder's name, or the file's without its ending
    names: Sequence[str]  # N, for messages: a relative path, or a row's number; not yet `visible`
    labels: NDArray[np.int64]  # N, positions in `classes`
    splits: NDArray[np.uint8]  # N, positions in SPLITS; all 0 where the path has no splits
    classes: tuple[str, ...]  # names; ("",) where the path has no labels
    left_out: list[LeftOut]  # what is never decoded
    stamp: str  # SHA-256 of names, sizes and times of change (ns); differs when the source does

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int, channels: int, size: Size | None = None) -> Picture:
        """One image.

        Args:
            index: Its position, 0 to N − 1.
            channels: 1 for grey, 3 for RGB.
            size: H, W of the result; None keeps the image's own.

        Raises:
            ImageError: it cannot be used. The others can still be read.
        """


class RowNames(Sequence[str]):
    """The names of rows of several parts: `x_train row 5`, or `row 5` in a part without a name."""

    def __init__(self, parts: Sequence[tuple[str, int]]) -> None:
        """`parts` are names with their numbers of rows."""
        self.parts = [name for name, _ in parts]
        self.ends = list(accumulate(count for _, count in parts))
        self.rows: Sequence[int] | NDArray[np.int64] = range(self.ends[-1] if self.ends else 0)

    def only(self, rows: NDArray[np.int64]) -> "RowNames":
        """The names of some of the rows, of all that the parts have."""
        names = copy(self)
        names.rows = rows
        return names

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = int(self.rows[index])
        part = bisect_right(self.ends, row)
        start = self.ends[part - 1] if part else 0
        return f"{self.parts[part]} row {row - start}".lstrip()


def stamp_of(files: Iterable[tuple[str, int, int]], left_out: Iterable[LeftOut] = ()) -> str:
    """SHA-256 over names, sizes in bytes and times of change in ns, and over what is left out."""
    lines = [f"{name}\0{size}\0{time}\0" for name, size, time in files]
    lines += [f"{name}\0{reason}\0" for name, reason in left_out]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def summary(left_out: Sequence[LeftOut], noun: str = "file") -> str:
    """One line: how many were left out, for which reasons, with up to three names for each.

    `12 files left out: 9 are no images (a.txt, b.json, c.md, …), 3 end too soon (x.jpg, …)`.
    Nothing for none.
    """
    if not left_out:
        return ""
    counts = Counter(reason for _, reason in left_out)
    shown: dict[str, list[str]] = {reason: [] for reason, _ in counts.most_common(SHOWN_REASONS)}
    for name, reason in left_out:
        if reason in shown and len(shown[reason]) < SHOWN_NAMES:
            shown[reason].append(_shortened(name))
    said = [
        f"{counts[reason]:,} {_plural(reason) if counts[reason] > 1 else reason}"
        f" ({', '.join(names)}{', …' if counts[reason] > SHOWN_NAMES else ''})"
        for reason, names in shown.items()
    ]
    if others := len(left_out) - sum(counts[reason] for reason in shown):
        said.append(f"{others:,} for other reasons")
    return f"{len(left_out):,} {noun}{'s' * (len(left_out) > 1)} left out: {', '.join(said)}"


def _shortened(name: str) -> str:
    """The end of a name, where the file's own name stands, with its control characters escaped."""
    shown = visible(name[-SHOWN_LETTERS:])
    is_whole = max(len(name), len(shown)) <= SHOWN_LETTERS
    return shown if is_whole else f"…{shown[-SHOWN_LETTERS:]}"


def _plural(reason: str) -> str:
    for one, several in PLURALS:
        if reason.startswith(one):
            return several + reason[len(one) :]
    return reason
