"""Tables of samples: one for each protocol, which is printed with it; a reconstruction is shown and
never best.
"""

import io
import math
from copy import deepcopy
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from rich.console import Console

from vqvae_lightning.comparison.budgets import Budget
from vqvae_lightning.comparison.columns import MISSING, best, present, text
from vqvae_lightning.comparison.generation import Sampled, generations
from vqvae_lightning.comparison.table import print_generation
from vqvae_lightning.metrics.measures import Measure, in_table

ALIKE = Budget(steps=100, images_seen=1000, parameters=10)
A = SimpleNamespace(name="run-a", budget=ALIKE)
B = SimpleNamespace(name="run-b", budget=ALIKE)


def figure(sampler="normal", frechet=10.0, **more):
    """One entry of run.json's `generation`."""
    return {
        "sampler": sampler,
        "network": "inception-2015",
        "weights_sha256": "0123456789abcdef" * 4,
        "preprocessing": "as told",
        "samples": 5000,
        "reference": "test",
        "reference_images": 10_000,
        "seed": 0,
        "checkpoint_sha256": "f" * 64,
        "frechet": frechet,
        "precision": 0.5,
        "recall": 0.25,
        **more,
    }


def tables(*figures, run=A):
    return generations([(run, list(figures))])


def terminal(found, width=400):
    output = io.StringIO()
    print_generation(found, Console(file=output, width=width))
    return output.getvalue()


class TestTables:
    @pytest.mark.parametrize(
        "key",
        ["network", "weights_sha256", "preprocessing", "samples", "reference", "reference_images"],
    )
    def test_two_protocols_never_share_one(self, key):
        other = figure(**{key: 77 if key in ("samples", "reference_images") else "other"})
        assert [len(table.rows) for table in tables(figure(), other)] == [1, 1]
        assert all(
            not numbers for table in tables(figure(), other) for numbers in table.best.values()
        )

    def test_samplers_seeds_and_checkpoints_do(self):
        others = figure("mixture"), figure(seed=1), figure(checkpoint_sha256="e" * 64)
        (table,) = tables(figure(), *others)
        assert len(table.rows) == 4

    def test_runs_share_one_in_their_order(self):
        one, two = figure("normal"), figure("mixture", samples=7)
        found = generations([(A, [two, one]), (B, [one]), (B, [])])
        assert [[(row.number, row.run, row.sampler) for row in table.rows] for table in found] == [
            [(1, A, "mixture")],
            [(1, A, "normal"), (2, B, "normal")],
        ]

    def test_runs_without_figures_have_none(self):
        assert generations([(A, []), (B, [])]) == []

    def test_the_best_are_marked_by_their_direction(self):
        (table,) = tables(
            figure(frechet=9.0, precision=0.6, recall=0.3), figure("mixture", recall=0.4)
        )
        assert table.best == {"frechet": {1}, "precision": {1}, "recall": {2}}

    def test_a_reconstruction_is_never_best(self):
        best = figure("reconstruction", frechet=1.0, precision=1.0, recall=1.0)
        (table,) = tables(best, figure(frechet=9.0), figure("mixture"))
        assert table.best["frechet"] == {2}
        assert table.best["precision"] == table.best["recall"] == {2, 3}

    def test_nor_is_it_something_to_be_better_than(self):
        (table,) = tables(figure("reconstruction", frechet=99.0), figure())
        assert not any(table.best.values())

    def test_kid_is_shown_in_thousandths_and_kept_as_it_is(self):
        figures = [figure(kid=0.00123, kid_std=0.5)]
        before = deepcopy(figures)
        (table,) = generations([(A, figures)])
        assert table.rows[0].values["kid"] == pytest.approx(1.23)
        assert figures == before
        assert [column.key for column in table.columns] == ["frechet", "kid", "precision", "recall"]
        assert "1.23" in terminal([table])

    def test_there_are_columns_for_what_some_row_has(self):
        (table,) = tables(figure("prior", class_accuracy=0.75), figure())
        assert [column.key for column in table.columns] == [
            "frechet",
            "precision",
            "recall",
            "class_accuracy",
        ]
        assert text(table.columns[-1], table.rows[0]) == "0.750"
        assert text(table.columns[-1], table.rows[1]) == MISSING
        assert table.best["class_accuracy"] == set()


class TestProtocol:
    def test_the_protocol_of_inception_is_said(self):
        (table,) = tables(figure())
        assert table.title.startswith("FID")
        assert (
            table.protocol
            == "inception-2015 (SHA-256 0123456789ab…; as told); 5,000 samples against the 10,000"
            " test images; precision, recall: 3 neighbours; KID: 100 subsets of 1,000"
        )

    def test_the_protocol_of_few_samples_is_said(self):
        (table,) = tables(figure(samples=300))
        assert "KID: 100 subsets of 300" in table.protocol

    def test_a_distance_by_a_classifier_claims_no_fid(self):
        (table,) = tables(figure(network="classifier-mnist"))
        assert "no FID" in table.title
        assert table.protocol.startswith("classifier-mnist (SHA-256")
        assert "KID" not in table.protocol


