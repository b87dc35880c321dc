"""Parts of a model: sections whose `name` chooses a class, of a table or of a user's own file.

A class owns a dataclass `Config`, whose fields are the settings of the part. In plain values a part
is `{name: …, settings}`; that of a file also has `sha256`, the hash of the file.
"""

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, get_type_hints

from vqvae_lightning.config.plugins import is_plugin, plugin_class, plugin_of
from vqvae_lightning.config.setting import ConfigError
from vqvae_lightning.config.values import Word, is_readable, read, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Member = TypeVar("Member")
IDENTITY = ("name", "sha256")  # what says which class a part is, beside its settings


def part(default: str, table: Mapping[str, type[Any]], base: type[Any], meaning: str) -> Any:
    """A field for a part: the `Config` of one member of `table`, which a config names by `name`.

    Args:
        default: the member where a config names none.
        table: the members by name. Each is a class that owns a dataclass `Config` of its settings.
        base: their base class. A class of a user's own file has to be a subclass of it, too.
        meaning: the purpose of the part, for help and messages.
    """
    metadata = {"meaning": meaning, "table": table, "base": base}
    return field(default_factory=lambda: table[default].Config(), metadata=metadata)


def find_member(values: Mapping[str, Any], metadata: Mapping[str, Any], key: str) -> type[Any]:
    """The class that the `name` in plain values of a part chooses.

    Args:
        values: the part, with a `name`; of a class in a user's own file perhaps with its `sha256`.
        metadata: of the field that the part is, see `part`.
        key: the dotted key of the part, for messages.

    Raises:
        ConfigError: there is no such member, its file was not named by the user, or the class is
            no such part.
    """
    name, table = values["name"], metadata["table"]
    if isinstance(name, str) and name in table:
        found: type[Any] = table[name]
        return found
    if not is_plugin(name):
        wanted = f"{', '.join(table)}, or FILE.py:CLASS"
        raise ConfigError(f"{key}.name: got {shown(name)}, wanted one of {wanted}")
    sha256 = read(values.get("sha256"), str | None, f"{key}.sha256")
    found = plugin_class(name, sha256, f"{key}.name")
    _check_member(found, metadata["base"], f"{key}.name: {shown(name)[1:-1]}")
    return found


def _check_member(member: type[Any], base: type[Any], what: str) -> None:
    """Raises ConfigError unless a class of a user's own file is the part that is wanted."""
    if not issubclass(member, base):
        raise ConfigError(f"{what} is no {base.__name__}, wanted a subclass of {_place(base)}")
    config = vars(member).get("Config")
    of_base = getattr(base, "Config", object)
    if not isinstance(config, type) or "__dataclass_fields__" not in vars(config):
        above = "" if of_base is object else f"({base.__name__}.Config)"
        raise ConfigError(f"{what} has no settings, wanted in it: @dataclass class Config{above}")
    if not issubclass(config, of_base):
        raise ConfigError(f"{what}: its Config is no subclass of {base.__name__}.Config")
    if inspect.isabstract(member):
        missing = ", ".join(sorted(member.__abstractmethods__))
        raise ConfigError(f"{what} does not define {missing}")
    owner = plugin_of(config)
    if owner is None or owner[2] is not member:
        raise ConfigError(f"{what} shares its Config with another class, wanted one of its own")
    _check_config(config, f"{what}: Config")


def _place(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__name__}"


def _check_config(config: type[Any], what: str) -> None:
    """Raises ConfigError unless each field has a type that settings have, and a default of it."""
    for f in dataclasses.fields(config):
        if f.name in IDENTITY:
            raise ConfigError(f"{what}.{f.name}: that name is taken, wanted another")
        if f.default is f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{what}.{f.name} has no default, wanted one: setting(default, …)")
    try:
        defaults, types = config(), get_type_hints(config, include_extras=True)
    except Exception as error:
        raise ConfigError(f"{what} cannot be made: {type(error).__name__}: {error}") from error
    for f in dataclasses.fields(defaults):
        value, kind = getattr(defaults, f.name), types[f.name]
        if not is_readable(kind):
            raise ConfigError(
                f"{what}.{f.name}: got type {shown(str(f.type))[1:-1]}, wanted int, float, bool,"
                " str, Literal, list[…], dict[str, …] or … | None of them"
            )
        read(value, kind, f"{what}.{f.name}")


