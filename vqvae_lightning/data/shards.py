"""Stored arrays: records of one size in files, written once, verified, and read by position.

```
StoreWriter.append ──► <stem>images-00000.bin, -00001.bin, …   at most SHARD bytes each
           .finish ──► <stem>store.json                        shapes, and SHA-256 of every file
read_store         ◄── sizes, SHA-256, then StoredArray.take(index)
```

Records are read by `pread` and not through a memory map. A map counts as the process's own memory,
so a limit on that ends a run, and a file that is cut off while it is mapped kills the process.
"""

import hashlib
import json
import math
import os
import stat
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.storage import file_hash, is_writable, write_atomic, write_json
from vqvae_lightning.verified import StoredError

SHARD = 2**30  # bytes of a file at most
LARGEST_DESCRIPTION = 2**24  # bytes of a store.json
BLOCK = 2**24  # bytes that are looked at together
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Column:
    """What a record of an array is."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def per_shard(self) -> int:
        """Records of a file, but for the last one."""
        return max(1, SHARD // self.size)


# Name of each array → how many records, and what one is.
Layout = Mapping[str, tuple[int, Column]]


class StoreWriter:
    """Appends records to the arrays of a store in `folder`, whose files' names begin with `stem`.

    The caller keeps other writers away. Without `finish` there is no store.
    """

    def __init__(self, folder: Path, columns: Mapping[str, Column], stem: str = "") -> None:
        self.folder, self.columns, self.stem = folder, columns, stem
        self.rows = dict.fromkeys(columns, 0)
        for path in description_path(folder, stem), verified_path(folder, stem):
            path.unlink(missing_ok=True)

    def append(self, name: str, records: Array) -> None:
        """Appends records (n, ...) to an array; they are on the disk when this returns."""
        column = self.columns[name]
        assert records.shape[1:] == column.shape, (name, records.shape, column.shape)
        records = np.ascontiguousarray(records, column.dtype)
        while len(records):
            shard, at = divmod(self.rows[name], column.per_shard)
            part, records = np.split(records, [column.per_shard - at])
            path = self._path(name, shard)
            if not at:
                path.unlink(missing_ok=True)  # never through a link
            with path.open("ab" if at else "xb") as file:
                file.write(part.tobytes())
                file.flush()
                os.fsync(file.fileno())
            self.rows[name] += len(part)

    def go_on(self, rows: int) -> None:
        """Cuts every array off after `rows` records, which a killed writer has written whole.

        Raises StoredError if they are not there.
        """
        for name, column in self.columns.items():
            full, rest = divmod(rows, column.per_shard)
            for shard in range(full + bool(rest)):
                wanted = column.size * (column.per_shard if shard < full else rest)
                path = self._path(name, shard)
                if not path.is_file() or path.stat().st_size < wanted:
                    raise StoredError(f"{path} is cut off")
                os.truncate(path, wanted)
            self.rows[name] = rows

    def finish(self, of: str, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Writes the description, by which the files become a store, and returns it.

        Args:
            of: what the arrays hold, which `read_store` asks for.
            about: what else the description says.
        """
        arrays = {}
        for name, column in self.columns.items():
            shards = range(shard_count(self.rows[name], column))
            arrays[name] = {
                "rows": self.rows[name],
                "shape": list(column.shape),
                "dtype": str(column.dtype),
                "files": {
                    self._path(name, shard).name: file_hash(self._path(name, shard))
                    for shard in shards
                },
            }
        found = {"of": of, **(about or {}), "arrays": arrays}
        write_json(description_path(self.folder, self.stem), found)
        return found

    def _path(self, name: str, shard: int) -> Path:
        return shard_path(self.folder, self.stem, name, shard)


