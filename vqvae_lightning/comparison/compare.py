"""Several runs in one table: what was measured, and what may be compared with what."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vqvae_lightning.comparison.budgets import unequal
from vqvae_lightning.comparison.columns import best, present
from vqvae_lightning.comparison.generation import Generation, generations
from vqvae_lightning.comparison.notes import notes
from vqvae_lightning.comparison.records import Records
from vqvae_lightning.comparison.rows import Row, read_row
from vqvae_lightning.comparison.settings import Settings, settings_by_stage
from vqvae_lightning.config import ConfigError, one_line
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.metrics.measures import Measure, in_table
from vqvae_lightning.training.folders import read_each
from vqvae_lightning.training.runs import Run


@dataclass(frozen=True)
class Group:
    """Runs on the same images: only inside a group are numbers compared."""

    title: str
    rows: tuple[Row, ...]
    columns: tuple[Measure, ...]  # those for which some row has a value
    best: dict[str, set[int]]  # column → numbers of the rows to mark
    generation: tuple[Generation[Row], ...]  # of samplers, a table for each protocol
    settings: tuple[Settings, ...]
    notes: tuple[str, ...]  # how to read the table
    unequal: str  # how the budgets of the runs differ; empty if they do not


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: one group for each dataset, in the order in which the runs were
    given.
    """

    groups: tuple[Group, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for group in self.groups for row in group.rows)


def compare(runs: Run | str | Path | Sequence[Run | str | Path], named: bool = True) -> Comparison:
    """Reads finished runs, or those of folders that a program names.

    A run that cannot be compared (unfinished, settings unknown to this version, values of run.json
    that are missing or of another type) ends the comparison if the runs were `named` by the user.
    One that was found by a search is left out, and a line says so. Raises ConfigError, one line
    with the folder; ValueError for no runs.
    """
    given = [runs] if isinstance(runs, Run | str | Path) else runs
    if not given:
        raise ValueError("compare: got no runs, wanted at least one")
    # A run that is named twice is one row.
    found = list({run.path.resolve(): run for run in map(Run.of, given)}.values())
    records = Records(found)

    def read(run: Run) -> Row:
        try:
            return read_row(run, records)
        except (ValueError, OSError) as error:
            problem = one_line(f"{run.path}: {error}")
            raise ConfigError(f"compare: {problem}") from error

    rows = [read(run) for run in found] if named else [row for _, row in read_each(found, read)]
    if not rows:
        raise ConfigError(f"compare: none of the {len(found)} runs found can be compared")
    return Comparison(tuple(_groups(rows)))


def _groups(rows: Sequence[Row]) -> list[Group]:
    """Rows by the images that they are of, numbered through, in the order of the kinds."""
    by_images: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_images.setdefault(row.images, []).append(row)
    order = {name: position for position, name in enumerate(KINDS)}
    groups: list[Group] = []
    count = 0
    for found in by_images.values():
        found.sort(key=lambda row: order[row.kind.name])  # stable: as given, within a kind
        numbered = [replace(row, number=count + i) for i, row in enumerate(found, start=1)]
        groups.append(group(_title(found[0]), numbered))
        count += len(found)
    return groups


def _title(row: Row) -> str:
    """What the images that a run is of are called.

    Binary pixels are as little comparable with grey ones as another dataset.
    """
    record, binarize = row.record, row.settings["data"]["binarize"]
    title = record.images.title
    if record.own_images:
        # Two folders of one name are two sets of images.
        _, height, width = record.images.shape
        title = f"{title}, {height}×{width} ({record.dataset.rpartition('-')[2]})"
    return title if binarize == "none" else f"{title}, {binarize} binarization"


def group(title: str, rows: Sequence[Row]) -> Group:
    """Numbered rows of the same images, compared."""
    columns = present(in_table("results"), rows)
    return Group(
        title,
        tuple(rows),
        columns,
        {column.key: best(column, rows) for column in columns},
        tuple(generations((row, row.record.generation) for row in rows)),
        settings_by_stage(rows),
        tuple(notes(rows)),
        unequal([row.budget for row in rows]),
    )
