"""A comparison as one HTML page that needs nothing else: no network, no fonts, no plotting library."""

import math
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vqvae_lightning.comparison.columns import MISSING, RESULTS
from vqvae_lightning.comparison.compare import KINDS, Comparison, Group, Row
from vqvae_lightning.comparison.report.figures import curves, ledger, points
from vqvae_lightning.comparison.report.pictures import Picture, encode_pictures, sample_pictures
from vqvae_lightning.evaluation.samplers import DESCRIPTIONS
from vqvae_lightning.storage import write_whole

HEALTH = ("code_entropy_bits", "unigram_bits_per_code", "code_kl_train_test_bits", "code_kl_test_train_bits")


def write_report(comparison: Comparison, path: Path) -> Path:
    """Writes the page, at most 2 MB, to be opened as a file. Raises OSError if it cannot be written."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = encode_pictures(comparison.rows)
    page = templates.get_template("report.html").render(
        sections=[_section(group, pictures) for group in comparison.groups],
        rows=comparison.rows,
        kinds=KINDS,
        missing=MISSING,
        command=_command,
        finite=math.isfinite,
        samplers=DESCRIPTIONS,
        health=[column for column in RESULTS if column.key in HEALTH],
    )
    write_whole(path, page.encode())
    return path


def _section(group: Group, pictures: dict[tuple[int, str], Picture]) -> dict[str, Any]:
    """What the template shows of one dataset."""
    by_likelihood: dict[str, list[Row]] = {}  # nats of a density and of a probability have no common zero
    for row in group.rows:
        if row.likelihood or row.kind == "prior":
            by_likelihood.setdefault(row.likelihood["name"] if row.likelihood else MISSING, []).append(row)
    return {
        "group": group,
        "summary": list(_summary(group)),
        "ledgers": [(name, ledger(rows)) for name, rows in by_likelihood.items()],
        "curves": [
            (title, figure)
            for title, metric, unit, rows in (
                ("Reconstruction", "val/psnr", "PSNR, dB", [row for row in group.rows if row.kind != "prior"]),
                ("Prior", "val/bits_per_code", "bits per code", [row for row in group.rows if row.kind == "prior"]),
            )
            if (figure := curves(rows, metric, unit))
        ],
        "points": points(group.rows) if any(row.kind == "vqvae" for row in group.rows) else None,
        "reconstructions": [
            (row, pictures[row.number, "reconstructions"])
            for row in group.rows
            if (row.number, "reconstructions") in pictures
        ],
        "samples": [
            (row, sampler, pictures[row.number, stem])
            for row in group.rows
            for sampler, stem in sample_pictures(row).items()
            if (row.number, stem) in pictures
        ],
        "quantized": [row for row in group.rows if row.kind == "vqvae"],
    }


def _summary(group: Group) -> Iterable[str]:
    """What a reader takes away if they read one sentence."""
    known = [row for row in group.rows if math.isfinite(row.values.get("psnr", math.nan))]
    if known:
        best = max(known, key=lambda row: row.values["psnr"])
        yield f"{best.name} ({KINDS[best.kind]}) reconstructs test images best, at {best.values['psnr']:.2f} dB."
    for row in group.rows:
        if row.kind == "prior" and math.isfinite(row.values["saved"]):
            uniform, learned = row.values["uniform_bits"], row.values["rate_bits"]
            yield (
                f"{row.name} describes an image's codes in {learned:.0f} bits; taken as equally likely, "
                f"they cost {uniform:.0f}."
            )


def _command(row: Row) -> str:
    """The command of a run, without the folder that the program happened to lie in."""
    program, *arguments = row.info["command"]
    name = Path(program).name
    return shlex.join(["vqvae" if name == "__main__.py" else name, *arguments])