class TestTerminal:
    def test_the_terminal_names_run_sampler_and_protocol_of_every_table(self):
        found = tables(
            figure(),
            figure("mixture", 8.0),
            figure("reconstruction", 2.0),
            figure("unigram", samples=7),
        )
        text = terminal(found)
        for table in found:
            assert table.title in text
            assert table.protocol in text
        lines = [line.split() for line in text.splitlines() if line.startswith("run-a")]
        assert [line[:3] for line in lines] == [
            ["run-a", "normal", "10.00"],
            ["run-a", "mixture", "8.00*"],
            ["run-a", "reconstruction", "2.00"],
            ["run-a", "unigram", "10.00"],
        ]

    @pytest.mark.parametrize("width", [50, 80])
    def test_cuts_nothing_off(self, width):
        found = tables(
            figure("reconstruction", 12345.67, kid=0.1, class_accuracy=0.5), figure(kid=0.2)
        )
        text = terminal(found, width)
        assert all(len(line) <= width for line in text.splitlines())
        assert found[0].protocol in " ".join(text.split())
        for number in ("12345.67", "100.00", "200.00", "0.500", "0.250", "reconstruction"):
            assert number in text

    def test_prints_nothing_of_nothing(self):
        assert terminal([]) == ""

    def test_a_name_is_no_markup(self):
        assert "[bold]x" in terminal(
            tables(figure(), run=SimpleNamespace(name="[bold]x", budget=ALIKE))
        )


@dataclass(frozen=True)
class Bound:
    """A row that is comparable only with those of as many draws."""

    number: int
    values: dict[str, float]
    draws: int
    limits: dict[str, int] = field(default_factory=dict)
    budget: Budget = ALIKE


class TestColumns:
    def rows(self, *values):
        return [
            Sampled(i, A, "normal", {} if v is None else {"v": v})
            for i, v in enumerate(values, start=1)
        ]

    @pytest.mark.parametrize(
        ("better", "values", "marked"),
        [
            ("lower", (3.0, 1.0, 2.0), {2}),
            ("higher", (3.0, 1.0, 2.0), {1}),
            ("", (3.0, 1.0, 2.0), set()),
            ("lower", (1.0,), set()),
            ("lower", (1.0, None), set()),
            ("lower", (math.nan, 2.0, 3.0, -math.inf), {2}),
            ("lower", (1.001, 1.004, 1.006), {1, 2}),  # shown alike
        ],
    )
    def test_the_best_is_one_of_several_numbers(self, better, values, marked):
        column = Measure("v", "V", better=better, format=".2f")
        assert best(column, self.rows(*values)) == marked

    def test_there_is_none_among_rows_that_do_not_compare(self):
        column = Measure("v", "V", better="lower", comparable=("draws",))
        rows = [Bound(1, {"v": 1.0}, draws=50), Bound(2, {"v": 2.0}, draws=5)]
        assert best(column, rows) == set()
        alike = [*rows[:1], Bound(2, {"v": 2.0}, draws=50)]
        assert best(column, alike) == {1}
        assert best(column, [*alike, Bound(3, {}, draws=5)]) == {1}

    def test_there_is_none_of_a_measure_that_is_not_ranked(self):
        assert best(Measure("v", "V", better="lower", ranked=False), self.rows(1.0, 2.0)) == set()

    def test_a_limit_stands_beside_its_number(self):
        row = Sampled(1, A, "normal", {"v": 7.0}, limits={"v": 1024})
        assert text(Measure("v", "V", format=".0f"), row) == "7 / 1,024"

    def test_present_are_those_with_a_value_in_their_order(self):
        rows = [Sampled(1, A, "normal", {"recall": 0.0}), Sampled(2, A, "normal", {"frechet": 1.0})]
        assert [column.key for column in present(in_table("samplers"), rows)] == [
            "frechet",
            "recall",
        ]
        assert present(in_table("samplers"), []) == ()


def test_another_seed_of_a_sampler_is_told_apart():
    assert Sampled(1, A, "normal", {}).label == "normal"
    assert Sampled(1, A, "normal", {}, seed=3).label == "normal, seed 3"


def test_other_settings_of_a_draw_are_told_apart():
    usual = {"temperature": 1.0, "top_k": None, "top_p": None, "guidance": 1.0}
    figures = [
        figure("prior") | usual,
        figure("prior") | usual | {"temperature": 0.9, "guidance": 2.0},
    ]
    (table,) = generations([(A, figures)])
    assert [row.label for row in table.rows] == ["prior", "prior, temperature 0.9, guidance 2.0"]
