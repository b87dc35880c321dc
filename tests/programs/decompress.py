"""`decompress.py FILE RUN THREADS BATCH TO.npy`: decompresses an AE's file on so many threads, so
many images at once.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from vqvae_lightning import decompress, load
from vqvae_lightning.codec import by_grid

if __name__ == "__main__":
    file, run, threads, batch, to = sys.argv[1:]
    torch.set_num_threads(int(threads))
    by_grid.BATCH = int(batch)
    np.save(to, decompress(Path(file).read_bytes(), load(run)).numpy())