def member_of(config: Any, table: Mapping[str, type[Member]]) -> type[Member]:
    """The class whose settings `config` holds: a member of `table`, or of a user's own file."""
    return _identity(config, table)[1]


def name_of(config: Any, table: Mapping[str, type[Any]]) -> str:
    """The name by which a config chooses the class whose settings `config` holds."""
    return _identity(config, table)[0]["name"]


def _identity(config: Any, table: Mapping[str, type[Any]]) -> tuple[dict[str, str], type[Any]]:
    """The class whose settings `config` holds, and before it the plain values that name it."""
    found = [(name, member) for name, member in table.items() if member.Config is type(config)]
    if found:
        assert len(found) == 1, (type(config), found)  # each member owns a Config of its own
        return {"name": found[0][0]}, found[0][1]
    plugin = plugin_of(type(config))
    if plugin is None:
        raise ConfigError(
            f"config: {_place(type(config))} is of no part that is known here, wanted that of one"
            f" of {', '.join(table)}, or of a file that use_plugins executed"
        )
    name, sha256, member = plugin
    return {"name": name, "sha256": sha256}, member


def plugins_of(config: "DataclassInstance") -> list[dict[str, str]]:
    """Name and SHA-256 of each part of these settings whose class is in a user's own file."""
    found: list[dict[str, str]] = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if not is_section(value):
            continue
        table = f.metadata.get("table")
        identity = {} if table is None else _identity(value, table)[0]
        found += [identity] if "sha256" in identity else []
        found += plugins_of(value)
    return found


def is_section(value: object) -> TypeGuard["DataclassInstance"]:
    """Whether the value of a field is a section of settings of its own."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """Nested dicts of plain values, fit for YAML, JSON and checkpoints.

    The settings of a part stand behind its `name`, and the `sha256` of a user's own file.
    """
    values: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if is_section(value):
            table = f.metadata.get("table")
            identity = {} if table is None else _identity(value, table)[0]
            values[f.name] = identity | to_dict(value)
        else:
            values[f.name] = copy.deepcopy(value)
    return values


def without_leftovers(
    defaults: "DataclassInstance", before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a command line without the file's settings of members that are not chosen.

    Where an override names another member of a part, the file's settings of the old member stay
    only if the new one has them, too. A setting that an override gives always stays.

    Args:
        defaults: the dataclass that the values are of.
        before: what the file holds.
        after: the same with the overrides on top.
    """
    result = dict(after)
    for f in dataclasses.fields(defaults):
        child, old, new = getattr(defaults, f.name), before.get(f.name), after.get(f.name)
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            continue
        if "table" in f.metadata:
            gone = _leftovers(child, f.metadata, old, new)
            result[f.name] = {
                key: value
                for key, value in new.items()
                if key not in gone or isinstance(value, Word)
            }
        elif is_section(child):
            result[f.name] = without_leftovers(child, old, new)
    return result


def _leftovers(
    default: Any, metadata: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]
) -> set[str]:
    """The settings that the file's member has and the chosen member has not."""
    if old.get("name") == new.get("name"):
        return set()
    named = {"name": name_of(default, metadata["table"])}
    # The hash in the file is of the class that it names.
    hashed = {} if isinstance(new.get("sha256"), Word) else {"sha256": None}
    chosen = _members_settings({**named, **new, **hashed}, metadata)
    left = _members_settings({**named, **old}, metadata)
    if left is None and is_plugin(old.get("name")):
        # Its file was not named, so that only what stands there is known of its settings.
        left = {*old} - {"name"}
    if chosen is None or left is None:
        return set()
    return left - chosen | {*hashed}


def _members_settings(values: Mapping[str, Any], metadata: Mapping[str, Any]) -> set[str] | None:
    """The names of the settings of the member that values choose; None if there is no such one."""
    try:
        config = find_member(values, metadata, "").Config
    except ConfigError:
        return None
    return {f.name for f in dataclasses.fields(config)}
