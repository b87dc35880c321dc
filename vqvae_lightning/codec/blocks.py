"""Symbols of many levels in two steps: the block of a level, then its place in the block.

```
 256 levels of a pixel: one of 16 blocks by their masses ──► one of its 16 levels by theirs
 4096 bins of z:        one of 64 blocks                 ──► one of its 64 bins
```

The level has the probability that one table of all levels would give it. That table is never
computed: two small ones are, 16 + 16 masses in the place of 256.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.codec.locations import Keys
from vqvae_lightning.codec.streams import Stack, Symbols, Writer
from vqvae_lightning.codec.tables import PRECISION, Floats, Weights

Borders = NDArray[np.int64]
Take = Callable[[int, Weights], Symbols]
CHUNK = 4096  # symbols whose tables are made together, a number of the format


class BlockTables(ABC):
    """Tables over levels 0 … A·B − 1 by keys: A blocks of B levels."""

    blocks: ClassVar[tuple[int, int]]  # A, B

    @abstractmethod
    def below(self, keys: Keys, first: Borders, step: int, count: int) -> Floats:
        """The mass below some borders (m, count), which must not fall along a row.

        Border b lies between the levels b − 1 and b. The borders are `first` (m,), and then every
        step-th. What is said of the borders 0 and A·B is not looked at.
        """

    def of_blocks(self, keys: Keys) -> Weights:
        """Weights (m, A) of the blocks, by keys (m, …)."""
        count, size = self.blocks
        total = 2**PRECISION - count * size
        ends = np.zeros((len(keys), count + 1))
        firsts = np.full(len(keys), size)
        ends[:, 1:-1] = np.floor(self.below(keys, firsts, size, count - 1) * total)
        ends[:, -1] = total
        # Each level of a block has a frequency of 1 at least, and the coder adds 1 to the block's.
        weights: Weights = np.diff(ends).astype(np.int64) + size - 1
        return weights

    def in_blocks(self, keys: Keys, blocks: Symbols) -> Weights:
        """Weights (m, B) of the levels in a block, by keys (m, …) and blocks (m,)."""
        count, size = self.blocks
        total = 2**PRECISION - count * size
        below = self.below(keys, blocks.astype(np.int64) * size, 1, size + 1)
        below[blocks == 0, 0] = 0.0
        below[blocks == count - 1, -1] = 1.0
        # Whole numbers below 2^48 are exact in float64, and so is the floor of their quotients.
        ends = np.floor(below * total) + np.arange(size + 1)
        ends -= ends[:, :1].copy()
        scaled = np.floor(ends * (2**PRECISION - size) / ends[:, -1:])
        weights: Weights = np.diff(scaled).astype(np.int64)
        return weights


def write_levels(writer: Writer, symbols: Symbols, keys: Keys, tables: BlockTables) -> None:
    """Appends symbols (m,) by the tables of keys (m, …)."""
    for start in range(0, len(symbols), CHUNK):
        rows = slice(start, start + CHUNK)
        blocks, places = np.divmod(symbols[rows], tables.blocks[1])
        writer.write(blocks, tables.of_blocks(keys[rows]))
        writer.write(places, tables.in_blocks(keys[rows], blocks))


def push_levels(stack: Stack, symbols: Symbols, keys: Keys, tables: BlockTables) -> None:
    """Pushes symbols (m,) by the tables of keys (m, …): `take_levels` gives them in order."""
    for start in reversed(range(0, len(symbols), CHUNK)):
        rows = slice(start, start + CHUNK)
        blocks, places = np.divmod(symbols[rows], tables.blocks[1])
        stack.push(places, tables.in_blocks(keys[rows], blocks))
        stack.push(blocks, tables.of_blocks(keys[rows]))


def take_levels(take: Take, keys: Keys, tables: BlockTables) -> Symbols:
    """The next symbols (m,) of a `Reader.read` or `Stack.pop`, by the tables of keys (m, …)."""
    found = [np.zeros(0, np.int32)]
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        blocks = take(len(part), tables.of_blocks(part))
        places = take(len(part), tables.in_blocks(part, blocks))
        found.append(blocks * np.int32(tables.blocks[1]) + places)
    return np.concatenate(found)
