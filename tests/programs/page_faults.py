"""`page_faults.py keep|default`: prints the page faults of ten steps that each allocate and free
40 MB, which is more than glibc ever keeps by itself.
"""

import resource
import sys

import torch

from vqvae_lightning.allocator import keep_freed_memory


def steps(n: int) -> None:
    for _ in range(n):
        torch.zeros(10, 2**20)


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        keep_freed_memory()
    steps(20)  # the first seven each leave a few bytes behind
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    steps(10)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
