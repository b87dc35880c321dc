"""Images by the places that a command line names: folders, files, arrays, or a run's own split.

Nothing is dropped without a line: a picture that cannot be read, or is of another size than the
model's, ends the command.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_lightning.config import CompressOptions, ConfigError, visible
from vqvae_lightning.data.images import ImageDataModule, data_of, opened_images
from vqvae_lightning.data.own.collections import open_collection, summary
from vqvae_lightning.data.own.folders import IMAGE_ENDINGS, ending
from vqvae_lightning.data.own.pixels import ImageError, Size, decode
from vqvae_lightning.data.rows import BinaryRows
from vqvae_lightning.training.runs import Run

Pixels = NDArray[np.uint8]


class Images(NamedTuple):
    """Images to be compressed."""

    pixels: Tensor  # N,C,H,W uint8
    labels: Tensor | None  # N int64, where the images have those of the run's dataset


def images_at(run: Run, places: Sequence[str], options: CompressOptions) -> Images:
    """The images of a split of the run's dataset, or at places.

    Raises ConfigError for none or both, and for a picture that the model cannot take; DataError for
    a place without images.
    """
    if bool(places) == (options.split is not None):
        got = f"{places[0]} beside split={options.split}" if places else "no images"
        raise ConfigError(
            f"compress: got {got}, wanted folders, image files, .npz or .npy; or split=test"
        )
    if options.split is not None:
        experiment = run.experiment()
        data = data_of(experiment.data, options.root)
        return split_of(opened_images(data, experiment.seed), options.split)
    shape = tuple(run.record.images.shape)
    pixels = [image for place in places for image in _read(Path(place), shape, options.fit)]
    return Images(torch.from_numpy(np.stack(pixels)), None)


def split_of(images: ImageDataModule, split: str) -> Images:
    """A split of the dataset of a run, binarized once if the run binarizes at every use."""
    rows = images.splits[split]
    if images.config.binarize == "dynamic":
        rows = BinaryRows(rows, split)
    return Images(rows.take(torch.arange(len(rows))), rows.labels)


def _read(place: Path, shape: tuple[int, ...], fit: bool) -> list[Pixels]:
    """The images (C, H, W) at a place."""
    channels, *sides = shape
    size = (sides[0], sides[1]) if fit else None
    if place.is_file() and ending(place.name) in IMAGE_ENDINGS:
        return [_checked(_picture(place, channels, size), shape, str(place))]
    collection = open_collection(place)
    if collection.left_out:
        print(f"left out  {summary(collection.left_out, collection.noun)}", file=sys.stderr)
    found = []
    for position, name in enumerate(collection.names):
        where = f"{place}/{name}" if place.is_dir() else f"{place}, {name}"
        try:
            pixels = collection.read(position, channels, size).pixels
        except ImageError as error:
            raise ConfigError(f"compress: {visible(where)} {error}") from error
        found.append(_checked(pixels, shape, where))
    return found


def _picture(place: Path, channels: int, size: Size | None) -> Pixels:
    try:
        return decode(place, channels, size).pixels
    except ImageError as error:
        raise ConfigError(f"compress: {visible(str(place))} {error}") from error


def _checked(pixels: Pixels, shape: tuple[int, ...], where: str) -> Pixels:
    """The picture. Raises ConfigError unless it is of the model's size."""
    if pixels.shape != shape:
        (_, height, width), (_, *wanted) = pixels.shape, shape
        raise ConfigError(
            f"compress: {visible(where)} has {height}×{width} pixels, wanted"
            f" {wanted[0]}×{wanted[1]}, as the model has them; fit=true crops and resizes"
        )
    return pixels
