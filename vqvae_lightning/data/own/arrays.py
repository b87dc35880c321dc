"""Images in a file of numpy: `.npy`, or `.npz` with labels and splits.

| names in an `.npz` | are |
|---|---|
| `images` and `labels`, `x` and `y`; or one array of any name | images of no split |
| `x_train`, `y_train`, `x_test`, …; `train_images`, `train_labels`, `val_images`, … | of splits |

One row at a time is read, so a file may be larger than memory. A row of a compressed file is found
by reading what is before it, at most 16 MB at a time: ask for such rows in their order. Its
checksum is compared with the last row. No object array is read, for that would run a pickle.
"""

import math
import os
import re
import struct
import threading
import zipfile
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vqvae_lightning.config.values import one_line, visible
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.own.listing import SPLIT_OF, Collection, RowNames, stamp_of
from vqvae_lightning.data.own.pixels import (
    DAMAGED,
    TOO_SHORT,
    ImageError,
    Picture,
    Size,
    cannot_be_read,
    fit_array,
    max_pixels,
)

IMAGES = {"images", "image", "imgs", "img", "x", "data"}
LABELS = {"labels", "label", "targets", "target", "y"}
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
WANTED = "uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1, 3 or 4"
READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Array:
    """An array in a file, known by its header."""

    name: str  # in an .npz; "" in an .npy
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int  # bytes before the first value: in the file, or in the member if that is compressed
    is_compressed: bool
    channels_first: bool = False  # the shape is N,C,H,W

    def image(self, data: bytes) -> NDArray[np.uint8]:
        """One image (H, W, C) from its bytes."""
        image = np.frombuffer(data, np.uint8).reshape(self.shape[1:])  # H,W or H,W,C or C,H,W
        if image.ndim == 2:
            return image[:, :, None]  # H,W,1
        return image.transpose(1, 2, 0) if self.channels_first else image  # H,W,C


@dataclass(frozen=True)
class Part:
    """The images of one split, and their labels."""

    split: int  # position in SPLITS
    images: Array
    labels: Array | None


class ArrayFile(Collection):
    """Images of an `.npy` or `.npz` file, in the order of the splits and of their rows.

    Raises DataError for any other content.
    """

    noun = "row"

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()
        self.title = self.path.stem
        try:
            self._list()
        except OSError as error:
            reason = cannot_be_read(error) if error.errno else one_line(error)
            raise DataError(f"{visible(str(path))}: {reason}") from error
        except Exception as error:  # zipfile and numpy raise anything on hostile bytes
            raise DataError(f"{visible(str(path))}: {one_line(error)}") from error

    def _list(self) -> None:
        status = self.path.stat()
        self.stamp = stamp_of([(self.path.name, status.st_size, status.st_ctime_ns)])
        found = _members(self.path) if zipfile.is_zipfile(self.path) else [_single(self.path)]
        self.parts = _parts(found)
        unused = [a.name for a in found if len(found) > 1 and not _role(a.name)]
        self.left_out = [(name, "is neither images nor labels") for name in unused]
        counts = [part.images.shape[0] for part in self.parts]
        images = [part.images.name for part in self.parts]
        self.names: Sequence[str] = RowNames(list(zip(images, counts, strict=True)))
        self.splits = np.repeat(np.array([part.split for part in self.parts], np.uint8), counts)
        values = [_labels(self.path, part) for part in self.parts]
        kinds, positions = np.unique(np.concatenate(values), return_inverse=True)
        self.classes = tuple(map(str, kinds.tolist())) if self.parts[0].labels else ("",)
        self.labels = positions.astype(np.int64)
        shape = self.parts[0].images.shape
        colours = shape[1 if self.parts[0].images.channels_first else -1] if len(shape) == 4 else 1
        self.channels = 1 if colours == 1 else 3

    def read(self, index: int, channels: int, size: Size | None = None) -> Picture:
        ends = list(accumulate(part.images.shape[0] for part in self.parts))
        at = bisect_right(ends, index)
        array = self.parts[at].images
        row = index - (ends[at - 1] if at else 0)
        count = math.prod(array.shape[1:])
        try:
            data = self._bytes(array, array.start + row * count, count)
        except OSError as error:
            raise ImageError(cannot_be_read(error) if error.errno else DAMAGED) from error
        except Exception as error:  # zipfile and its decompressors raise anything on hostile bytes
            _stream.cache_clear()  # the state of a stream that failed is unknown
            raise ImageError(DAMAGED) from error
        if len(data) < count:
            raise ImageError(TOO_SHORT)
        pixels = array.image(data)  # H,W,C
        kept = pixels.shape[2] in (1, channels)
        lost = "" if kept else f"an array of {pixels.shape[2]} channels"
        return Picture(fit_array(pixels, channels, size), converted=lost)

    def _bytes(self, array: Array, start: int, count: int) -> bytes:
        if array.is_compressed:
            worker = (os.getpid(), threading.get_ident())
            stream = _stream(self.path, array.name, self.stamp, worker)
            stream.seek(start)  # backwards, it begins anew
            return stream.read(count)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, count, start)
        finally:
            os.close(descriptor)


@lru_cache(maxsize=4)
def _stream(path: Path, name: str, stamp: str, worker: tuple[int, int]) -> IO[bytes]:
    """A compressed member, open in one thread of one process: a fork would share its position."""
    return zipfile.ZipFile(path).open(f"{name}.npy")


def _single(path: Path) -> Array:
    with open(path, "rb") as file:
        return _array("", file, path.stat().st_size)


