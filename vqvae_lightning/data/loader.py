"""Batches as one gather each, in an order that is a function of (seed, epoch) and of nothing else."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Rows of a split. `seed` drives everything random about the batch, and is the same on all ranks in training."""

    x: Tensor  # N,...    images (N,C,H,W), uint8 until transferred, then float in [-1, 1]; or codes (N,T)
    labels: Tensor  # N        int64
    rows: Tensor  # N        int64 positions in the split
    seed: int


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a function of `parts`, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_torch(seed: int) -> None:
    """`torch.manual_seed`, fit for every step.

    Without a GPU that function appends a formatted traceback to a list at every call, for the GPU that may still come:
    a millisecond and some kilobytes a step, for ever.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


class Order:
    """Which rows each batch of an epoch holds. Lightning calls `set_epoch` before it iterates."""

    def __init__(self, rows: int, seed: int, shuffle: bool) -> None:
        self.rows, self.seed, self.shuffle, self.epoch = rows, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __call__(self) -> Tensor:
        """The permutation of this epoch, (rows,)."""
        if not self.shuffle:
            return torch.arange(self.rows)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        return torch.randperm(self.rows, generator=generator)


class TrainLoader:
    """Endless epochs of equal global batches, each in `passes` parts; this rank's share of each is a slice of it.

    ```
    epoch e:  permutation ──► batch 0 | batch 1 | … | (remainder dropped)   each of `batch_size` rows
    batch b:  pass 0 | pass 1 | …                                           each of `batch_size / passes` rows
    pass p:   rank 0 | rank 1 | …                                           each of `batch_size / passes / world` rows
    ```

    An epoch is of whole batches, so that no optimizer step is of fewer passes than another.

    The position inside the epoch is part of its state, so Lightning resumes in mid-epoch where it stopped.
    """

    def __init__(
        self, x: Tensor, labels: Tensor, batch_size: int, seed: int, rank: int, world: int, passes: int = 1
    ) -> None:
        assert batch_size % (passes * world) == 0, (batch_size, passes, world)  # checked before the launch
        self.x, self.labels = x, labels
        self.batch_size, self.passes, self.rank, self.world = batch_size, passes, rank, world
        self.sampler = Order(x.shape[0], seed, shuffle=True)  # the name under which Lightning looks for set_epoch
        self.next_pass = 0

    def __len__(self) -> int:
        return self.x.shape[0] // self.batch_size * self.passes

    def __iter__(self) -> Iterator[Batch]:
        order, pass_size = self.sampler(), self.batch_size // self.passes
        share = pass_size // self.world
        first, self.next_pass = self.next_pass, 0
        for p in range(first, len(self)):
            start = p * pass_size + self.rank * share
            index = order[start : start + share]
            self.next_pass = (p + 1) % len(self)
            seed = derive_seed(self.sampler.seed, "train", self.sampler.epoch, p * pass_size)
            # not x[index], which goes number by number: eight times slower on a CPU
            yield Batch(self.x.index_select(0, index), self.labels.index_select(0, index), index, seed)

    def state_dict(self) -> dict[str, Any]:
        return {"next_pass": self.next_pass}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next_pass = state["next_pass"]


class EvalLoader:
    """Every row once, in order. Whole batches are dealt to the ranks in turn, so a batch is the same for any world."""

    def __init__(self, x: Tensor, labels: Tensor, batch_size: int, seed: int, rank: int, world: int) -> None:
        self.x, self.labels, self.batch_size = x, labels, batch_size
        self.seed, self.rank, self.world = seed, rank, world

    def __len__(self) -> int:
        batches = -(-self.x.shape[0] // self.batch_size)
        return len(range(self.rank, batches, self.world))

    def __iter__(self) -> Iterator[Batch]:
        for start in range(self.rank * self.batch_size, self.x.shape[0], self.world * self.batch_size):
            rows = slice(start, start + self.batch_size)
            index = torch.arange(start, min(start + self.batch_size, self.x.shape[0]))
            yield Batch(self.x[rows], self.labels[rows], index, derive_seed(self.seed, "eval", start))
