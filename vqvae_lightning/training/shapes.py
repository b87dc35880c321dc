"""Whether a value that was read from a JSON file is what it should be."""

import math
from typing import Any, TypeGuard, get_args, get_origin, get_type_hints

from vqvae_lightning.config import ConfigError, visible

# A shape is a type, a list of one shape, a mapping of keys to shapes, or one of `str` (any key) to
# a shape.
Shape = Any
WANTED = {
    str: "text",
    int: "a whole number of at least 0",
    float: "a number",
    list: "a list",
    dict: "a mapping",
}
LONGEST_TEXT = 10_000
# Beyond it sums and float32 overflow.
LARGEST_NUMBER = 1e39
NUMBERS = (int, float)  # `int | float` would be made anew for each of a page's million values


def shape_of(record: type) -> dict[str, Shape]:
    """The shape of a dataclass of texts, whole numbers and lists of them."""
    hints = get_type_hints(record)
    return {
        name: list(get_args(hint)) if get_origin(hint) is list else hint
        for name, hint in hints.items()
    }


def check_shape(value: Any, shape: Shape, where: str) -> None:
    """Raises ConfigError, one line that begins with `where`, unless `value` has the shape."""
    kind = type(shape) if isinstance(shape, dict | list) else shape
    if kind is float:
        # A diverged run measured NaN or Infinity. They are shown and never ranked.
        fits = is_number(value) or (isinstance(value, float) and not math.isfinite(value))
    elif kind is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40
    else:
        fits = isinstance(value, kind)
    if not fits:
        raise ConfigError(f"{where} is {brief(value)}, wanted {WANTED[kind]}")
    if kind is list:
        for number, item in enumerate(value):
            check_shape(item, shape[0], f"{where}.{number}")
    elif kind is dict:
        for key in value if str in shape else shape:
            if key not in value:
                raise ConfigError(f"{where} has no {key}")
            inner = shape[str] if str in shape else shape[key]
            check_shape(value[key], inner, f"{where}.{brief(key)[1:-1]}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        return False
    return abs(value) <= LARGEST_NUMBER


def check_texts(value: object, where: str) -> None:
    """Raises ConfigError, one line that begins with `where`, for a text that is too long, or that
    holds control characters, which a terminal would obey. Keys are texts, too.
    """
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for inner in value:
            check_texts(inner, where)
    elif isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise ConfigError(f"{where}: {brief(value)} has more than {LONGEST_TEXT:,} characters")
    elif isinstance(value, str) and visible(value) != value:
        raise ConfigError(f"{where}: {brief(value)} holds control characters")


def brief(value: object) -> str:
    """A value as short text of one line, without control characters."""
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return visible(text if len(text) <= 60 else f"{text[:57]}...")
