"""One setting: its declared type reads its text, and no value is guessed before the type is known.

| type | text |
|---|---|
| `str` | the text as it is, but not the empty one |
| `int` | decimal digits: `12`, `-1`; not `010`, `1_000`, `0x10`, `1.0` |
| `float` | `0.001`, `.001`, `1e-3`, `5` |
| `bool` | `true` or `false`, in capitals too |
| `Literal` | one of its members |
| `Annotated[str, names]` | one of `names()`, a table that may grow |
| `list` | `[a, b]` or `a,b`; an element that holds a comma, a bracket or a quote stands in quotes |
| `… | None` | text of the type; `null`, or nothing, is None |
"""

import math
import os
import re
import types
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from typing import (
    Annotated,
    Any,
    Literal,
    Protocol,
    Union,
    get_args,
    get_origin,
    runtime_checkable,
)

from vqvae_lightning.config.setting import ConfigError

WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(
    r"[+-]?(?=\.?[0-9])(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]{1,6})?|[+-]?(nan|inf)"
)
ELEMENT = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^,"'\[\]{}]*[^,"'\[\]{}\s]))\s*(?:,|$)""")
BIDI_CONTROLS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
MEANT = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}


class Word(str):
    """Text of a command line, which every type reads."""


class Bare(str):
    """Text without quotes in a YAML file that YAML takes for a number, boolean, date or null."""


@runtime_checkable
class _Scalars(Protocol):
    """A number or an array of numpy or torch."""

    def tolist(self) -> object: ...


class _Unfit(ValueError):
    """A value that its type does not take; the message is what was meant, if that can be said."""


def read(value: object, kind: Any, key: str) -> Any:
    """The value of the setting `key`, whose declared type is `kind`.

    `value` is a Word, a Bare, or a plain value: of a checkpoint, or text that stands in quotes in
    YAML. A plain value has to be of the type already; only a whole number will do for a float. A
    number or an array of numpy or torch is read as what its `tolist` gives. Raises ConfigError.
    """
    try:
        return _read(value, kind, key)
    except _Unfit as unfit:
        raise ConfigError(f"{key}: got {shown(value)}, wanted {wanted(kind)}{unfit}") from None


def _read(value: object, kind: Any, key: str) -> Any:
    # Text first: to ask whether it has a method takes as long as all the rest.
    if not isinstance(value, str) and isinstance(value, _Scalars):
        value = value.tolist()
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if type(None) in members and is_nothing(value):
            return None
        *choices, last = sorted((m for m in members if m is not type(None)), key=_is_no_literal)
        for choice in choices:
            with suppress(_Unfit):
                return _read(value, choice, key)
        if get_origin(last) is list and isinstance(value, Word) and not re.search(r"[\[,]", value):
            raise _Unfit  # one element: the message names all types, not that of an element
        return _read(value, last, key)
    if origin in (Literal, Annotated):
        if isinstance(value, str) and value in _choices(kind):
            return str(value)
        raise _Unfit
    if origin is list:
        if isinstance(value, Word) and value == "null":
            raise _Unfit
        items = _elements(value) if isinstance(value, Word) else value
        if not isinstance(items, list | tuple):
            raise _Unfit
        return [read(item, members[0], f"{key}.{number}") for number, item in enumerate(items)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _Unfit
        return {str(name): read(item, members[1], f"{key}.{name}") for name, item in value.items()}
    return {str: _text, int: _whole, float: _number, bool: _truth}[kind](value)


def is_readable(kind: Any) -> bool:
    """Whether `read` knows a declared type."""
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return all(is_readable(member) for member in members if member is not type(None))
    if origin is Literal:
        return all(isinstance(member, str) for member in members)
    if origin is Annotated:
        return members[0] is str and callable(members[1])
    if origin is dict:
        return members[0] is str and is_readable(members[1])
    return is_readable(members[0]) if origin is list else kind in (str, int, float, bool)


def _is_no_literal(kind: Any) -> bool:
    return get_origin(kind) is not Literal


def wanted(kind: Any) -> str:
    """The values that a type takes, in words."""
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if member is type(None) else wanted(member) for member in members)
    if origin in (Literal, Annotated):
        choices = _choices(kind)
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    named = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if kind in named:
        return named[kind]
    if origin is list:
        return "a list such as [8, 8]" if members[0] is int else "a list such as [a, b]"
    return "a mapping"


