"""Own images: what a path holds becomes a store of fixed-size arrays, once.

```
data.path ──► collection (listed) ──► read, resized, cropped, on all cores ──► root/stores/<name>/
                                        │ a chunk at a time, in order          images-00000.bin …
                                        └► journal.jsonl: where a killed build goes on
```

A store is known by its fingerprint, the SHA-256 of what it holds. A run records that, and finds its
images by it, wherever they lie and whatever has become of the path.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.config import STORES, DataConfig, visible
from vqvae_lightning.data.formats import DataError, Shape
from vqvae_lightning.data.own.chunks import Chunk, open_worker, read_chunk
from vqvae_lightning.data.own.collections import SPLITS, Collection, open_collection, summary
from vqvae_lightning.data.own.pixels import ImageError
from vqvae_lightning.data.randomness import derive_seed
from vqvae_lightning.data.rows import ChosenRows, FileRows, Rows, stratified_split
from vqvae_lightning.data.shards import (
    Column,
    StoredArray,
    StoreWriter,
    fingerprint,
    layout_of,
    read_description,
    read_store,
)
from vqvae_lightning.storage import check_writable, write_json
from vqvae_lightning.verified import StoredError

CHUNK = 256  # images that are read together, and lost together by a kill
FEWEST = 3  # images: one each for training, validation and test
SHOWN = 12  # names of classes in a line
JOURNAL = "journal.jsonl"
DIMENSIONS = {"images": 3, "labels": 0, "splits": 0}  # axes of a record of each array
OF = "images"  # what a store holds


class OwnImages:
    """The images of a store, in the place that a published dataset has elsewhere."""

    def __init__(self, config: DataConfig) -> None:
        """Opens the store of resolved settings.

        Raises DataError if it is not there, or not what it was.
        """
        folder = Path(config.root) / config.folder
        try:
            description = read_description(folder)
            found = fingerprint(description, "classes")
            if found != config.fingerprint:
                raise StoredError(f"{folder} has fingerprint {found[:16]}")
            arrays = open_arrays(folder, description)
        except StoredError as error:
            raise DataError(
                f"data.path: the images of {visible(str(config.path))} with fingerprint"
                f" {(config.fingerprint or '')[:16]} are not in {config.root}/{STORES}: {error};"
                " `vqvae data` makes them of the path"
            ) from error
        self.name, self.title = config.dataset, visible(str(description.get("title", "images")))
        self.class_names = tuple(visible(str(name)) for name in description["classes"])
        self.classes = len(self.class_names)
        self.left_out = visible(str(description.get("left_out", "")))
        channels, height, width = arrays["images"].shape
        self.shape = channels, height, width
        self._hashes: dict[str, str | None] = dict(description["arrays"]["images"]["files"])
        everything = torch.arange(len(arrays["images"]))
        labels = arrays["labels"].take(everything).long()
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

    def rows(self, root: Path, split: Literal["train", "val", "test"]) -> Rows:
        """The images of a split; `root` is where they are already."""
        return ChosenRows(self._rows, self._splits[split])


def open_arrays(folder: Path, description: Mapping[str, Any]) -> dict[str, StoredArray]:
    """The verified arrays of a store of images.

    Raises StoredError, also for labels and splits that no store of these classes has.
    """
    classes = description.get("classes")
    if not (isinstance(classes, list) and classes):
        raise StoredError(f"{folder} names no classes")
    layout = layout_of(description, "")
    if {name: len(column.shape) for name, (_, column) in layout.items()} != DIMENSIONS:
        raise StoredError(f"{folder} holds other arrays than {', '.join(DIMENSIONS)}")
    if len({rows for rows, _ in layout.values()}) > 1:
        raise StoredError(f"{folder} holds arrays of several lengths")
    return read_store(folder, OF, limits={"labels": len(classes), "splits": len(SPLITS)})


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


def resolve(config: DataConfig) -> DataConfig:
    """The settings with everything that is known once the images are in their store.

    Other settings than those of own images are returned as they are. Makes the store if it is not
    there; any number of processes may call it at once. Settings that name a fingerprint are those
    of a record, perhaps somebody else's: what they call a path is not looked at.

    Raises:
        DataError: the path holds no images that can be used, or they cannot be stored.
    """
    if config.path is None or config.fingerprint is not None:
        return config
    collection = open_collection(Path(config.path))
    key = source_key(collection, config)
    folder = Path(config.root) / STORES
    found = find_store(folder, key)
    if found is None:
        from filelock import FileLock

        check_writable(folder / "store.json", "data.root")
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            found = find_store(folder, key) or build(collection, config, folder, key)
    channels, *sides = found["arrays"]["images"]["shape"]
    pinned = fingerprint(found, "classes")
    return replace(config, size=sides, channels=channels, fingerprint=pinned)


def source_key(collection: Collection, config: DataConfig) -> list[Any]:
    """What decides the content of a store: what is there, and what is made of it."""
    sides = config.sides
    return [collection.stamp, list(sides) if sides else None, config.channels]


def find_store(folder: Path, key: list[Any]) -> dict[str, Any] | None:
    """The description of the whole store among those in `folder` that was made of a source."""
    for path in sorted(folder.glob("*/store.json")):
        # What cannot be read is not it.
        with suppress(StoredError):
            found = read_description(path.parent)
            if found.get("of") == OF and key in found.get("sources", ()):
                open_arrays(path.parent, found)
                return found
    return None


def build(
    collection: Collection, config: DataConfig, folder: Path, key: list[Any]
) -> dict[str, Any]:
    """Makes the store of a collection in `folder`, and returns its description.

    The caller holds the folder's lock. Goes on where a killed build of the same images stopped.
    Raises DataError.
    """
    shape = image_shape(collection, config)
    of_path = f"{derive_seed(str(Path(config.path or '').absolute())):016x}"
    place = folder / f".{of_path}-{derive_seed(json.dumps(key)):016x}.building"
    for other in folder.glob(f".{of_path}-*.building"):
        if other != place:
            shutil.rmtree(other)  # of images that are no more, or of another size
    place.mkdir(exist_ok=True)
    columns = {
        "images": Column(shape, np.dtype(np.uint8)),
        "labels": Column((), np.dtype(np.uint32)),
        "splits": Column((), np.dtype(np.uint8)),
    }
    writer = StoreWriter(place, columns)
    exact = config.sides is None
    failed, animated = fill(writer, collection, shape, exact, place / JOURNAL)
    told = summary([*collection.left_out, *failed], collection.noun)
    if writer.rows["images"] < FEWEST:
        shutil.rmtree(place)
        raise DataError(
            f"data.path: {visible(config.path or '')} holds {writer.rows['images']} images that can"
            f" be used, wanted at least {FEWEST}, one each for training, validation and test"
            + (f"; {told}" if told else "")
        )
    about = {
        "title": collection.title,
        "classes": list(collection.classes),
        "sources": [key],
        "left_out": told,
        "animated": animated,
    }
    found = writer.finish(OF, about)
    (place / JOURNAL).unlink()
    return put_in_place(place, found, replace(config, fingerprint=fingerprint(found, "classes")))


def put_in_place(place: Path, found: dict[str, Any], config: DataConfig) -> dict[str, Any]:
    """Gives a whole store its name; where one of the same content is, that one is kept."""
    target = Path(config.root) / config.folder
    rows = found["arrays"]["images"]["rows"]
    print(
        f"images    {rows:,} of {visible(str(config.path))} in {target}"
        + (f"; of {found['animated']:,} animated the first picture" if found["animated"] else "")
        + (f"; {found['left_out']}" if found["left_out"] else ""),
        flush=True,
    )
    try:
        there = read_description(target)
        there["sources"] = [*there["sources"], *found["sources"]]
        open_arrays(target, there)
    except StoredError:
        shutil.rmtree(target, ignore_errors=True)  # damaged, or half removed by somebody
        os.rename(place, target)
        return found
    write_json(target / "store.json", there)
    shutil.rmtree(place)
    return there


def image_shape(collection: Collection, config: DataConfig) -> Shape:
    """(C, H, W) of the stored images: without a size, that of the first one that can be read."""
    channels, sides = config.channels or collection.channels or 3, config.sides
    for position in range(len(collection)) if sides is None else ():
        with suppress(ImageError):
            sides = collection.read(position, channels, None).pixels.shape[1:]
            break
    height, width = sides or (1, 1)
    return channels, height, width


def fill(
    writer: StoreWriter, collection: Collection, shape: Shape, exact: bool, journal: Path
) -> tuple[list[tuple[str, str]], int]:
    """Appends every image of a collection.

    Returns:
        Name and reason of those that are left out, and the number of animated ones.
    """
    from tqdm import tqdm

    start, left_out, animated = last_point(writer, journal)
    with (
        journal.open("a") as notes,
        tqdm(total=len(collection), initial=start, unit="image", disable=None, leave=False) as bar,
    ):
        for chunk in chunks(collection, start, shape, exact):
            writer.append("images", chunk.pixels)
            writer.append("labels", collection.labels[chunk.kept])
            writer.append("splits", collection.splits[chunk.kept])
            left_out += chunk.left_out
            animated += chunk.animated
            note = {
                "next": chunk.stop,
                "rows": writer.rows["images"],
                "left_out": chunk.left_out,
                "animated": chunk.animated,
            }
            notes.write(json.dumps(note) + "\n")
            notes.flush()
            bar.update(chunk.stop - bar.n)
    return left_out, animated


def chunks(collection: Collection, start: int, shape: Shape, exact: bool) -> Iterator[Chunk]:
    """The images from position `start` on, in order, read on all cores."""
    from joblib import Parallel, delayed

    firsts = range(start, len(collection), CHUNK)
    parts = [range(first, min(first + CHUNK, len(collection))) for first in firsts]
    if len(parts) < 3:  # workers take a second to start
        open_worker(collection)
        return (read_chunk(part, shape, exact) for part in parts)
    workers = Parallel(
        n_jobs=len(os.sched_getaffinity(0)),
        return_as="generator",
        initializer=open_worker,
        initargs=(collection,),
    )
    return iter(workers(delayed(read_chunk)(part, shape, exact) for part in parts))


def last_point(writer: StoreWriter, journal: Path) -> tuple[int, list[tuple[str, str]], int]:
    """Where a killed build goes on, what it left out until then, and its number of animated images.

    The writer is cut to that.
    """
    start, rows, left_out, animated = 0, 0, list[tuple[str, str]](), 0
    for line in journal.read_text().splitlines() if journal.is_file() else ():
        try:
            note = json.loads(line)
        except ValueError:  # the last line of a killed process
            break
        start, rows = note["next"], note["rows"]
        left_out += [(name, reason) for name, reason in note["left_out"]]
        animated += note["animated"]
    try:
        writer.go_on(rows)
    except StoredError:
        journal.unlink()
        writer.go_on(0)
        return 0, [], 0
    return start, left_out, animated
