"""`python experiments/fsdd/codec2.py [MODE …]`: STOI and PESQ of Codec2 on the 300 test recordings
of fsdd, as `evaluate hearing=true` measures those of a model.

Needs Debian's `codec2` (c2enc, c2dec), the extra `speech`, and the data in data/fsdd. What Codec2
makes comes later than its input; the delay with the best STOI is taken, the same for all.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.config import DataConfig
from vqvae_lightning.data.imageset import image_set
from vqvae_lightning.metrics.hearing import Waveform, hearing

RATE = 8000  # samples per second, of fsdd and of Codec2
WINDOW = 64 * 128  # samples that a model's window holds
LEVEL = 0.1  # root mean square of what Codec2 is given, of full scale
BEFORE, AFTER = 640, 1280  # samples of silence around a recording
DELAYS = range(0, 641, 40)  # samples


def main(modes: list[str]) -> None:
    """Prints a line for each mode."""
    if missing := [name for name in ("c2enc", "c2dec") if shutil.which(name) is None]:
        sys.exit(f"codec2: {missing[0]} is not installed; it is in Debian's package codec2")
    whole = image_set(DataConfig(name="fsdd")).recordings(Path("data"), "test")
    originals = [recording[:WINDOW] / 32768 for recording in whole]
    for mode in modes or ["700C", "1300", "2400"]:
        played = [through_codec2(original, mode) for original in originals]
        best = max((measured(originals, played, delay) for delay in DELAYS), key=lambda f: f[1])
        delay, stoi, pesq = best
        print(f"{mode:5s} STOI {stoi:.3f}  PESQ {pesq:.2f}  delay {delay} samples", flush=True)


def through_codec2(waveform: Waveform, mode: str) -> Waveform:
    """A recording (n,) after coding and decoding, with silence around it."""
    loudness = max(float(np.sqrt(np.square(waveform).mean())), 1e-4)
    around = np.concatenate([np.zeros(BEFORE), waveform * (LEVEL / loudness), np.zeros(AFTER)])
    data = (around.clip(-1, 1) * 32767).astype("<i2").tobytes()
    for program in ("c2enc", "c2dec"):
        words = [program, mode, "-", "-"]
        data = subprocess.run(words, input=data, stdout=subprocess.PIPE, check=True).stdout
    found: NDArray[np.float64] = np.frombuffer(data, dtype="<i2") / 32768
    return found


def measured(
    originals: list[Waveform], played: list[Waveform], delay: int
) -> tuple[int, float, float]:
    """The delay, and STOI and PESQ of what was played with it, in samples."""
    start = BEFORE + delay
    found = hearing(originals, [waveform[start:] for waveform in played], RATE)
    return delay, found["stoi"], found["pesq"]


if __name__ == "__main__":
    main(sys.argv[1:])
