"""Chunks of own images, read in worker processes; this module therefore imports no torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vqvae_lightning.config.values import visible
from vqvae_lightning.data.formats import DataError, Shape
from vqvae_lightning.data.own.collections import Collection
from vqvae_lightning.data.own.pixels import ImageError

_opened: list[Collection] = []


@dataclass(frozen=True)
class Chunk:
    """What was read of some positions of a collection."""

    pixels: "np.ndarray[Any, Any]"  # n,C,H,W uint8
    kept: "np.ndarray[Any, Any]"  # n positions in the collection
    left_out: list[tuple[str, str]]  # name and reason of the others
    animated: int  # of the n, how many have more pictures than the first, which was taken
    stop: int  # the position after the last


def open_worker(collection: Collection) -> None:
    """Gives a worker process the collection that it reads from, once for all chunks."""
    _opened[:] = [collection]


def read_chunk(positions: range, shape: Shape, exact: bool) -> Chunk:
    """Reads images of the collection of this process as uint8 (C, H, W).

    Args:
        positions: which of them.
        shape: (C, H, W) that an image is brought to.
        exact: with it an image of other sides is not resized, but an error.

    Raises:
        DataError: an image has other sides, with `exact`.
    """
    (collection,) = _opened
    channels, height, width = shape
    pixels, kept, left_out, animated = [], [], list[tuple[str, str]](), 0
    for position in positions:
        try:
            picture = collection.read(position, channels, None if exact else (height, width))
        except ImageError as error:
            left_out.append((collection.names[position], str(error)))
            continue
        found = picture.pixels.shape[1:]
        if found != (height, width):
            name = visible(collection.names[position])
            raise DataError(
                f"data.size: {name} has {found[0]}x{found[1]} pixels, others have"
                f" {height}x{width}; wanted one size for all, such as data.size=64"
            )
        pixels.append(picture.pixels)
        kept.append(position)
        animated += picture.animated
    stacked = np.stack(pixels) if pixels else np.empty((0, *shape), np.uint8)
    return Chunk(stacked, np.array(kept, np.int64), left_out, animated, positions.stop)