class StoredArray:
    """The records of one array of a store, read by position."""

    def __init__(self, paths: list[Path], rows: int, column: Column) -> None:
        self.paths, self.rows, self.column, self.shape = paths, rows, column, column.shape
        self._files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
        weakref.finalize(self, _close, self._files)

    def __len__(self) -> int:
        return self.rows

    def take(self, index: Tensor) -> Tensor:
        """Records (n, ...) at the positions index (n,) int64: bytes and float32 as they are, and
        other numbers as int32.

        Raises StoredError if a file has become shorter.
        """
        records = np.empty((len(index), *self.shape), self.column.dtype)
        size, per_shard = self.column.size, self.column.per_shard
        into = records.reshape(-1).view(np.uint8).data
        rows = index.numpy()
        # Rows that follow each other in a file are read at once.
        breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] % per_shard == 0)) + 1
        ends = [*breaks.tolist(), len(rows)] if len(rows) else []
        start = 0
        for end in ends:
            shard, at = divmod(int(rows[start]), per_shard)
            buffer = into[start * size : end * size]
            if os.preadv(self._files[shard], [buffer], at * size) != len(buffer):
                raise StoredError(f"{self.paths[shard]} ends before record {rows[end - 1]:,}")
            start = end
        if self.column.dtype not in (np.uint8, np.float32):
            return torch.from_numpy(records.astype(np.int32))
        return torch.from_numpy(records)

    def blocks(self) -> Iterator[Tensor]:
        """All records in order, some megabytes at a time."""
        step = max(1, BLOCK // self.column.size)
        for start in range(0, self.rows, step):
            yield self.take(torch.arange(start, min(start + step, self.rows)))


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def shard_count(rows: int, column: Column) -> int:
    """Files of an array."""
    return -(-rows // column.per_shard)


def shard_path(folder: Path, stem: str, name: str, shard: int) -> Path:
    """A file of an array."""
    return folder / f"{stem}{name}-{shard:05d}.bin"


def description_path(folder: Path, stem: str = "") -> Path:
    """The file that says what the files of a store are."""
    return folder / f"{stem}store.json"


def verified_path(folder: Path, stem: str = "") -> Path:
    """The file that says which files were verified, and when they had changed last."""
    return folder / f"{stem}verified.json"


def read_description(folder: Path, stem: str = "") -> dict[str, Any]:
    """What a store.json says. Raises StoredError if there is none, or it is no such file."""
    path = description_path(folder, stem)
    try:
        data = _read_small(path)
        if len(data) > LARGEST_DESCRIPTION:
            raise ValueError(f"it has more than {LARGEST_DESCRIPTION:,} bytes")
        found = json.loads(data)
        layout_of(found, stem)
    except FileNotFoundError:
        raise StoredError(f"there is no {path}") from None
    except OSError as error:
        raise StoredError(f"{path} cannot be read ({error.strerror})") from error
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as e:
        raise StoredError(f"{path} is no description of a store ({e})") from e
    return dict(found)


def _read_small(path: Path) -> bytes:
    """The content of a regular file of some megabytes at most; a pipe is not waited for."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        return file.read(LARGEST_DESCRIPTION + 1)


def layout_of(description: Mapping[str, Any], stem: str) -> dict[str, tuple[int, Column]]:
    """The arrays that a description speaks of. Raises ValueError, KeyError, … for a wrong one."""
    layout = {}
    for name, array in description["arrays"].items():
        shape = tuple(array["shape"])
        if not all(type(n) is int and 0 < n < 2**31 for n in shape):
            raise ValueError(f"shape {shape}")
        dtype = np.dtype(array["dtype"])
        if (
            (dtype.kind != "u" and dtype != np.float32)
            or type(array["rows"]) is not int
            or not 0 <= array["rows"] < 2**48
        ):
            raise ValueError(f"rows {array['rows']} of {dtype}")
        column = Column(shape, dtype)
        if shard_count(array["rows"], column) != len(array["files"]):
            raise ValueError(f"files of {name}")
        wanted = [
            shard_path(Path(), stem, name, shard).name
            for shard in range(shard_count(array["rows"], column))
        ]
        if list(array["files"]) != wanted:
            raise ValueError(f"files of {name}")
        layout[name] = (array["rows"], column)
    return layout


def read_store(
    folder: Path,
    of: str,
    layout: Layout | None = None,
    stem: str = "",
    limits: Mapping[str, int] | None = None,
) -> dict[str, StoredArray]:
    """The verified arrays of a store.

    Files that were verified and have not changed since are not hashed again.

    Args:
        folder: where its files lie.
        of: what its arrays must hold.
        layout: the arrays that it must have; without it, those that it says it has.
        stem: how the names of its files begin.
        limits: name of an array → the number below which all in it must lie.

    Raises:
        StoredError: it is not there, is of something else, or a file of it is not what it was.
    """
    description = read_description(folder, stem)
    if description.get("of") != of:
        raise StoredError(f"{description_path(folder, stem)} is of something else, wanted {of}")
    found = layout_of(description, stem)
    if layout is not None and found != dict(layout):
        raise StoredError(f"{description_path(folder, stem)} describes other arrays than wanted")
    arrays = {}
    for name, (rows, column) in found.items():
        _check_sizes(folder, stem, name, rows, column)
        paths = [shard_path(folder, stem, name, n) for n in range(shard_count(rows, column))]
        arrays[name] = StoredArray(paths, rows, column)
    changes = {path.name: _change(path) for array in arrays.values() for path in array.paths}
    if _stamps(folder, stem) != changes:
        for name, array in arrays.items():
            _verify(array, description["arrays"][name]["files"], (limits or {}).get(name))
        if is_writable(verified_path(folder, stem)):
            write_atomic(verified_path(folder, stem), json.dumps(changes).encode())
    return arrays


def _verify(array: StoredArray, hashes: Mapping[str, str], limit: int | None) -> None:
    """Raises StoredError for a file of another hash, for numbers that are not below `limit`, and
    for floats that are not finite.
    """
    for path in array.paths:
        if file_hash(path) != hashes[path.name]:
            raise StoredError(f"{path} is damaged: its SHA-256 is not the recorded one")
    if array.column.dtype == np.float32 and not all(b.isfinite().all() for b in array.blocks()):
        raise StoredError(f"{array.paths[0]} holds numbers that are not finite")
    if limit is not None:
        most = max((int(block.max()) for block in array.blocks()), default=0)
        if most >= limit:
            raise StoredError(f"{array.paths[0]} holds {most}, wanted 0 to {limit - 1}")


def _check_sizes(folder: Path, stem: str, name: str, rows: int, column: Column) -> None:
    """Raises StoredError unless each file of an array is a regular one of the right size."""
    for shard in range(shard_count(rows, column)):
        path = shard_path(folder, stem, name, shard)
        records = min(column.per_shard, rows - shard * column.per_shard)
        try:
            found = path.lstat()
        except OSError:
            raise StoredError(f"there is no {path}") from None
        if not stat.S_ISREG(found.st_mode):
            raise StoredError(f"{path} is no regular file")
        if found.st_size != records * column.size:
            raise StoredError(
                f"{path} has {found.st_size:,} bytes, wanted {records * column.size:,}"
            )


def _change(path: Path) -> list[int]:
    """What differs between two versions of a file: nobody can set the time of its change."""
    found = path.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _stamps(folder: Path, stem: str) -> Any:
    """What was verified, as it was left; None if nothing was."""
    try:
        return json.loads(_read_small(verified_path(folder, stem)))
    except (OSError, ValueError, RecursionError):
        return None


def fingerprint(description: Mapping[str, Any], *more: str) -> str:
    """SHA-256 of what a store holds, whatever its place: its arrays, and the named entries."""
    content = {name: description[name] for name in ("arrays", *more)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
