"""run.json: its required content, checked before anything in a run folder is used."""

import difflib
import json
import math
import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvae_lightning.config import ConfigError, one_line
from vqvae_lightning.config.nearest import meant
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.training.shapes import (
    NUMBERS,
    Shape,
    brief,
    check_shape,
    check_texts,
    is_number,
    shape_of,
)

if TYPE_CHECKING:
    from vqvae_lightning.models.first_stage import FrozenLatents
    from vqvae_lightning.models.tokenizer import Tokenizer

RECORD = "run.json"
LARGEST = 2**24  # bytes of a run.json
STATUSES = ("running", "interrupted", "failed", "finished")
# Locked while a run is trained, and while its record changes. An flock ends with its process.
RUN_LOCK, RECORD_LOCK = ".lock", ".run.json.lock"
FOLDERS = ("checkpoints", "images", "codes", "latents", "wandb")
FILES = (RECORD, "config.yaml", "metrics.jsonl", RUN_LOCK, RECORD_LOCK)


@dataclass(frozen=True)
class TokenizerRecord:
    """The tokenizer of a prior, as the prior records it."""

    run: str  # name of the run that it is of
    fingerprint: str
    codebook_size: int
    grid: list[int]  # shape of one image's codes
    dims: int  # C · H · W of its images

    @classmethod
    def of(cls, tokenizer: "Tokenizer", run: str = "no run") -> "TokenizerRecord":
        """The record of a tokenizer, by default of one that a program made itself."""
        size, grid = tokenizer.codebook_size, list(tokenizer.grid)
        return cls(run, tokenizer.fingerprint, size, grid, tokenizer.dims)

    def as_dict(self) -> dict[str, Any]:
        """The record as a checkpoint of the prior holds it."""
        return asdict(self)


@dataclass(frozen=True)
class LatentsRecord:
    """The frozen AE or VAE of a flow, as the flow records it."""

    run: str  # name of the run that it is of
    fingerprint: str
    shape: list[int]  # D, h, w of one image's z
    dims: int  # C · H · W of its images

    @classmethod
    def of(cls, first_stage: "FrozenLatents", run: str = "no run") -> "LatentsRecord":
        """The record of a first stage, by default of one that a program made itself."""
        return cls(run, first_stage.fingerprint, list(first_stage.shape), first_stage.dims)

    def as_dict(self) -> dict[str, Any]:
        """The record as a checkpoint of the flow holds it."""
        return asdict(self)


@dataclass(frozen=True)
class ImagesRecord:
    """The images of a run: what can be said of them without having them."""

    title: str
    shape: list[int]  # C, H, W
    classes: list[str]  # the name of each label


# Entries of run.json that are records themselves.
PARTS: dict[str, type] = {
    "own_images": ImagesRecord,
    "tokenizer": TokenizerRecord,
    "first_stage": LatentsRecord,
}


