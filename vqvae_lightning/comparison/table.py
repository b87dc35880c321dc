"""A comparison as tables in the terminal."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vqvae_lightning.comparison.columns import Measured, text
from vqvae_lightning.comparison.compare import Comparison
from vqvae_lightning.comparison.generation import Generation, Named
from vqvae_lightning.config import visible
from vqvae_lightning.metrics.measures import Measure

# A row with the two texts that stand before its numbers.
Line = tuple[Measured, tuple[str, str]]
C = TypeVar("C")  # a column
GAP = 2  # spaces between columns


def print_table(comparison: Comparison, console: Console | None = None) -> None:
    """Tables for each dataset; one too wide for the terminal goes on in another below it.

    `*` marks the best.
    """
    console = console or Console()
    for group in comparison.groups:
        console.print(Text(f"{group.title}, test set", style="bold"))
        if group.unequal:
            console.print(Text(group.unequal, style="yellow"))
        lines: list[Line] = [(row, (row.name, row.kind.title)) for row in group.rows]
        _print(console, ("run", "kind"), lines, group.columns, group.best)
        for note in group.notes:
            console.print(Text(note, style="dim"))
        console.print()
        print_generation(group.generation, console)


def print_generation(tables: Sequence[Generation[Named]], console: Console | None = None) -> None:
    """Figures of samples, a table for each protocol, which is printed below it.

    Runs are named by their `name`.
    """
    console = console or Console()
    for table in tables:
        console.print(Text(visible(table.title), style="bold"))
        lines: list[Line] = [(row, (row.run.name, row.label)) for row in table.rows]
        _print(console, ("run", "sampler"), lines, table.columns, table.best)
        console.print(Text(visible(table.protocol), style="dim"))
        console.print()


def _print(
    console: Console,
    heads: tuple[str, str],
    lines: Sequence[Line],
    columns: Sequence[Measure],
    best: dict[str, set[int]],
) -> None:
    print_columns(lambda some: _table(heads, lines, some, best), columns, console)


def print_columns(
    build: Callable[[Sequence[C]], Table], columns: Sequence[C], console: Console
) -> None:
    """Tables of as many columns at a time as fit the console, below one another."""
    all_widths = _widths(build(columns))
    before = len(all_widths) - len(columns)
    heads = sum(all_widths[:before]) + GAP * (before - 1)
    widths = dict(zip(columns, all_widths[before:], strict=True))
    rest = list(columns)
    while rest:
        fit, width = 1, heads + GAP + widths[rest[0]]
        while fit < len(rest) and width + GAP + widths[rest[fit]] <= console.width:
            width += GAP + widths[rest[fit]]
            fit += 1
        console.print(build(rest[:fit]))
        rest = rest[fit:]


def _table(
    heads: tuple[str, str],
    lines: Sequence[Line],
    columns: Sequence[Measure],
    best: dict[str, set[int]],
) -> Table:
    table = frameless()
    table.add_column(heads[0], overflow="fold", max_width=32)
    table.add_column(heads[1], no_wrap=True)
    for column in columns:
        table.add_column(f"{column.title}\n{column.unit}", justify="right", no_wrap=True)
    for row, texts in lines:
        cells = []
        for column in columns:
            marked = row.number in best[column.key]
            cell = text(column, row) + ("*" if marked else " ")
            cells.append(Text(cell, style="bold" if marked else ""))
        table.add_row(*(Text(visible(head)) for head in texts), *cells)
    return table


def frameless() -> Table:
    """An empty table without lines."""
    return Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")


def _widths(table: Table) -> list[int]:
    """Characters that each column of a frameless table takes if nothing is folded.

    rich would measure each cell as something that could be wrapped, which takes five times as long.
    """
    found = []
    for column in table.columns:
        lines = [line for cell in (column.header, *column.cells) for line in str(cell).split("\n")]
        width = max(map(cell_len, lines))
        found.append(width if column.max_width is None else min(width, column.max_width))
    return found
