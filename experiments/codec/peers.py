"""Files of general codecs, of the same images: an image each, or one sheet of all."""

import bz2
import gzip
import io
import lzma
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vqvae_lightning.metrics.reconstruction import psnr_of_levels

Row = dict[str, Any]
Grey = NDArray[np.uint8]
SINGLE = 1000  # images that are coded one by one
# Pillow's format, and qualities: closer to each other where PSNR is about that of a VQ-VAE.
LOSSY = {
    "JPEG": ("JPEG", (1, 5, 10, 15, 20, 25, 27, 28, 29, 30, 40, 50, 60, 75, 90)),
    "WebP": ("WEBP", (0, 1, 2, 3, 4, 5, 10, 20, 30, 50, 75)),
    "AVIF": ("AVIF", (1, 5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90)),
    "JPEG XL": ("JXL", (1, 10, 15, 16, 17, 18, 19, 20, 25, 30, 40, 60, 90)),
}
LOSSLESS = {
    "PNG": {"format": "PNG", "optimize": True},
    "WebP": {"format": "WEBP", "lossless": True, "quality": 100},
    "JPEG XL": {"format": "JXL", "lossless": True, "effort": 7},
}


def lossy_rows(name: str, pixels: Tensor) -> Iterator[Row]:
    """A row for each way and quality of a codec, of grey images uint8 (N, 1, H, W)."""
    _with_jxl()
    few, (kind, qualities) = pixels[:SINGLE], LOSSY[name]
    for quality in qualities:
        settings = {"format": kind, "quality": quality}
        for way, given, (size, again) in (
            ("sheet", pixels, through_sheet(pixels, settings)),
            ("image", few, _one_by_one(few, settings)),
        ):
            row = {"codec": name, "way": way, "quality": quality, "images": len(given)}
            yield {**row, "bytes": size, "psnr": psnr_of_levels(again, given)}


def lossless_rows(pixels: Tensor) -> Iterator[Row]:
    """A row for each codec and way, of grey images uint8 (N, 1, H, W)."""
    _with_jxl()
    data = pixels.numpy().tobytes()
    for name, size in (
        ("gzip", len(gzip.compress(data, 9))),
        ("bz2", len(bz2.compress(data, 9))),
        ("lzma", len(lzma.compress(data, preset=9))),
    ):
        yield _lossless(name, "together", pixels, size)
    for name, settings in LOSSLESS.items():
        for way, given, (size, again) in (
            ("sheet", pixels, through_sheet(pixels, settings)),
            ("image", pixels[:SINGLE], _one_by_one(pixels[:SINGLE], settings)),
        ):
            assert torch.equal(again, given), name
            yield _lossless(name, way, given, size)


def _lossless(name: str, way: str, pixels: Tensor, size: int) -> Row:
    bits = 8 * size / pixels.numel()
    return {"codec": name, "way": way, "images": len(pixels), "bytes": size, "bits_per_dim": bits}


def _one_by_one(pixels: Tensor, settings: Row) -> tuple[int, Tensor]:
    """Bytes of all images, a file each, and what they decode to."""
    found = [_coded(image[0], settings) for image in pixels.numpy()]
    again = np.stack([decoded for _, decoded in found])[:, None]
    return sum(size for size, _ in found), torch.from_numpy(again)


def through_sheet(pixels: Tensor, settings: Row) -> tuple[int, Tensor]:
    """Bytes of one picture of all images, side by side, and what they decode to."""
    count, _, height, width = pixels.shape
    across = int(np.ceil(count**0.5))
    down = -(-count // across)
    cells = np.zeros((down * across, height, width), np.uint8)
    cells[:count] = pixels[:, 0].numpy()
    sheet = cells.reshape(down, across, height, width).swapaxes(1, 2)
    size, decoded = _coded(sheet.reshape(down * height, across * width), settings)
    back = decoded.reshape(down, height, across, width).swapaxes(1, 2)
    return size, torch.from_numpy(back.reshape(-1, 1, height, width)[:count].copy())


def _coded(image: Grey, settings: Row) -> tuple[int, Grey]:
    """Bytes of a file of a grey image (H, W), and what it decodes to."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, **settings)
    size = buffer.tell()
    buffer.seek(0)
    with Image.open(buffer) as again:
        return size, np.asarray(again.convert("L"))


def _with_jxl() -> None:
    """Gives Pillow JPEG XL, of extra `bench`."""
    import pillow_jxl  # noqa: F401
