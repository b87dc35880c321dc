"""Batches in an order that is a function of (seed, epoch) only; each batch is one gather."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqvae_lightning.data.randomness import RowNoise, derive_seed, eval_seed
from vqvae_lightning.data.rows import Rows


class Batch(NamedTuple):
    """Rows of a split.

    `seed` drives everything random about them: of a training step, or of all of an evaluation.
    """

    # N,...    images (N,C,H,W), uint8 until transferred, then float in [-1, 1]; or codes (N,T)
    x: Tensor
    labels: Tensor  # N        int64
    rows: Tensor  # N        int64 positions in the split
    seed: int
    # Which of the step's `parts` equal parts these rows are: micro-batch · world + rank.
    part: int = 0
    parts: int = 1

    def own(self, draw: Callable[[int], Tensor]) -> Tensor:
        """This part's rows of `draw(rows)`, which draws for all rows of the step.

        No random number therefore depends on how the step was cut into parts.
        """
        n = self.x.shape[0]
        return draw(self.parts * n)[self.part * n : (self.part + 1) * n]

    def step_noise(self, x: Tensor) -> Tensor:
        """Standard normal noise like x (N, ...) for a training step, from torch's global random
        state.
        """
        return self.own(
            lambda rows: torch.randn(rows, *x.shape[1:], dtype=x.dtype, device=x.device)
        )

    def step_uniform(self, x: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of the shape (N, k) of x for a training step, on its device.

        A function of the step's seed. Each of the k numbers is spread evenly over the rows of the
        step, one in each of as many equal intervals: a Latin hypercube (McKay et al. 1979), whose
        means vary less. They are drawn on the CPU, so they do not depend on the device.
        """
        generator = torch.Generator().manual_seed(self.seed)

        def hypercube(rows: int) -> Tensor:
            drawn = torch.rand(2, rows, *x.shape[1:], generator=generator)
            return ((drawn[0].argsort(0) + drawn[1]) / rows).clamp_max(1 - 2**-24)

        return self.own(hypercube).to(x.device)

    def row_noise(self, name: str) -> RowNoise:
        """Random numbers of an evaluation, a function of this batch's seed and each of its rows."""
        return RowNoise(self.seed, name, self.rows)


class Order:
    """The rows of each batch of an epoch. Lightning calls `set_epoch` before it iterates."""

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
    """Endless epochs of equal global batches; this rank's share of a micro-batch is a slice of it.

    ```
    epoch e:        permutation ──► batch 0 | batch 1 | … | (rest dropped)   `batch_size` rows each
    batch b:        micro-batch 0 | micro-batch 1 | …    `batch_size / micro_batches` rows each
    micro-batch m:  rank 0 | rank 1 | …                  `batch_size / micro_batches / world` each
    ```

    The last incomplete global batch is dropped, so every optimizer step accumulates the same number
    of micro-batches. The position inside the epoch is part of the loader's state, so Lightning
    resumes in mid-epoch where it stopped.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        micro_batches: int = 1,
    ) -> None:
        # checked before the launch
        assert batch_size % (micro_batches * world) == 0, (batch_size, micro_batches, world)
        self.rows, self.batch_size, self.micro_batches = rows, batch_size, micro_batches
        self.rank, self.world = rank, world
        # the name under which Lightning looks for set_epoch
        self.sampler = Order(len(rows), seed, shuffle=True)
        self.next_micro_batch = 0

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size * self.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        order, size = self.sampler(), self.batch_size // self.micro_batches
        share = size // self.world
        first, self.next_micro_batch = self.next_micro_batch, 0
        for p in range(first, len(self)):
            start = p * size + self.rank * share
            index = order[start : start + share]
            self.next_micro_batch = (p + 1) % len(self)
            seed = derive_seed(
                self.sampler.seed,
                "train",
                self.sampler.epoch,
                p // self.micro_batches * self.batch_size,
            )
            part = p % self.micro_batches * self.world + self.rank
            x, labels = self.rows.take(index), self.rows.labels.index_select(0, index)
            yield Batch(x, labels, index, seed, part, self.micro_batches * self.world)

    def state_dict(self) -> dict[str, Any]:
        return {"next_micro_batch": self.next_micro_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next_micro_batch = state["next_micro_batch"]


class EvalLoader:
    """Every row once, in order. Ranks take whole batches in turn, so a batch is the same for any
    world size.

    All batches have one seed: random numbers are functions of that seed and of the row, see
    `RowNoise`.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int, rank: int, world: int) -> None:
        self.rows, self.batch_size = rows, batch_size
        self.seed, self.rank, self.world = seed, rank, world

    def __len__(self) -> int:
        batches = -(-len(self.rows) // self.batch_size)
        return len(range(self.rank, batches, self.world))

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.rows)
        for start in range(self.rank * self.batch_size, count, self.world * self.batch_size):
            index = torch.arange(start, min(start + self.batch_size, count))
            labels = self.rows.labels.index_select(0, index)
            yield Batch(self.rows.take(index), labels, index, eval_seed(self.seed))
