"""Logged lines on the page: all of them can be drawn, few enough points, and no spike is lost."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import write_run

from vqvae_lightning.comparison.compare import compare
from vqvae_lightning.comparison.report import PAGE_BYTES, write_report
from vqvae_lightning.comparison.report.series import NAMES, Line, as_data, logged, thinned
from vqvae_lightning.metrics.measures import MEASURES
from vqvae_lightning.training.runs import Run


def write_lines(run: Run, *lines: dict[str, float]) -> None:
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300),
    st.integers(min_value=4, max_value=60),
)
def test_a_thinned_line_has_its_ends_its_extremes_and_no_point_of_its_own(
    values: list[float], points: int
) -> None:
    line = list(enumerate(values))
    found = list(zip(*thinned(Line([*range(len(values))], values), points), strict=True))
    assert len(found) <= max(points, 4)
    assert (found[0], found[-1]) == (line[0], line[-1])
    assert found == sorted(set(found))
    assert set(found) <= set(line)
    assert min(value for _, value in found) == min(values)
    assert max(value for _, value in found) == max(values)


def test_every_logged_measure_can_be_drawn_those_of_validations_first(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ae")
    write_lines(
        run,
        {"step": 9, "train/loss": 2.0, "train/gradient_norm": 1.0, "own": 3.0, "epoch": 0},
        {"step": 10, "val/mse": 0.5, "val/psnr": 20.0},
        {"step": 4, "train/loss": 3.0},
    )
    rows = compare([run]).rows
    data = as_data(rows, logged(rows))
    names = ["val/psnr", "val/mse", "train/loss", "train/gradient_norm", "own"]
    assert [measure["name"] for measure in data["measures"]] == names
    loss = data["measures"][2]
    assert (loss["title"], loss["split"], loss["better"]) == ("Loss", "Training", "lower")
    assert loss["lines"] == {1: ([4, 9], [3.0, 2.0])}  # in the order of the steps
    assert data["measures"][-1]["title"] == "own"


def test_a_run_with_endless_names_gives_the_page_a_bounded_number(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ae")
    wrong = {f"{'x' * 200}{i}": 1.0 for i in range(5)}
    write_lines(
        run, {"step": 1, "val/psnr": 20.0, **wrong, **{f"own/{i}": 1.0 for i in range(999)}}
    )
    found = logged(compare([run]).rows)
    assert len(found) == NAMES
    assert next(iter(found)) == "val/psnr"
    assert not any(name.startswith("xxx") for name in found)


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--<script>", "\u2028'\""]
)
def test_a_name_cannot_end_the_pages_data(tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path, "ae", name=text.replace("\u2028", ""))
    write_lines(run, {"step": 1, f"val/{text}": 1.0})
    html = write_report(compare([run]), tmp_path / "page.html").read_text()
    data = html.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert "<" not in data
    assert f"val/{text}".replace("\u2028", "\\u2028") == json.loads(data)[0]["measures"][0]["name"]


def test_a_page_of_200_runs_that_log_everything_is_below_its_limit_with_all_of_them(
    tmp_path: Path,
) -> None:
    names = [f"{split}/{key}" for split in ("val", "train") for key in list(MEASURES)[:15]]
    lines = [{"step": step, **dict.fromkeys(names, step + 0.123456)} for step in range(20)]
    runs = [write_run(tmp_path, "ae", name=f"run{i}") for i in range(200)]
    for run in runs:
        write_lines(run, *lines)
    html = write_report(compare(runs), tmp_path / "page.html").read_text()
    assert len(html.encode()) <= PAGE_BYTES
    assert "of the 200 runs" not in html
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])[0]
    assert len(data["measures"]) == len(names)
    assert all(len(measure["lines"]) == 200 for measure in data["measures"])
