"""A few hundred generated images in MNIST's own file format, so that tests run the whole path
without a download.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from vqvae_lightning.data import sources
from vqvae_lightning.data.sources import Dataset

TRAIN, TEST = 320, 64


def images(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n images (n, 28, 28) uint8 of a bright bar whose place and direction tell its label, and the
    labels (n,).
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.uint8) % 10
    pixels = rng.integers(0, 20, (n, 28, 28), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        start = 2 + 5 * (label % 5) + rng.integers(0, 2)
        (image if label < 5 else image.T)[start : start + 3, 4:24] = rng.integers(150, 255)
    return pixels, labels


def idx(array: np.ndarray) -> bytes:
    """IDX bytes of a uint8 array."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(
        size.to_bytes(4, "big") for size in array.shape
    )
    return header + array.tobytes()


def write(root: Path, name: str = "mnist") -> Dataset:
    """Writes the files under root/name; the dataset that they are."""
    files = {}
    for prefix, n, seed in (("train", TRAIN, 0), ("t10k", TEST, 1)):
        pixels, labels = images(n, seed)
        files[f"{prefix}-images-idx3-ubyte"] = idx(pixels)
        files[f"{prefix}-labels-idx1-ubyte"] = idx(labels)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        if not (folder / file).exists():
            (folder / file).write_bytes(data)
    return replace(
        sources.DATASETS[name],
        train_size=TRAIN,
        test_size=TEST,
        files={file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
        sources=(),
    )


def write_own(path: Path) -> Path:
    """The same images as an `.npz` file of a user's own."""
    arrays: dict[str, Any] = {}
    for split, count, seed in (("train", TRAIN, 0), ("test", TEST, 1)):
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images(count, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


@contextmanager
def installed(root: Path, name: str = "mnist") -> Iterator[None]:
    """Writes the files under root/name, which `name` means until the block ends."""
    with mock.patch.dict(sources.DATASETS, {name: write(root, name)}):
        yield


def install(root: Path, name: str = "mnist") -> None:
    """Writes the files under root/name, which `name` means in this process: for a program."""
    sources.DATASETS[name] = write(root, name)
