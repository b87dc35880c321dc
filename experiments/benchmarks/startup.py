"""What a user waits for before anything happens, in processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.benchmarks.timing import Row, spread

ROUNDS = 5
LIMIT = 60  # seconds


def startup() -> Iterator[Row]:
    """`vqvae --help`, and `make train-vqvae` until the first step is in metrics.jsonl."""
    vqvae = Path(sys.executable).parent / "vqvae"
    # the first fills the disk's cache
    seconds = [clock_help(vqvae) for _ in range(2 * ROUNDS + 1)][1:]
    yield spread(seconds, "`vqvae --help`", "–", unit="s", at_most=0.5)
    seconds = [clock_first_step() for _ in range(ROUNDS + 1)][1:]
    yield spread(
        seconds, "`make train-vqvae`, all cached, to the first step", "–", unit="s", at_most=8
    )


def clock_help(vqvae: Path) -> float:
    started = time.perf_counter()
    subprocess.run([vqvae, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def clock_first_step() -> float:
    """Seconds until the metrics of the first step are on disk."""
    runs = Path(tempfile.mkdtemp(prefix="bench-"))
    command = ["make", "--assume-old=.venv/.run", f"VENV={Path(sys.prefix)}", "train-vqvae",
               f"ARGS=runs={runs} name=first trainer.log_every=1"]  # fmt: skip
    started = time.perf_counter()
    make = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, start_new_session=True, cwd=Path(__file__).parents[2]
    )
    metrics = runs / "first" / "metrics.jsonl"
    try:
        while not (metrics.is_file() and metrics.stat().st_size):
            if make.poll() is not None or time.perf_counter() - started > LIMIT:
                raise RuntimeError(f"no step after {LIMIT} s, make's exit code {make.poll()}")
            time.sleep(0.02)
        return time.perf_counter() - started
    finally:
        os.killpg(make.pid, signal.SIGKILL)
        make.wait()
        shutil.rmtree(runs, ignore_errors=True)
