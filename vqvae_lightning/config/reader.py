"""Reads dataclasses of settings: nested values, `key=value` overrides on top, checks.

A section is a field that is a dataclass. A part is a section whose `name` chooses a member of a
table; its other settings are that member's. Every error is a ConfigError of one line.
"""

import dataclasses
import difflib
import math
import operator
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from vqvae_lightning.config.commands import CHOOSING_RUNS, COMMAND_OPTIONS
from vqvae_lightning.config.files import read_mapping, read_yaml
from vqvae_lightning.config.parts import IDENTITY, find_member, is_section, name_of, to_dict
from vqvae_lightning.config.places import canonical_places
from vqvae_lightning.config.plugins import is_plugin
from vqvae_lightning.config.references import resolve_references
from vqvae_lightning.config.schema import Experiment
from vqvae_lightning.config.setting import ConfigError
from vqvae_lightning.config.values import Word, check_text, read, shown, visible, word_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
SETTINGS = {f.name for cls in (Experiment, *COMMAND_OPTIONS) for f in dataclasses.fields(cls)}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def section_config(cls: type[Config], values: Config | Mapping[str, Any], key: str) -> Config:
    """The section `key` of an experiment, from the plain mapping of a checkpoint or from itself.

    A dataclass that a program made is read like a mapping, so its values are checked, too.

    Args:
        cls: the dataclass of the section.
        values: the section, or its settings as plain values.
        key: the name of the section in an experiment, such as `model`.

    Raises:
        ConfigError: the values are no mapping, or do not fit the dataclass.
    """
    if isinstance(values, cls):
        cls, values = type(values), to_dict(values)
    if not isinstance(values, Mapping):
        got = type(values).__name__ if is_section(values) else shown(values)
        raise ConfigError(f"{key}: got {got}, wanted a mapping")
    defaults = with_members(cls(), values, f"{key}.")
    _check_keys(values, defaults, f"{key}.")
    return _read_fields(defaults, values, f"{key}.")


def options(cls: type[Config], settings: Sequence[str], file: str | Path | None = None) -> Config:
    """The dataclass `cls` with a YAML file and `key=value` settings on top.

    Raises ConfigError as `load_experiment`.
    """
    values = overridden(read_yaml(file) if file else {}, settings, sections(cls()))
    return canonical_places(configured(cls(), values))


def run_options(
    cls: type[Config], run: Path, given: Config | None, settings: Mapping[str, Any]
) -> Config:
    """The options of a call from Python about one run, checked like those of a command line.

    Args:
        cls: the dataclass of the options.
        run: the folder of the run.
        given: options, or None for the defaults.
        settings: keyword settings on top.

    Raises:
        ConfigError: an option does not fit, or would choose another run; the options are of another
            command.
    """
    if given is not None and not isinstance(given, cls):
        got = type(given).__name__
        raise ConfigError(f"options: got {got}, wanted {cls.__name__}, or settings by keyword")
    values = {**(to_dict(given) if given else {}), **settings}
    usual = to_dict(cls())
    for name in CHOOSING_RUNS:
        if name in settings or values.get(name, usual[name]) != usual[name]:
            raise ConfigError(f"{name}: got {values[name]} beside {run}, wanted one of them")
    return canonical_places(configured(cls(), values))


def merge_overrides(*settings: Sequence[str]) -> list[str]:
    """The `key=value` overrides of several lists. The last value of a key wins."""
    return list(
        {override.partition("=")[0]: override for given in settings for override in given}.values()
    )


