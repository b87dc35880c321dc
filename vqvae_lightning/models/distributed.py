"""Sums over the ranks of a process group; the identity where there is none.

Whether there is a group is asked at every call, never in a constructor: modules are built before
the group exists.
"""

import torch.distributed as dist
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of ranks, (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum of `x` over all ranks, in place, in the dtype of `x`."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(x)
    return x
