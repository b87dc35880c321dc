"""A study trains every kind with every seed once, goes on where it was stopped, and sums up what it
found.
"""

import io
import statistics

import pytest
import small
from rich.console import Console
from untrained import record

from vqvae_lightning.comparison import study
from vqvae_lightning.config import ConfigError, StudyOptions
from vqvae_lightning.evaluation import fidelity
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.evaluators import EVALUATORS
from vqvae_lightning.training.runs import Run


@pytest.fixture
def workplace(tmp_path, calls, settings):
    """Tiny experiment files, and options and settings of a study of them."""
    files = tmp_path / "experiments" / "mnist"
    files.mkdir(parents=True)
    trunk = "  trunk: {hidden: 8, residual_hidden: 4, residual_blocks: 1}\n"
    (files / "ae.yaml").write_text(f"kind: ae\nmodel:\n{trunk}")
    (files / "vae.yaml").write_text(f"kind: vae\nmodel:\n{trunk}")
    (files / "vqvae.yaml").write_text(
        f"kind: vqvae\nmodel:\n  quantizer: {{codebook_size: 16}}\n  latent_dim: 8\n{trunk}"
    )
    (files / "prior.yaml").write_text(
        "kind: prior\nmodel: {network: {layers: 1, width: 16, heads: 2}}\n"
    )
    (files / "prior_masked.yaml").write_text(
        "kind: prior\nmodel: {network: {name: masked, layers: 1, width: 16, heads: 2}}\n"
    )
    for kind in ("ae_flow", "vae_flow"):
        network = "{layers: 1, width: 16}"
        (files / f"{kind}.yaml").write_text(f"kind: {kind}\nmodel: {{network: {network}}}\n")
    options = StudyOptions(
        seeds=2, runs=str(tmp_path / "study"), experiments=str(tmp_path / "experiments")
    )
    return options, [*settings, "representation=false"], calls


def test_every_recipe_and_seed_once_then_nothing_more(workplace):
    options, settings, calls = workplace
    recipes = study.study(options, settings)
    names = {recipe: [run.path.name for run in runs] for recipe, runs in recipes.items()}
    assert names == {
        name: [f"{name}-s0", f"{name}-s1"] for name in (*small.compared(), "prior_masked")
    }
    last = {recipe: runs[1].record for recipe, runs in recipes.items()}
    assert {found.status for found in last.values()} == {"finished"}
    learned = {recipe: found.source.run for recipe, found in last.items() if found.source}
    assert learned == {
        "ae_flow": "ae-s1", "vae_flow": "vae-s1", "prior": "vqvae-s1", "prior_masked": "vqvae-s1"
    }  # fmt: skip
    assert {found.seed for found in last.values()} == {1}
    trained = [word for call in calls for word in call if word.startswith("name=")]
    assert trained == [f"name={name}-s{seed}" for seed in (0, 1) for name in names]
    study.study(options, settings)
    assert [word for call in calls for word in call if word.startswith("name=")] == trained


