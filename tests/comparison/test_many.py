"""Many runs by one command: what is done is not done again, what was stopped goes on, what fails
names its log.
"""

import pytest
from untrained import TOKENIZER, record

from vqvae_lightning.comparison import many
from vqvae_lightning.comparison.many import evaluate_once, train_once
from vqvae_lightning.config import ConfigError, EvaluateOptions, options, to_dict
from vqvae_lightning.experiment import describe, load_experiment
from vqvae_lightning.training.runs import Run


@pytest.fixture
def asked(monkeypatch):
    """The command lines that would have been run."""
    words: list[list[str]] = []
    monkeypatch.setattr(many, "launch", lambda line, log: words.append(line) or 0)
    return words


def make(root, status="finished", kind="ae", **values) -> Run:
    run = Run(root / "run")
    run.images.mkdir(parents=True)
    (root / "e.yaml").write_text(f"kind: {kind}\nseed: 1\n")
    (run.path / "config.yaml").write_text(describe(load_experiment(root / "e.yaml", [])))
    of_prior = {"tokenizer": TOKENIZER} if kind == "prior" else {}
    return record(run.path, status=status, kind=kind, seed=1, **of_prior, **values)


def test_a_finished_run_is_left_alone(tmp_path, asked):
    make(tmp_path)
    assert train_once(tmp_path, "run", tmp_path / "e.yaml", ["seed=1"]).record.status == "finished"
    assert asked == []


@pytest.mark.parametrize("status", ["finished", "running"])
@pytest.mark.parametrize("setting", ["seed=2", "trainer.steps=750", "model.latent_dim=3"])
def test_a_run_of_other_settings_is_not_taken_for_it(tmp_path, asked, status, setting):
    make(tmp_path, status)
    with pytest.raises(
        ConfigError, match=r"/run was trained with .*, now it is .*; name another folder"
    ):
        train_once(tmp_path, "run", tmp_path / "e.yaml", [setting])
    assert asked == []


def test_what_is_not_finished_goes_on(tmp_path, asked):
    make(tmp_path, "running")
    train_once(tmp_path, "run", tmp_path / "e.yaml", ["seed=1"])
    assert asked == [
        ["train", f"{tmp_path}/e.yaml", "seed=1", f"runs={tmp_path}", "name=run", "resume=auto"]
    ]


def test_a_failure_names_the_log_and_its_last_line(tmp_path, monkeypatch):
    def fails(words, log):
        log.write_text("first\nthe reason\n")
        return 3

    monkeypatch.setattr(many, "launch", fails)
    with pytest.raises(
        ConfigError, match=r"train: run ended with code 3 \(the reason\); see .*run\.log"
    ):
        train_once(tmp_path, "run", tmp_path / "e.yaml", [])


def test_launch_writes_all_output_to_the_log_and_tells_the_exit_code(tmp_path):
    assert many.launch(["compare", f"runs={tmp_path}"], tmp_path / "log") == 2
    assert "there are no finished runs" in (tmp_path / "log").read_text()


ALL = ["representation=true", "representation_images=200", "iwae_samples=5", "fid_samples=7"]


@pytest.mark.parametrize(
    ("kind", "kept"),
    [("ae", [0, 1, 3]), ("vae", [0, 1, 2, 3]), ("vqvae", [0, 1, 2, 3]), ("prior", [3])],
)
def test_an_evaluation_leaves_out_what_its_kind_has_no_use_for(tmp_path, asked, kind, kept):
    run = make(tmp_path, kind=kind)
    evaluate_once(run, ALL)
    assert asked[0] == ["evaluate", str(run.path), *(ALL[i] for i in kept)]


def test_an_evaluation_is_done_once_with_the_same_settings(tmp_path, asked):
    run = make(
        tmp_path, kind="prior", evaluated=to_dict(options(EvaluateOptions, ["fid_samples=7"]))
    )
    evaluate_once(run, ["fid_samples=7"])
    assert asked == []
    evaluate_once(run, ["fid_samples=8"])
    assert asked == [["evaluate", str(run.path), "fid_samples=8"]]


def test_samplers_draw_only_what_is_missing(tmp_path, asked):
    run = make(tmp_path, kind="vae", evaluated=to_dict(EvaluateOptions()))
    evaluate_once(run, [])
    assert asked == [["sample", str(run.path), "sampler=all"]]
    (run.images / "samples-mixture.png").touch()
    evaluate_once(run, [])
    assert len(asked) == 1
