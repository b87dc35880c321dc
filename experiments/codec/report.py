"""results.json as the table of docs/compression.md, and as the rate–distortion picture."""

import math
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from experiments.codec.peers import LOSSY

FOLDER = Path(__file__).parent
RESULTS, FIGURE = FOLDER / "results.json", FOLDER / "rate_distortion.svg"
PAGE = FOLDER.parents[1] / "docs" / "compression.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
TITLES = {
    "codec_ae": "AE, z on a grid",
    "codec_vqvae": "VQ-VAE, codes by their histogram",
    "codec_prior": "VQ-VAE with a prior",
    "codec_vqvae_lossless": "VQ-VAE, codes by their histogram",
    "codec_prior_lossless": "VQ-VAE with a prior",
    "codec_vae_lossless": "VAE, bits-back",
}
WAYS = {"sheet": "one sheet", "image": "an image each", "together": "all in one"}
COLOURS = {
    "codec_ae": "#b84a00",
    "codec_vqvae": "#007355",
    "codec_prior": "#a13f83",
    "JPEG": "#777777",
    "WebP": "#0067a5",
    "AVIF": "#7d5a00",
    "JPEG XL": "#3d4fb0",
}
Row = dict[str, Any]
Results = dict[str, dict[str, Any]]
Curves = dict[tuple[str, str], list[tuple[float, float]]]


def write_report(results: Results) -> None:
    """Puts the tables between the markers of the page, and draws the picture."""
    block = f"{BEGIN}\n{tables(results)}\n{END}"
    text = re.sub(f"{BEGIN}.*{END}", lambda _: block, PAGE.read_text("utf-8"), flags=re.DOTALL)
    PAGE.write_text(text, "utf-8")
    FIGURE.write_text(figure(curves(results)), "utf-8")


def tables(results: Results) -> str:
    """The lossy and the lossless files, ours before the others."""
    lines = ["| lossy | images | bytes an image | PSNR, dB | images per second, both ways |"]
    lines += ["|---|---|---|---|---|"]
    for name, row in _ours(results, lossless=False):
        step = f", step {row['step']:g}" if "step" in row else ""
        speed = " / ".join(f"{rate:,.0f}" for rate in row["per_second"])
        lines.append(f"| {_title(name, row)}{step} | {_size(row)} | {row['psnr']:.2f} | {speed} |")
    lines += [
        f"| {row['codec']}, {WAYS[row['way']]}, quality {row['quality']} | {_size(row)} |"
        f" {row['psnr']:.2f} | – |"
        for row in as_good(results)
    ]
    lines += ["", "| lossless | images | bits/dim on disk | images per second, both ways |"]
    lines += ["|---|---|---|---|"]
    for name, row in _ours(results, lossless=True):
        speed = " / ".join(f"{rate:,.0f}" for rate in row["per_second"])
        bits = f"**{row['bits_per_dim']:.4f}**"
        lines.append(f"| {_title(name, row)} | {row['images']:,} | {bits} | {speed} |")
    lines += [
        f"| {row['codec']}, {WAYS[row['way']]} | {row['images']:,} |"
        f" {row['bits_per_dim']:.4f} | – |"
        for row in _rows(results, "lossless")
    ]
    return "\n".join(lines)


def as_good(results: Results) -> list[Row]:
    """Of each general codec and way, the shortest file at least as good as the VQ-VAE's."""
    wanted = min((row["psnr"] for row in _rows(results, "codec_vqvae")), default=math.inf)
    found: dict[tuple[str, str], Row] = {}
    for row in sorted(_others(results), key=_per_image, reverse=True):
        if row["psnr"] >= wanted:
            found[row["codec"], row["way"]] = row
    return sorted(found.values(), key=lambda row: (row["way"] == "image", _per_image(row)))


