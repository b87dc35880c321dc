"""Checkpoints and arrays that are verified before they are believed.

```
write_checkpoint, write_arrays ──► path.sha256, then path
read_checkpoint,  read_arrays  ◄── size, SHA-256, then what it claims, then its contents
```
"""

import hashlib
import io
import math
import os
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvae_lightning.storage import file_hash, write_atomic

if TYPE_CHECKING:
    import numpy as np

DEEPEST = 32  # mappings and lists inside each other, in a checkpoint
LARGEST_SIDECAR = 1024  # bytes: two hashes and room to spare
# Bytes of zip and array headers, for each array of a file.
ARRAY_HEADERS = 1024
# Bytes of a checkpoint's pickle beside a sixteenth of the file. An opcode of one byte can cost 64
# in memory.
LARGEST_PICKLE = 2**20
# All that the pickle of a checkpoint may name. torch itself allows more: bytearray(10**10) is 30
# bytes.
PICKLE_NAMES = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"} | {
    f"torch {dtype}Storage"
    for dtype in (
        "BFloat16",
        "Half",
        "Float",
        "Double",
        "Bool",
        "Byte",
        "Char",
        "Short",
        "Int",
        "Long",
    )
}

# Name of each array in a file → its shape and dtype.
Layout = Mapping[str, tuple[tuple[int, ...], "np.dtype[Any]"]]


class StoredError(ValueError):
    """One line: which file, what is wrong with it."""


class CheckpointError(StoredError):
    """One line: which checkpoint, what is wrong with it."""


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Saves plain dicts and tensors, with the file's SHA-256 in `<path>.sha256`.

    The hash file is written first and names the new content and, if it is valid, the old: whichever
    of the two a kill leaves behind is then valid.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    valid = path.is_file() and (old := file_hash(path)) in _recorded_hashes(path)
    _write_verified(path, buffer.getvalue(), *([old] if valid else []))


def read_checkpoint(path: Path, recorded: bool = True) -> dict[str, Any]:
    """The checkpoint at `path`, on the CPU: the one place that reads any.

    Raises CheckpointError if there is none, if its SHA-256 is not the recorded one, or if it holds
    anything but plain types and tensors (nothing in it is ever executed), or claims more than the
    file holds. With `recorded` false a file without a hash beside it is read, too: that of a
    Trainer of one's own.
    """
    import torch

    if not path.is_file():
        raise CheckpointError(f"checkpoint: there is no file {path}")
    try:
        known = recorded or hash_path(path).is_file()
        data = _read_verified(path) if known else path.read_bytes()
        _check_claims(data)
        # The file may be a stranger's: any error of the reader means that it is no checkpoint.
        try:
            checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:
            reason = (str(error).splitlines() or ["it ends too soon"])[0]
            raise StoredError(f"is no checkpoint ({reason})") from error
        if not isinstance(checkpoint, dict):
            raise StoredError(f"holds a {type(checkpoint).__name__}, wanted a mapping")
        _check_contents(checkpoint, len(data))
    except StoredError as error:
        raise CheckpointError(f"checkpoint: {path} {error}") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint: {path} cannot be read ({error.strerror})") from error
    return checkpoint


def write_arrays(path: Path, of: str, arrays: Mapping[str, "np.ndarray[Any, Any]"]) -> None:
    """Saves arrays as an uncompressed `.npz` with its SHA-256 in `<path>.sha256`.

    `of` names their content, and `read_arrays` asks for it.

    They can be computed again: a kill while they are replaced may leave none that are valid.
    """
    import numpy as np

    buffer = io.BytesIO()
    named = {"of": np.frombuffer(of.encode(), np.uint8), **arrays}
    np.savez(
        buffer,
        allow_pickle=False,
        **{name: np.ascontiguousarray(array) for name, array in named.items()},
    )
    _write_verified(path, buffer.getvalue())


def read_arrays(path: Path, of: str, layout: Layout) -> dict[str, "np.ndarray[Any, Any]"]:
    """The arrays at `path`, read-only, each of the shape and dtype in `layout`.

    Their values are not checked.

    Raises StoredError, before it costs more memory than `layout` says, if the file is not there or
    larger, if its SHA-256 is not the recorded one, or if it holds other arrays, or those of
    something else than `of`.
    """
    import numpy as np

    text = np.frombuffer(of.encode(), np.uint8)
    wanted = {"of": (text.shape, text.dtype), **layout}
    largest = sum(
        math.prod(shape) * dtype.itemsize + ARRAY_HEADERS for shape, dtype in wanted.values()
    )
    try:
        data = _read_verified(path, largest)
        # The file may be a stranger's: zipfile raises errors of many types for a malformed record.
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                _check_records(archive, len(data), sorted(f"{name}.npy" for name in wanted))
                records = {name: archive.read(f"{name}.npy") for name in wanted}
        except StoredError:
            raise
        except Exception as error:
            raise StoredError(f"is no file of arrays ({' '.join(str(error).split())})") from error
        arrays = {name: _array(name, records[name], *wanted[name]) for name in wanted}
        if not np.array_equal(arrays.pop("of"), text):
            raise StoredError(f"is of something else, wanted {of}")
    except StoredError as error:
        raise StoredError(f"{path} {error}") from error
    return arrays


