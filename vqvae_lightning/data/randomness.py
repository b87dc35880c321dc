"""Random numbers that are functions of a seed and of names, and of nothing that came before."""

import hashlib
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor


class RowNoise:
    """Random numbers of an evaluation, a stream for each row: a function of (seed, name, row).

    The numbers of a row depend neither on the rows beside it nor on the number of ranks. They are
    drawn on the CPU, so they do not depend on the device either. Every call continues each row's
    stream.
    """

    def __init__(self, seed: int, name: str, rows: Tensor) -> None:
        self.seed, self.name, self.rows = seed, name, rows

    @cached_property
    def streams(self) -> list[torch.Generator]:
        """A generator for each row, N of them.

        Each takes 10 µs, so none is made before it is needed.
        """
        rows = self.rows.tolist()
        return [
            torch.Generator().manual_seed(derive_seed(self.seed, self.name, row)) for row in rows
        ]

    def normal(self, x: Tensor) -> Tensor:
        """Standard normal numbers like x (N, ...)."""
        return self._fill(x, x.dtype, torch.Tensor.normal_)

    def uniform(self, x: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of the shape (N, ...) of x, on its device, float32."""
        return self._fill(x, torch.float32, torch.Tensor.uniform_)

    def _fill(self, x: Tensor, dtype: torch.dtype, fill: Callable[..., Tensor]) -> Tensor:
        drawn = torch.empty(x.shape, dtype=dtype)
        for row, stream in zip(drawn, self.streams, strict=True):
            fill(row, generator=stream)
        return drawn.to(x.device)


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a function of `parts`, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def eval_seed(seed: int) -> int:
    """The seed of every batch of an evaluation, derived from the experiment's seed."""
    return derive_seed(seed, "eval")


def seed_torch(seed: int) -> None:
    """`torch.manual_seed` without its cost, so that it can be called at every step.

    Without a GPU, `torch.manual_seed` appends a formatted traceback to a list at every call, in
    case a GPU is initialized later: a millisecond and some kilobytes per step.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
