"""Atomic writes of files and folders, and checks that they can be made.

A kill at any time leaves the old file or the new one, never half of one.
"""

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# How the name of an unfinished file or folder ends. It begins with a dot.
UNFINISHED = ".vqvae-tmp"
# Seconds after which an unfinished file that is still empty is taken for a killed process's.
ABANDONED = 60


def write_atomic(path: Path, data: bytes) -> None:
    """Writes beside the target, flushes to disk, then renames: readers see the old or the new file.

    Unfinished files of killed processes in the folder are removed first. Raises OSError if the
    folder cannot be written or the disk is full; the old file is then untouched.
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
            # mkstemp's 0600 would hide the file from the rest of a team.
            os.chmod(name, 0o666 & ~_umask())
            # Before the lock goes with the descriptor: then another writer would sweep the file.
            os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder to be filled, under a name that `sweep` knows; it is removed at an error.

    The caller renames it at the end, so that a folder under its own name is always complete.
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
    """Removes the unfinished files of killed processes in `folder`; those of living ones stay.

    A writer holds a lock on its file from before the first byte, and a lock dies with its process.
    A file that is still empty may be one whose writer has yet to lock it, so it is left alone for a
    minute.
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


def _try_lock(descriptor: int) -> None:
    """Marks an unfinished file as one that is being written.

    Some network disks have no locks: it is then not marked.
    """
    with suppress(OSError):
        # A sweeper holds it for a moment while it looks.
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock on a file; nothing is written, no link followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # of a disk without locks
        return False
    finally:
        os.close(descriptor)
    return False


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


def is_writable(file: Path) -> bool:
    """Whether `file` can be made or replaced; makes nothing that stays, or has a name."""
    folder = _nearest_folder(file)
    if file.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return False
    try:
        # For root all folders look open; those of /proc and of a read-only disk are not.
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_writable(file: Path, key: str) -> None:
    """Raises ValueError, one line that begins with `key`, if `file` cannot be written.

    Nothing is created.
    """
    if file.is_dir():
        raise ValueError(f"{key}: {file} is a folder, wanted a file")
    if not is_writable(file):
        raise ValueError(
            f"{key}: {file} cannot be made, for {_nearest_folder(file)} is no folder that can be"
            " written"
        )


def _nearest_folder(file: Path) -> Path:
    """The deepest parent that exists. A parent behind a closed folder counts as absent."""
    return next(parent for parent in file.absolute().parents if os.path.exists(parent))


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_json(path: Path, values: object) -> None:
    """Writes `values` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(values, indent=2) + "\n").encode())
