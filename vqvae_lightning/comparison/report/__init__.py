"""A comparison as one HTML page that needs nothing else: no network, no fonts, no plotting
library.
"""

import base64
import hashlib
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vqvae_lightning.comparison.budgets import SIZES_ALIKE
from vqvae_lightning.comparison.columns import MISSING, text
from vqvae_lightning.comparison.compare import Comparison, Group
from vqvae_lightning.comparison.report.figures import MARKS
from vqvae_lightning.comparison.report.pictures import PICTURE_BYTES, Picture, encode_pictures
from vqvae_lightning.comparison.report.sections import (
    Logged,
    has_figure,
    peers_of,
    section,
    shown_pictures,
)
from vqvae_lightning.comparison.report.series import logged, thinned
from vqvae_lightning.comparison.report.sounds import encode_sounds
from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.evaluation.samplers import SAMPLERS
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.metrics.measures import in_table
from vqvae_lightning.storage import write_atomic

PAGE_BYTES = 2_000_000  # without sounds
# Of all curves together, those for readers without scripts included; a point's are about 14.
CURVE_BYTES, POINT_BYTES = 500_000, 14
MOST_POINTS, FEWEST_POINTS = 200, 8  # of one curve
SCRIPTS = ("page.js", "charts.js")  # in one <script>, in this order


def write_report(comparison: Comparison, path: str | Path) -> Path:
    """Writes the page, of at most 2 MB and with sounds 6 MB, and returns its path.

    What does not fit is left out: points of curves first, then pictures, then runs; and sounds. The
    page says what is missing. Raises OSError if it cannot be written.
    """
    page = Path(path)
    write_atomic(page, _page(comparison).encode())
    return page


def _page(comparison: Comparison) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = templates.get_template("report.html")
    script = "".join((Path(__file__).parent / name).read_text() for name in SCRIPTS)
    style = templates.get_template("report.css").render(kinds=KINDS)
    found = {group.title: logged(group.rows) for group in comparison.groups}
    points = points_of_curve(found.values())
    drawn = {
        title: {
            name: [(row, thinned(line, points)) for row, line in series]
            for name, series in logs.items()
        }
        for title, logs in found.items()
    }

    def render(
        rows: Sequence[Row],
        sections: Sequence[dict[str, Any]],
        pictures: dict[tuple[int, str], Picture],
        sounds: dict[tuple[int, str], str],
    ) -> str:
        return template.render(
            sections=[
                {**section, **shown_pictures(section["group"].rows, pictures, sounds)}
                for section in sections
            ],
            data=[section["data"] for section in sections],
            script=Markup(script),
            style=Markup(style),
            hash=_source_hash,
            alike=SIZES_ALIKE,
            peers_of=peers_of,
            rows=rows,
            of=len(comparison.rows),
            kinds=KINDS,
            marks=MARKS,
            cell=text,
            missing=MISSING,
            command=_command,
            finite=math.isfinite,
            samplers={name: sampler.description for name, sampler in SAMPLERS.items()},
            page=in_table("page"),
            health=in_table("health"),
        )

    shown = comparison
    while True:
        sections = [section(group, drawn[group.title]) for group in shown.groups]
        size = len(render(shown.rows, sections, {}, {}).encode())
        # One run of each dataset stays.
        if size <= PAGE_BYTES or len(shown.rows) == len(shown.groups):
            break
        shown = every_second(shown)
    # base64 makes four bytes of three.
    pictures = encode_pictures(shown.rows, min(PICTURE_BYTES, (PAGE_BYTES - size) * 3 // 4))
    return render(shown.rows, sections, pictures, encode_sounds(shown.rows, pictures))


def points_of_curve(found: Iterable[Logged]) -> int:
    """How many points each curve of the page may have."""
    lines = sum(
        len(series) * (2 if has_figure(name) else 1)
        for logs in found
        for name, series in logs.items()
    )
    affordable = CURVE_BYTES // POINT_BYTES // max(1, lines)
    return max(FEWEST_POINTS, min(MOST_POINTS, affordable))


def every_second(comparison: Comparison) -> Comparison:
    """Every second run of a comparison, from the first on."""
    return Comparison(tuple(_every_second(group) for group in comparison.groups))


def _every_second(group: Group) -> Group:
    kept = {row.number for row in group.rows[::2]}
    generation = [
        replace(
            table,
            rows=tuple(row for row in table.rows if row.run.number in kept),
            ranked=tuple(row for row in table.ranked if row.run.number in kept),
        )
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


def _source_hash(text: str) -> str:
    """What the page's policy names its own script or style by, so that no other is obeyed."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _command(row: Row) -> str:
    """The command of a run, without the folder that the program happened to lie in."""
    program, *arguments = row.record.command
    name = Path(program).name
    return shlex.join(["vqvae" if name == "__main__.py" else name, *arguments])
