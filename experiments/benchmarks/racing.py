"""Trainings that take turns, and how good each was after how many seconds.

The clock is the processor's time in training alone, so that other work on the machine disturbs all
of them alike.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot, ticker

from experiments.benchmarks.timing import Row, spread

COLOURS = ("#06c", "#d60", "#777", "#a4a")
Seeds = Sequence[dict[str, "Training"]]  # of each seed, the trainings by name


@dataclass
class Training:
    """A network in training, and its level after each turn: more is better."""

    name: str
    run: Callable[[], None]  # a turn: some steps
    level: Callable[[], float]
    limit: float = math.inf  # seconds
    turns: float = math.inf
    enough: float = math.inf  # the level that ends it
    seconds: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)  # seconds, level

    def turn(self) -> None:
        """Trains a turn, then measures."""
        started = time.process_time()
        self.run()
        self.seconds += time.process_time() - started
        self.turns -= 1
        self.curve.append((self.seconds, self.level()))

    @property
    def is_over(self) -> bool:
        """Whether it is good enough, or has had all its turns or seconds."""
        good = bool(self.curve) and self.curve[-1][1] >= self.enough
        return good or self.turns <= 0 or self.seconds >= self.limit

    def seconds_to(self, level: float, never: float) -> float:
        """Seconds until a level is first reached; `never` if it is not."""
        return next((at for at, found in self.curve if found >= level), never)


def race(trainings: Sequence[Training]) -> dict[str, Training]:
    """All of them to their ends, by name.

    Who has had least goes on, so that all of them see the same machine.
    """
    while active := [one for one in trainings if not one.is_over]:
        min(active, key=lambda one: one.seconds).turn()
    return {one.name: one for one in trainings}


def sooner(seeds: Seeds, own: str, rival: str, level: float) -> tuple[list[float], bool]:
    """How many times sooner than a rival a training is at a level, by seed, and whether as a bound.

    Of a rival that never is there all that it had counts, which makes a bound from below.
    """
    pairs = [(found[own], found[rival]) for found in seeds if rival in found]
    owns = [one.seconds_to(level, never=math.inf) for one, _ in pairs]
    rivals = [one.seconds_to(level, never=one.seconds) for _, one in pairs]
    is_bound = any(one.seconds_to(level, never=math.inf) == math.inf for _, one in pairs)
    return [theirs / ours for ours, theirs in zip(owns, rivals, strict=True)], is_bound


def sooner_row(seeds: Seeds, own: str, rival: str, level: float, work: str, goal: float) -> Row:
    """`sooner` as a row, with the seconds of the first seed."""
    ratios, is_bound = sooner(seeds, own, rival, level)
    missed = ", which ends before it is there" if is_bound else ""
    first = (seeds[0][own], seeds[0][rival])
    return spread(
        ratios,
        work,
        f"{rival}{missed}; seeds: {len(ratios)}",
        at_least=goal,
        detail={f"{one.name}, s": one.seconds_to(level, one.seconds) for one in first},
    )


def draw(seeds: Seeds, path: Path, name: str, limits: tuple[float, float], sign: int = 1) -> None:
    """Levels, or with a `sign` of −1 what they are the negative of, against seconds, as an SVG."""
    mpl.use("svg")
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for found in seeds:
        for (label, one), colour in zip(found.items(), COLOURS, strict=False):
            axes.plot(
                [at for at, _ in one.curve],
                [sign * level for _, level in one.curve],
                color=colour,
                label=label if found is seeds[0] else None,
                linewidth=1,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set(ylim=limits, xlabel="seconds of one thread in training", ylabel=name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
