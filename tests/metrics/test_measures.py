"""The table of measures: one name for a number, and one line for all places that show it."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from run_folders import page, terminal, write_run

from vqvae_lightning.comparison.compare import compare
from vqvae_lightning.comparison.dashboard import workspace
from vqvae_lightning.comparison.publish import _results
from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.config import options
from vqvae_lightning.config.commands import Ablation
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.metrics.measures import (
    BOTH,
    MEASURES,
    Agreement,
    Measure,
    Panel,
    best_values,
    dashboard_curves,
    in_progress,
    in_table,
)
from vqvae_lightning.training.callbacks import Progress

ABLATIONS = sorted((Path(__file__).parents[2] / "experiments" / "ablations").glob("*.yaml"))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Measure:
    """A measure that only this test knows, in the table of measures."""
    measure = Measure(
        "sharpness", "Sharpness", "px", "higher", ".1f", BOTH,
        progress=9, panel=Panel("Toys", "Sharpness, px"), curve="sharpness",
    )  # fmt: skip
    monkeypatch.setitem(MEASURES, measure.key, measure)
    return measure


def test_a_measure_in_the_table_is_in_the_comparison_and_ranked(
    toy: Measure, tmp_path: Path
) -> None:
    runs = [write_run(tmp_path, "ae", sharpness=3.0), write_run(tmp_path, "vae", sharpness=4.0)]
    comparison = compare(runs)
    (group,) = comparison.groups
    assert toy in group.columns
    assert group.best["sharpness"] == {2}
    assert "4.0*" in terminal(comparison)
    assert "Sharpness" in page(comparison, tmp_path)
    assert "Sharpness (px)" in _results(comparison).columns


def test_its_learning_curve_is_on_the_page(toy: Measure, tmp_path: Path) -> None:
    run = write_run(tmp_path, "ae")
    with run.metrics_path.open("a") as file:
        file.write('{"step": 7, "val/sharpness": 2.0}\n')
    assert "Toys: sharpness ▲" in page(compare([run]), tmp_path)


def test_it_is_in_the_terminals_line_of_a_validation(
    toy: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    progress, metrics = (
        Progress(),
        {"val/sharpness": torch.tensor(2.5), "val/other": torch.ones(())},
    )
    progress.started = 0.0
    trainer: Any = SimpleNamespace(
        is_global_zero=True, callback_metrics=metrics, global_step=5, max_steps=9
    )
    module: Any = None  # not looked at
    progress.on_validation_end(trainer, module)
    assert capsys.readouterr().out.endswith("val: sharpness 2.5\n")


def test_it_is_in_the_wandb_summary_and_on_the_dashboard(toy: Measure) -> None:
    assert best_values()["val/sharpness"] == "max"
    assert dashboard_curves()["Toys"] == {"Sharpness, px": "val/sharpness"}
    (section,) = [section for section in workspace("team", "p").sections if section.name == "Toys"]
    assert [panel.title for panel in section.panels] == ["Sharpness, px"]


def test_a_measure_of_samples_is_a_column_of_samplers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURES, "density", Measure("density", tables=("samplers",)))
    assert in_table("samplers")[-1].key == "density"


def test_every_measure_stands_under_its_own_name_and_every_position_is_taken_once() -> None:
    assert all(key == measure.key for key, measure in MEASURES.items())
    positions = [measure.progress for measure in MEASURES.values() if measure.progress]
    assert len(set(positions)) == len(positions) == len(in_progress())


def test_a_measure_in_the_page_or_among_codebooks_is_one_of_the_results() -> None:
    assert {*in_table("page"), *in_table("health")} <= {*in_table("results")}


def test_a_row_of_the_comparison_has_what_rows_must_agree_in() -> None:
    fields = {field.name for field in dataclasses.fields(Row)}
    assert all(name in fields or hasattr(Row, name) for name in get_args(Agreement))


def test_what_is_ranked_has_a_direction() -> None:
    assert not any(m.comparable and not m.better for m in MEASURES.values())
    assert all(measure.unit or measure.title for measure in MEASURES.values())


def test_what_a_kind_requires_and_an_ablation_shows_are_measures() -> None:
    assert {name for kind in KINDS.values() for name in kind.required} <= set(MEASURES)
    for file in ABLATIONS:
        assert set(options(Ablation, [], file).metrics) <= set(MEASURES)


def test_units_that_are_shown() -> None:
    assert MEASURES["mse"].shown(0.004) == 4.0
    assert MEASURES["rate"].shown(784.0, 784) == 1.0
    assert MEASURES["psnr"].shown(20.0, 784) == 20.0
