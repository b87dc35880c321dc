"""A kind of run that only this test knows is compared, printed and shown as every other."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import run_folders
import small
from run_folders import check, figure, page, terminal, write_run

from vqvae_lightning.comparison.compare import Comparison, compare
from vqvae_lightning.comparison.many import evaluation_overrides
from vqvae_lightning.comparison.study import experiment_files
from vqvae_lightning.config import ConfigError, StudyOptions
from vqvae_lightning.kinds import KINDS, Note
from vqvae_lightning.models.likelihoods import GaussianLikelihood
from vqvae_lightning.models.settings import VAEConfig


@dataclass
class ToyConfig(VAEConfig):
    """Settings of a kind that only this test knows."""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind `toy`, which is in the table of kinds."""
    kind = replace(
        KINDS["vae"],
        name="toy",
        title="Toy",
        config_at=f"{__name__}:ToyConfig",
        colours=("#123456", "#abcdef"),
        mark="diamond",
        required=("distortion", "rate"),
        notes=(Note("Toy: it plays."), Note("Toy: never seen.", unless=("latent_dim", 16))),
        samples="drawn by hand.",
    )
    monkeypatch.setitem(KINDS, "toy", kind)
    monkeypatch.setitem(run_folders.TESTED, "toy", run_folders.TESTED["vae"])


@pytest.fixture
def compared(toy: None, tmp_path: Path) -> Comparison:
    """A run of that kind, given first, beside one of each other kind."""
    run = write_run(tmp_path, "toy")
    run.write(generation=[figure("toys", 2.0)])
    runs = [write_run(tmp_path, kind, name="tok" if kind == "vqvae" else "")
            for kind in small.compared() if kind != "toy"]  # fmt: skip
    return compare([run, *runs])


def test_its_row_stands_in_the_order_of_the_table_of_kinds(compared: Comparison) -> None:
    assert [row.kind.name for row in compared.rows] == small.compared()
    toy = compared.rows[-1]
    assert {"psnr", "distortion", "rate_bits", "total", "active_units"} <= set(toy.values)
    assert toy.limits == {"active_units": 16}


def test_it_is_printed_with_its_title_and_notes(compared: Comparison) -> None:
    text = terminal(compared)
    line = next(line for line in text.splitlines() if line.startswith("toy-run"))
    assert line.split()[1] == "Toy"
    assert "7 / 16" in line
    assert "Toy: it plays." in text
    assert "Toy: never seen." not in text


def test_it_is_on_the_page_in_its_colours(compared: Comparison, tmp_path: Path) -> None:
    html = page(compared, tmp_path)
    check(html)
    assert ".kind-toy { --c: #123456 }" in html
    assert ".kind-toy { --c: #abcdef }" in html
    assert '<td class="text">Toy</td>' in html
    check(page(Comparison((compared.groups[0],)), tmp_path))


def test_a_page_of_it_alone(toy: None, tmp_path: Path) -> None:
    check(page(compare([write_run(tmp_path, "toy")]), tmp_path))


def test_a_kind_that_measures_next_to_nothing(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = replace(KINDS["toy"], required=(), has_density=False)
    monkeypatch.setitem(KINDS, "toy", bare)
    run = write_run(tmp_path, "toy")
    run.write(test={})
    run.metrics_path.unlink()
    (row,) = compare([run]).rows
    assert set(row.values) == {"steps", "images_seen", "parameters"}
    check(page(compare([run]), tmp_path))


@pytest.mark.parametrize(
    ("changed", "one_pass", "unused"),
    [
        ({}, True, set()),
        ({"has_density": False}, True, {"iwae_samples"}),
        ({"stage": 2}, True, {"representation"}),
        ({"stage": 2}, False, {"iwae_samples", "representation"}),
        ({"stage": 2, "has_codes": True}, True, {"iwae_samples", "representation"}),
    ],
)
def test_an_evaluation_of_it_leaves_out_what_it_cannot_be_asked(
    toy: None, changed: dict[str, object], one_pass: bool, unused: set[str]
) -> None:
    # The fields are of different types.
    kind = replace(KINDS["toy"], **changed)  # type: ignore[arg-type]
    likelihood = GaussianLikelihood.Config()
    model = SimpleNamespace(one_pass=one_pass, likelihood=likelihood, class_conditional=False)
    experiment = SimpleNamespace(model=model)
    plan: Any = SimpleNamespace(kind=kind, path="runs/toy", experiment=experiment)
    overrides = evaluation_overrides(plan, ["representation=true", "iwae_samples=5"])
    keys = {override.partition("=")[0] for override in overrides}
    assert keys == {"representation", "iwae_samples"} - unused


def test_a_study_is_of_the_kinds_that_have_an_experiment_file(toy: None, tmp_path: Path) -> None:
    asked = StudyOptions(experiments=str(tmp_path))
    with pytest.raises(ConfigError, match=r"mnist has no experiment file, wanted one of ae\.yaml"):
        experiment_files(asked)
    (tmp_path / "mnist").mkdir()
    for kind in ("toy", "ae", "other"):
        (tmp_path / "mnist" / f"{kind}.yaml").touch()
    assert list(experiment_files(asked)) == ["ae", "toy"]
    asked.recipes = ["other", "ae"]
    assert list(experiment_files(asked)) == ["other", "ae"]
    asked.recipes = ["ae", "another"]
    with pytest.raises(ConfigError, match=r"recipes: got another, but .*mnist has no another.yaml"):
        experiment_files(asked)
