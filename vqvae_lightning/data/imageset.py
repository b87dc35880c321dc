"""What a run trains on: a published dataset, or own images; both answer the same questions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from vqvae_lightning.config import DataConfig, MelWindow
from vqvae_lightning.data.dataset import Recording, Split
from vqvae_lightning.data.formats import Shape
from vqvae_lightning.data.own.build import resolve
from vqvae_lightning.data.own.store import OwnImages
from vqvae_lightning.data.rows import Rows
from vqvae_lightning.data.sources import DATASETS


class ImageSet(Protocol):
    """Images with labels, in splits."""

    @property
    def name(self) -> str:
        """In settings, run.json and names of runs."""

    @property
    def title(self) -> str:
        """In tables and pages."""

    @property
    def shape(self) -> Shape:
        """(C, H, W) of an image."""

    @property
    def sound(self) -> MelWindow | None:
        """The window of its recordings; None of images."""

    @property
    def classes(self) -> int:
        """How many labels there are, 1 if the images have none."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What is said in the recordings of each label; empty where that is not known."""

    @property
    def label(self) -> str:
        """The sort of its labels, where settings can choose another; else empty."""

    @property
    def told(self) -> frozenset[str]:
        """What labels of this sort tell of; empty where there is no other sort."""

    @property
    def train_size(self) -> int:
        """Training images, those of validation among them unless it has a split of its own."""

    @property
    def validation_size(self) -> int:
        """Images of the validation split that it has of its own; 0 if it has none."""

    @property
    def test_size(self) -> int:
        """Test images."""

    def hashes(self) -> Mapping[str, str | None]:
        """SHA-256 of each file of images."""

    def recordings(self, root: Path, split: Split) -> list[Recording]:
        """The recordings of a split, whole, in the order of its rows; none of images."""

    def rows(self, root: Path, split: Split) -> Rows:
        """The images of a split, verified. Raises DataError."""


def image_set(config: DataConfig) -> ImageSet:
    """The images that settings name. Own ones are read into their store, if they are not there yet.

    Raises DataError for own images that cannot be had, and ConfigError for settings that a dataset
    has no use for.
    """
    if config.path is None:
        return DATASETS[config.name].chosen(config)
    return OwnImages(resolve(config))


def overlap(images: ImageSet, others: ImageSet) -> bool:
    """Whether the labels of one tell something of those of the other, or are of the same sort.

    Both are of the same recordings.
    """
    return images.label == others.label or bool(images.told & others.told)


def shape_of(config: DataConfig) -> Shape:
    """(C, H, W) of the images that settings name; those of a run say it without their store."""
    if config.fingerprint and config.sides and config.channels:
        return config.channels, *config.sides
    return image_set(config).shape


def sound_of(config: DataConfig) -> MelWindow | None:
    """The window of the recordings that settings name; None of images. No store is opened."""
    if config.path is None:
        return image_set(config).sound
    return config.sound.pinned


def split_sizes(config: DataConfig, images: ImageSet) -> dict[str, int]:
    """How many images each split has: "train", "val" and "test".

    Validation images of a published dataset are `validation_size` of its training images; of own
    images they are their own, or else a tenth of the training images if that is less.
    """
    train, val = images.train_size, images.validation_size
    if not val:
        val = config.validation_size
        val = min(val, max(1, train // 10)) if config.path else val
        train -= val
    return {"train": train, "val": val, "test": images.test_size}


def check_sizes(config: DataConfig, sizes: Mapping[str, int]) -> None:
    """Raises ValueError if the training images cannot fill the validation split, or a batch."""
    train, val = sizes["train"], sizes["val"]
    if train < 1:
        raise ValueError(f"data.validation_size: got {val}, wanted 1 to {train + val - 1}")
    if config.batch_size > train:
        raise ValueError(
            f"data.batch_size: got {config.batch_size}, but there are only {train} training images"
            f" beside {val} of validation; set data.batch_size={2 ** (train.bit_length() - 1)}"
        )