def split_overrides(names: Collection[str], settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """The `key=value` overrides whose keys are among `names`, and the others."""
    own = [override for override in settings if override.partition("=")[0] in names]
    return own, [override for override in settings if override not in own]


def is_setting(argument: str) -> bool:
    """Whether an argument is `key=value`, and no file or folder with `=` in its name.

    A key holds no `/`, so `./a=b` is never a setting. Nor is `a=b` if there is a file of that name,
    and `a` is no setting of any command.
    """
    key, equals, _ = argument.partition("=")
    if not equals or "/" in key:
        return False
    return key.partition(".")[0] in SETTINGS or not os.path.lexists(argument)


def check_name(name: str) -> None:
    """Raises ConfigError unless `name` can be the name of a folder and nothing more."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"name: got {shown(name)}, wanted 1 to 100 letters, digits, '.', '_' or '-'"
        )


def overridden(
    values: Mapping[str, Any], overrides: Sequence[str], sections: Collection[str]
) -> dict[str, Any]:
    """The nested values with `key=value` overrides on top, as text that its type reads later.

    Args:
        values: what a file holds.
        overrides: `key=value`, or `section={key: value, …}`.
        sections: the dotted keys of the sections.

    Raises:
        ConfigError: for an override without `=`, and for two overrides of one key.
    """
    if not isinstance(overrides, list | tuple) or not all(isinstance(o, str) for o in overrides):
        raise ConfigError(f"overrides: got {shown(overrides)}, wanted a list of key=value")
    given: dict[str, str] = {}
    result = _copied(values)
    for override in overrides:
        for key, text in pairs(override, sections):
            if key in given:
                raise ConfigError(f"{key}: got {given[key]} and {text}, wanted one value")
            given[key] = text
            _put(result, key, text)
    return result


def pairs(override: str, sections: Collection[str]) -> Iterator[tuple[str, str]]:
    """Key and text of a `key=value` override; of `section={key: value, …}`, those of each setting
    in it.
    """
    check_text(override, "override")
    key, equals, text = override.partition("=")
    if override.startswith("-") or not equals or not key:
        raise ConfigError(
            f"override: got '{override}', wanted key=value, for example optimizer.lr=1e-3"
        )
    if key in sections and text.startswith("{"):
        for name, value in read_mapping(text, key).items():
            yield from pairs(f"{key}.{name}={word_of(value)}", sections)
    else:
        yield key, text


def _put(values: dict[str, Any], key: str, text: str) -> None:
    *sections, last = key.split(".")
    for depth, section in enumerate(sections, start=1):
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            where = ".".join(sections[:depth])
            raise ConfigError(f"{where}: got {shown(values)} and {key}={text}, wanted one of them")
    values[last] = Word(text)


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copied(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }


def sections(config: "DataclassInstance", prefix: str = "") -> set[str]:
    """The dotted keys of the sections of a dataclass of settings."""
    found: set[str] = set()
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if is_section(value):
            found |= {prefix + f.name, *sections(value, f"{prefix}{f.name}.")}
    return found


def configured(defaults: Config, values: Mapping[str, Any]) -> Config:
    """The dataclass `defaults` with values on top, each read by its type. Raises ConfigError."""
    defaults = with_members(defaults, values, "")
    values = resolve_references(values, to_dict(defaults))
    _check_keys(values, defaults, "")
    return _read_fields(defaults, values, "")


def with_members(config: Config, values: Mapping[str, Any], prefix: str) -> Config:
    """The dataclass with the defaults of the members that values choose for its parts.

    Raises ConfigError for a member that is not in the table, nor in a file that the user named.
    """
    changes = {}
    for f in dataclasses.fields(config):
        child, section = getattr(config, f.name), values.get(f.name)
        if not (is_section(child) and isinstance(section, Mapping)):
            continue
        if "table" in f.metadata and "name" in section:
            child = find_member(section, f.metadata, prefix + f.name).Config()
        changes[f.name] = with_members(child, section, f"{prefix}{f.name}.")
    return dataclasses.replace(config, **changes)


def _read_fields(defaults: Config, values: Mapping[str, Any], prefix: str) -> Config:
    types, changes = get_type_hints(type(defaults), include_extras=True), {}
    for f in dataclasses.fields(defaults):
        child, key = getattr(defaults, f.name), prefix + f.name
        if f.name in values and is_section(child):
            changes[f.name] = _read_fields(child, values[f.name], f"{key}.")
        elif f.name in values:
            changes[f.name] = read(values[f.name], types[f.name], key)
            _check_range(changes[f.name], f.metadata, key)
    return dataclasses.replace(defaults, **changes)


def _check_keys(values: Mapping[str, Any], config: Any, prefix: str, root: Any = None) -> None:
    """Raises ConfigError for an unknown key, naming the nearest one or its right place."""
    root = config if root is None else root
    known = {f.name: f for f in dataclasses.fields(config)}
    for key, value in values.items():
        full = f"{prefix}{key}"
        if key not in known:
            hint = _hint(str(key), list(known), prefix, root)
            raise ConfigError(f"unknown key {visible(full)}; {hint}")
        child = getattr(config, key)
        if is_section(child):
            _check_section(value, child, known[key].metadata.get("table"), full, root)
        elif isinstance(value, Mapping) and isinstance(child, list):
            example = ",".join(map(str, child)) or "a,b"
            got = f"{full}.{next(iter(value), '')}"
            raise ConfigError(f"{full}: got {got}, wanted the whole list: {full}=[{example}]")
        elif isinstance(value, Mapping) and not isinstance(child, dict):
            raise ConfigError(
                f"unknown key {visible(full)}.{next(iter(value), '')}; {full} is a setting, not a"
                " section"
            )


def _check_section(
    values: Any, config: Any, table: Mapping[str, Any] | None, key: str, root: Any
) -> None:
    """Raises ConfigError unless values are a mapping of settings that the section has."""
    names = [f.name for f in dataclasses.fields(config)]
    if not isinstance(values, Mapping):
        example = f"{key}.{names[0] if table is None else 'name'}=…"
        wanted = f"a setting of it, such as {example}" if isinstance(values, Word) else "a mapping"
        raise ConfigError(f"{key}: got {shown(values)}, wanted {wanted}")
    if table is not None:
        member = name_of(config, table)
        own = IDENTITY if is_plugin(member) else ("name",)
        values = {name: value for name, value in values.items() if name not in own}
        for name in values:
            if name not in names:
                full = visible(f"{key}.{name}")
                raise ConfigError(_no_such_setting(full, str(name), member, names))
    _check_keys(values, config, f"{key}.", root)


def _no_such_setting(key: str, name: str, member: str, names: list[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1)
    if nearest:
        return f"unknown key {key}; did you mean {key[: -len(name)]}{nearest[0]}?"
    return f"{key}: {member} has no such setting; it has {', '.join(names) or 'none'}"


def _hint(key: str, names: list[str], prefix: str, root: Any) -> str:
    if key in _all_keys(root):
        return "in a file, a setting stands in the mapping of its section"
    elsewhere = [path for path in _all_keys(root) if path.split(".")[-1] == key]
    if elsewhere:
        return f"it exists as {elsewhere[0]}"
    nearest = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {prefix}{nearest[0]}?" if nearest else f"known here: {', '.join(names)}"


def _all_keys(config: "DataclassInstance", prefix: str = "") -> list[str]:
    keys = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        keys += _all_keys(value, f"{prefix}{f.name}.") if is_section(value) else [prefix + f.name]
    return keys


def _check_range(value: object, metadata: Mapping[str, Any], key: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if not math.isfinite(value):
        raise ConfigError(f"{key}: got {value}, wanted a finite number")
    for name, holds, text in (
        ("at_least", operator.ge, "at least"),
        ("above", operator.gt, "above"),
        ("at_most", operator.le, "at most"),
        ("below", operator.lt, "below"),
    ):
        limit = metadata.get(name)
        if limit is not None and not holds(value, limit):
            raise ConfigError(f"{key}: got {value}, wanted {text} {limit} ({metadata['meaning']})")
