"""`save_forever.py FILE`: saves checkpoints 1, 2, 3, … of 5 MB over each other, and prints each
number when it is saved.
"""

import itertools
import sys
from pathlib import Path

import torch

from vqvae_lightning.verified import write_checkpoint

if __name__ == "__main__":
    for step in itertools.count(1):
        weights = torch.full((1_250_000,), float(step))
        write_checkpoint(Path(sys.argv[1]), {"step": step, "weights": weights})
        print(step, flush=True)
