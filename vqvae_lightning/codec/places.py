"""Images by the places that a command line names: folders, files, arrays, or a run's own split.

Nothing is dropped without a line: a picture that cannot be read, or is of another size than the
model's, ends the command.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from vqvae_lightning.data.own.pixels import ImageError, Picture, decode
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
    pixels = [image for place in places for image in _read(Path(place), shape, options)]
    return Images(torch.from_numpy(np.stack(pixels)), None)


def split_of(images: ImageDataModule, split: str) -> Images:
    """A split of the dataset of a run, binarized once if the run binarizes at every use."""
    rows = images.splits[split]
    if images.config.binarize == "dynamic":
        rows = BinaryRows(rows, split)
    return Images(rows.take(torch.arange(len(rows))), rows.labels)


def _read(place: Path, shape: tuple[int, ...], options: CompressOptions) -> list[Pixels]:
    """The images (C, H, W) at a place."""
    channels, *sides = shape
    size = (sides[0], sides[1]) if options.fit else None
    if place.is_file() and ending(place.name) in IMAGE_ENDINGS:
        with _named(str(place)):
            picture = decode(place, channels, size)
        return [_checked(picture, shape, str(place), options.lossless)]
    collection = open_collection(place)
    if collection.left_out:
        print(f"left out  {summary(collection.left_out, collection.noun)}", file=sys.stderr)
    found = []
    for position, name in enumerate(collection.names):
        where = f"{place}/{name}" if place.is_dir() else f"{place}, {name}"
        with _named(where):
            picture = collection.read(position, channels, size)
        found.append(_checked(picture, shape, where, options.lossless))
    return found


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Puts the name of a picture before the reason why it cannot be used."""
    try:
        yield
    except ImageError as error:
        raise ConfigError(f"compress: {visible(where)} {error}") from error


def _checked(picture: Picture, shape: tuple[int, ...], where: str, lossless: bool) -> Pixels:
    """The pixels of a picture.

    Raises ConfigError unless they are of the model's size, and say all of the picture where the
    file is to be lossless.
    """
    pixels = picture.pixels
    if lossless and (picture.converted or picture.animated):
        got = picture.converted or "several frames"
        pixel = "8-bit grey" if shape[0] == 1 else "8-bit RGB or grey"
        raise ConfigError(
            f"lossless: {visible(where)} is {got}, wanted one picture of {pixel}, as the model has"
            " them: nothing else comes back as it was"
        )
    if pixels.shape != shape:
        (_, height, width), (_, *wanted) = pixels.shape, shape
        raise ConfigError(
            f"compress: {visible(where)} has {height}×{width} pixels, wanted"
            f" {wanted[0]}×{wanted[1]}, as the model has them; fit=true crops and resizes"
        )
    return pixels
