"""A comparison as tables in the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from vqvae_lightning.evaluation.compare import KINDS, Column, Comparison, Group


def print_table(comparison: Comparison, console: Console | None = None) -> None:
    """A table for each dataset; one too wide for the terminal goes on in another below it. `*` marks the best."""
    console = console or Console()
    for group in comparison.groups:
        console.print(Text(f"{group.title}, test set", style="bold"))
        columns = list(group.columns)
        while columns:
            fit = len(columns)
            while fit > 1 and _width(console, _table(group, columns[:fit])) > console.width:
                fit -= 1
            console.print(_table(group, columns[:fit]))
            columns = columns[fit:]
        for note in group.notes:
            console.print(Text(note, style="dim"))
        console.print()


def _table(group: Group, columns: Sequence[Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("run", overflow="fold", max_width=32)
    table.add_column("kind", no_wrap=True)
    for column in columns:
        table.add_column(f"{column.title}\n{column.unit}", justify="right", no_wrap=True)
    for row in group.rows:
        cells = []
        for column in columns:
            best = row.number in group.best[column.key]
            cells.append(Text(column.text(row) + ("*" if best else " "), style="bold" if best else ""))
        table.add_row(Text(row.name), KINDS[row.kind], *cells)
    return table


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum
