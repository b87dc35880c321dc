"""A comparison as one W&B run of job_type `compare`: the table of results, that of the samplers,
and the pictures.
"""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from vqvae_lightning.comparison.compare import Comparison
from vqvae_lightning.comparison.report.pictures import open_picture, sample_pictures
from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.config import one_line
from vqvae_lightning.evaluation.samplers import RECONSTRUCTION
from vqvae_lightning.metrics.measures import Measure
from vqvae_lightning.training.tracking import choose_wandb_mode, start_wandb
from vqvae_lightning.training.wandb_names import project_name

if TYPE_CHECKING:
    import wandb

HEAD = ("dataset", "run", "kind", "seed")


def publish(comparison: Comparison, project: str | None, folder: Path) -> Path | str | None:
    """Logs the comparison to W&B, offline unless WANDB_MODE=online.

    Args:
        comparison: what is logged.
        project: W&B's project; None: see `project_name`.
        folder: where W&B keeps its files.

    Returns:
        The folder to sync, or the address. None with WANDB_MODE=disabled, and, after one line, if
        W&B fails: the table and the page are there already.
    """
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    warning = choose_wandb_mode(folder)
    if warning:
        print(warning, flush=True)
    named = project_name(project)
    tracked = start_wandb(
        lambda settings: wandb.init(
            project=named,
            id=secrets.token_hex(4),
            name=f"compare {len(comparison.rows)} runs",
            job_type="compare",
            dir=str(folder),
            settings=settings,
            config={"runs": [row.name for row in comparison.rows]},
        )
    )
    if tracked is None:
        return None
    try:
        tracked.log(
            {"compare/results": _results(comparison), "compare/samplers": _samplers(comparison)}
        )
        place = Path(tracked.dir).parent if tracked.offline else tracked.url
        tracked.finish()
    except Exception as error:  # of W&B, in any of its types
        print(f"W&B: failed ({type(error).__name__}: {one_line(error)[:200]})", flush=True)
        return None
    return None if tracked.disabled else place


def _results(comparison: Comparison) -> "wandb.Table":
    import wandb

    columns = list(dict.fromkeys(column for group in comparison.groups for column in group.columns))
    table = wandb.Table([*HEAD, *map(_title, columns), "reconstructions", "samples"])
    for group in comparison.groups:
        for row in group.rows:
            pictures = [_picture(row, name) for name in ("reconstructions", "samples")]
            table.add_data(
                group.title, *_about(row), *(row.values.get(c.key) for c in columns), *pictures
            )
    return table


def _samplers(comparison: Comparison) -> "wandb.Table":
    """A row for each sampler of which there is a picture or a figure; the protocol stands beside
    the figures.
    """
    import wandb

    tables = [(group.title, table) for group in comparison.groups for table in group.generation]
    columns = list(
        dict.fromkeys(column for _, generation in tables for column in generation.columns)
    )
    table = wandb.Table([*HEAD, "sampler", *map(_title, columns), "protocol", "samples"])
    measured = set()
    for title, generation in tables:
        for found in generation.rows:
            row = found.run
            if not found.settings:
                measured.add((row.number, found.sampler))
            values = [found.values.get(c.key) for c in columns]
            stem = {RECONSTRUCTION: "reconstructions", **sample_pictures(row)}.get(found.sampler)
            # The picture was drawn with the usual settings.
            picture = None if found.settings else _picture(row, stem)
            table.add_data(title, *_about(row), found.label, *values, generation.protocol, picture)
    for group in comparison.groups:
        for row in group.rows:
            for sampler, stem in sample_pictures(row).items():
                picture = _picture(row, stem)
                if picture and (row.number, sampler) not in measured:
                    table.add_data(
                        group.title, *_about(row), sampler, *[None] * len(columns), None, picture
                    )
    return table


def _about(row: Row) -> tuple[str, str, int]:
    return row.name, row.kind.title, row.record.seed


def _title(column: Measure) -> str:
    return f"{column.title} ({column.unit})" if column.unit else column.title


def _picture(row: Row, stem: str | None) -> "wandb.Image | None":
    """The picture as uint8, for W&B turns floats black; None if there is none that opens."""
    import wandb

    path = next((path for path in row.run.pictures() if path.stem == stem), None)
    image = open_picture(path) if path else None
    return wandb.Image(image) if image else None
