"""Prints the page faults of ten steps that each allocate and free 40 MB, which is more than glibc
ever keeps by itself: as it comes, and with `keep_freed_memory`.
"""

import resource

import torch

from vqvae_lightning.allocator import keep_freed_memory


def faults(steps: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.zeros(10, 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


if __name__ == "__main__":
    faults(20)  # the first seven each leave a few bytes behind
    print(faults(10))
    keep_freed_memory()
    faults(20)
    print(faults(10))
