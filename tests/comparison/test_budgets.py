"""Runs of unequal budgets stand side by side, it is said that they differ, and none is the best."""

import math
from pathlib import Path

import pytest
from run_folders import figure, page, terminal, write_run

from vqvae_lightning.comparison.budgets import Budget, sizes_are_alike, unequal
from vqvae_lightning.comparison.compare import Group, compare
from vqvae_lightning.training.runs import Run


def group(*runs: Run) -> Group:
    (found,) = compare(runs).groups
    return found


def test_a_longer_run_is_not_the_best_and_table_and_page_say_why(tmp_path: Path) -> None:
    short = write_run(tmp_path, "vae", "trainer.steps=250", name="short", psnr=15.0)
    long = write_run(tmp_path, "vae", "trainer.steps=2500", name="long", psnr=25.0)
    comparison = compare([short, long])
    assert not any(comparison.groups[0].best.values())
    said = "Budgets differ: 250 to 2,500 optimizer steps, 32,000 to 320,000 images seen."
    assert said in terminal(comparison)
    html = page(comparison, tmp_path)
    assert said in html
    assert "reconstructs test images best" not in html
    assert "*" not in terminal(comparison)


def test_of_equal_budgets_nothing_is_said_and_the_best_is_named(tmp_path: Path) -> None:
    one = write_run(tmp_path, "vae", name="one", psnr=15.0)
    other = write_run(tmp_path, "ae", name="other", psnr=25.0)
    found = group(one, other)
    assert found.unequal == ""
    assert found.best["psnr"] == {1}  # the AE
    html = page(compare([one, other]), tmp_path)
    assert "Budgets differ" not in html
    assert "other (AE) reconstructs test images best, at 25.00 dB." in html


@pytest.mark.parametrize(
    "override", ["trainer.steps=1250", "data.batch_size=129"], ids=["steps", "images seen"]
)
def test_any_difference_in_length_keeps_the_best_unnamed(tmp_path: Path, override: str) -> None:
    runs = write_run(tmp_path, "ae", name="a"), write_run(tmp_path, "ae", override, name="b")
    assert group(*runs).best["psnr"] == set()


@pytest.mark.parametrize(("parameters", "named"), [(2 * 1234567, True), (2 * 1234567 + 1, False)])
def test_sizes_within_a_factor_of_two_are_alike(
    tmp_path: Path, parameters: int, named: bool
) -> None:
    small, large = write_run(tmp_path, "ae", name="small"), write_run(tmp_path, "ae", name="large")
    large.write(parameters=parameters)
    found = group(small, large)
    assert bool(found.best["psnr"]) is named
    assert bool(found.unequal) is not named


def test_rows_without_a_value_have_no_say_in_its_column(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "ae", name=name, psnr=20.0 + i) for i, name in enumerate("ab")]
    tokenizer = write_run(tmp_path, "vqvae", "trainer.steps=9", name="tok", psnr=float("nan"))
    assert group(*runs, tokenizer).best["psnr"] == {2}


def test_the_budget_of_a_prior_includes_its_tokenizers(tmp_path: Path) -> None:
    tokenizer = write_run(tmp_path, "vqvae", "trainer.steps=750", name="tok")
    prior = write_run(tmp_path, "prior", "trainer.steps=250", "data.batch_size=10")
    vae = write_run(tmp_path, "vae", "trainer.steps=250", "data.batch_size=10")
    (row,) = [row for row in compare([prior, tokenizer]).rows if row.kind.name == "prior"]
    assert row.budget == Budget(1000, 2500 + 750 * 128, 2 * 1234567, has_tokenizer=True)
    assert row.values["steps"] == 250
    found = group(prior, vae)
    assert found.best["total"] == set()
    assert "a prior's include its tokenizer's" in found.unequal


def test_a_bound_on_codes_is_marked_and_not_ranked_beside_an_exact_rate(tmp_path: Path) -> None:
    write_run(tmp_path, "vqvae", name="tok")
    one = write_run(tmp_path, "prior", name="one")
    masked = [
        write_run(
            tmp_path,
            "prior",
            "model.network.name=masked",
            name=name,
            bits_per_code=bits,
            rate=49 * bits * math.log(2),
            bound_draws=4.0,
        )
        for name, bits in (("masked", 3.0), ("other", 3.5))
    ]
    found = group(one, *masked)
    assert found.best["bits_per_code"] == found.best["saved_vs_uniform_bits"] == set()
    assert found.best["total"] == {2}  # each sum is a bound on −log p(x)
    assert group(*masked).best["bits_per_code"] == {1}
    printed = terminal(compare([one, *masked]))
    for text in ("≤ 3.000", "≤ 147.0", "≥ 6.000", "its rate is an upper bound on −log P(codes)"):
        assert text in printed
    assert "≤ 4.000" not in printed
    assert "≤ 3.000" in page(compare([one, *masked]), tmp_path)
    assert "upper bound" not in terminal(compare([one]))


def test_a_prior_whose_tokenizer_is_gone_is_ranked_beside_none_but_its_like(tmp_path: Path) -> None:
    one = write_run(tmp_path, "prior", name="one")
    other = write_run(tmp_path, "prior", name="other", bits_per_code=3.0)
    vae = write_run(tmp_path, "vae")
    for run, sampler in ((one, "prior"), (other, "prior"), (vae, "normal")):
        run.write(generation=[figure(sampler, 5.0)])
    assert group(one, other).best["bits_per_code"] == {2}
    found = group(one, other, vae)
    assert found.generation[0].best["frechet"] == set()
    assert "tokenizers whose folders are gone" in found.unequal


def test_no_budgets_are_equal() -> None:
    assert sizes_are_alike([])
    assert unequal([]) == ""
