"""Files and folders that settings name: canonical where they are read, found where they moved.

A setting is a place by its metadata (`setting(…, place="folder")`). On a command line and in a
user's YAML file it is relative to the current folder; `canonical` expands `~` and `..`. A record,
`config.yaml` in a run folder, holds absolute places. After a run folder was moved or copied
together with its surroundings, they are looked for around it.
"""

import os
import re
import shlex
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vqvae_lightning.config.data import DataConfig
from vqvae_lightning.config.parts import is_section
from vqvae_lightning.config.plugins import plugin_arguments
from vqvae_lightning.config.schema import Experiment
from vqvae_lightning.config.setting import ConfigError
from vqvae_lightning.config.values import check_text, shown, visible

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
LONGEST_PATH = 4000  # bytes: Linux takes 4,096
LONGEST_NAME = 230  # bytes: an unfinished file has a longer one


def canonical(given: object, key: str) -> str:
    """The place that a text or a path names, `~` expanded; see `short`.

    Raises ConfigError for anything else, a user that is not there, a dead link, and a name that is
    too long.
    """
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str):
        raise ConfigError(f"{key}: got {shown(given)}, wanted the path of a file or folder")
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        user = text.partition("/")[0]
        raise ConfigError(f"{key}: got '{visible(text)}', but there is no user {user}")
    path = Path(expanded)
    if len(os.fsencode(path.absolute())) > LONGEST_PATH:
        raise ConfigError(
            f"{key}: got a place whose name is too long, wanted at most {LONGEST_PATH} bytes"
        )
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        limit = f"at most {LONGEST_NAME} bytes"
        raise ConfigError(f"{key}: got a name that is too long, wanted {limit}: {path}")
    for place in (*reversed(path.parents), path):
        if place.is_symlink() and not os.path.exists(place):
            target = visible(os.readlink(place))
            raise ConfigError(f"{key}: {place} is a link to {target}, which does not exist")
    return short(path)


def short(path: Path) -> str:
    """A place as it is shown and kept: relative if it lies in the current folder, else absolute.

    It is absolute, too, where the relative form would be read back as something else.
    """
    absolute = path.resolve() if ".." in path.parts else path.absolute()
    here = Path.cwd()
    below = absolute.is_relative_to(here) and len(here.parts) > 1
    relative = str(absolute.relative_to(here)) if below else str(absolute)
    another_thing = re.match(r"~|-|[^/]*=|(\.|auto|null)$", relative)
    return str(absolute) if another_thing else relative


def canonical_places(config: Config, prefix: str = "") -> Config:
    """A configuration whose places are canonical.

    Raises ConfigError as `canonical` does, and for a file that is to be a folder.
    """
    changes: dict[str, Any] = {}
    for f in fields(config):
        value, key, kind = getattr(config, f.name), f"{prefix}{f.name}", f.metadata.get("place")
        if is_section(value):
            changes[f.name] = canonical_places(value, f"{key}.")
        elif kind and value and value != "auto":
            changes[f.name] = canonical(value, key)
            _check_kind(changes[f.name], kind, key)
    return replace(config, **changes)


def _check_kind(place: str, kind: str, key: str) -> None:
    if kind == "folder" and os.path.exists(place) and not os.path.isdir(place):
        raise ConfigError(f"{key}: {place} is a file, wanted a folder")
    if kind.startswith(".") and os.path.isdir(place):
        raise ConfigError(f"{key}: {place} is a folder, wanted a file")
    if kind.startswith(".") and not place.lower().endswith(kind):
        raise ConfigError(f"{key}: got '{place}', wanted a name that ends in {kind}")


def check_free(place: Path, wanted: str) -> None:
    """Raises ConfigError if there is anything under the name that `to` gives, a dead link too."""
    if os.path.lexists(place):
        raise ConfigError(f"to: {place} exists already, wanted {wanted}")


def absolute_places(experiment: Experiment) -> Experiment:
    """An experiment as a record holds it."""
    model = experiment.model
    if model.first_stage_run:
        model = model.learning_from(str(Path(model.first_stage_run).absolute()))
    runs, data = str(Path(experiment.runs).absolute()), experiment.data
    data = replace(
        data,
        root=str(Path(data.root).absolute()),
        path=str(Path(data.path).absolute()) if data.path else None,
    )
    places = {"runs": runs, "data.root": data.root, "data.path": data.path or ""}
    for key, place in places.items():
        # It may lie in a current folder of any name.
        check_text(place, key)
        if "${" in place:
            raise ConfigError(
                f"{key}: got '{place}', but ${{…}} in a record refers to a setting; use another"
                " folder"
            )
    return replace(experiment, runs=runs, data=data, model=model)


def find_places(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment of the record in `folder`, whose places are where they are now.

    `runs` is the folder that the run lies in. Data are taken only from a folder that holds the
    dataset, and else from the default one: nothing is fetched into a folder because a record,
    perhaps somebody else's, names it.
    """
    here, runs, model = folder.absolute().parent, experiment.runs, experiment.model
    root = find_place(experiment.data.root, runs, here, experiment.data.folder)
    data = replace(experiment.data, root=root or canonical(DataConfig().root, "data.root"))
    if recorded := model.first_stage_run:
        found = find_place(recorded, runs, here, "run.json")
        model = model.learning_from(found or short(Path(recorded)))
    return replace(experiment, runs=short(here), data=data, model=model)


def find_place(recorded: str, runs: str, here: Path, holds: str) -> str | None:
    """Where a recorded place is now that the recorded folder `runs` is `here`; None if nowhere.

    Candidates are the same relative path from `here`, then the recorded path. A candidate has to
    hold `holds`.
    """
    places = [Path(recorded)]
    if Path(recorded).is_absolute() == Path(runs).is_absolute():
        places.insert(0, Path(os.path.abspath(here / os.path.relpath(recorded, runs))))
    return next((short(place) for place in places if os.path.exists(place / holds)), None)


def own_command(*arguments: str | Path) -> str:
    """A command line of this program to paste into a shell.

    It names the program's path where the shell would not find it, and the files of own parts that
    this process uses.
    """
    arguments = (*arguments, *plugin_arguments())
    beside, known = Path(sys.executable).parent / "vqvae", shutil.which("vqvae")
    if not beside.exists() or (known and os.path.samefile(known, beside)):
        return command_line("vqvae", *arguments)
    return command_line(os.path.relpath(beside), *arguments)


def images_settings(data: DataConfig, prefix: str = "", name: str = "name") -> list[str]:
    """The settings, each with a prefix such as `data.`, that name the images of an experiment.

    `name` is what the command calls a dataset.
    """
    if data.path is None:
        return [f"{prefix}{name}={data.name}", *window_settings(data, prefix)]
    if data.sound.rate:
        return [f"{prefix}path={data.path}", *window_settings(data, prefix)]
    sides = data.sides or (0, 0)
    size = str(sides[0]) if sides[0] == sides[1] else f"[{sides[0]}, {sides[1]}]"
    return [f"{prefix}path={data.path}", *([f"{prefix}size={size}"] if data.size else [])]


def window_settings(data: DataConfig, prefix: str = "") -> list[str]:
    """What is set of the window of recordings, each with a prefix such as `data.`."""
    window = vars(data.sound).items()
    return [f"{prefix}sound.{key}={number}" for key, number in window if number is not None]


def runs_setting(runs: str) -> list[str]:
    """The setting that names the folder `runs`; none for the default."""
    return [] if runs == "runs" else [f"runs={runs}"]


def command_line(*arguments: str | Path) -> str:
    """The arguments as a line to paste into a shell."""
    return shlex.join(map(str, arguments))