def named_values(kind: Any) -> tuple[str, ...]:
    """The texts that a type takes beside others, as far as they are names; null is left out."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return tuple(text for member in get_args(kind) for text in named_values(member))
    if origin in (Literal, Annotated):
        return _choices(kind)
    return ("true", "false") if kind is bool else ()


def _choices(kind: Any) -> tuple[str, ...]:
    """The texts that a `Literal`, or an `Annotated[str, names]`, takes."""
    members = get_args(kind)
    return tuple(members[1]()) if get_origin(kind) is Annotated else members


def shown(value: object) -> str:
    """A value for a message of one line, escaped; text in quotes unless a file has it without."""
    if isinstance(value, Bare):
        return visible(value) or "nothing"
    if isinstance(value, str):
        return f"'{visible(value)}'"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return visible(str(value))


def is_nothing(value: object) -> bool:
    """Whether a value is None, or a Word or a Bare that is null."""
    if isinstance(value, Bare):
        return value in ("", "~", "null", "Null", "NULL")
    return value is None or (isinstance(value, Word) and value in ("", "null"))


def word_of(value: object) -> str:
    """A value of `read_yaml` as text of a command line, read by every type as the same."""
    if isinstance(value, list):
        return f"[{', '.join(map(_quoted, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_quoted(item)}' for key, item in value.items())}}}"
    return "null" if is_nothing(value) else str(value)


def check_text(text: str, key: str) -> None:
    """Raises ConfigError for characters that steer a terminal, and for bytes that are no text."""
    if visible(text) != text:
        got = f"{visible(key)}: got '{visible(text)}'"
        raise ConfigError(f"{got}, wanted text without control characters")


def one_line(message: object) -> str:
    """A message on one line, with its control characters escaped: it may quote a file or a
    server.
    """
    return visible(" ".join(str(message).split()))


def visible(text: str) -> str:
    """The text with its control characters escaped."""
    if text.isascii() and text.isprintable():  # the usual case, at once
        return text
    return "".join(c.encode("unicode_escape").decode() if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    category = unicodedata.category(character)
    return (
        category in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in BIDI_CONTROLS
    )


def _elements(text: str) -> list[Word]:
    inside = text.strip()
    if inside.startswith("[") and inside.endswith("]") and len(inside) > 1:
        inside = inside[1:-1].strip()
    elements, position = [], 0
    while position < len(inside):
        found = ELEMENT.match(inside, position)
        if not found:
            raise _Unfit("; an element with a comma, a bracket or a quote stands in quotes")
        elements.append(Word(next(group for group in found.groups() if group is not None)))
        position = found.end()
    return elements


def _quoted(element: object) -> str:
    text = word_of(element)
    if ELEMENT.fullmatch(text) or isinstance(element, Mapping | list):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'


def _text(value: object) -> str:
    if isinstance(value, os.PathLike):
        return _text(os.fspath(value))
    if isinstance(value, Bare):
        raise _Unfit(f"; write it in quotes: '{value}'")
    if not isinstance(value, str):
        raise _Unfit("; write it in quotes")
    if not value:
        raise _Unfit
    return str(value)


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _readable(value)
    if WHOLE.fullmatch(text):
        return int(text)
    meant = None
    for base in (10, 0):
        with suppress(ValueError):
            meant = meant or str(int(text, base))
    with suppress(ValueError, OverflowError):
        meant = meant or (str(int(float(text))) if float(text).is_integer() else None)
    raise _Unfit(f"; write {meant}" if meant and WHOLE.fullmatch(meant) else "")


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = _readable(value)
    if NUMBER.fullmatch(text):
        return float(text)
    meant = None
    with suppress(ValueError):
        meant = float(text)
    raise _Unfit(f"; write {meant:g}" if meant is not None and math.isfinite(meant) else "")


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = _readable(value).lower()
    if text in ("true", "false"):
        return text == "true"
    raise _Unfit(f"; write {MEANT[text]}" if text in MEANT else "")


def _readable(value: object) -> str:
    """Text that a number or a boolean may be read from; that in quotes is text, and stays it."""
    if isinstance(value, Word | Bare):
        return value
    raise _Unfit("; write it without quotes" if isinstance(value, str) else "")
