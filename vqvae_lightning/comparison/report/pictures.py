"""The pictures of a report: which of a run's, and in how many bytes."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vqvae_lightning.comparison.compare import Row
from vqvae_lightning.evaluation.samplers import SAMPLERS

PICTURE_BYTES = 1_200_000  # of all pictures together; base64 makes 1.6 MB of them, in a page of at most 2 MB


def sample_pictures(row: Row) -> dict[str, str]:
    """Samplers of a run → the stem of the picture of each, where `vqvae sample sampler=all` or training left one."""
    stems = {path.stem for path in row.run.pictures()}
    names = list(SAMPLERS[row.kind])
    found = {name: f"samples-{name}" for name in names if f"samples-{name}" in stems}
    return found if names[0] in found or "samples" not in stems else {names[0]: "samples", **found}


@dataclass(frozen=True)
class Picture:
    """A picture for an <img>: its size on the page and its bytes, or none if they found no room."""

    width: int
    height: int
    source: str | None


def encode_pictures(rows: Sequence[Row], limit: int = PICTURE_BYTES) -> dict[tuple[int, str], Picture]:
    """Pictures by run number and name: as they are if all fit in `limit` bytes, else as small as it takes."""
    files = {(row.number, path.stem): path for row in rows for path in row.run.pictures()}
    shown = {(row.number, stem) for row in rows for stem in ("reconstructions", *sample_pictures(row).values())}
    files = {key: path for key, path in files.items() if key in shown}
    sizes = {}
    for key, path in files.items():
        with Image.open(path) as image:
            sizes[key] = image.size
    for settings in ({}, {"lossless": True}, {"quality": 75}, {"quality": 40}):
        encoded = {key: _webp(path, **settings) if settings else path.read_bytes() for key, path in files.items()}
        if sum(map(len, encoded.values())) <= limit:
            break
    kind, room, found = "webp" if settings else "png", limit, {}
    for key, data in encoded.items():
        room -= len(data)
        source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}" if room >= 0 else None
        found[key] = Picture(*sizes[key], source)
    return found


def _webp(path: Path, **settings: Any) -> bytes:
    with Image.open(path) as image:
        # Grids are written enlarged twice, each pixel as four: this takes back only that.
        small = image.convert("RGB").resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    small.save(buffer, "webp", **settings)
    return buffer.getvalue()
