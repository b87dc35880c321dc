"""A comparison as one HTML page that needs nothing else: no network, no fonts, no plotting
library.
"""

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vqvae_lightning.comparison.columns import MISSING, text
from vqvae_lightning.comparison.compare import Comparison, Group
from vqvae_lightning.comparison.report.figures import (
    MARKS,
    Series,
    curves,
    ledger,
    logged,
    points,
)
from vqvae_lightning.comparison.report.pictures import (
    PICTURE_BYTES,
    Picture,
    encode_pictures,
    sample_pictures,
)
from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.evaluation.samplers import DESCRIPTIONS
from vqvae_lightning.metrics.measures import MEASURES, Measure, in_table
from vqvae_lightning.storage import write_whole
from vqvae_lightning.training.kinds import KINDS

PAGE_BYTES = 2_000_000
# Of the page, kept for pictures before curves lose points.
ROOM_FOR_PICTURES = 600_000
CURVE_POINTS = 200  # of one run


def write_report(comparison: Comparison, path: Path) -> Path:
    """Writes the page, at most 2 MB, to be opened as a file. Raises OSError if it cannot be
    written.

    What does not fit is left out, and the page says so: points of curves first, then pictures, then
    runs.
    """
    write_whole(path, _page(comparison).encode())
    return path


def _page(comparison: Comparison) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = templates.get_template("report.html")
    series = {group.title: _series(group) for group in comparison.groups}

    def render(shown: Comparison, points: int, pictures: dict[tuple[int, str], Picture]) -> str:
        return template.render(
            sections=[
                _section(group, series[group.title], points, pictures) for group in shown.groups
            ],
            rows=shown.rows,
            of=len(comparison.rows),
            kinds=KINDS,
            marks=MARKS,
            cell=text,
            missing=MISSING,
            command=_command,
            finite=math.isfinite,
            samplers=DESCRIPTIONS,
            page=in_table("page"),
            health=in_table("health"),
        )

    shown, points = comparison, CURVE_POINTS
    while (
        size := len(render(shown, points, {}).encode())
    ) > PAGE_BYTES - ROOM_FOR_PICTURES and points > 12:
        points //= 4
    while size > PAGE_BYTES and len((fewer := thinned(shown)).rows) < len(shown.rows):
        shown = fewer
        size = len(render(shown, points, {}).encode())
    # base64 makes four bytes of three.
    pictures = encode_pictures(shown.rows, min(PICTURE_BYTES, (PAGE_BYTES - size) * 3 // 4))
    return render(shown, points, pictures)


def thinned(comparison: Comparison) -> Comparison:
    """Every second run of a comparison, from the first on."""
    return Comparison(tuple(_thinned(group) for group in comparison.groups))


def _thinned(group: Group) -> Group:
    kept = {row.number for row in group.rows[::2]}
    generation = [
        replace(table, rows=tuple(row for row in table.rows if row.run.number in kept))
        for table in group.generation
    ]
    settings = []
    for table in group.settings:
        of = [i for i, row in enumerate(table.rows) if row.number in kept]
        values = {key: tuple(texts[i] for i in of) for key, texts in table.values.items()}
        settings.append(replace(table, rows=tuple(table.rows[i] for i in of), values=values))
    return replace(
        group,
        rows=group.rows[::2],
        generation=tuple(table for table in generation if table.rows),
        settings=tuple(table for table in settings if table.rows),
    )


Curves = list[tuple[Measure, Series]]


def _series(group: Group) -> Curves:
    """What the runs have logged of each measure that has learning curves on the page."""
    shown = {f"val/{measure.key}": measure for measure in MEASURES.values() if measure.curve}
    return [(shown[name], series) for name, series in logged(group.rows, shown).items()]


def _section(
    group: Group,
    series: Curves,
    points_of_curve: int,
    pictures: dict[tuple[int, str], Picture],
) -> dict[str, Any]:
    """What the template shows of one dataset."""
    rows = group.rows
    return {
        "group": group,
        "summary": list(_summary(group)),
        **_ledgers(rows),
        "curves": list(_curves(rows, series, points_of_curve)),
        "points": points(rows) if any(row.kind.is_tokenizer for row in rows) else None,
        **_pictures(rows, pictures),
        "quantized": [row for row in rows if _has_codebook(row)],
    }


def _ledgers(rows: Sequence[Row]) -> dict[str, Any]:
    """A ledger for each p(x|z): nats of a density and of a probability have no common zero."""
    by_likelihood: dict[str, list[Row]] = {}
    for row in rows:
        name = row.likelihood["name"] if row.likelihood else MISSING
        by_likelihood.setdefault(name, []).append(row)
    return {
        "ledgers": [(name, ledger(some)) for name, some in by_likelihood.items()],
        # The kinds in whose colours a rate and what was saved of it are explained.
        "rate_kind": next(kind for kind in KINDS.values() if kind.is_tokenizer),
        "saving_kind": next((row.kind for row in rows if "uniform" in row.values), None),
    }


def _curves(rows: Sequence[Row], series: Curves, points_of_curve: int) -> Iterable[dict[str, Any]]:
    """The figures of learning curves that have a line of these rows."""
    numbers = {row.number for row in rows}
    for measure, found in series:
        of_rows = [(row, line) for row, line in found if row.number in numbers]
        if figure := curves(of_rows, measure.curve, points_of_curve):
            title = measure.panel.section if measure.panel else measure.title
            yield {"title": title, "better": measure.better, "figure": figure}


def _pictures(rows: Sequence[Row], pictures: dict[tuple[int, str], Picture]) -> dict[str, Any]:
    """The pictures of rows that fit the page, and how many there are."""
    samples = [
        (row, sampler, stem) for row in rows for sampler, stem in sample_pictures(row).items()
    ]
    reconstructions = [
        row for row in rows if any(path.stem == "reconstructions" for path in row.run.pictures())
    ]
    return {
        "reconstructions": [
            (row, pictures[row.number, "reconstructions"])
            for row in reconstructions
            if (row.number, "reconstructions") in pictures
        ],
        "samples": [
            (row, sampler, pictures[row.number, stem])
            for row, sampler, stem in samples
            if (row.number, stem) in pictures
        ],
        "pictures": len(samples) + len(reconstructions),
    }


def _has_codebook(row: Row) -> bool:
    """Whether the use of a tokenizer's codebook was measured."""
    return row.kind.is_tokenizer and {"codes_used", "perplexity"} <= set(row.values)


def _summary(group: Group) -> Iterable[str]:
    """What a reader takes away if they read one sentence."""
    known = [row for row in group.rows if math.isfinite(row.values.get("psnr", math.nan))]
    if known:
        best = max(known, key=lambda row: row.values["psnr"])
        yield (
            f"{best.name} ({best.kind.title}) reconstructs test images best, at"
            f" {best.values['psnr']:.2f} dB."
        )
    saved = {row.number: row.values.get("saved_vs_uniform_bits", math.nan) for row in group.rows}
    savers = [row for row in group.rows if math.isfinite(saved[row.number])]
    # More sentences than three are no summary.
    for row in sorted(savers, key=lambda row: -saved[row.number])[:3]:
        uniform, learned = row.values["uniform_bits"], row.values["rate_bits"]
        yield (
            f"{row.name} describes an image's codes in {learned:.0f} bits; taken as equally likely,"
            f" they cost {uniform:.0f}."
        )


def _command(row: Row) -> str:
    """The command of a run, without the folder that the program happened to lie in."""
    program, *arguments = row.info["command"]
    name = Path(program).name
    return shlex.join(["vqvae" if name == "__main__.py" else name, *arguments])
