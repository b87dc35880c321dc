"""Ranks of one thread each against one of one thread, at the same global batch."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from experiments.benchmarks.timing import Row, faster

# Rounds by ranks: more than the two cores say what ranks cost that bring no more arithmetic.
ROUNDS = {1: 4, 2: 4, 4: 2, 8: 1}
WARM_UP, STEPS = 4, 20
BATCH = 128  # images, of all ranks


def ddp() -> Iterator[Row]:
    """Speed-up by ranks, for VQ-VAE and prior."""
    for kind in ("vqvae", "prior"):
        seconds: dict[int, list[float]] = {ranks: [] for ranks in ROUNDS}
        for i in range(max(ROUNDS.values())):
            for ranks, rounds in ROUNDS.items():
                if i < rounds:
                    seconds[ranks].append(measure(kind, ranks))
        for ranks, ours in list(seconds.items())[1:]:
            times = {"ours": ours, "one rank": seconds[1][: len(ours)]}
            work, alone = f"DDP, {ranks} ranks x 1 thread, {kind}, CIFAR-10", "1 rank x 1 thread"
            row = faster(times, work, "one rank", 1.85 if ranks == 2 else None, alone)
            row.detail["ranks"] = ranks
            yield row


def measure(kind: str, ranks: int) -> float:
    """Seconds of a step, in processes of their own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "seconds.json"
        subprocess.run(
            [sys.executable, "-m", "experiments.benchmarks.ddp", kind, str(ranks), str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
            timeout=200,
            stdout=subprocess.DEVNULL,
        )
        seconds: float = json.loads(out.read_text())
        return seconds


class Clock(Callback):
    """Seconds of a step after the warm-up, written by rank 0."""

    def __init__(self, out: Path) -> None:
        self.out, self.started = out, 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == WARM_UP:
            self.started = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            self.out.write_text(json.dumps((time.perf_counter() - self.started) / STEPS))


def worker(kind: str, ranks: int, out: Path) -> None:
    """Trains on `ranks` processes, each with one thread, as `vqvae train` would."""
    from experiments.benchmarks.priors import RandomCodes, new_prior
    from experiments.benchmarks.training import experiment_of
    from vqvae_lightning.training.build import build
    from vqvae_lightning.training.trainer import build_trainer, silence_known_warnings

    silence_known_warnings()
    experiment = experiment_of(
        f"cifar10/{kind}.yaml",
        f"data.batch_size={BATCH}",
        f"trainer.devices={ranks}",
        steps=WARM_UP + STEPS,
    )
    data, module = build(experiment) if kind == "vqvae" else (RandomCodes(64, 64), new_prior(64))
    trainer = build_trainer(experiment, ranks, run=None)
    trainer.limit_val_batches = 0
    # Lightning sets it outside of Trainer's own class.
    trainer.callbacks = [Clock(out)]  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=data)


if __name__ == "__main__":
    import torch

    from vqvae_lightning.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    worker(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
