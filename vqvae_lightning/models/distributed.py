"""Sums and random numbers that the ranks of a process group have in common; the sum is the
identity where there is no group.

Whether there is a group is asked at every call, never in a constructor: modules are built before
the group exists.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of ranks, (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gathered(text: str) -> list[str]:
    """The text of each rank, of all of them."""
    world = rank_and_world()[1]
    if world == 1:
        return [text]
    found = [""] * world
    dist.all_gather_object(found, text)
    return found


def told_apart(fingerprint: str) -> str:
    """Each rank and its fingerprint, for a message; nothing where all have the same."""
    found = gathered(fingerprint)
    if len(set(found)) == 1:
        return ""
    return ", ".join(f"rank {rank} {each[:16]}" for rank, each in enumerate(found))


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum of `x` over all ranks, in place, in the dtype of `x`."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(x)
    return x


@contextmanager
def shared_random(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws from `seed`, the same on every rank; afterwards it goes on as before."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        # `torch.manual_seed` costs a millisecond, see `data.randomness.seed_torch`.
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
