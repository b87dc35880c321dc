"""The pictures of a report: which of a run's, and in how many bytes."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.config import visible
from vqvae_lightning.evaluation.samplers import samplers_of
from vqvae_lightning.pictures import grid_rows

# Of all pictures together. base64 makes 1.6 MB of them, in a page of at most 2 MB.
PICTURE_BYTES = 1_200_000
# The most that a picture may claim before it is decoded. The largest grid of `sample`, of 10,000
# images, claims less.
LARGEST_FILE, LARGEST_PIXELS = 100_000_000, 50_000_000
LARGEST_SIDE = 2 * 16_383  # WebP's, of a picture that is halved
MARKUP = 600  # bytes of the page around a picture
# Ways to compress pictures, the best first. Method 2 of 0 to 6: half the time of the usual 4, for
# files that are 4 % larger or, without loss, the same.
QUALITIES: tuple[dict[str, Any], ...] = (
    {"lossless": True, "method": 2},
    {"quality": 75, "method": 2},
    {"quality": 40, "method": 2},
)
PROBES = 8  # pictures that tell whether all fit


def sample_pictures(row: Row) -> dict[str, str]:
    """Samplers of a run → the stem of its picture, for those that have one.

    Training leaves `samples`, by the default sampler; `vqvae sample sampler=all` one of each.
    """
    stems = {path.stem for path in row.run.pictures()}
    names = samplers_of(row.kind)
    found = {name: f"samples-{name}" for name in names if f"samples-{name}" in stems}
    if names and names[0] not in found and "samples" in stems:
        return {names[0]: "samples", **found}
    return found


@dataclass(frozen=True)
class Picture:
    """A picture for an <img>: its size on the page and its bytes."""

    width: int
    height: int
    source: str


def row_labels(row: Row, stem: str, picture: Picture) -> list[str]:
    """What each row of images in a picture of a run shows; [] where that is not known.

    Reconstructions alternate with originals. A class-conditional prior has a row per class; the
    names that are no numbers are in its picture already.
    """
    rows = grid_rows(row.record.images.shape[1], picture.height)
    if stem == "reconstructions" and rows % 2 == 0:
        return ["original", "reconstruction"] * (rows // 2)
    names = row.record.images.classes
    if row.conditional and rows == min(len(names), 10) and all(map(str.isdigit, names)):
        return names[:rows]
    return []


def open_picture(path: Path) -> Image.Image | None:
    """A decoded PNG file; None, after one line, if it cannot be decoded, is animated or too large.

    Its size is checked before it is decoded: 50,000 x 50,000 pixels take a small file and 7 GB of
    memory.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE:,} bytes")
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > LARGEST_PIXELS or max(image.size) > LARGEST_SIDE:
                raise ValueError(f"it has {image.width:,} x {image.height:,} pixels")
            if getattr(image, "is_animated", False):
                raise ValueError("it is animated")
            return image.convert("RGB")
    # SyntaxError is what PIL raises for a chunk that is damaged.
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        print(f"left out  {visible(f'{path}: {error}')}", flush=True)
        return None


def encode_pictures(
    rows: Sequence[Row], limit: int = PICTURE_BYTES
) -> dict[tuple[int, str], Picture]:
    """Pictures by run number and name: unchanged if all fit in `limit` bytes, else compressed.

    If even the most compressed do not fit, every run gets its reconstructions before any gets a
    sampler's picture, and so on; the rest is left out. At every quality, no more pictures are
    opened than fit, and a few tell beforehand whether a better quality than the last will do.
    """
    files = dict(_in_order(rows))
    found: dict[tuple[int, str], Picture] = {}
    if sum(path.stat().st_size + MARKUP for path in files.values()) <= limit:
        for key, path in files.items():
            if image := open_picture(path):
                found[key] = _picture(image, "png", path.read_bytes())
        return found
    for settings in QUALITIES:
        if settings is not QUALITIES[-1] and not _will_fit(files, limit, settings):
            continue
        found = _fitting(files, limit, settings)
        if len(found) == len(files):
            break
    return found


def _in_order(rows: Sequence[Row]) -> Iterable[tuple[tuple[int, str], Path]]:
    """Files of the pictures that the page shows: the first of every run, then the second, …"""
    shown = []
    for row in rows:
        files = {path.stem: path for path in row.run.pictures()}
        stems = [
            stem for stem in ("reconstructions", *sample_pictures(row).values()) if stem in files
        ]
        shown.append([((row.number, stem), files[stem]) for stem in stems])
    for rank in range(max(map(len, shown), default=0)):
        yield from (of_row[rank] for of_row in shown if rank < len(of_row))


def _will_fit(files: dict[tuple[int, str], Path], limit: int, settings: Mapping[str, Any]) -> bool:
    """Whether all pictures are likely to fit as WebP, told from some that are spread over them.

    Those of them that cannot be opened are taken out of `files`.
    """
    keys = list(files)[:: math.ceil(len(files) / PROBES) or 1]
    some = {key: files[key] for key in keys}
    found = _fitting(some, limit * len(some) // max(1, len(files)), settings)
    for key in set(keys) - set(some):
        del files[key]
    return len(found) == len(some)


def _fitting(
    files: dict[tuple[int, str], Path], limit: int, settings: Mapping[str, Any]
) -> dict[tuple[int, str], Picture]:
    """Pictures as WebP, first things first, as many as fit.

    Those that cannot be opened are taken out of `files`.
    """
    found: dict[tuple[int, str], Picture] = {}
    for key, path in list(files.items()):
        image = open_picture(path)
        if image is None:
            del files[key]
            continue
        # Grids are written at twice their size, so halving them loses nothing.
        half = (max(1, image.width // 2), max(1, image.height // 2))
        buffer = io.BytesIO()
        image.resize(half, Image.Resampling.NEAREST).save(buffer, "webp", **settings)
        limit -= buffer.tell() + MARKUP
        if limit < 0:
            break
        found[key] = _picture(image, "webp", buffer.getvalue())
    return found


def _picture(image: Image.Image, kind: str, data: bytes) -> Picture:
    return Picture(*image.size, f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
