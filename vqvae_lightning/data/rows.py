"""Rows: the records of a split, in memory or in files, read by number."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.data.randomness import RowNoise
from vqvae_lightning.data.shards import StoredArray


class Rows(ABC):
    """N records of one shape, images or codes, with a label each.

    ```
    MemoryRows (a tensor) ─┐
    FileRows   (shards)   ─┴──► ChosenRows (some of them) ──► BinaryRows ──► loader
    ```
    """

    labels: Tensor  # N int64
    shape: tuple[int, ...]  # of one record

    def __len__(self) -> int:
        return self.labels.shape[0]

    @abstractmethod
    def take(self, index: Tensor) -> Tensor:
        """The records (n, ...) at the positions index (n,) int64, as a new tensor."""

    def first(self, n: int) -> Tensor:
        """The first n records, or all if there are fewer."""
        return self.take(torch.arange(min(n, len(self))))


class MemoryRows(Rows):
    """Records in memory."""

    def __init__(self, values: Tensor, labels: Tensor) -> None:
        self.values, self.labels, self.shape = values, labels, tuple(values.shape[1:])

    def take(self, index: Tensor) -> Tensor:
        # not values[index], which goes number by number: eight times slower on a CPU
        return self.values.index_select(0, index)


class FileRows(Rows):
    """Records in files, of which only those asked for are read."""

    def __init__(self, values: StoredArray, labels: Tensor) -> None:
        self.values, self.labels, self.shape = values, labels, values.shape

    def take(self, index: Tensor) -> Tensor:
        return self.values.take(index)


class ChosenRows(Rows):
    """Some rows of others, in an order of their own; nothing is copied."""

    def __init__(self, rows: Rows, chosen: Tensor) -> None:
        """`chosen` (n,) int64 are positions in `rows`."""
        self.rows, self.chosen, self.shape = rows, chosen, rows.shape
        self.labels = rows.labels.index_select(0, chosen)

    def take(self, index: Tensor) -> Tensor:
        return self.rows.take(self.chosen.index_select(0, index))


class BinaryRows(Rows):
    """Images whose pixels are 0 or 255, with their grey value as probability.

    A row's pixels are a function of `name` and of the row, whenever and wherever it is read.
    """

    def __init__(self, rows: Rows, name: str) -> None:
        self.rows, self.labels, self.shape, self.name = rows, rows.labels, rows.shape, name

    def take(self, index: Tensor) -> Tensor:
        pixels = self.rows.take(index)
        drawn = RowNoise(0, f"static binarization/{self.name}", index).uniform(pixels)
        return 255 * (drawn * 255 < pixels).to(torch.uint8)


def spread(count: int, total: int) -> Tensor:
    """Positions (count,) that stand for all of `total` rows, which may lie class after class.

    All of them, as often as they fit, and evenly spaced ones for what is left.
    """
    whole, rest = divmod(count, total)
    return torch.cat([*[torch.arange(total)] * whole, torch.arange(rest) * total // max(1, rest)])


def stratified_split(labels: np.ndarray[Any, Any], size: int, seed: int) -> np.ndarray[Any, Any]:
    """Mask (N,) bool of `size` rows that hold each label in its share (to a row, for labels of like
    size).
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    # Each row's rank within its label as a fraction: the `size` lowest take the same share of every
    # label.
    fraction = np.empty(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        fraction[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    mask = np.zeros(len(labels), dtype=bool)
    mask[order[np.argsort(fraction[order], kind="stable")[:size]]] = True
    return mask
