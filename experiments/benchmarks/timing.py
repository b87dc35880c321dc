"""Interleaved timing: A B A B …, so that what disturbs one disturbs the other; a figure is a median
ratio.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vqvae_lightning.allocator import M_MMAP_MAX, M_TRIM_THRESHOLD, keep_freed_memory, set_malloc

TURN = 0.05  # seconds that a turn lasts at least: shorter work is repeated within it
LEAST_ROUNDS = 3
M_MMAP_THRESHOLD = -3  # malloc.h

Times = dict[str, list[float]]  # seconds of each variant, one for each round


@dataclass(frozen=True)
class Row:
    """One figure of the table."""

    work: str
    against: str
    median: float
    low: float  # first quartile over rounds
    high: float  # third quartile
    unit: str = "x"
    at_least: float | None = None  # the goal; without one, a report
    at_most: float | None = None
    # what the figure is made of: seconds, rates …
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if self.at_least is not None:
            return self.median >= self.at_least
        return self.median <= self.at_most if self.at_most is not None else None


def interleave(
    variants: Mapping[str, Callable[[], Any]], rounds: int = 15, seconds: float = 30
) -> Times:
    """Seconds per call of each variant, round by round: until `rounds` are done or `seconds` are
    over.
    """
    # and warm up
    repeats = {name: max(1, round(TURN / max(1e-9, _clock(run)))) for name, run in variants.items()}
    times: Times = {name: [] for name in variants}
    started = time.perf_counter()
    for i in range(rounds):
        if i >= LEAST_ROUNDS and time.perf_counter() - started > seconds:
            break
        for name, run in variants.items():
            times[name].append(_clock(run, repeats[name]))
    return times


def _clock(run: Callable[[], Any], repeats: int = 1) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - started) / repeats


def as_glibc_comes(run: Callable[[], Any]) -> Callable[[], Any]:
    """`run` with freed memory given back as glibc does by itself, once its thresholds are as high
    as it ever sets them.

    That is generous: it begins with 128 kB, and adjusts them up to 32 and 64 MB.
    """

    def call() -> None:
        set_malloc({M_MMAP_MAX: 2**16, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20})
        run()
        keep_freed_memory()

    return call


def faster(
    times: Times, work: str, than: str, at_least: float | None = None, label: str | None = None
) -> Row:
    """How many times as fast the variant `ours` is as the variant `than`."""
    ratios = [b / a for a, b in zip(times["ours"], times[than], strict=True)]
    return spread(
        ratios, work, label or than, at_least=at_least, detail=_medians(times, "ours", than)
    )


def cost(
    times: Times, work: str, of: str, at_most: float | None = None, label: str | None = None
) -> Row:
    """The time of `ours` as a multiple of that of the variant `of`."""
    ratios = [a / b for a, b in zip(times["ours"], times[of], strict=True)]
    return spread(ratios, work, label or of, at_most=at_most, detail=_medians(times, "ours", of))


def spread(values: Sequence[float], work: str, against: str, **fields: Any) -> Row:
    """A row of the median and quartiles of values; of fewer than three there are no quartiles."""
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive")
        if len(values) > 2
        else 3 * [statistics.median(values)]
    )
    return Row(work, against, median, low, high, **fields)


def _medians(times: Times, *names: str) -> dict[str, float]:
    return {f"{name}, s": statistics.median(times[name]) for name in names}
