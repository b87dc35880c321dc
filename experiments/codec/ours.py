"""Files of our runs: bytes as they lie on disk, and the images that they decode to."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning import compress, decompress, load
from vqvae_lightning.data.rows import Rows
from vqvae_lightning.metrics.reconstruction import psnr_of_levels
from vqvae_lightning.training.runs import Run

STEPS = (4.0, 2.0, 1.0, 0.5, 0.25, 0.1)  # of an AE's grid
Row = dict[str, Any]


def rows_of(name: str, run: Run, images: Rows, count: int) -> Iterator[Row]:
    """The rows of a run: a file each of the first `count` images."""
    model, pixels = load(run), images.first(count)
    labels = images.labels[:count] if run.record.kind == "prior" else None
    settings: list[Row] = [{"lossless": True}] if name.endswith("lossless") else [{}]
    if run.record.kind == "ae":
        settings = [{"step": step} for step in STEPS]
    for setting in settings:
        found = _row(model, pixels, labels, setting)
        yield {"steps": run.experiment().trainer.steps, **setting, **found}


def _row(model: Any, pixels: Tensor, labels: Tensor | None, setting: Row) -> Row:
    started = time.process_time()
    data = compress(model, pixels, labels, **setting)
    with tempfile.TemporaryDirectory(prefix="codec-") as folder:
        file = Path(folder) / "images.vqz"
        file.write_bytes(data)
        size, written = file.stat().st_size, time.process_time()
        again = decompress(file.read_bytes(), model)
    count, done = len(pixels), time.process_time()
    found: Row = {"images": count, "bytes": size}
    found["per_second"] = [count / (written - started), count / (done - written)]
    if setting.get("lossless"):
        assert torch.equal(again, pixels)
        return {**found, "bits_per_dim": 8 * size / pixels.numel()}
    return {**found, "psnr": psnr_of_levels(again, pixels)}
