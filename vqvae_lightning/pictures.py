"""Pictures: images of a tensor side by side, written as PNG files."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vqvae_lightning.storage import write_atomic

GAP = 2  # pixels between images, before they are enlarged
LONGEST = 18  # letters of a name that are shown
MARGIN, LETTER, HEIGHT = 6, 14, 20  # pixels beside a name, of its letters, and that it needs


class Grid(NamedTuple):
    """Images to be shown side by side."""

    images: Tensor  # N,C,H,W in [-1, 1]
    columns: int  # images in a row
    labels: Tensor | None = None  # N: the class that each was drawn as
    caption: str = ""
    is_pairs: bool = False  # whether rows of originals and of reconstructions alternate


def named_grid(grid: Grid, class_names: Sequence[str]) -> Image.Image:
    """A grid as a picture. A row whose images are of one class has its name at the left.

    Names that are numbers only, such as those of digits, would tell no more than the images.
    """
    picture = grid_image(grid.images, grid.columns)
    if grid.labels is None or len(class_names) < 2 or all(map(str.isdigit, class_names)):
        return picture
    rows = [part.tolist() for part in grid.labels.split(grid.columns)]
    names = [class_names[row[0]] if len(set(row)) == 1 else "" for row in rows]
    return with_names(picture, names)


def with_names(picture: Image.Image, names: Sequence[str]) -> Image.Image:
    """The picture with a name at the left of each of its rows, which are of one height."""
    height = picture.height / len(names)
    if height < HEIGHT or not any(names):
        return picture
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    font = ImageFont.load_default(LETTER)
    width = 2 * MARGIN + math.ceil(max(font.getlength(name) for name in names))
    canvas = Image.new(picture.mode, (width + picture.width, picture.height), "white")
    canvas.paste(picture, (width, 0))
    draw = ImageDraw.Draw(canvas)
    for number, name in enumerate(names):
        place = (width - MARGIN, (number + 0.5) * height)
        draw.text(place, name, fill="black", font=font, anchor="rm")
    return canvas


def grid_image(images: Tensor, columns: int) -> Image.Image:
    """Images (N, C, H, W) in [-1, 1] as one picture of uint8 pixels, `columns` in a row.

    Every pixel is enlarged to 2 × 2.
    """
    from vqvae_lightning.data.images import to_uint8  # Lightning takes seconds to import

    n, channels, height, width = images.shape
    rows, gap = math.ceil(n / columns), GAP
    canvas = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 127, dtype=np.uint8
    )
    for i, image in enumerate(to_uint8(images).cpu().numpy()):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)  # H,W,C
    picture = Image.fromarray(canvas.squeeze(-1) if channels == 1 else canvas)
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)


def grid_rows(image_height: int, picture_height: int) -> int:
    """Rows of images in a picture of `grid_image`; 0 if it is none of images of this height."""
    rows, rest = divmod(picture_height // 2 - GAP, image_height + GAP)
    return 0 if rest or picture_height % 2 else rows


def write_picture(path: Path, picture: Image.Image) -> None:
    """Writes the picture as a PNG file, atomically."""
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    write_atomic(path, buffer.getvalue())