def test_a_stopped_run_goes_on_and_one_without_a_checkpoint_starts_over(workplace):
    options, settings, calls = workplace
    options.seeds = 1
    recipes = study.study(options, settings)
    ae, vae = recipes["ae"][0], recipes["vae"][0]
    ae.write(status="failed")
    vae.write(status="failed")
    vae.last.unlink()
    vae.best.unlink()
    before = ae.last.stat().st_mtime_ns
    calls.clear()
    study.study(options, settings)
    assert [words[0] for words in calls] == ["train", "evaluate", "sample"] * 2
    assert ae.last.stat().st_mtime_ns == before  # it had all its steps
    assert vae.last.is_file()
    assert {run.record.status for run in (ae, vae)} == {"finished"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainer.stepps=3"], "unknown key"),
        (["data.batch_size=4000"], "there are only 280 training images"),
        (["name=a/b"], "name: got 'a/b'"),
        (["guidance=2"], "nothing is drawn with fid_samples=0"),
        (["fid_samples=1"], "wanted 0, or at least 2"),
        (["fid_samples=65"], "there are only 64 test images to reconstruct"),
        (
            ["fid_samples=10", "fid_network=classifier", "guidance=2"],
            "this run was trained with model.label_dropout=0",
        ),
        (["fid_samples=10", "fid_network=classifier"], "vqvae classifier dataset=mnist"),
        (
            ["representation=true", "representation_images=281"],
            "representation_images: got 281, but there are only 280 training images",
        ),
        (["representation_images=9"], "representation_images: got 9, wanted at least 10"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(workplace, words, line, monkeypatch):
    options, settings, calls = workplace
    if "guidance=2" in words:  # of the last kind that is looked at
        monkeypatch.setattr(fidelity, "feature_network", lambda *_: None)
    given = [
        word
        for word in settings
        if word.partition("=")[0] not in {own.partition("=")[0] for own in words}
    ]
    with pytest.raises(ValueError, match=line):
        study.study(options, [*given, *words])
    assert calls == []


class Sceptic(Evaluator):
    """An evaluator of a user's own: every run gets it, and no prior can have it."""

    def asked(self, options):
        return True

    def refuses(self, plan, options):
        return f"sceptic: {plan.path} is a prior" if plan.kind.stage == 2 else None

    def measure(self, subject, options, known):
        raise AssertionError("it is refused before")


def test_every_evaluator_is_asked_before_anything_runs(workplace, monkeypatch):
    options, settings, calls = workplace
    monkeypatch.setitem(EVALUATORS, "sceptic", Sceptic())
    with pytest.raises(ConfigError, match=r"sceptic: .*/mnist/prior\.yaml is a prior"):
        study.study(options, settings)
    assert calls == []


def test_settings_of_the_evaluation_do_not_reach_the_training(workplace):
    options, settings, calls = workplace
    options.seeds = 1
    study.study(options, [*settings, "fid_network=classifier"])
    for words in calls:
        assert ("fid_network=classifier" in words) == (words[0] == "evaluate"), words
        assert ("trainer.steps=2" in words) == (words[0] == "train"), words
    evaluated = [words for words in calls if words[0] == "evaluate"]
    assert len(evaluated) == 7
    # the study's own default is true
    assert all("representation=false" in words for words in evaluated[:3])
    for wrong in ("fid_network=none", "sampler=gaussian"):  # no sampler is every kind's
        with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
            study.study(options, [*settings, wrong])


def test_mean_and_spread_by_hand(tmp_path):
    for seed, psnr in enumerate((20.0, 22.0, 27.0)):
        figure = {
            "sampler": "normal",
            "network": "inception-2015",
            "samples": 10_000,
            "frechet": psnr / 2,
            "weights_sha256": "7ff4" * 16,
            "checkpoint_sha256": "c" * 64,
            "reference": "test",
            "seed": 0,
        }
        record(tmp_path / f"ae-s{seed}", test={"test/psnr": psnr}, generation=[figure])
    runs = {"wide": [Run(tmp_path / f"ae-s{seed}") for seed in range(3)]}
    spread = study.spreads(runs)["psnr",]["wide"]
    assert (spread.mean, spread.count) == (23.0, 3)
    assert spread.deviation == pytest.approx(statistics.stdev([20, 22, 27]))
    assert str(spread) == "23.0 ± 3.6"
    (row,) = study.sampler_spreads(runs).items()
    assert row[0] == ("wide", "normal", "inception-2015 7ff47ff4, 10,000 samples, test, seed 0")
    assert {column: str(spread) for column, spread in row[1].items()} == {
        "Fréchet distance": "11.5 ± 1.8"
    }


@pytest.mark.parametrize(
    ("mean", "deviation", "count", "text"),
    [(4.3, 0.2164, 3, "4.30 ± 0.22"), (0.0021834, 0.0000193, 3, "0.002183 ± 0.000019"),
     (859.51, 158.17, 3, "860 ± 158"),
     (512.0, 0.0, 3, "512 ± 0"), (26.1755, 0.0, 1, "26.18"), (10.0, 9.96, 2, "10.0 ± 10.0")],
)  # fmt: skip
def test_a_spread_shows_the_digits_that_its_deviation_allows(mean, deviation, count, text):
    assert str(study.Spread(mean, deviation, count)) == text


def test_spreads_too_wide_for_the_terminal_go_on_below():
    names = [f"a_metric_of_number_{i}" for i in range(8)]
    summary: dict[tuple[str, ...], dict[str, study.Spread]] = {
        ("ema",): {name: study.Spread(1.5, 0.25, 3) for name in names}
    }
    console = Console(width=80, record=True, file=io.StringIO())
    study.print_spreads(summary, ("variant",), console)
    text = console.export_text()
    assert all(name in text for name in names)
    assert text.count("1.50 ± 0.25") == 8
    assert max(map(len, text.splitlines())) <= 80
