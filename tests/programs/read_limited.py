"""`read_limited.py STORE BYTES`: reads a store in random order with so much more memory at most.

Prints by how many KiB its peak has grown.
"""

import resource
import sys
from pathlib import Path

import torch

from vqvae_lightning.data.shards import read_store

if __name__ == "__main__":
    folder, more = Path(sys.argv[1]), int(sys.argv[2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status").read_text().splitlines()
    used = 1024 * int(next(line for line in status if line.startswith("VmData")).split()[1])
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, used + more))
    (array,) = read_store(folder, "rows").values()
    for index in torch.randperm(len(array)).split(16):
        array.take(index)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
