"""results.json as a table and a figure; the words around the table in README.md are written by
hand.
"""

import math
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from experiments.benchmarks.timing import Row

FOLDER = Path(__file__).parent
RESULTS, README, FIGURE = FOLDER / "results.json", FOLDER / "README.md", FOLDER / "scaling.svg"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"


def write_report(results: dict[str, Any]) -> None:
    """Puts the table between the markers of README.md, and draws the figure."""
    picture = "\n\n![How costs grow](scaling.svg)" if results.get("scaling", {}).get("rows") else ""
    block = f"{BEGIN}\n{table(results)}{picture}\n{END}"
    README.write_text(
        re.sub(f"{BEGIN}.*{END}", lambda _: block, README.read_text(), flags=re.DOTALL)
    )
    FIGURE.write_text(figure(curves(results)))


def table(results: dict[str, Any]) -> str:
    """Every row with its goal and whether it is met, suite by suite, under its machine."""
    lines, heading = [], None
    for name, suite in results.items():
        if name == "scaling" and "failed" not in suite:
            continue  # it is a figure
        threads = "1 thread" if suite["threads"] == 1 else f"{suite['threads']} threads"
        place = f"{suite['machine']}, torch {suite['torch']}, {threads}, {suite['date']}"
        if place != heading:
            heading = place
            lines += [
                "",
                f"{place}. Median, and quartiles over rounds.",
                "",
                "| work | against | measured | goal | met |",
                "|---|---|---|---|---|",
            ]
        if name != "scaling":
            lines += [line(Row(**row)) for row in suite["rows"]]
        if "failed" in suite:
            lines.append(f"| {name} | – | failed: {suite['failed'].replace('|', '/')} | – | no |")
    return "\n".join(lines).strip("\n")


def line(row: Row) -> str:
    """One row of the table."""
    unit = {"x": "×"}.get(row.unit, f" {row.unit}")
    spread = "" if row.low == row.high else f" ({number(row.low)} – {number(row.high)})"
    goal = (
        "report"
        if row.met is None
        else f"≥ {row.at_least}{unit}"
        if row.at_least
        else f"≤ {row.at_most}{unit}"
    )
    met = {None: "–", True: "yes", False: "**no**"}[row.met]
    rates = [
        f"{number(value)} {name}"
        for name, value in row.detail.items()
        if name.endswith(("/s", "MB", "peak", "busy"))
    ]
    against = "; ".join([row.against, *rates])
    return f"| {row.work} | {against} | **{number(row.median)}{unit}**{spread} | {goal} | {met} |"


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def curves(results: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Points (x, seconds) by 'work, over x'."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in results.get("scaling", {}).get("rows", []):
        found.setdefault(f"{row['work']}, over {row['against']}", []).append(
            (row["detail"]["x"], row["median"])
        )
    for row in results.get("ddp", {}).get("rows", []):
        seconds, title = row["detail"], f"{row['work'].split(', ')[2]} step, over ranks"
        points = found.setdefault(title, [(1, seconds["one rank, s"])])
        # One rank is measured beside each number of ranks: the ratio is what was measured.
        points.append((seconds["ranks"], points[0][1] / row["median"]))
    return found


def figure(found: dict[str, list[tuple[float, float]]]) -> str:
    """Small log-log plots side by side as an SVG; a grey line of slope 1, or −1, goes through each
    first point.
    """
    width, height, margin, columns = 250, 230, 40, 3
    parts = []
    for i, (title, points) in enumerate(found.items()):
        left, top = (i % columns) * width, (i // columns) * height
        xs, ys = ([math.log2(value) for value in axis] for axis in zip(*points, strict=True))
        # the same scale on both axes, so that slopes compare
        span = max(max(xs) - min(xs), max(ys) - min(ys), 1.0)
        steps = max(xs) - xs[0]
        # A cost that is ever below 0.7 of its first is compared with one that falls as x grows.
        falls = min(ys) < ys[0] - 0.5
        proportional = ys[0] + (-steps if falls else steps)
        bottom = min(*ys, proportional)

        def place(
            x: float,
            y: float,
            left: int = left,
            top: int = top,
            x0: float = min(xs),
            y0: float = bottom,
            span: float = span,
        ) -> str:
            side = height - 2 * margin
            across, up = (x - x0) / span * side, (y - y0) / span * side
            return f"{left + margin + across:.1f},{top + height - margin - up:.1f}"

        parts.append(
            f'<text x="{left + 8}" y="{top + 20}" font-weight="bold">{escape(title)}</text>'
        )
        slope = f"{place(xs[0], ys[0])} {place(max(xs), proportional)}"
        parts.append(f'<polyline points="{slope}" stroke="#bbb" fill="none"/>')
        line_points = " ".join(place(x, y) for x, y in zip(xs, ys, strict=True))
        parts.append(
            f'<polyline points="{line_points}" stroke="#06c" stroke-width="2" fill="none"/>'
        )
        for (value, seconds), x, y in zip(points, xs, ys, strict=True):
            cx, cy = place(x, y).split(",")
            label = f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="3" fill="#06c"/>')
            parts.append(f'<text x="{float(cx) + 5:.1f}" y="{float(cy) + 12:.1f}">{label}</text>')
            parts.append(
                f'<text x="{cx}" y="{top + height - 12}" text-anchor="middle">{value:g}</text>'
            )
    rows = -(-len(found) // columns)
    size = f'width="{columns * width}" height="{max(1, rows) * height}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="10">\n'
        f'<rect {size} fill="white"/>\n{body}\n</svg>\n'
    )
