"""The store of own images: opened, checked, and split into training, validation and test.

A store is known by its fingerprint, the SHA-256 of what it holds. A run records that, and finds its
images by it, wherever they lie and whatever has become of their path. A store may be a stranger's:
what it says of itself is checked before it is used.
"""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.config import STORES, DataConfig, visible
from vqvae_lightning.data.dataset import Recording, Split
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.own.collections import SPLITS
from vqvae_lightning.data.randomness import derive_seed
from vqvae_lightning.data.rows import ChosenRows, FileRows, Rows, stratified_split
from vqvae_lightning.data.shards import (
    StoredArray,
    fingerprint,
    layout_of,
    read_description,
    read_store,
)
from vqvae_lightning.verified import StoredError

SHOWN = 12  # names of classes in a line
OF = "images"  # what a store holds
# Axes of a record of each array.
DIMENSIONS = {"images": 3, "labels": 0, "splits": 0}
# What a store says of itself beside its arrays.
ENTRIES = {"title": str, "classes": list, "sources": list}
# What it says of each source that it was made of.
SOURCE = {"key": list, "path": str, "left_out": str}


class OwnImages:
    """The images of a store, in the place that a published dataset has elsewhere."""

    def __init__(self, config: DataConfig) -> None:
        """Opens the store of resolved settings.

        Raises DataError if it is not there, or not what it was.
        """
        folder = Path(config.root) / config.folder
        try:
            description = describe_store(folder)
            arrays = open_arrays(folder, description)
            shape, wanted = arrays["images"].shape, (config.channels, *(config.sides or ()))
            if shape != wanted:
                raise StoredError(f"{folder} holds images of shape {shape}, wanted {wanted}")
        except StoredError as error:
            raise DataError(
                f"data.path: the images of {visible(str(config.path))} with fingerprint"
                f" {(config.fingerprint or '')[:16]} are not in {config.root}/{STORES}: {error};"
                " name their folder by data.root, or make them of the same images by `vqvae data`"
            ) from error
        channels, height, width = shape
        self.name, self.shape = config.dataset, (channels, height, width)
        self.sound, self.label = config.sound.pinned, ""
        self.told: frozenset[str] = frozenset()
        self.title = visible(description["title"])
        self.left_out = left_out_of(description, str(config.path))
        self._hashes: dict[str, str | None] = dict(description["arrays"]["images"]["files"])
        everything = torch.arange(len(arrays["images"]))
        found = arrays["labels"].take(everything).long()
        # A class may have no image that could be read.
        present, labels = found.unique(return_inverse=True)
        names = description["classes"]
        self.class_names = tuple(visible(names[number]) for number in present.tolist())
        self.classes = len(self.class_names)
        # A folder of recordings is named by what they say.
        self.texts = self.class_names if self.sound and self.classes > 1 else ()
        self._rows = FileRows(arrays["images"], labels)
        splits = arrays["splits"].take(everything).numpy()
        self._splits = own_splits(splits, labels.numpy(), config.test_fraction)
        self.train_size, self.validation_size, self.test_size = (
            len(self._splits[split]) for split in ("train", "val", "test")
        )
        if self.train_size < (1 if self.validation_size else 2):
            raise DataError(
                f"data.path: {visible(str(config.path))} holds {self.train_size} images for"
                f" training, {self.validation_size} for validation and {self.test_size} for test,"
                " wanted one of each at least"
            )

    def describe(self) -> str:
        """Number, size, splits and classes of the images, and what was left out, in lines."""
        channels, height, width = self.shape
        own = f", {self.validation_size:,} for validation" if self.validation_size else ""
        colours = "grey" if channels == 1 else "RGB"
        lines = [
            f"images    {len(self._rows):,} of {height}×{width}, {colours}:"
            f" {self.train_size:,} for training{own}, {self.test_size:,} for test",
        ]
        if self.classes > 1:
            names = ", ".join(map(visible, self.class_names[:SHOWN]))
            more = f", … ({self.classes:,} in all)" if self.classes > SHOWN else ""
            lines.append(f"labels    {names}{more}")
        return "\n".join([*lines, *([f"left out  {self.left_out}"] if self.left_out else [])])

    def hashes(self) -> dict[str, str | None]:
        """SHA-256 of each file of images."""
        return self._hashes

    def recordings(self, root: Path, split: Split) -> list[Recording]:
        """None: a store holds images."""
        return []

    def rows(self, root: Path, split: Split) -> Rows:
        """The images of a split; `root` is where they are already."""
        return ChosenRows(self._rows, self._splits[split])


