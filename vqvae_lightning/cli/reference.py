"""Every setting of every command as rows, kept in settings.json.

Rows are made of the dataclasses of settings, whose import takes seconds: those of a model's parts
stand beside their networks. The file is there for `--help` and for a shell's completion, which
answer at once. `make settings` writes it; a test compares it with the code.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from vqvae_lightning.config.listing import Row

FILE = Path(__file__).with_name("settings.json")


def of_experiment() -> list[Row]:
    """The settings of an experiment, of every kind."""
    from vqvae_lightning.config import Experiment
    from vqvae_lightning.config.listing import merged, rows
    from vqvae_lightning.kinds import KINDS

    return merged({name: rows(Experiment(model=kind.config())) for name, kind in KINDS.items()})


def of_everything() -> dict[str, list[Row]]:
    """The settings of an experiment, and of the options of each command by their class's name."""
    from vqvae_lightning.config.commands import COMMAND_OPTIONS
    from vqvae_lightning.config.listing import rows

    of_commands = {cls.__name__: rows(cls()) for cls in COMMAND_OPTIONS}
    return {"experiment": of_experiment(), **of_commands}


def as_json(everything: dict[str, list[Row]]) -> str:
    """The text of settings.json: a line for each setting, without what is empty."""
    sections = []
    for name, some in everything.items():
        lines = [
            json.dumps({k: v for k, v in dataclasses.asdict(row).items() if v}, ensure_ascii=False)
            for row in some
        ]
        sections.append(f"{json.dumps(name)}: [\n" + ",\n".join(lines) + "\n]")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def kept(name: str) -> list[Row]:
    """The settings of an experiment or of a command's options, as settings.json has them."""
    return [_row(values) for values in json.loads(FILE.read_text("utf-8"))[name]]


def _row(values: dict[str, Any]) -> Row:
    lists = {key: tuple(values.get(key, ())) for key in ("choices", "of")}
    texts = {f.name: values.get(f.name, "") for f in dataclasses.fields(Row)}
    return Row(**{**texts, **lists})
