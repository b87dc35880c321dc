"""run.json: what a folder must say of itself before anything in it is believed."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqvae_lightning.config import MODEL_CONFIGS, ConfigError
from vqvae_lightning.data.sources import DATASETS

RECORD = "run.json"
LARGEST = 2**24  # bytes of a run.json
STATUSES = ("running", "interrupted", "failed", "finished")
FOLDERS, FILES = ("checkpoints", "images", "codes", "wandb"), (RECORD, "config.yaml", "metrics.jsonl", ".lock")

# Key -> its type, in words and in Python. JSON has no other types.
ALWAYS = {"id": str, "name": str, "kind": str, "dataset": str, "seed": int, "status": str, "created": str,
          "versions": dict, "command": list}  # fmt: skip
FINISHED = {"finished": str, "test": dict, "parameters": int}
OF_TOKENIZER = {"run": str, "fingerprint": str, "codebook_size": int, "grid": list, "dims": int}
WORDS = {str: "a text", int: "a whole number", dict: "a mapping", list: "a list"}


def read_record(folder: Path) -> dict[str, Any]:
    """What run.json of a run folder holds, checked.

    Raises ConfigError, one line that names the folder, if it is no run folder, if the file is no JSON or lacks what
    every run has, and if a part of the folder is a link or anything else that leads out of it.
    """
    path = folder / RECORD
    if not path.is_file():
        raise ConfigError(f"run: {folder} is no run folder (it holds no {RECORD})")
    check_parts(folder)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        values = json.loads(path.read_text())
        _check(values)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"run: {path} is damaged ({reason}); move that folder away") from error
    return dict(values)


def check_parts(folder: Path) -> None:
    """Raises ConfigError unless each part of a run folder is what a training makes: a file or a folder, no link.

    A link would be followed: what is written to it, or removed behind it, is not the run's.
    """
    parts = [(folder / name, stat.S_ISDIR, "folder") for name in FOLDERS]
    parts += [(folder / name, stat.S_ISREG, "file") for name in FILES]
    for name in ("checkpoints", "codes"):
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
            raise ConfigError(f"run: {path} is {found}, wanted a {wanted}; a run folder holds what is in it")


def _check(values: Any) -> None:
    """Raises ValueError, which says what is wrong, for a record that no training writes."""
    if not isinstance(values, dict):
        raise ValueError(f"it holds {_shown(values)}, wanted a mapping")
    _check_texts(values)
    _check_types(values, ALWAYS, "")
    for key, known in (("kind", MODEL_CONFIGS), ("dataset", DATASETS), ("status", STATUSES)):
        if values[key] not in known:
            raise ValueError(f"{key} is {_shown(values[key])}, wanted one of {', '.join(known)}")
    if values["kind"] == "prior":
        _check_types(values, {"tokenizer": dict}, "")
        _check_types(values["tokenizer"], OF_TOKENIZER, "tokenizer.")
        sizes = [*values["tokenizer"]["grid"], values["tokenizer"]["codebook_size"], values["tokenizer"]["dims"]]
        if not all(isinstance(size, int) and 0 < size < 2**31 for size in sizes):
            raise ValueError(f"tokenizer has sizes {_shown(sizes)}, wanted numbers above 0")
    if values["status"] == "finished":
        _check_types(values, FINISHED, "")
    numbers = values.get("test", {})
    if not isinstance(numbers, dict) or not all(map(_is_number, numbers.values())):
        raise ValueError(f"test is {_shown(numbers)}, wanted a mapping of names to numbers")
    figures = values.get("generation", [])
    if not isinstance(figures, list) or not all(isinstance(figure, dict) for figure in figures):
        raise ValueError(f"generation is {_shown(figures)}, wanted a list of mappings")


def _check_types(values: Mapping[str, Any], types: Mapping[str, type], prefix: str) -> None:
    for key, wanted in types.items():
        value = values.get(key)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{prefix}{key} is {_shown(value)}, wanted {WORDS[wanted]}")


def _check_texts(value: Any) -> None:
    """Refuses what a terminal would obey: control characters, in keys as in values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_texts(key)
            _check_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner)
    elif isinstance(value, str) and not value.isprintable():
        raise ValueError(f"{_shown(value)} holds control characters")


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63
    return isinstance(value, float)


def visible(text: str) -> str:
    """The text with control characters written as escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _shown(value: Any) -> str:
    """A value in a message: of one line, short, with nothing that a terminal would obey."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