def describe_store(folder: Path) -> dict[str, Any]:
    """What the store in a folder says of itself.

    Raises StoredError if it is none, is of something else, or if its name is not its fingerprint.
    """
    for place in (folder.parent, folder):
        try:
            mode = place.lstat().st_mode
        except OSError as error:
            raise StoredError(f"there is no {place}") from error
        if not stat.S_ISDIR(mode):
            raise StoredError(f"{place} is no folder, or a link to one")
    found = read_description(folder)
    entries = [(found, ENTRIES)]
    if isinstance(found.get("sources"), list):
        entries += [(source, SOURCE) for source in found["sources"]]
    for mapping, wanted in entries:
        if not isinstance(mapping, dict) or not all(
            isinstance(mapping.get(name), kind) for name, kind in wanted.items()
        ):
            raise StoredError(
                f"{folder}/store.json has not {', '.join(wanted)} as a store has them"
            )
    if found.get("of") != OF or not all(isinstance(name, str) for name in found["classes"]):
        raise StoredError(f"{folder} is no store of images")
    if fingerprint(found, "classes")[:16] != folder.name:
        raise StoredError(f"{folder} has fingerprint {fingerprint(found, 'classes')[:16]}")
    return found


def open_arrays(folder: Path, description: Mapping[str, Any]) -> dict[str, StoredArray]:
    """The verified arrays of a store of images.

    Raises StoredError, also for labels and splits that no store of these classes has.
    """
    layout = layout_of(description, "")
    if {name: len(column.shape) for name, (_, column) in layout.items()} != DIMENSIONS:
        raise StoredError(f"{folder} holds other arrays than {', '.join(DIMENSIONS)}")
    if len({rows for rows, _ in layout.values()}) > 1 or layout["images"][1].dtype != np.uint8:
        raise StoredError(f"{folder} holds arrays that do not belong together")
    limits = {"labels": len(description["classes"]), "splits": len(SPLITS)}
    return read_store(folder, OF, limits=limits)


def left_out_of(description: Mapping[str, Any], path: str) -> str:
    """What of a path could not be used, in words; nothing if the store is not made of it."""
    wanted = str(Path(path).absolute())
    return next((visible(s["left_out"]) for s in description["sources"] if s["path"] == wanted), "")


def own_splits(
    splits: "np.ndarray[Any, Any]", labels: "np.ndarray[Any, Any]", test_fraction: float
) -> dict[str, Tensor]:
    """Split → positions (n,) of its images: those of the path's own splits, or drawn by label.

    The test images depend on nothing but the images: all runs have the same. Those of a path that
    names none are a share of its training images, one at least.
    """
    known = {name: splits == number for number, name in enumerate(SPLITS)}
    train = known["train"] | known[""]
    test = known["test"]
    if not test.any():
        rows = np.flatnonzero(train)
        # One image at least, and so few that one stays for training and one for validation.
        count = max(1, min(round(test_fraction * len(rows)), len(rows) - 2))
        chosen = rows[stratified_split(labels[rows], count, derive_seed("own test images"))]
        test = test.copy()
        test[chosen] = True
        train = train & ~test
    found = {"train": train, "val": known["val"], "test": test}
    return {name: torch.from_numpy(np.flatnonzero(mask)) for name, mask in found.items()}
