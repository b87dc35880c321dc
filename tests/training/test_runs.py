"""Run folders: names stay inside their root, settings of a resumed run do not change, records are readable."""

import json

import pytest

from vqvae_lightning.config import ConfigError, load_experiment
from vqvae_lightning.training.runs import Run, check_resume, differences, find_runs


def experiment(root, *overrides):
    return load_experiment(None, [f"runs={root}", *overrides])


@pytest.mark.parametrize("name", ["../x", "/tmp/x", ".hidden", "a/b", "x" * 101, "a b", "a\0"])
def test_names_that_could_leave_the_root_are_refused(tmp_path, name):
    settings = experiment(tmp_path)
    settings.name = name
    with pytest.raises(ConfigError, match="name: got"):
        Run.create(settings)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_is_refused_and_its_folder_kept(tmp_path):
    run = Run.create(experiment(tmp_path, "name=a"))
    before = (run.path / "run.json").read_text()
    with pytest.raises(ConfigError, match="exists already"):
        Run.create(experiment(tmp_path, "name=a"))
    assert (run.path / "run.json").read_text() == before


def test_a_run_gives_back_its_settings(tmp_path):
    settings = experiment(tmp_path, "name=a", "kind=vae", "model.beta=2")
    assert Run.create(settings).experiment() == settings


def test_only_finished_runs_are_found_newest_last(tmp_path):
    for name, status, finished in (("a", "finished", "2026-02"), ("b", "failed", ""), ("c", "finished", "2026-01")):
        Run.create(experiment(tmp_path, f"name={name}")).write(status=status, finished=finished)
    assert [run.path.name for run in find_runs(tmp_path)] == ["c", "a"]
    assert find_runs(tmp_path, kind="prior") == []
    assert find_runs(tmp_path, dataset="cifar10") == []


def test_resume_refuses_other_settings_and_missing_checkpoints(tmp_path):
    settings = experiment(tmp_path, "name=a")
    run = Run.create(settings)
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        check_resume(run, settings)
    run.last.parent.mkdir()
    run.last.touch()
    check_resume(run, experiment(tmp_path, "name=a", "trainer.steps=5000", "trainer.devices=2", f"resume={run.path}"))
    with pytest.raises(ConfigError, match=r"optimizer\.lr was 0\.001 .* and is 0\.01 now"):
        check_resume(run, experiment(tmp_path, "name=a", "optimizer.lr=0.01"))


def test_a_cut_off_line_of_metrics_is_left_out(tmp_path):
    run = Run(tmp_path)
    run.metrics_path.write_text(json.dumps({"step": 1, "val/loss": 2.0}) + '\n{"step": 2, "val/')
    assert run.metrics() == [{"step": 1, "val/loss": 2.0}]


def test_differences_names_dotted_keys():
    a, b = {"x": {"y": 1, "z": 2}, "w": 0}, {"x": {"y": 1, "z": 3}, "v": 0}
    assert differences(a, b) == {"x.z": (2, 3), "w": (0, None), "v": (None, 0)}
