"""Files that are whole or not there, and checkpoints that are verified before they are believed."""

import fcntl
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

DEEPEST = 32  # mappings and lists inside each other, in a checkpoint
# How the name of an unfinished file or folder ends. It begins with a dot.
UNFINISHED = ".vqvae-tmp"
# Seconds after which an unfinished file that is still empty is taken for a killed process's.
ABANDONED = 60


class CheckpointError(ValueError):
    """One line: which file, what is wrong with it."""


def write_whole(path: Path, data: bytes) -> None:
    """Writes beside the target, flushes to disk, then renames: a reader sees the old file or the new one.

    What killed processes left unfinished in the folder is removed first. Raises OSError if the folder cannot be
    written or the disk is full; the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _try_lock(descriptor)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's 0600 would hide the file from the rest of a team
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder to be filled, under a name that `sweep` knows; it is removed at an error.

    Whoever fills it renames it at the end, so that it is whole under its own name, or not there.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    path = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}.", suffix=UNFINISHED))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _try_lock(descriptor)
        os.chmod(path, 0o777 & ~_umask())
        yield path
        _flush_folder(parent)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Removes what killed processes left unfinished in `folder`; what a living one is writing stays.

    A writer holds a lock on its file from before the first byte, and a lock dies with its process. A file that is
    still empty may be one whose writer has yet to lock it, so it is left alone for a minute.
    """
    for left in folder.glob(f".*{UNFINISHED}"):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(descriptor)
                is_folder = stat.S_ISDIR(found.st_mode)
                empty = not any(left.iterdir()) if is_folder else found.st_size == 0
                if empty and time.time() - found.st_mtime < ABANDONED:
                    continue
                shutil.rmtree(left) if is_folder else left.unlink()
            finally:
                os.close(descriptor)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps every other process and thread that asks for it out of `folder`, and waits for one that is in it.

    On a disk without locks it does nothing.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> None:
    """Marks an unfinished file as one that is being written.

    Some network disks have no locks: it is then not marked.
    """
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _flush_folder(path: Path) -> None:
    """Flushes the names in a folder to disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_writable(file: Path, key: str) -> None:
    """Raises ValueError, one line that begins with `key`, if no file can be written there; makes nothing."""
    if file.is_dir():
        raise ValueError(f"{key}: {file} is a folder, wanted a file")
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{key}: {file} cannot be made, for {folder} is no folder that can be written")


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_json(path: Path, values: Any) -> None:
    """`values` as indented JSON, whole or not at all."""
    write_whole(path, (json.dumps(values, indent=2) + "\n").encode())


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Saves plain dicts and tensors, with the file's SHA-256 in `<path>.sha256`.

    The hash file is written first and names the new content and the old: whichever of the two a kill leaves behind
    is then valid.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getvalue()
    hashes = [hashlib.sha256(data).hexdigest()]
    if path.is_file():
        hashes.append(file_hash(path))
    write_whole(hash_path(path), ("\n".join(hashes) + "\n").encode())
    write_whole(path, data)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint at `path`, on the CPU: the one place that reads any.

    Raises CheckpointError if there is none, if its SHA-256 is not the recorded one, or if it holds anything but plain
    types and tensors (nothing in it is ever executed), or claims more than the file holds.
    """
    import pickle

    import torch

    if not path.is_file():
        raise CheckpointError(f"checkpoint: there is no file {path}")
    data = path.read_bytes()
    if not hash_path(path).is_file():
        raise CheckpointError(f"checkpoint: {path} has no {hash_path(path).name} beside it, so it cannot be verified")
    if hashlib.sha256(data).hexdigest() not in hash_path(path).read_text().split():
        raise CheckpointError(f"checkpoint: {path} is damaged: its SHA-256 is not the one in {hash_path(path).name}")
    _refuse_compression(path, data)
    try:
        checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        wrong = "holds more than plain types" if isinstance(error, pickle.UnpicklingError) else "is no checkpoint"
        reason = (str(error).splitlines() or ["it ends too soon"])[0]
        raise CheckpointError(f"checkpoint: refused {path}: it {wrong} ({reason})") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"checkpoint: {path} holds a {type(checkpoint).__name__}, wanted a mapping")
    _check_contents(path, checkpoint)
    return checkpoint


def _refuse_compression(path: Path, data: bytes) -> None:
    """torch stores its records as they are; compressed ones could unfold to any size."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            compressed = [record.filename for record in archive.infolist() if record.compress_type]
    except zipfile.BadZipFile:
        return  # torch.load says what is wrong with it
    if compressed:
        raise CheckpointError(f"checkpoint: refused {path}: its record {compressed[0]} is compressed")


def _check_contents(path: Path, checkpoint: Any) -> None:
    """Refuses tensors with more elements than are stored (strides of 0), and mappings and lists without end."""
    import torch

    seen, found = set(), [(checkpoint, 0)]
    while found:
        value, depth = found.pop()
        if depth > DEEPEST:
            raise CheckpointError(f"checkpoint: refused {path}: it is nested more than {DEEPEST} deep")
        if isinstance(value, torch.Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise CheckpointError(f"checkpoint: refused {path}: a tensor of {tuple(value.shape)} is not all there")
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            found += [(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)]


def hash_path(path: Path) -> Path:
    """Where the SHA-256 of a checkpoint is kept."""
    return path.with_name(path.name + ".sha256")
