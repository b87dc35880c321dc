"""What the page shows of one dataset; report.html lays it out."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from vqvae_lightning.comparison.columns import MISSING, Measured, peers
from vqvae_lightning.comparison.compare import Group
from vqvae_lightning.comparison.report.figures import curves, ledger, points
from vqvae_lightning.comparison.report.pictures import Picture, row_labels, sample_pictures
from vqvae_lightning.comparison.report.series import Series, as_data, dashes
from vqvae_lightning.comparison.report.sounds import sound_files
from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.metrics.measures import MEASURES, Measure

Logged = dict[str, Series]


class Shown(NamedTuple):
    """A picture on the page."""

    row: Row
    sampler: str  # empty: it shows reconstructions
    picture: Picture
    labels: list[str]  # of its rows
    sound: str | None  # the address of what is heard of it


def section(group: Group, logged: Logged) -> dict[str, Any]:
    """What the template shows of one dataset, but for pictures and sounds.

    Args:
        group: the runs on the dataset.
        logged: what is drawn of their files, see `series.logged` and `series.thinned`.
    """
    rows = group.rows
    data = as_data(rows, logged)
    return {
        "group": group,
        "summary": list(_summary(group)),
        **_ledgers(rows),
        "peers": peers_of(group.columns, rows),
        "curves": list(_curves(rows, logged)),
        "data": {**data, "first": _first(data)},
        "points": points(rows) if any(row.kind.is_tokenizer for row in rows) else None,
        "licence": _licence(rows),
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


def peers_of(columns: Sequence[Measure], rows: Sequence[Measured]) -> dict[str, dict[int, int]]:
    """What `peers` says of each column in which a best value can be named."""
    return {column.key: peers(column, rows) if column.is_ranked else {} for column in columns}


def has_figure(name: str) -> bool:
    """Whether a logged name has a figure of its own, for readers without scripts."""
    split, _, key = name.partition("/")
    return split == "val" and key in MEASURES and bool(MEASURES[key].curve)


def _curves(rows: Sequence[Row], logged: Logged) -> Iterable[dict[str, Any]]:
    """The figures that stand where scripts do not run: measures with curves of their own."""
    numbers, dash = {row.number for row in rows}, dashes(rows)
    for name in filter(has_figure, logged):
        measure = MEASURES[name.partition("/")[2]]
        of_rows = [(row, line) for row, line in logged[name] if row.number in numbers]
        if figure := curves(of_rows, measure.curve, dash):
            title = measure.panel.section if measure.panel else measure.title
            yield {"title": title, "better": measure.better, "figure": figure}


def _first(data: dict[str, Any]) -> list[str]:
    """The names of the measures that are drawn until a reader chooses others."""
    names = [measure["name"] for measure in data["measures"]]
    wanted = [name for name in names if has_figure(name) or name == "train/loss"]
    return wanted or names[:1]


def shown_pictures(
    rows: Sequence[Row],
    pictures: dict[tuple[int, str], Picture],
    sounds: dict[tuple[int, str], str],
) -> dict[str, Any]:
    """What the template shows beside: pictures with their sounds, and how many there are.

    Args:
        rows: the runs on one dataset.
        pictures: those that fit the page, by run number and name.
        sounds: those that fit the page, by run number and the name of their picture.
    """
    samples = [
        (row, sampler, stem) for row in rows for sampler, stem in sample_pictures(row).items()
    ]
    reconstructions = [
        (row, "", "reconstructions")
        for row in rows
        if any(path.stem == "reconstructions" for path in row.run.pictures())
    ]
    files = sound_files(rows)
    return {
        "reconstructions": list(_shown(reconstructions, pictures, sounds)),
        "samples": list(_shown(samples, pictures, sounds)),
        "pictures": len(samples) + len(reconstructions),
        "sounds": sum((row.number, stem) in files for row, _, stem in samples + reconstructions),
    }


def _shown(
    wanted: Iterable[tuple[Row, str, str]],
    pictures: dict[tuple[int, str], Picture],
    sounds: dict[tuple[int, str], str],
) -> Iterable[Shown]:
    """Those of the wanted pictures (run, sampler, name) that fit the page."""
    for row, sampler, stem in wanted:
        if picture := pictures.get((row.number, stem)):
            labels = row_labels(row, stem, picture)
            yield Shown(row, sampler, picture, labels, sounds.get((row.number, stem)))


def _licence(rows: Sequence[Row]) -> str:
    """Whose recordings these are and how they may be used, if their dataset says so."""
    dataset = DATASETS.get(rows[0].record.dataset)
    if dataset is None or not dataset.licence:
        return ""
    return f"Recordings: {dataset.title}, {dataset.licence}."


def _has_codebook(row: Row) -> bool:
    """Whether the use of a tokenizer's codebook was measured."""
    return row.kind.is_tokenizer and {"codes_used", "perplexity"} <= set(row.values)


def _summary(group: Group) -> Iterable[str]:
    """What a reader takes away if they read one sentence."""
    for row in [row for row in group.rows if row.number in group.best.get("psnr", ())][:1]:
        yield (
            f"{row.name} ({row.kind.title}) reconstructs test images best, at"
            f" {row.values['psnr']:.2f} dB."
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
