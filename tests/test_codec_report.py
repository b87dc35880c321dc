"""`make codec`: what is published is what was measured, and it measures what it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from untrained import make_run, workplace

from experiments.codec import __main__ as program
from experiments.codec import peers, report

ROW = {"images": 10, "quality": 1}


def test_the_published_tables_and_picture_are_those_of_the_results() -> None:
    results = json.loads(report.RESULTS.read_text())
    assert report.tables(results) in report.PAGE.read_text("utf-8")
    assert report.figure(report.curves(results)) == report.FIGURE.read_text("utf-8")


def test_a_general_codec_stands_with_its_shortest_file_that_is_as_good() -> None:
    files = [("A", 20.0, 100), ("A", 26.0, 300), ("A", 27.0, 200), ("B", 25.9, 10), ("B", 40, 900)]
    rows = [
        {**ROW, "codec": codec, "way": "sheet", "psnr": level, "bytes": size}
        for codec, level, size in files
    ]
    results: dict[str, Any] = {"codec_vqvae": {"rows": [{"psnr": 26.0}]}, "JPEG": {"rows": rows}}
    assert [(row["codec"], row["bytes"]) for row in report.as_good(results)] == [
        ("A", 200),
        ("B", 900),
    ]


@pytest.mark.parametrize("count", [1, 5, 9])
def test_a_sheet_gives_back_every_image_in_its_place(count: int) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (count, 1, 5, 7), dtype=np.uint8)
    pixels = torch.from_numpy(drawn)
    _, again = peers.through_sheet(pixels, {"format": "PNG"})
    assert torch.equal(again, pixels)


def test_a_finished_run_is_measured_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\n{report.END}\nafter\n")
    for module, name, place in (
        (report, "PAGE", page),
        (report, "FIGURE", tmp_path / "figure.svg"),
        (program, "RESULTS", tmp_path / "results.json"),
    ):
        monkeypatch.setattr(module, name, place)
    with workplace(tmp_path):
        make_run(tmp_path, "vqvae", "name=codec_vqvae")
        where = [f"runs={tmp_path}/runs", f"root={tmp_path}/data", "images=8"]
        program.main(["codec_vqvae", *where])
    (row,) = json.loads((tmp_path / "results.json").read_text())["codec_vqvae"]["rows"]
    assert row["images"] == 8
    assert f"| {row['bytes'] / 8:.2f} | {row['psnr']:.2f} |" in page.read_text()
    assert page.read_text().endswith("after\n")


def test_what_it_does_not_know_is_one_line() -> None:
    with pytest.raises(SystemExit, match="codec: got codec_gan, wanted some of codec_ae"):
        program.main(["codec_gan"])