def _members(path: Path) -> list[Array]:
    arrays = []
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as stream:
                array = _array(name, stream, info.file_size)
            if info.compress_type != zipfile.ZIP_STORED:
                array = replace(array, is_compressed=True)
            else:
                # A local header: 30 bytes, of which the last four are the lengths of what follows.
                file.seek(info.header_offset + 26)
                lengths = struct.unpack("<HH", file.read(4))
                array = replace(array, start=array.start + info.header_offset + 30 + sum(lengths))
            arrays.append(array)
    return arrays


def _array(name: str, stream: IO[bytes], size: int) -> Array:
    """What the header of an array says, if that is true of a file or member of so many bytes."""
    where = f"{name}: " if name else ""
    try:
        version = npy.read_magic(stream)
        shape, is_fortran, dtype = READERS[version](stream)
    except Exception as error:  # a header is a Python literal, whose parser raises anything
        raise ValueError(f"{where}got no array of numpy, wanted one") from error
    if dtype.hasobject:
        raise ValueError(f"{where}got an array of objects, wanted {WANTED}")
    if is_fortran and len(shape) > 1:
        raise ValueError(f"{where}got Fortran order; save it with np.ascontiguousarray")
    wanted, got = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or got < wanted:
        raise ValueError(f"{where}header says {shape} {dtype}, got {got} of {wanted} bytes")
    return Array(name, shape, dtype, stream.tell(), False)


def _parts(found: Sequence[Array]) -> list[Part]:
    """The splits of the arrays in a file, told by their names, without those of no image."""
    if len(found) == 1:
        roles = {(0, True): found[0]}
    else:
        named = [(role, array) for array in found if (role := _role(array.name))]
        roles = dict(named)
        if len(roles) < len(named):
            twice = ", ".join(array.name for _, array in named)
            raise ValueError(f"got {twice}, wanted images and labels of a split once")
    splits = sorted(split for split, is_image in roles if is_image)
    if not splits or (splits != [0] and (0 in splits or 1 not in splits)):
        names = ", ".join(array.name for array in found) or "no array"
        raise ValueError(f"got {names}; wanted images, labels; x, y; or x_train, y_train, x_test …")
    parts = [Part(n, _checked(roles[n, True]), roles.get((n, False))) for n in splits]
    if lonely := [split for split, is_image in roles if not is_image and split not in splits]:
        raise ValueError(f"{roles[lonely[0], False].name}: got labels without images, wanted both")
    labelled = {part.labels is not None for part in parts}
    if len(labelled) > 1:
        name = next(part.images.name for part in parts if part.labels is None)
        raise ValueError(f"{name}: got no labels for it, wanted them as for the other arrays")
    if not any(part.images.shape[0] for part in parts):
        raise ValueError("got no image, wanted some")
    return [part for part in parts if part.images.shape[0]]


def _role(name: str) -> tuple[int, bool] | None:
    """Position in SPLITS, and whether the array of this name holds images; None if neither."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    splits = [SPLIT_OF[word] for word in words if word in SPLIT_OF]
    kinds = [word for word in words if word not in SPLIT_OF]
    if len(splits) > 1 or len(kinds) != 1 or kinds[0] not in IMAGES | LABELS:
        return None
    return (splits or [0])[0], kinds[0] in IMAGES


def _checked(array: Array) -> Array:
    """The array of images with its layout known. 1 and 3 channels are likelier than 4."""
    where, shape = f"{array.name}: " if array.name else "", array.shape
    if array.dtype != np.uint8 or len(shape) not in (3, 4):
        raise ValueError(f"{where}got {array.dtype} {shape}, wanted {WANTED}")
    height, width = shape[1:3]
    if len(shape) == 4:
        found = [axis for few in ((1, 3), (4,)) for axis in (3, 1) if shape[axis] in few]
        if not found:
            raise ValueError(f"{where}got {array.dtype} {shape}, wanted {WANTED}")
        if shape[1] in (1, 3) and shape[3] in (1, 3):
            raise ValueError(
                f"{where}got {shape}, which is N,H,W,C and N,C,H,W; wanted one of both"
            )
        array = replace(array, channels_first=found[0] == 1)
        height, width = shape[2:] if array.channels_first else shape[1:3]
    if not 0 < height * width <= max_pixels():
        pixels = f"of {height:,} times {width:,} pixels"
        raise ValueError(f"{where}got images {pixels}, wanted 1 to {max_pixels():,.0f} pixels")
    return array


def _labels(path: Path, part: Part) -> NDArray[np.int64]:
    """Integer labels (N,) of a part; zeros where it has none."""
    count, array = part.images.shape[0], part.labels
    if array is None:
        return np.zeros(count, np.int64)
    if array.dtype.kind not in "iu" or array.shape not in ((count,), (count, 1)):
        got = f"got {array.dtype} {array.shape}"
        hint = "; np.unique(labels, return_inverse=True)[1] numbers texts"
        raise ValueError(
            f"{array.name}: {got}, wanted integers ({count},) or ({count}, 1)"
            f"{hint if array.dtype.kind in 'US' else ''}"
        )
    with zipfile.ZipFile(path) as archive, archive.open(f"{array.name}.npy") as stream:
        values: NDArray[Any] = npy.read_array(stream, allow_pickle=False)  # N or N,1
    if count and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{array.name}: got a label of {values.max()}, wanted less than 2^63")
    # Parts of two types of integers have none in common but floating point.
    return values.reshape(count).astype(np.int64)
