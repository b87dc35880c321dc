"""Many runs: every file is read a bounded number of times, and the page stays below its limit."""

import collections
import io
import json
import os
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from run_folders import check, figure, terminal, write_run

from vqvae_lightning.comparison import report, table
from vqvae_lightning.comparison.compare import Comparison, compare, group
from vqvae_lightning.comparison.report import PAGE_BYTES, write_report

OPENED: list[str] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if OPENED is not None and event == "open" and isinstance(arguments[0], str):
        OPENED.append(arguments[0])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file that is opened, by whatever means."""
    if not hasattr(sys, "_watched_by_test_scale"):
        sys.addaudithook(_watch)
        # An audit hook stays for good, and so does its mark, which `sys` does not declare.
        sys._watched_by_test_scale = True  # type: ignore[attr-defined]
    monkeypatch.setattr(sys.modules[__name__], "OPENED", [])
    assert OPENED is not None
    return OPENED


def test_each_file_of_a_run_is_read_once_and_each_picture_at_most_twice(
    tmp_path: Path, opened: list[str]
) -> None:
    tokenizer = write_run(tmp_path, "vqvae", name="tok")
    priors = [write_run(tmp_path, "prior", name=f"prior{i}") for i in range(4)]
    opened.clear()
    comparison = compare([tokenizer, *priors])
    write_report(comparison, tmp_path / "page.html")
    assert len(comparison.rows) == 5
    times = collections.Counter(
        os.path.relpath(path, tmp_path) for path in opened if path.startswith(str(tmp_path))
    )
    for run in (tokenizer, *priors):
        for file in ("run.json", "config.yaml", "metrics.jsonl"):
            assert times[f"{run.name}/{file}"] == 1, (run.name, file)
    assert max(count for path, count in times.items() if path.endswith(".png")) <= 2


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """300 runs, which share the folders of four; each has its own name, seed and rate of
    learning.
    """
    root, rng = tmp_path_factory.mktemp("many"), random.Random(0)
    runs = [
        write_run(root, kind, name="tok" if kind == "vqvae" else "")
        for kind in ("ae", "vae", "vqvae", "prior")
    ]
    noise = (
        np.random.default_rng(0)
        .integers(0, 255, (120, 120), dtype=np.uint8)
        .repeat(2, 0)
        .repeat(2, 1)
    )
    for run in runs:
        metric = "val/bits_per_code" if run.record.kind == "prior" else "val/psnr"
        lines = [{"step": step, metric: rng.random()} for step in range(300)]
        run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        run.write(
            generation=[figure("prior" if run.record.kind == "prior" else "reconstruction", 1.0)]
        )
        for path in run.pictures():
            Image.fromarray(noise).save(path)
    return repeated(compare(runs), 75)


def repeated(comparison: Comparison, times: int) -> Comparison:
    """Every row of the one group, under `times` names each."""
    rows: list[Any] = []
    for row in comparison.rows:
        for i in range(times):
            settings = {
                **row.settings,
                "seed": i,
                "optimizer": {**row.settings["optimizer"], "lr": 1e-5 * (i + 1)},
            }
            record = replace(row.record, name=f"{row.kind.name}-with-a-long-name-{i}")
            rows.append(replace(row, number=len(rows) + 1, record=record, settings=settings))
    return Comparison((group(comparison.groups[0].title, rows),))


def test_a_page_of_300_runs_is_below_its_limit_and_has_them_all(
    many: Comparison, tmp_path: Path
) -> None:
    path = write_report(many, tmp_path / "page.html")
    assert path.stat().st_size <= PAGE_BYTES
    html = path.read_text()
    assert check(html).tags.count("img") > 10
    assert set(re.findall(r"[a-z]+-with-a-long-name-\d+", html)) == {row.name for row in many.rows}
    assert re.search(r"\d+ of \d+ pictures are left out to keep this page small", html)
    assert "of the 300 runs" not in html


def test_each_curve_is_thinned_and_each_column_looked_through_once(
    many: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each row of a table, nor for each time that the page is laid out."""
    calls: collections.Counter[str] = collections.Counter()

    def counted(name):
        function = getattr(report, name)

        def call(*arguments):
            calls[name] += 1
            return function(*arguments)

        return call

    for name in ("thinned", "peers_of", "section"):
        monkeypatch.setattr(report, name, counted(name))
    write_report(many, tmp_path / "page.html")
    (only,) = many.groups
    # The page is laid out without its pictures, which tells their room, and then with them.
    assert calls == {"thinned": 300, "section": 1, "peers_of": 2 * len(only.generation)}


def test_runs_that_do_not_fit_are_left_out_evenly_and_the_page_says_so(
    many: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqvae_lightning.comparison.report.PAGE_BYTES", 500_000)
    path = write_report(many, tmp_path / "page.html")
    assert path.stat().st_size <= 500_000
    html = path.read_text()
    check(html)
    assert re.search(r"75 of the 300 runs are shown", html)
    for kind in ("ae", "vae", "vqvae", "prior"):
        assert f">{kind}-with-a-long-name-" in html
    assert "300 runs on MNIST" in html


def test_the_terminal_measures_each_column_once(
    many: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    build = table._table

    def counted(heads, lines, columns, best):
        built.append(len(columns))
        return build(heads, lines, columns, best)

    monkeypatch.setattr(table, "_table", counted)
    small = Comparison((replace(many.groups[0], rows=many.rows[::30], generation=()),))
    text = terminal(small, 100)
    # once all of them to be measured, and each once to be printed
    assert built[0] == sum(built[1:]) == len(many.groups[0].columns)
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("width", [40, 61, 80, 100, 137, 400])
def test_tables_take_as_many_columns_as_fit(many: Comparison, width: int) -> None:
    rows = many.rows[::60]
    columns = many.groups[0].columns
    console = Console(file=io.StringIO(), width=width)
    lines = [(row, (row.name, row.kind.title)) for row in rows]
    shown: list[list[str]] = []

    def build(some):
        shown.append([column.key for column in some])
        return table._table(("run", "kind"), lines, some, many.groups[0].best)

    table.print_columns(build, columns, console)
    printed = shown[1:]
    assert [key for keys in printed for key in keys] == [column.key for column in columns]
    by_key = {column.key: column for column in columns}
    for keys, following in zip(printed, [*printed[1:], None], strict=True):
        of = [by_key[key] for key in keys]
        assert len(keys) == 1 or measured(console, build(of)) <= width
        if following:
            assert measured(console, build([*of, by_key[following[0]]])) > width


def measured(console: Console, built: Table) -> int:
    """The width that rich gives a table which nothing forces to fold."""
    return Measurement.get(console, console.options.update(max_width=10_000), built).maximum


def test_priors_without_a_tokenizer_search_for_it_together(
    tmp_path: Path, opened: list[str]
) -> None:
    runs = [write_run(tmp_path, "prior", name=f"prior{i}") for i in range(4)]
    other = write_run(tmp_path, "vqvae", name="other")
    other.write(fingerprint="e" * 64)
    opened.clear()
    assert not any(row.first_stage for row in compare(runs).rows)
    assert sum(path == str(other.path / "run.json") for path in opened) == 1


def test_a_page_ends_though_a_text_is_too_long_for_it(tmp_path: Path) -> None:
    (found,) = compare([write_run(tmp_path, "ae")]).groups
    row = replace(found.rows[0], record=replace(found.rows[0].record, name="x" * PAGE_BYTES))
    write_report(Comparison((group("MNIST", [row]),)), tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()