@dataclass(frozen=True)
class RunRecord:
    """The content of run.json. What a run does not have, or not yet, is None or empty."""

    id: str
    name: str
    kind: str
    dataset: str
    seed: int
    status: str
    created: str
    command: list[str]
    versions: dict[str, str]
    data: dict[str, str | None] = field(default_factory=dict)  # file → SHA-256
    parameters: int | None = None
    own_images: ImagesRecord | None = None  # of a run on own images
    tokenizer: TokenizerRecord | None = None  # of a prior of codes
    first_stage: LatentsRecord | None = None  # of a flow
    # name (FILE.py:CLASS) and SHA-256 of the parts, of a prior's tokenizer too, in own files
    plugins: list[dict[str, str]] = field(default_factory=list)
    process: str | None = None  # the one that trains it, or did so last
    fingerprint: str | None = None  # of a finished run of stage 1
    finished: str | None = None
    test: dict[str, float] = field(default_factory=dict)
    kl_per_dim: list[float] = field(default_factory=list)  # of a VAE, nats
    generation: list[dict[str, Any]] = field(default_factory=list)  # a figure of each sampler
    evaluated: dict[str, Any] | None = None  # settings of the last evaluation
    heard_by: str | None = None  # SHA-256 of the vocoder of its figures; None: Griffin-Lim
    wandb_id: str | None = None
    wandb_url: str | None = None

    @property
    def source(self) -> TokenizerRecord | LatentsRecord | None:
        """The first stage of a run of stage 2."""
        return self.tokenizer or self.first_stage

    @property
    def learned_from(self) -> TokenizerRecord | LatentsRecord:
        """The first stage of a run that is known to be of stage 2."""
        assert self.source is not None, self.kind
        return self.source

    @property
    def images(self) -> ImagesRecord:
        """The images that it was trained on."""
        if self.own_images:
            return self.own_images
        dataset = DATASETS[self.dataset]
        return ImagesRecord(dataset.title, list(dataset.shape), list(dataset.class_names))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "RunRecord":
        """The record of a checked run.json; keys that are not known here are left out."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        for key, part in PARTS.items():
            if key in known:
                known[key] = part(**{f.name: known[key][f.name] for f in fields(part)})
        return cls(**known)


COMMON: Shape = {
    "id": str,
    "name": str,
    "kind": str,
    "dataset": str,
    "seed": int,
    "status": str,
    "created": str,
    "command": [str],
    "versions": {str: str},
}
FINISHED: Shape = {"finished": str, "parameters": int, "test": {str: float}}
# Entries that a run may have. A finished run must have those of FINISHED.
OPTIONAL: Shape = {
    **FINISHED,
    "data": {},
    **{name: shape_of(part) for name, part in PARTS.items()},
    "plugins": [{"name": str, "sha256": str}],
    "process": str,
    "fingerprint": str,
    "kl_per_dim": [float],
    "generation": [{"checkpoint_sha256": str}],
    "evaluated": {},
    "heard_by": str,
    "wandb_id": str,
    "wandb_url": str,
}


def read_record(folder: Path) -> dict[str, Any]:
    """The checked content of run.json in a run folder.

    Raises ConfigError, one line that names the folder, if it is no run folder, if the file is no
    JSON or lacks what every run has, and if a part of the folder is a link or anything else that
    leads out of it.
    """
    path = folder / RECORD
    if not os.path.lexists(path):
        hint = "" if folder.exists() else _others(folder)
        raise ConfigError(f"run: {folder} is no run folder (it holds no {RECORD}){hint}")
    check_parts(folder)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        values = json.loads(path.read_text())
        _check(values)
    except (ValueError, RecursionError) as error:
        reason = one_line(error)
        raise ConfigError(f"run: {path} is damaged ({reason}); move that folder away") from error
    return dict(values)


def _others(folder: Path) -> str:
    """What a folder that is not there may have meant: a run beside it, or in runs/."""
    places = dict.fromkeys((folder.parent, Path("runs")))
    found = {path.parent.name: path.parent for p in places for path in p.glob(f"*/{RECORD}")}
    near = difflib.get_close_matches(folder.name, found, n=1)
    if near:
        return f"; did you mean {found[near[0]]}?"
    return f"; {meant(str(folder), [str(path) for path in found.values()])}" if found else ""


def check_parts(folder: Path) -> None:
    """Raises ConfigError unless each part of a run folder is a file or folder as training made it.

    Links are refused: writing or deleting through one would reach files outside the run.
    """
    parts = [(folder / name, stat.S_ISDIR, "folder") for name in FOLDERS]
    parts += [(folder / name, stat.S_ISREG, "file") for name in FILES]
    for name in ("checkpoints", "codes", "latents"):
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            inside = [Path(entry.path) for entry in os.scandir(folder / name)]
            parts += [(path, stat.S_ISREG, "file") for path in inside]
    for path, is_right, wanted in parts:
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if not is_right(mode):
            found = "a link" if stat.S_ISLNK(mode) else "something else"
            raise ConfigError(
                f"run: {path} is {found}, wanted a {wanted}; a run folder holds what is in it"
            )
    _check_links(folder)


def _check_links(folder: Path) -> None:
    """Raises ConfigError for a link in wandb/ to a folder elsewhere, through which W&B would write.

    W&B's own links lead to files, and to folders beside them.
    """
    for root, folders, _ in os.walk(folder / "wandb"):
        for name in folders:
            path = Path(root, name)
            if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"run: {path} is a link that leads out of the run folder")


def logged_row(line: str | bytes) -> dict[str, float] | None:
    """The numbers of a line of metrics.jsonl.

    None of a line that is no JSON object with a step: a kill may cut the last line off.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    if not isinstance(step, int) or not is_number(step):
        return None
    return {key: value for key, value in row.items() if isinstance(value, NUMBERS)}


def _check(values: Any) -> None:
    """Raises ConfigError, one line, for a record that no training writes."""
    check_shape(values, COMMON, RECORD)
    check_texts(values, RECORD)
    tables: list[tuple[str, Collection[str]]] = [("kind", KINDS), ("status", STATUSES)]
    if "own_images" not in values:
        tables.insert(1, ("dataset", DATASETS))
    for key, known in tables:
        if values[key] not in known:
            names = ", ".join(known)
            raise ConfigError(f"{RECORD}: {key} is {brief(values[key])}, wanted one of {names}")
    if not values["command"]:
        raise ConfigError(f"{RECORD}: command is empty, wanted a command line")
    if values["status"] == "finished":
        check_shape(values, FINISHED, RECORD)
    kind = KINDS[values["kind"]]
    if kind.stage == 2:
        wanted = "tokenizer" if kind.has_codes else "first_stage"
        check_shape(values, {wanted: OPTIONAL[wanted]}, RECORD)
    check_shape(values, {key: shape for key, shape in OPTIONAL.items() if key in values}, RECORD)
    if "own_images" in values:
        own = values["own_images"]
        if not (len(own["shape"]) == 3 and all(own["shape"]) and own["classes"]):
            raise ConfigError(
                f"{RECORD}: own_images has shape {own['shape']} and {len(own['classes'])} classes,"
                " wanted three sides and a class at least"
            )
    if "tokenizer" in values:
        size, grid = values["tokenizer"]["codebook_size"], values["tokenizer"]["grid"]
        if not (1 <= len(grid) <= 4 and size * math.prod(grid) >= 1):
            raise ConfigError(
                f"{RECORD}: tokenizer has {size} codes and a grid of {len(grid)} sides, wanted at"
                " least 1 of each"
            )
    if "first_stage" in values:
        shape = values["first_stage"]["shape"]
        if not (len(shape) == 3 and all(shape)):
            raise ConfigError(
                f"{RECORD}: first_stage has a z of shape {shape}, wanted three sides of at least 1"
            )
