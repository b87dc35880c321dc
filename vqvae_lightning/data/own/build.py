"""From a path to the store of its images, once.

```
data.path ──► collection (listed) ──► read, resized, cropped, on all cores ──► root/stores/<hash>/
                                        │ a chunk at a time, in order          images-00000.bin …
                                        └► journal.jsonl: where a killed build goes on
```
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vqvae_lightning.config import STORES, DataConfig, SoundConfig, visible
from vqvae_lightning.data.formats import DataError, Shape
from vqvae_lightning.data.own.chunks import Chunk, open_worker, read_chunk
from vqvae_lightning.data.own.collections import Collection, open_collection, summary
from vqvae_lightning.data.own.listing import LeftOut
from vqvae_lightning.data.own.pixels import ImageError
from vqvae_lightning.data.own.store import OF, describe_store, open_arrays
from vqvae_lightning.data.randomness import derive_seed
from vqvae_lightning.data.shards import Column, StoreWriter, fingerprint
from vqvae_lightning.storage import check_writable, write_json
from vqvae_lightning.verified import StoredError

CHUNK, CHUNK_BYTES = 256, 2**25  # images, and bytes of them, that are read together at most
IDLE = 10  # seconds after which a worker ends whose parent was killed
FEWEST = 3  # images: one each for training, validation and test
JOURNAL = "journal.jsonl"
# How the reason begins of a file that may be read another time.
PASSING = ("cannot be read", "needs more memory")
Key = list[Any]


class UnfinishedError(DataError):
    """A build stopped, and can go on where it did."""


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
    folder = Path(config.root) / STORES
    try:
        collection = open_collection(Path(config.path), config.sound)
        check_window(collection, config)
        key = source_key(collection, config)
        found = find_store(folder, key) or _build_alone(collection, config, folder, key)
    except DataError as error:
        said = str(error)
        raise DataError(said if said.startswith("data.") else f"data.path: {said}") from error
    except OSError as error:
        where = error.filename or folder
        raise DataError(f"data.root: {where} cannot be used ({error.strerror})") from error
    channels, *sides = found["arrays"]["images"]["shape"]
    pinned = fingerprint(found, "classes")
    sound = SoundConfig(**collection.window._asdict()) if collection.window else config.sound
    return replace(config, size=sides, channels=channels, fingerprint=pinned, sound=sound)


def check_window(collection: Collection, config: DataConfig) -> None:
    """Raises DataError for a size of recordings, whose window says it, or a window of images."""
    where = visible(str(config.path))
    if collection.window is None and config.sound.described:
        raise DataError(f"data.sound: got{config.sound.described}, but {where} holds images")
    for name in ("size", "channels"):
        got = getattr(config, name)
        if collection.window is not None and got is not None:
            raise DataError(
                f"data.{name}: got {got}, but {where} holds recordings; wanted data.sound.bands and"
                " data.sound.frames"
            )


def source_key(collection: Collection, config: DataConfig) -> Key:
    """What decides the content of a store: where and what the source is, and what is made of it."""
    sides, path = config.sides, str(Path(config.path or "").absolute())
    window = [list(collection.window)] if collection.window else []
    return [path, collection.stamp, list(sides) if sides else None, config.channels, *window]


def find_store(folder: Path, key: Key) -> dict[str, Any] | None:
    """The description of the whole store among those in `folder` that was made of a source."""
    for path in sorted(folder.glob("*/store.json")):
        # What cannot be read is not it.
        with suppress(StoredError):
            found = describe_store(path.parent)
            if any(source["key"] == key for source in found["sources"]):
                open_arrays(path.parent, found)
                return found
    return None


def _build_alone(
    collection: Collection, config: DataConfig, folder: Path, key: Key
) -> dict[str, Any]:
    """Makes the store, unless another process has made it by now."""
    from filelock import FileLock

    check_writable(folder / "store.json", "data.root")
    if folder.is_symlink():
        raise DataError(f"data.root: {folder} is a link, and nothing is written through one")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        return find_store(folder, key) or build(collection, config, folder, key)


def build(collection: Collection, config: DataConfig, folder: Path, key: Key) -> dict[str, Any]:
    """Makes the store of a collection in `folder`, and returns its description.

    The caller holds the folder's lock. Goes on where a killed build of the same images stopped.
    Raises DataError.
    """
    place = _building_place(folder, key)
    try:
        found, animated = _store(collection, config, place, key)
    except UnfinishedError:
        raise
    except DataError:
        shutil.rmtree(place)
        raise
    pinned = replace(config, fingerprint=fingerprint(found, "classes"))
    target = Path(config.root) / pinned.folder
    (source,) = found["sources"]
    print(
        f"stored    {found['arrays']['images']['rows']:,} images of {visible(key[0])} in {target}"
        + (f"; of {animated:,} animated the first picture" if animated else "")
        + (f"; {source['left_out']}" if source["left_out"] else ""),
        file=sys.stderr,  # beside the progress bar: a command's result goes to stdout
        flush=True,
    )
    return put_in_place(place, found, target)


def _store(
    collection: Collection, config: DataConfig, place: Path, key: Key
) -> tuple[dict[str, Any], int]:
    """Makes a store in the folder `place`: its description, and how many images are animated.

    Raises DataError for images that make none.
    """
    shape = image_shape(collection, config)
    columns = {
        "images": Column(shape, np.dtype(np.uint8)),
        "labels": Column((), np.dtype(np.uint32)),
        "splits": Column((), np.dtype(np.uint8)),
    }
    writer, journal = StoreWriter(place, columns), place / JOURNAL
    failed, animated = fill(writer, collection, shape, config.sides is None, journal)
    left_out = [*collection.left_out, *failed]
    told = summary(left_out, collection.noun)
    if writer.rows["images"] < FEWEST:
        raise DataError(
            f"data.path: {visible(key[0])} holds {writer.rows['images']} images that can"
            f" be used, wanted at least {FEWEST}, one each for training, validation and test"
            + (f"; {told}" if told else "")
        )
    # What could not be read this time is tried again the next time.
    passing = any(reason.startswith(PASSING) for _, reason in left_out)
    source = {"key": [] if passing else key, "path": key[0], "left_out": told}
    about = {
        "title": collection.title,
        "classes": list(collection.classes),
        "sources": [source],
    }
    found = writer.finish(OF, about)
    journal.unlink()
    return found, animated


def _building_place(folder: Path, key: Key) -> Path:
    """The folder of an unfinished build of a source; those of older states of it are removed."""
    of_path = f"{derive_seed(key[0]):016x}"
    place = folder / f".{of_path}-{derive_seed(json.dumps(key)):016x}.building"
    for other in folder.glob(f".{of_path}-*.building"):
        if other.is_symlink() or not other.is_dir():
            other.unlink()
        elif other != place:
            shutil.rmtree(other)
    place.mkdir(exist_ok=True)
    return place


def put_in_place(place: Path, found: dict[str, Any], target: Path) -> dict[str, Any]:
    """Gives a whole store its name; where one of the same content is, that one is kept."""
    try:
        there = describe_store(target)
        open_arrays(target, there)
    except StoredError:
        if target.is_symlink() or target.is_file():
            target.unlink()
        shutil.rmtree(target, ignore_errors=True)  # damaged, or half removed by somebody
        os.rename(place, target)
        return found
    (source,) = found["sources"]
    others = [other for other in there["sources"] if other["key"] != source["key"]]
    there["sources"] = [*others, source]
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
) -> tuple[list[LeftOut], int]:
    """Appends every image of a collection.

    Returns:
        Name and reason of those that are left out, and the number of animated ones.
    """
    from tqdm import tqdm

    start, left_out, animated = last_point(writer, collection, journal)
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
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    size = max(1, min(CHUNK, CHUNK_BYTES // int(np.prod(shape))))
    firsts = range(start, len(collection), size)
    parts = [range(first, min(first + size, len(collection))) for first in firsts]
    if len(parts) < 3:  # workers take a second to start
        open_worker(collection)
        yield from (read_chunk(part, shape, exact) for part in parts)
        return
    workers = Parallel(
        n_jobs=len(os.sched_getaffinity(0)),
        return_as="generator",
        initializer=open_worker,
        initargs=(collection,),
        idle_worker_timeout=IDLE,
    )
    try:
        yield from workers(delayed(read_chunk)(part, shape, exact) for part in parts)
    except TerminatedWorkerError as error:
        raise UnfinishedError(
            "data.path: a process that reads images was killed, perhaps for want of memory; called"
            " again, the same command goes on"
        ) from error


def last_point(
    writer: StoreWriter, collection: Collection, journal: Path
) -> tuple[int, list[LeftOut], int]:
    """Where a killed build goes on, what it left out until then, and its number of animated images.

    The writer is cut to that. Lines that no build wrote make it start over.
    """
    start, rows, left_out, animated = 0, 0, list[LeftOut](), 0
    for line in journal.read_text(errors="replace").splitlines() if journal.is_file() else ():
        try:
            note = json.loads(line)
            more = [(str(name), str(reason)) for name, reason in note["left_out"]]
            step, count, of_them = (int(note[name]) for name in ("next", "rows", "animated"))
        except (ValueError, TypeError, KeyError):  # the last line of a killed process
            break
        # Each image up to `next` is stored, or left out.
        if not start < step <= len(collection) or count + len(left_out) + len(more) != step:
            break
        start, rows, animated = step, count, animated + of_them
        left_out += more
    try:
        writer.go_on(rows)
    except StoredError:
        journal.unlink()
        writer.go_on(0)
        return 0, [], 0
    return start, left_out, animated
