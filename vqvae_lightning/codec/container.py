"""The file: what it holds, of which model, and checks that tell a damaged one.

```
 "\x89VQZ"  version u8  header length u32     a JSON header
 the static table, deflated
 of each group of images: bytes u32, CRC32 u32 of what it decodes to
 the groups' streams, one after the other
 CRC32 u32 of everything before
```

Numbers are little-endian. A group of images shares a stream, and is decoded alone.
"""

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from vqvae_lightning.codec.tables import Steps

MAGIC, VERSION = b"\x89VQZ", 3
START = struct.Struct("<4sBI")
GROUP = struct.Struct("<II")
CHECK = struct.Struct("<I")
LOSSY, LOSSLESS = "lossy", "lossless"
LARGEST_HEADER = 2**16  # bytes
LARGEST_GROUP = 4096  # images
LARGEST_IMAGES = 2**32  # bytes of all pixels of a file
LARGEST_TABLE = 2**24  # bytes of the static table
LARGEST_STEP = 1e9  # of a grid of z
# What a file may claim: an image takes half a bit at least. A small file is no bomb of images.
PER_BYTE = 16  # images


class CodecError(ValueError):
    """One line: what is wrong with compressed images, or that they are of another model."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    kind: str  # of the run that made it
    mode: str  # LOSSY or LOSSLESS
    model: str  # SHA-256 of the weights of the autoencoder
    prior: str | None  # … and of the prior
    images: int
    shape: list[int]  # C, H, W
    group: int  # images that share a stream
    table: list[int]  # M, K of the static table
    # Of z on a grid: its step, and the number of steps that symbol 0 stands for. None of codes.
    grid: tuple[float, int] | None
    library: str  # version of this package
    coder: str  # version of constriction

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return -(-self.images // self.group)

    def sizes(self) -> list[int]:
        """Images of each group."""
        starts = range(0, self.images, self.group)
        return [min(self.group, self.images - start) for start in starts]


@dataclass(frozen=True)
class Group:
    """The stream of a group of images."""

    data: bytes
    check: int  # CRC32 of what it decodes to


@dataclass(frozen=True)
class Container:
    """A whole file."""

    header: Header
    table: Steps  # M,K
    groups: list[Group]


def pack(container: Container) -> bytes:
    """The bytes of a file. Raises ValueError for fewer than `unpack` would believe."""
    header = json.dumps(asdict(container.header), separators=(",", ":")).encode()
    parts = [START.pack(MAGIC, VERSION, len(header)), header]
    parts.append(deflated(container.table))
    parts += [GROUP.pack(len(group.data), group.check) for group in container.groups]
    parts += [group.data for group in container.groups]
    found, images = b"".join(parts), container.header.images
    if images > PER_BYTE * len(found):
        raise ValueError(
            f"compress: {images:,} images take {len(found):,} bytes, wanted at least one for"
            f" {PER_BYTE} images; a smaller group makes a longer file"
        )
    return found + CHECK.pack(zlib.crc32(found))


def deflated(table: Steps) -> bytes:
    """A static table as a file holds it."""
    return zlib.compress(table.tobytes(), 9)


def unpack(data: bytes) -> Container:
    """The content of a file, checked before it costs memory. Raises CodecError, one line."""
    header, start = _header(data)
    if zlib.crc32(data[: -CHECK.size]) != CHECK.unpack(data[-CHECK.size :])[0]:
        raise CodecError("is damaged: its CRC32 is not the one at its end")
    table, start = _table(data[start : -CHECK.size], header, start)
    end = start + header.groups * GROUP.size
    if end > len(data) - CHECK.size or header.images > PER_BYTE * len(data):
        raise CodecError(f"claims {header.images:,} images, which its {len(data):,} bytes are not")
    index = [GROUP.unpack_from(data, at) for at in range(start, end, GROUP.size)]
    if end + sum(size for size, _ in index) != len(data) - CHECK.size:
        raise CodecError("claims other streams than it holds")
    groups = []
    for size, check in index:
        groups.append(Group(data[end : end + size], check))
        end += size
    return Container(header, table, groups)


def group_with(container: Container, number: int) -> tuple[Container, int]:
    """A file of the one group that holds an image, and the position of the image in it.

    Raises CodecError if there is no image of that number.
    """
    header = container.header
    if not 0 <= number < header.images:
        raise CodecError(f"holds images 0 to {header.images - 1}, not {number}")
    group, position = divmod(number, header.group)
    alone = replace(header, images=header.sizes()[group])
    return replace(container, header=alone, groups=[container.groups[group]]), position


def _header(data: bytes) -> tuple[Header, int]:
    if len(data) < START.size + CHECK.size or not data.startswith(MAGIC):
        raise CodecError("holds no compressed images, wanted a file of `vqvae compress`")
    _, version, size = START.unpack_from(data)
    if version != VERSION:
        raise CodecError(f"is of version {version} of the format, wanted {VERSION}")
    if size > min(LARGEST_HEADER, len(data) - START.size - CHECK.size):
        raise CodecError(f"is damaged: its header claims {size:,} bytes")
    end = START.size + size
    try:
        values = json.loads(data[START.size : end])
        return _checked(values), end
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise CodecError("is damaged: its header cannot be read") from error


def _checked(values: Mapping[str, Any]) -> Header:
    """A header whose values have the types and ranges that a writer gives them."""
    header = Header(**{f.name: values[f.name] for f in fields(Header)})
    texts = [header.kind, header.mode, header.model, header.library, header.coder]
    texts += [] if header.prior is None else [header.prior]
    whole = [header.images, header.group, *header.shape, *header.table]
    if header.grid is not None:
        step, lowest = header.grid
        if type(step) is not float or type(lowest) is not int:
            raise ValueError
        if not 0 < step < LARGEST_STEP or abs(lowest) > LARGEST_IMAGES:
            raise ValueError
        header = replace(header, grid=(step, lowest))
    if not all(isinstance(text, str) and len(text) <= 64 and text.isascii() for text in texts):
        raise ValueError
    if not all(type(number) is int and 0 < number <= LARGEST_IMAGES for number in whole):
        raise ValueError
    if (len(header.shape), len(header.table)) != (3, 2):
        raise ValueError
    limits = (
        (header.images * math.prod(header.shape), LARGEST_IMAGES),
        (header.group, LARGEST_GROUP),
        (math.prod(header.table), LARGEST_TABLE),
    )
    if any(found > limit for found, limit in limits):
        raise ValueError
    return header


def _table(data: bytes, header: Header, start: int) -> tuple[Steps, int]:
    """The static table at the head of `data`, and where in the file it ends."""
    size = math.prod(header.table)
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(data, size + 1)
    except zlib.error as error:
        raise CodecError("is damaged: its table cannot be read") from error
    if len(found) != size or not inflate.eof:
        raise CodecError(f"is damaged: its table has not {size:,} entries")
    table = np.frombuffer(found, np.uint8).reshape(header.table)
    return table, start + len(data) - len(inflate.unused_data)
