"""The cells of the comparison's tables: their text, and which of them hold a best value."""

import math
from collections.abc import Sequence
from typing import Protocol

from vqvae_lightning.comparison.budgets import Budget, sizes_are_alike
from vqvae_lightning.metrics.measures import Measure, sign

MISSING = "–"


class Measured(Protocol):
    """A row of a table. `values` holds only what exists: an absent number is not zero."""

    @property
    def number(self) -> int: ...

    @property
    def values(self) -> dict[str, float]: ...

    @property
    def limits(self) -> dict[str, int]: ...

    @property
    def budget(self) -> Budget: ...


def text(column: Measure, row: Measured) -> str:
    """The value of a measure in a row, with its limit if it has one, and the sign of a bound."""
    value = row.values.get(column.key)
    if value is None:
        return MISSING
    limit = f" / {row.limits[column.key]:,}" if column.key in row.limits else ""
    return sign(column.key, row.values) + format(value, column.format) + limit


def best(column: Measure, rows: Sequence[Measured]) -> set[int]:
    """Numbers of the rows that show the best value; none where there is nothing to compare."""
    known = [row for row in rows if math.isfinite(row.values.get(column.key, math.nan))]
    if not column.is_ranked or len(known) < 2:
        return set()
    if len(set(peers(column, known).values())) > 1 or not sizes_are_alike(r.budget for r in known):
        return set()
    choose = max if column.better == "higher" else min
    winner = choose(known, key=lambda row: row.values[column.key])
    return {row.number for row in known if text(column, row) == text(column, winner)}


def peers(column: Measure, rows: Sequence[Measured]) -> dict[int, int]:
    """The number of each row → which rows it can be ranked with: those of the same whole number.

    They agree in what the measure asks for, and were trained for as long.
    """
    found: dict[str, int] = {}
    numbers = {}
    for row in rows:
        agreements = [getattr(row, name) for name in column.comparable]
        key = repr((row.budget.length, agreements))
        numbers[row.number] = found.setdefault(key, len(found))
    return numbers


def present(columns: Sequence[Measure], rows: Sequence[Measured]) -> tuple[Measure, ...]:
    """The columns for which some row has a value."""
    return tuple(column for column in columns if any(column.key in row.values for row in rows))
