"""`save_limited.py LIMIT FILE`: saves a checkpoint of 5 MB on a full disk or into a read-only
folder, and prints the error.

Root may write everywhere, so it becomes nobody first.
"""

import os
import resource
import sys
from pathlib import Path

import torch

from vqvae_lightning.verified import write_checkpoint

if __name__ == "__main__":
    limit, path = sys.argv[1:]
    if limit == "disk full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    if limit == "read-only folder" and os.getuid() == 0:
        os.setuid(65534)
    try:
        write_checkpoint(Path(path), {"step": 2, "weights": torch.ones(1_250_000)})
    except OSError as error:
        print(type(error).__name__, error)
