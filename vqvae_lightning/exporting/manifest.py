"""config.json of an exported folder: its kind, its graphs or weights, and its files' SHA-256."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqvae_lightning.config import ConfigError, one_line
from vqvae_lightning.exporting.graphs import BATCH, Port
from vqvae_lightning.storage import write_json
from vqvae_lightning.training.record import RECORD
from vqvae_lightning.training.shapes import Shape, check_shape
from vqvae_lightning.verified import CheckpointError

MANIFEST = "config.json"
LIBRARY = "vqvae_lightning"
LARGEST = 2**24  # bytes of a config.json
PORT: Shape = {"name": str, "dtype": str, "meaning": str}
SHAPE: Shape = {
    "library_name": str,
    "format": str,
    "kind": str,
    "name": str,
    "weights": {str: {"kind": str}},
    "graphs": {str: {"inputs": [PORT], "output": PORT}},
    "files": {str: str},
}


@dataclass(frozen=True)
class Manifest:
    """The content of config.json, checked."""

    folder: Path
    format: str
    kind: str
    weights: dict[str, dict[str, Any]]  # of safetensors and hub: part → its hyper-parameters
    graphs: dict[str, tuple[tuple[Port, ...], Port]]  # of onnx and pt2: name → inputs, output
    files: dict[str, str]  # name → SHA-256

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises CheckpointError if it is gone, is a link, or is not what was written.
        """
        path = self.folder / name
        if name not in self.files:
            raise CheckpointError(f"export: {self.folder / MANIFEST} names no {name}")
        data = read_regular(path)
        if hashlib.sha256(data).hexdigest() != self.files[name]:
            raise CheckpointError(
                f"export: {path} is damaged: its SHA-256 is not the one in {MANIFEST}"
            )
        return data


def is_export(folder: Path) -> bool:
    """Whether a folder has a config.json and is no run, as the folders of `export`."""
    return os.path.lexists(folder / MANIFEST) and not os.path.lexists(folder / RECORD)


def read_regular(path: Path, largest: int | None = None) -> bytes:
    """The bytes of a file of an exported folder, at most `largest` of them.

    Raises CheckpointError for anything else, before it is read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise CheckpointError(f"export: there is no file {path}") from None
    except OSError as error:
        hint = " (of a download, take local_dir=)" if path.is_symlink() else ""
        raise CheckpointError(
            f"export: {path} is a link or cannot be read, wanted a file{hint}"
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise CheckpointError(f"export: {path} is no file")
    with os.fdopen(descriptor, "rb") as file:
        if largest is not None and found.st_size > largest:
            raise CheckpointError(f"export: {path} has more than {largest:,} bytes")
        return file.read(found.st_size)


def write_manifest(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes config.json, with a SHA-256 of its own content in it."""
    values = {"library_name": LIBRARY, **values}
    write_json(folder / MANIFEST, {**values, "sha256": own_hash(values)})


def own_hash(values: Mapping[str, Any]) -> str:
    """The SHA-256 of config.json, computed without the entry that holds it."""
    rest = {key: value for key, value in values.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder that `export` made.

    Raises ConfigError for another folder, CheckpointError for a damaged one.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise ConfigError(f"export: {folder} is no exported folder (it holds no {MANIFEST})")
    try:
        values = json.loads(read_regular(path, LARGEST))
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"export: {path} is damaged ({one_line(error)})") from error
    if not isinstance(values, dict) or values.get("library_name") != LIBRARY:
        raise ConfigError(f"export: {path} is of another library, wanted library_name={LIBRARY}")
    try:
        check_shape(values, SHAPE, MANIFEST)
        graphs = {name: _ports(name, graph) for name, graph in values["graphs"].items()}
        if values.get("sha256") != own_hash(values):
            raise ConfigError("its SHA-256 is not the one that it holds")
    except ConfigError as error:
        raise CheckpointError(f"export: {path} is damaged: {one_line(error)}") from error
    return Manifest(
        folder, values["format"], values["kind"], values["weights"], graphs, values["files"]
    )


def _ports(name: str, graph: Mapping[str, Any]) -> tuple[tuple[Port, ...], Port]:
    found = []
    for port in (*graph["inputs"], graph["output"]):
        shape = port.get("shape")
        sides = [side for side in shape if side != BATCH] if isinstance(shape, list) else shape
        check_shape(sides, [int], f"{MANIFEST}: graphs.{name}.shape")
        below = port.get("below")
        if below is not None:
            check_shape(below, int, f"{MANIFEST}: graphs.{name}.below")
        shape = tuple(port["shape"])
        found.append(Port(port["name"], port["dtype"], shape, port["meaning"], below))
    return tuple(found[:-1]), found[-1]


def check_together(graphs: Mapping[str, tuple[tuple[Port, ...], Port]], stage: int) -> None:
    """Raises ConfigError unless the tensors of graphs fit together as `graphs_of` makes them."""

    def kinds(*ports: Port) -> list[tuple[str, tuple[int | str, ...]]]:
        return [(port.dtype, port.shape) for port in ports]

    (images, latents), (given, decoded) = graphs["encoder"], graphs["decoder"]
    fits = len(images) == 1 and kinds(*given, decoded) == kinds(latents, *images)
    if stage == 2:
        inputs, logits = graphs["step"]
        whole = [("int64", latents.shape), ("int64", ()), ("int64", (BATCH,))]
        fits = fits and kinds(*inputs) in (whole[:2], whole) and kinds(latents) == whole[:1]
        for port, dtype in ((latents, "int64"), (logits, "float32")):
            open_sides = [side == BATCH for side in port.shape]
            fits = fits and port.dtype == dtype and open_sides == [True, False]
    if not fits:
        raise ConfigError("the tensors of its graphs do not fit together")
