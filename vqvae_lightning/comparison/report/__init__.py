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

from vqvae_lightning.comparison.columns import MISSING, RESULTS
from vqvae_lightning.comparison.compare import KINDS, Comparison, Group, Row
from vqvae_lightning.comparison.report.figures import Series, curves, ledger, logged, points
from vqvae_lightning.comparison.report.pictures import (
    PICTURE_BYTES,
    Picture,
    encode_pictures,
    sample_pictures,
)
from vqvae_lightning.evaluation.samplers import SAMPLERS
from vqvae_lightning.storage import write_whole

HEALTH = (
    "code_entropy_bits",
    "unigram_bits_per_code",
    "code_kl_train_test_bits",
    "code_kl_test_train_bits",
)
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
            missing=MISSING,
            command=_command,
            finite=math.isfinite,
            samplers={name: sampler.description for name, sampler in SAMPLERS.items()},
            health=[column for column in RESULTS if column.key in HEALTH],
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


def _series(group: Group) -> list[tuple[str, str, Series]]:
    """Title, unit and values of each figure of learning curves."""
    stages = (
        [row for row in group.rows if row.kind != "prior"],
        [row for row in group.rows if row.kind == "prior"],
    )
    return [
        ("Reconstruction", "PSNR, dB", logged(stages[0], "val/psnr")),
        ("Prior", "bits per code", logged(stages[1], "val/bits_per_code")),
    ]


def _section(
    group: Group,
    series: Sequence[tuple[str, str, Series]],
    points_of_curve: int,
    pictures: dict[tuple[int, str], Picture],
) -> dict[str, Any]:
    """What the template shows of one dataset."""
    by_likelihood: dict[
        str, list[Row]
    ] = {}  # nats of a density and of a probability have no common zero
    for row in group.rows:
        if row.likelihood or row.kind == "prior":
            by_likelihood.setdefault(
                row.likelihood["name"] if row.likelihood else MISSING, []
            ).append(row)
    numbers = {row.number for row in group.rows}
    samples = [
        (row, sampler, stem) for row in group.rows for sampler, stem in sample_pictures(row).items()
    ]
    wanted = len(samples) + sum(
        path.stem == "reconstructions" for row in group.rows for path in row.run.pictures()
    )
    return {
        "group": group,
        "summary": list(_summary(group)),
        "ledgers": [(name, ledger(rows)) for name, rows in by_likelihood.items()],
        "curves": [
            (title, figure)
            for title, unit, found in series
            if (
                figure := curves(
                    [item for item in found if item[0].number in numbers], unit, points_of_curve
                )
            )
        ],
        "points": points(group.rows) if any(row.kind == "vqvae" for row in group.rows) else None,
        "reconstructions": [
            (row, pictures[row.number, "reconstructions"])
            for row in group.rows
            if (row.number, "reconstructions") in pictures
        ],
        "samples": [
            (row, sampler, pictures[row.number, stem])
            for row, sampler, stem in samples
            if (row.number, stem) in pictures
        ],
        "pictures": wanted,
        "quantized": [row for row in group.rows if row.kind == "vqvae"],
    }


def _summary(group: Group) -> Iterable[str]:
    """What a reader takes away if they read one sentence."""
    known = [row for row in group.rows if math.isfinite(row.values.get("psnr", math.nan))]
    if known:
        best = max(known, key=lambda row: row.values["psnr"])
        yield (
            f"{best.name} ({KINDS[best.kind]}) reconstructs test images best, at"
            f" {best.values['psnr']:.2f} dB."
        )
    priors = [
        row for row in group.rows if row.kind == "prior" and math.isfinite(row.values["saved"])
    ]
    # More sentences than three are no summary.
    for row in sorted(priors, key=lambda row: -row.values["saved"])[:3]:
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
