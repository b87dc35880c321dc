"""The figures of a report: geometry only; report.html draws it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vqvae_lightning.comparison.report.series import Series
from vqvae_lightning.comparison.rows import Row

# The figure's own units; the page scales them.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 300, 56, 36, 14, 46
# A kind's mark → its outline around (0, 0).
MARKS = {
    "circle": "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0-11 0z",
    "square": "M-5-5h10v10h-10z",
    "diamond": "M0-7l7 7l-7 7l-7-7z",
}


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` over pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        start: float,
        end: float,
        zero: bool = False,
        padded: bool = True,
    ) -> "Axis":
        """An axis that holds finite values, with 4 to 8 ticks at round numbers."""
        low, high = min([*values, 0.0] if zero else values), max([*values, 0.0] if zero else values)
        # Floating point has no round numbers in between.
        if high - low <= 1e-9 * max(abs(low), abs(high), 1e-30):
            half = max(0.5, 1e-6 * abs(low))
            low, high = low - half, high + half
        rough = (high - low) / 5
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(m for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999) * magnitude
        if padded:  # out to whole ticks
            low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return cls(low, high, start, end, tuple(i * step for i in range(first, last + 1)))

    def at(self, value: float) -> float:
        return round(
            self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1
        )

    @property
    def labels(self) -> list[tuple[float, str]]:
        """Pixel and text of each tick."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        exponent = math.floor(math.log10(step) + 1e-9)
        digits = max(0, -exponent + (round(step / 10.0**exponent, 3) == 2.5))
        return [(self.at(tick), f"{tick:,.{digits}f}") for tick in self.ticks]


@dataclass(frozen=True)
class Curve:
    """One run in a figure."""

    row: Row
    dots: list[tuple[float, float, str]]  # x, y, tooltip
    dash: int  # tells runs of one kind apart


@dataclass(frozen=True)
class Figure:
    """Lines or points in a frame of WIDTH × HEIGHT."""

    x: Axis
    y: Axis
    x_title: str
    y_title: str
    curves: list[Curve]
    labels: list[tuple[float, float, str]]
    width: int = WIDTH
    height: int = HEIGHT


def _axes(xs: Sequence[float], ys: Sequence[float], padded: bool) -> tuple[Axis, Axis]:
    return Axis.of(xs, LEFT, WIDTH - RIGHT, zero=True, padded=padded), Axis.of(
        ys, HEIGHT - BOTTOM, TOP
    )


def curves(series: Series, unit: str, dash: dict[int, int]) -> Figure | None:
    """A measure over steps; None if no run has logged it.

    `dash` has the way in which the lines of each row are drawn.
    """
    if not series:
        return None
    x, y = _axes(
        [x for _, line in series for x in line.steps],
        [y for _, line in series for y in line.values],
        padded=False,
    )
    drawn, ends = [], []
    for row, line in series:
        dots = [(x.at(step), y.at(value), "") for step, value in zip(*line, strict=True)]
        drawn.append(Curve(row, dots, dash[row.number]))
        ends.append((dots[-1][0] + 7, dots[-1][1] + 4, str(row.number)))
    return Figure(x, y, "step", unit, drawn, _apart(ends))


def points(rows: Sequence[Row]) -> Figure | None:
    """Bits per image and PSNR of every run that has both.

    A prior has its tokenizer's PSNR, and is joined to the bits that its codes cost if all were
    equally likely.
    """
    placed = []
    for row in rows:
        bits, psnr = (
            row.values.get("rate_bits", math.nan),
            row.values.get("psnr", row.values.get("tokenizer_psnr")),
        )
        if psnr is not None and math.isfinite(bits + psnr):
            uniform = row.values.get("uniform_bits")
            placed.append((row, [(bits, psnr), *([] if uniform is None else [(uniform, psnr)])]))
    if not placed:
        return None
    x, y = _axes(
        [x for _, s in placed for x, _ in s], [y for _, s in placed for _, y in s], padded=True
    )
    drawn = [
        Curve(
            row, [(x.at(a), y.at(b), f"{row.name}: {a:.0f} bits, {b:.2f} dB") for a, b in ends], 0
        )
        for row, ends in placed
    ]
    return Figure(x, y, "bits per image", "PSNR, dB", drawn, _beside(drawn))


def _beside(drawn: Sequence[Curve]) -> list[tuple[float, float, str]]:
    """A label for each point, on the first of its sides that is free."""
    placed: list[tuple[float, float, str]] = []
    for curve in drawn:
        x, y, _ = curve.dots[0]
        sides = [(x + 9, y - 7), (x + 9, y + 17), (x - 18, y - 7), (x - 18, y + 17)]
        taken = [(dot[0] - 4, dot[1] + 4) for other in drawn for dot in other.dots] + [
            label[:2] for label in placed
        ]
        free = [
            (a, b) for a, b in sides if all(abs(a - c) > 11 or abs(b - d) > 9 for c, d in taken)
        ]
        placed.append((*(free or sides)[0], str(curve.row.number)))
    return placed


def _apart(labels: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Labels moved down so that none overlap; those of one position are joined (`2, 5`)."""
    placed: list[tuple[float, float, str]] = []
    for x, y, text in sorted(labels, key=lambda label: label[1]):
        near = [label for label in placed if abs(x - label[0]) < 18]
        if near and y - near[-1][1] < 4:
            placed[placed.index(near[-1])] = (*near[-1][:2], f"{near[-1][2]}, {text}")
        else:
            placed.append((x, max([y, *(label[1] + 15 for label in near)]), text))
    return placed


@dataclass(frozen=True)
class Bar:
    """One run's entry in the ledger: parts as (class, start %, width %)."""

    row: Row
    parts: list[tuple[str, float, float]]
    saved: float | None  # nats/dim, of a prior


def ledger(rows: Sequence[Row]) -> tuple[list[Bar], list[tuple[float, str]]]:
    """Bars of distortion and rate in nats per dimension, and the ticks of their axis in percent."""
    ends, entries = [0.0], []
    for row in rows:
        distortion, rate = row.values.get("distortion", 0.0), row.values.get("rate", 0.0)
        if not {"distortion", "rate"} & set(row.values) or not math.isfinite(distortion + rate):
            continue
        # −log p of a density may be negative. It is then drawn left of zero.
        base = max(distortion, 0.0)
        parts = [("distortion", min(distortion, 0.0), abs(distortion)), ("rate", base, rate)]
        saved = None
        if "uniform" in row.values:
            saved = row.values["uniform"] - rate
            parts.append(("saved", base + rate, max(saved, 0.0)))
        entries.append((row, parts, saved))
        ends += [edge for _, start, width in parts for edge in (start, start + width)]
    axis = Axis.of(ends, 0, 100, zero=True)
    scale = 100 / (axis.high - axis.low)
    bars = [
        Bar(
            row,
            [
                (name, axis.at(start), round(width * scale, 2))
                for name, start, width in parts
                if width > 0
            ],
            saved,
        )
        for row, parts, saved in entries
    ]
    return bars, axis.labels
