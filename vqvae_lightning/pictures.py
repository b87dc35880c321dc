"""Pictures: images of a tensor side by side, written as PNG files."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from vqvae_lightning.data.images import to_uint8
from vqvae_lightning.storage import write_atomic


def grid_image(images: Tensor, columns: int) -> Image.Image:
    """Images (N, C, H, W) in [-1, 1] as one picture of uint8 pixels, `columns` in a row.

    Every pixel is enlarged to 2 × 2.
    """
    n, channels, height, width = images.shape
    rows, gap = math.ceil(n / columns), 2
    canvas = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 127, dtype=np.uint8
    )
    for i, image in enumerate(to_uint8(images).cpu().numpy()):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)  # H,W,C
    picture = Image.fromarray(canvas.squeeze(-1) if channels == 1 else canvas)
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)


def write_picture(path: Path, picture: Image.Image) -> None:
    """Writes the picture as a PNG file, atomically."""
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    write_atomic(path, buffer.getvalue())
