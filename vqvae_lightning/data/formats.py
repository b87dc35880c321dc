"""Hashes of the files of each release, and decoders: IDX, CIFAR binary, PNG sheets.

Nothing here trusts its input: a wrong size or a wrong magic number raises `DataError`, and no
pickle is read (the "python" release of CIFAR is one).
"""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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

    # The files of one split, in order, each read when it is asked for, and its number of images →
    # its arrays.
    decode: Callable[[Iterable[bytes | bytearray], int], Arrays]
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


def stated_sizes(
    stated: Mapping[str, int], names: Sequence[str], count: int, shape: Shape
) -> dict[str, int]:
    """Bytes of files whose size does not follow from what they hold, out of all that are stated."""
    return {name: stated[name] for name in names}


def parse_idx(data: bytes | bytearray) -> NDArray[np.uint8]:
    """The array in an IDX file of bytes, a view of `data`: (N, H, W) images or (N,) labels.

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


def parse_cifar(
    data: bytes | bytearray, label_bytes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, 3, 32, 32) and labels (N,) of a CIFAR binary batch, views of `data`.

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


def decode_idx(files: Iterable[bytes | bytearray], images: int) -> Arrays:
    """The arrays of one split of a data set in the MNIST format, from its image and its label file.

    The images are a view of the first file, which is therefore in memory once.
    """
    pixels, labels = map(parse_idx, files)
    return pixels[:, None], labels.astype(np.int64)  # N, 1, H, W


def decode_cifar(files: Iterable[bytes | bytearray], images: int, label_bytes: int = 1) -> Arrays:
    """The arrays of one split of a data set in the CIFAR format, from its batches in order.

    One batch at a time is in memory beside the arrays. Raises DataError for another number of
    images.
    """
    pixels, labels = np.empty((images, *CIFAR_SHAPE), np.uint8), np.empty(images, np.int64)
    start = 0
    for data in files:
        of_file, their_labels = parse_cifar(data, label_bytes)
        end = start + len(of_file)
        if end > images:
            break
        pixels[start:end], labels[start:end] = of_file, their_labels
        start = end
    else:
        if start == images:
            return pixels, labels
    raise DataError(f"CIFAR batches do not hold {images} images")


IDX = Format(decode_idx, idx_sizes)
CIFAR10 = Format(decode_cifar, cifar_sizes)
# A coarse label before the fine one.
CIFAR100 = Format(partial(decode_cifar, label_bytes=2), partial(cifar_sizes, label_bytes=2))
