"""What the page shows of one dataset; report.html lays it out."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from vqvae_lightning.comparison.columns import MISSING
from vqvae_lightning.comparison.compare import Group
from vqvae_lightning.comparison.report.figures import Series, curves, ledger, logged, points
from vqvae_lightning.comparison.report.pictures import Picture, sample_pictures
from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.metrics.measures import MEASURES, Measure

Curves = list[tuple[Measure, Series]]


def series(group: Group) -> Curves:
    """What the runs have logged of each measure that has learning curves on the page."""
    shown = {f"val/{measure.key}": measure for measure in MEASURES.values() if measure.curve}
    return [(shown[name], lines) for name, lines in logged(group.rows, shown).items()]


def section(
    group: Group,
    logged_curves: Curves,
    points_of_curve: int,
    pictures: dict[tuple[int, str], Picture],
) -> dict[str, Any]:
    """What the template shows of one dataset.

    Args:
        group: the runs on the dataset.
        logged_curves: what `series` found in their files.
        points_of_curve: at most so many of each run.
        pictures: those that fit the page, by run number and name.
    """
    rows = group.rows
    return {
        "group": group,
        "summary": list(_summary(group)),
        **_ledgers(rows),
        "curves": list(_curves(rows, logged_curves, points_of_curve)),
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


def _curves(
    rows: Sequence[Row], logged_curves: Curves, points_of_curve: int
) -> Iterable[dict[str, Any]]:
    """The figures of learning curves that have a line of these rows."""
    numbers = {row.number for row in rows}
    for measure, found in logged_curves:
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