def _array(
    name: str, record: bytes, shape: tuple[int, ...], dtype: "np.dtype[Any]"
) -> "np.ndarray[Any, Any]":
    """The array in a record whose header is exactly that of `shape` and `dtype`.

    No other header is parsed.
    """
    import numpy as np

    header = io.BytesIO()
    description = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(header, description)
    start = len(header.getvalue())
    if (
        record[:start] != header.getvalue()
        or len(record) - start != math.prod(shape) * dtype.itemsize
    ):
        raise StoredError(f"holds another {name} than {dtype} of shape {shape}")
    return np.frombuffer(record, dtype, offset=start).reshape(shape)


def _write_verified(path: Path, data: bytes, *also: str) -> None:
    """Writes the hash file, which names the hashes `also` beside that of `data`, then the file."""
    hashes = [hashlib.sha256(data).hexdigest(), *also]
    write_atomic(hash_path(path), ("\n".join(hashes) + "\n").encode())
    write_atomic(path, data)


def _read_verified(path: Path, largest: int | None = None) -> bytes:
    """The bytes of a file whose SHA-256 is the recorded one, at most `largest` of them.

    Raises StoredError.
    """
    if not path.is_file():
        raise StoredError("is no file")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if largest is not None and size > largest:
                raise StoredError(f"has {size:,} bytes, wanted at most {largest:,}")
            if not hash_path(path).is_file():
                raise StoredError(
                    f"has no {hash_path(path).name} beside it, so it cannot be verified"
                )
            # Before it costs memory. A file that takes its place meanwhile has another descriptor.
            if hashlib.file_digest(file, "sha256").hexdigest() not in _recorded_hashes(path):
                raise StoredError(
                    f"is damaged: its SHA-256 is not the one in {hash_path(path).name}"
                )
            file.seek(0)
            return file.read(size)
    except OSError as error:
        raise StoredError(f"cannot be read ({error.strerror})") from error


def _recorded_hashes(path: Path) -> list[str]:
    """The hashes in the hash file beside `path`; none if there is no such file."""
    if not hash_path(path).is_file():
        return []
    with hash_path(path).open("rb") as file:
        return file.read(LARGEST_SIDECAR).decode(errors="replace").split()


def _check_records(archive: zipfile.ZipFile, size: int, names: list[str] | None = None) -> None:
    """Refuses records other than `names`, and records that unfold to more than `size` bytes."""
    records = archive.infolist()
    if compressed := [record.filename for record in records if record.compress_type]:
        raise StoredError(f"is refused: its record {compressed[0]} is compressed")
    # Records may lie over each other.
    if sum(record.file_size for record in records) > size:
        raise StoredError(f"is refused: its records claim more than its {size:,} bytes")
    if names is not None and sorted(record.filename for record in records) != names:
        raise StoredError(f"holds other arrays than {', '.join(names)}")


def _check_claims(data: bytes) -> None:
    """Refuses, before torch reads it, a checkpoint that could run code or cost more memory than it
    holds.
    """
    # As in `read_arrays`: any exception means that a stranger's bytes are no such file.
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_records(archive, len(data))
            for record in archive.namelist():
                if record.endswith("data.pkl"):
                    _check_pickle(archive.read(record), len(data))
    except StoredError:
        raise
    except Exception as error:
        raise StoredError(f"is no checkpoint ({' '.join(str(error).split())})") from error


def _check_pickle(pickled: bytes, size: int) -> None:
    if len(pickled) > LARGEST_PICKLE + size // 16:
        raise StoredError(f"is refused: {len(pickled):,} of its {size:,} bytes are no tensors")
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("GLOBAL", "INST") and argument not in PICKLE_NAMES:
            raise StoredError(
                f"is refused: it holds more than plain types and tensors ({argument})"
            )


def _check_contents(checkpoint: dict[str, Any], size: int) -> None:
    """Refuses tensors that claim more than the file's `size` bytes together, and endless nesting.

    A module copies each tensor, so that many views of one storage would become as many storages.
    """
    import torch

    seen: set[int] = set()
    found: list[tuple[Any, int]] = [(checkpoint, 0)]
    claimed = 0
    while found:
        value, depth = found.pop()
        if depth > DEEPEST:
            raise StoredError(f"is refused: it is nested more than {DEEPEST} deep")
        if isinstance(value, torch.Tensor):
            claimed += value.numel() * value.element_size()
            if claimed > size:
                raise StoredError(f"is refused: its tensors claim more than its {size:,} bytes")
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            found += [
                (inner, depth + 1)
                for inner in (value.values() if isinstance(value, dict) else value)
            ]


def hash_path(path: Path) -> Path:
    """The file that holds the SHA-256 of a checkpoint or of arrays."""
    return path.with_name(path.name + ".sha256")
