"""Clips as a WAV file: the sounds of a grid one after another, in the order in which it is read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vqvae_lightning.pictures import Grid
from vqvae_lightning.signals.signal import Clip, Signal
from vqvae_lightning.storage import write_atomic
from vqvae_lightning.wav import wav_file

MOST = 20  # sounds in a file: a quarter of a minute of digits
LONGEST = 24.0  # seconds of windows in a file: fewer sounds, if windows are long
PAUSE = 0.15  # seconds between two


def heard(grid: Grid, signal: Signal) -> list[Clip]:
    """Sounds of a grid, spread over it so that those of each class are heard; none of images.

    Of pairs, each original is heard before its reconstruction.
    """
    order = torch.arange(len(grid.images))
    if grid.is_pairs:
        rows = order.split(grid.columns)
        order = torch.stack([torch.cat(rows[part::2]) for part in (0, 1)], dim=1)  # pairs,2
    together = order.shape[1] if grid.is_pairs else 1
    most = min(MOST, int(LONGEST * signal.rate / signal.samples)) if signal.rate else 0
    chosen = torch.linspace(0, len(order) - 1, min(len(order), max(1, most // together))).long()
    return signal.sounds(grid.images[order[chosen].flatten().to(grid.images.device)])


def write_sounds(path: Path, clips: Sequence[Clip]) -> list[Path]:
    """Writes clips of one rate as a WAV file, atomically, with a pause after each.

    Returns the path, or nothing where there are no clips: no file is then written.
    """
    if not clips:
        return []
    write_atomic(path, wav(clips))
    return [path]


def wav(clips: Sequence[Clip]) -> bytes:
    """Clips of one rate as the bytes of a WAV file of 16 bits."""
    rate = clips[0].rate
    pause = np.zeros(round(rate * PAUSE), np.float32)
    samples = np.concatenate([part for clip in clips for part in (clip.samples, pause)])
    return wav_file((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes(), rate)
