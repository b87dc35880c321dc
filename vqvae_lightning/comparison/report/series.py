"""What runs have logged, as lines over steps: read once, thinned out, and as the page's script
takes it.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.config import visible
from vqvae_lightning.metrics.measures import MEASURES
from vqvae_lightning.training.shapes import is_number


class Line(NamedTuple):
    """Steps with their values, in the order of the steps.

    Two columns, and no pair for each of a comparison's million points: pairs take twice as long.
    """

    steps: list[int]
    values: list[float]


# Runs with the finite values that each logged of one measure.
Series = list[tuple[Row, Line]]

SPLITS = {"val": "Validation", "train": "Training", "test": "Test"}
NAMES = 80  # logged names that the page knows, of one dataset
LONGEST_NAME = 100
DASHES = 5  # ways to draw a line


def logged(rows: Sequence[Row]) -> dict[str, Series]:
    """Logged names → the lines of the runs that have one; each run's file is read once.

    Names of MEASURES come first, those of validations before those of training. Values that are no
    finite numbers are left out.
    """
    found: dict[str, Series] = {}
    for row in rows:
        lines: dict[str, Line] = {}
        in_order = sorted(
            (line for line in row.run.metrics() if is_number(line["step"])),
            key=itemgetter("step"),
        )
        for logged_line in in_order:
            step = int(logged_line.pop("step"))
            for name, value in logged_line.items():
                if is_number(value):
                    line = lines.get(name)
                    if line is None:
                        line = lines[name] = Line([], [])
                    line.steps.append(step)
                    line.values.append(value)
        lines.pop("epoch", None)
        for name, line in lines.items():
            found.setdefault(name, []).append((row, line))
    kept = sorted((name for name in found if len(name) <= LONGEST_NAME), key=_rank)[:NAMES]
    return {name: found[name] for name in kept}


def _rank(name: str) -> tuple[int, int, str]:
    split, _, key = name.partition("/")
    position = list(MEASURES).index(key) if key in MEASURES else len(MEASURES)
    return [*SPLITS, split].index(split), position, name


def thinned(line: Line, points: int) -> Line:
    """At most `points` (at least 4) of a line: its ends, and the lowest and the highest of each of
    equal stretches, so that a spike stays a spike.
    """
    steps, values = line
    if len(values) <= points:
        return line
    stretches = (points - 2) // 2
    edges = [1 + round(i * (len(values) - 2) / stretches) for i in range(stretches + 1)]
    kept = [0]
    for start, end in pairwise(edges):
        stretch = values[start:end]
        kept += sorted({start + stretch.index(min(stretch)), start + stretch.index(max(stretch))})
    kept.append(len(values) - 1)
    return Line([steps[i] for i in kept], [values[i] for i in kept])


def dashes(rows: Sequence[Row]) -> dict[int, int]:
    """The number of each row → how its lines are dashed, which tells runs of one kind apart."""
    of_kind: dict[str, int] = {}
    found = {}
    for row in rows:
        same = of_kind[row.kind.name] = of_kind.get(row.kind.name, -1) + 1
        found[row.number] = same % DASHES
    return found


def axis_title(name: str) -> str:
    """What a logged name is called on an axis, with its unit as it is logged."""
    measure = MEASURES.get(name.partition("/")[2])
    if measure is None:
        return visible(name)
    panel = measure.panel.title if measure.panel else ""
    return measure.curve or panel or measure.title or measure.key


def as_data(rows: Sequence[Row], series: Mapping[str, Series]) -> dict[str, Any]:
    """What the page's script draws of one dataset, in plain values."""
    dash, shown = dashes(rows), {row.number for row in rows}
    measures = []
    for name, lines in series.items():
        drawn = {row.number: _columns(line) for row, line in lines if row.number in shown}
        if drawn:
            measure = MEASURES.get(name.partition("/")[2])
            measures.append(
                {
                    "name": visible(name),
                    "title": axis_title(name),
                    "split": SPLITS.get(name.partition("/")[0], "Other"),
                    "better": measure.better if measure else "",
                    "lines": drawn,
                }
            )
    runs = {
        row.number: {
            "name": row.name,
            "kind": row.kind.name,
            "dash": dash[row.number],
            "batch": row.settings["data"]["batch_size"],
        }
        for row in rows
    }
    return {"runs": runs, "measures": measures}


def _columns(line: Line) -> tuple[list[int], list[float]]:
    """Steps and values of a line, to five digits."""
    return line.steps, [float(f"{value:.5g}") for value in line.values]
