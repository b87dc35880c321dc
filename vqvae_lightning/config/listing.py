"""Settings of any dataclass as rows, and rows as text: for a terminal, a page and a docstring."""

import dataclasses
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from vqvae_lightning.config.parts import is_section, name_of
from vqvae_lightning.config.values import named_values, wanted, word_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
PLACES = {"folder": "a folder", "file": "a file or folder"}
LIMITS = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting."""

    key: str  # dotted
    default: str  # as on a command line
    wanted: str  # its type and its range, in words
    meaning: str
    choices: tuple[str, ...] = ()  # the values that are names
    place: str = ""  # "folder", "file" or an ending, if its value is a place
    of: tuple[str, ...] = ()  # the members, or kinds of run, that have it; empty: all


def rows(config: "DataclassInstance", prefix: str = "") -> list[Row]:
    """The settings of a dataclass with these defaults; of a part, those of each of its members."""
    types = get_type_hints(type(config), include_extras=True)
    found: list[Row] = []
    for f in dataclasses.fields(config):
        value, key, table = getattr(config, f.name), prefix + f.name, f.metadata.get("table")
        if table is not None:
            found += _part(key, name_of(value, table), table, f.metadata["meaning"])
        elif is_section(value):
            found += rows(value, f"{key}.")
        else:
            found.append(_row(key, value, types[f.name], f.metadata))
    return found


def _part(key: str, default: str, table: Mapping[str, Any], meaning: str) -> list[Row]:
    """The name of a part, and the settings of its members."""
    names = tuple(table)
    row = Row(f"{key}.name", default, f"one of {', '.join(names)}", meaning, names)
    return [
        row, *merged({name: rows(part.Config(), f"{key}.") for name, part in table.items()})
    ]  # fmt: skip


def _row(key: str, default: object, kind: Any, metadata: Mapping[str, Any]) -> Row:
    place = metadata.get("place") or ""
    values = wanted(kind)
    if place:
        values = values.replace("text", PLACES.get(place, f"a {place} file"))
    limits = [
        f"{words} {metadata[name]}"
        for name, words in LIMITS.items()
        if metadata.get(name) is not None
    ]
    return Row(
        key,
        str(default).lower() if isinstance(default, bool) else word_of(default),
        ", ".join([values, *limits]),
        metadata.get("meaning", ""),
        named_values(kind),
        place,
    )


def merged(lists: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The rows of several members or kinds as one list; equal rows are one that names its owners.

    Settings of one section stand together, in the order in which sections first appear.
    """
    owners: dict[Row, list[str]] = {}
    for name, some in lists.items():
        for row in some:
            owners.setdefault(row, []).append(name)
    order: dict[str, int] = {}
    for row in owners:
        for prefix in _prefixes(row.key):
            order.setdefault(prefix, len(order))
    found = [
        row if row.of or len(names) == len(lists) else dataclasses.replace(row, of=tuple(names))
        for row, names in owners.items()
    ]
    return sorted(found, key=lambda row: [order[prefix] for prefix in _prefixes(row.key)])


def _prefixes(key: str) -> list[str]:
    """`a`, `a.b` and `a.b.c` of the key `a.b.c`."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def owners_note(some: Sequence[Row]) -> str:
    """How to read the rows of a listing."""
    owners = any(row.of for row in some)
    brackets = "; in brackets the kinds of run, or the members, that have it" if owners else ""
    return f"Settings with their defaults{brackets}:"


def listed(some: Sequence[Row], width: int | None = None) -> str:
    """Rows as text: two lines each or more, an empty one between sections.

    Args:
        some: the rows.
        width: columns; None: those of the terminal, at most 100.
    """
    width = width or min(100, shutil.get_terminal_size().columns)
    return "\n".join(_lines(some, width)) + "\n"


def _lines(some: Sequence[Row], width: int) -> Iterator[str]:
    section = None
    for row in some:
        if section not in (None, row.key.rpartition(".")[0]):
            yield ""
        section = row.key.rpartition(".")[0]
        head = f"{row.key}={row.default}"
        owners = f"  [{', '.join(row.of)}]" if row.of else ""
        yield from _wrapped(f"{head:40s}  {row.wanted}{owners}", width)
        yield from _wrapped(row.meaning, width, "    ")


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    later = indent or " " * 8
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=later, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def documented(cls: type[Config]) -> type[Config]:
    """Adds the settings of a dataclass to its docstring, which `help` shows."""
    found = rows(cls())
    cls.__doc__ = f"{cls.__doc__}\n\n{owners_note(found)}\n\n{listed(found, 80)}"
    return cls
