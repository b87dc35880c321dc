"""Files that are whole or not there, and checkpoints that are verified before they are believed."""

import hashlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

DEEPEST = 32  # mappings and lists inside each other, in a checkpoint


class CheckpointError(ValueError):
    """One line: which file, what is wrong with it."""


def write_whole(path: Path, data: bytes) -> None:
    """Writes beside the target, flushes to disk, then renames: a reader sees the old file or the new one.

    Raises OSError if the folder cannot be written or the disk is full; the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's 0600 would hide the file from the rest of a team
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
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