def curves(results: Results) -> Curves:
    """Points (bytes an image, PSNR in dB) by codec and way."""
    found: Curves = {}
    for name, row in _ours(results, lossless=False):
        found.setdefault((name, "ours"), []).append((_per_image(row), row["psnr"]))
    for row in _others(results):
        found.setdefault((row["codec"], row["way"]), []).append((_per_image(row), row["psnr"]))
    return {key: sorted(points) for key, points in found.items()}


def _ours(results: Results, lossless: bool) -> list[tuple[str, Row]]:
    names = [name for name in TITLES if name.endswith("lossless") == lossless]
    return [(name, row) for name in names for row in _rows(results, name)]


def _others(results: Results) -> list[Row]:
    return [row for name in LOSSY for row in _rows(results, name)]


def _rows(results: Results, name: str) -> list[Row]:
    rows: list[Row] = results.get(name, {}).get("rows", [])
    return rows


def _title(name: str, row: Row) -> str:
    return f"{TITLES[name]} ({row['steps']:,} steps)"


def _per_image(row: Row) -> float:
    return float(row["bytes"] / row["images"])


def _size(row: Row) -> str:
    return f"{row['images']:,} | {_per_image(row):.2f}"


LEFT, TOP, WIDTH, HEIGHT = 55, 20, 520, 360
BYTES, DECIBELS = (2.0, 1000.0), (14.0, 36.0)  # what the picture shows


def figure(found: Curves) -> str:
    """PSNR over bytes an image, on a log scale; dashed lines are of a file for each image."""
    parts = [f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none"'
             ' stroke="#999"/>']  # fmt: skip
    for size in (2, 5, 10, 20, 50, 100, 200, 500, 1000):
        x, bottom = _place(size, DECIBELS[0])
        parts.append(f'<text x="{x:.0f}" y="{bottom + 16:.0f}" text-anchor="middle">{size}</text>')
    for level in range(15, 36, 5):
        left, y = _place(BYTES[0], level)
        parts.append(f'<path d="M{left:.0f} {y:.0f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{level}</text>')
    for number, ((name, way), points) in enumerate(found.items()):
        parts += _curve(name, way, points, number)
    parts.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">'
                 "bytes an image, of the whole file</text>")  # fmt: skip
    parts.append(f'<text x="{LEFT}" y="{TOP - 6}">PSNR, dB</text>')
    sides = f'width="{LEFT + WIDTH + 190}" height="{TOP + HEIGHT + 50}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {sides} font-family="sans-serif"'
    body = "\n".join([f'{head} font-size="12">', f'<rect {sides} fill="white"/>', *parts, "</svg>"])
    return body + "\n"


def _curve(name: str, way: str, points: list[tuple[float, float]], number: int) -> list[str]:
    """A line through points that the picture shows, with a mark at each, and its name."""
    colour = COLOURS[name]
    dashes = ' stroke-dasharray="5 4"' if way == "image" else ""
    places = [_place(*point) for point in points if _is_shown(*point)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    line = f'<polyline points="{path}" stroke="{colour}" stroke-width="2" fill="none"{dashes}/>'
    radius = 4 if way == "ours" else 2
    marks = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>' for x, y in places]
    x, y = LEFT + WIDTH + 12, TOP + 12 + 20 * number
    key = f'<path d="M{x} {y}h24" stroke="{colour}" stroke-width="2"{dashes}/>'
    title = TITLES.get(name, f"{name}, {WAYS.get(way, way)}")
    return [line, *marks, key, f'<text x="{x + 30}" y="{y + 4}">{escape(_short(title))}</text>']


def _short(title: str) -> str:
    return title.removesuffix(", codes by their histogram")


def _is_shown(size: float, level: float) -> bool:
    return BYTES[0] <= size <= BYTES[1] and DECIBELS[0] <= level <= DECIBELS[1]


def _place(size: float, level: float) -> tuple[float, float]:
    across = math.log(size / BYTES[0]) / math.log(BYTES[1] / BYTES[0])
    up = (level - DECIBELS[0]) / (DECIBELS[1] - DECIBELS[0])
    return LEFT + across * WIDTH, TOP + (1 - up) * HEIGHT
