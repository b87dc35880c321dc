"""What a setting is: a field with a meaning and a range; and the error of one that does not fit."""

from dataclasses import field
from typing import Any


class ConfigError(ValueError):
    """One line: what is wrong, where, what was found and what is wanted."""


def setting(
    default: Any, meaning: str, *, at_least: float | None = None, above: float | None = None,
    at_most: float | None = None, below: float | None = None, place: str | None = None,
) -> Any:  # fmt: skip
    """A field with its meaning (and unit) and the range that is checked before anything runs.

    `place` marks the name of a "folder" (one that is no file), of a "file" or run folder, or of a
    file with an ending (".png"): see `places`.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    return field(default=default, metadata={"meaning": meaning, "place": place, **limits})
