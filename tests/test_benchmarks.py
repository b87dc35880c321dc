"""The benchmark suite: fair turns, goals, a report that survives a failure. No figure is looked
at.
"""

import json
import re
import subprocess
import sys
from functools import partial

import pytest

from experiments.benchmarks import __main__ as benchmarks
from experiments.benchmarks import report, timing
from experiments.benchmarks.timing import Row, cost, faster, interleave


def test_variants_take_turns(monkeypatch):
    monkeypatch.setattr(timing, "TURN", 0)
    calls: list[str] = []
    times = interleave({name: partial(calls.append, name) for name in "ab"}, rounds=4)
    assert "".join(calls) == "ab" + 4 * "ab"  # once to warm up
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}


def test_ratios_are_of_the_same_round():
    times = {"ours": [1.0, 2.0, 4.0], "peer": [2.0, 4.0, 8.0]}
    assert faster(times, "work", "peer", 2.0).met
    assert (faster(times, "work", "peer").low, faster(times, "work", "peer").high) == (2.0, 2.0)
    assert cost(times, "work", "peer").median == 0.5


@pytest.mark.parametrize(
    ("goal", "met"),
    [({"at_least": 2}, True), ({"at_least": 3}, False), ({"at_most": 1}, False), ({}, None)],
)
def test_goals(goal, met):
    assert Row("work", "peer", 2.5, 2.0, 3.0, **goal).met is met


def test_a_room_that_fails_is_a_line_of_the_report(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmarks, "EVERY_SUITE", {"nowhere": "nowhere"})
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(report, "README", tmp_path / "README.md")
    monkeypatch.setattr(report, "FIGURE", tmp_path / "scaling.svg")
    report.README.write_text(f"before\n{report.BEGIN}\n{report.END}\nafter\n")
    benchmarks.main(["nowhere"])
    assert "KeyError" in json.loads((tmp_path / "results.json").read_text())["nowhere"]["failed"]
    text = report.README.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "| nowhere | – | failed: exit code 1" in text


def test_the_figure_holds_every_point():
    drawn = report.figure(
        {"a, over K": [(1, 0.1), (2, 0.2), (4, 0.4)], "b & c, over T": [(8, 1.0)]}
    )
    assert drawn.count("<circle") == 4
    assert "b &amp; c" in drawn


@pytest.mark.slow
@pytest.mark.parametrize("suite", benchmarks.GPU_SUITES)
def test_the_suites_of_a_gpu_run_at_toy_size(suite, tmp_path):
    if suite == "gpu_sampling":
        pytest.importorskip("transformers")
    out = tmp_path / "rows.jsonl"
    program = [sys.executable, "-m", "experiments.benchmarks", "--in-process"]
    subprocess.run([*program, suite, str(out)], check=True)
    rows = [Row(**json.loads(line)) for line in out.read_text().splitlines()]
    assert rows
    assert all(row.met for row in rows if row.unit == "error")


@pytest.mark.parametrize(
    ("costs", "rises"),
    [
        ([1.0, 4.0], True),
        ([1.0, 1.0], True),
        ([4.0, 3.0], True),
        ([4.0, 1.0], False),
        ([4, 2, 4], False),
    ],
)
def test_the_grey_line_falls_only_beside_a_cost_that_does(costs, rises):
    drawn = report.figure({"a, over b": list(zip((1, 4, 8)[: len(costs)], costs, strict=True))})
    points = re.search(r'points="([^"]*)" stroke="#bbb"', drawn)
    assert points is not None
    (_, first), (_, last) = (pair.split(",") for pair in points[1].split())
    assert (float(last) < float(first)) is rises  # y goes down in an SVG


def test_a_suite_that_is_a_figure_is_no_table_unless_it_failed():
    suite = {"machine": "one", "threads": 1, "torch": "2", "date": "today", "rows": []}
    assert report.table({"scaling": suite}) == ""
    assert "| scaling | – | failed: late | – | no |" in report.table(
        {"scaling": suite | {"failed": "late"}}
    )
