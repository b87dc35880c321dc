"""Run folders: names stay inside their root, settings of a resumed run do not change, records are readable."""

import json
import os
import subprocess
import sys

import pytest

from vqvae_lightning.config import ConfigError, load_experiment
from vqvae_lightning.training.runs import Run, differences, find_runs


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


def test_a_damaged_folder_is_named(tmp_path):
    run = Run.create(experiment(tmp_path, "name=a"))
    (run.path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"there is no file .*a/config\.yaml"):
        run.experiment()
    (run.path / "config.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"^config: while parsing"):
        run.experiment()
    (run.path / "run.json").write_text("")
    with pytest.raises(ConfigError, match=r"run: .*a/run\.json is damaged"):
        find_runs(tmp_path)


HOLD = """
import sys, time
from vqvae_lightning.training.runs import Run
with Run.open(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_trained_by_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path):
    run = Run.create(experiment(tmp_path, "name=a"))
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"a is being trained by process {holder.pid} on "), run.lock():
        pass
    holder.kill()
    holder.communicate()
    with run.lock():
        assert run.info["process"].startswith(f"{os.getpid()} on ")


def test_a_rewound_run_holds_what_was_logged_before_a_step_and_nothing_unfinished(tmp_path):
    run = Run(tmp_path)
    rows = [{"step": step, "loss": 1.0} for step in (0, 1, 1, 2, 3)]
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "val/')
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.ckpt.x.tmp").touch()
    run.rewind(2)
    assert run.metrics_path.read_text() == "".join(json.dumps(row) + "\n" for row in rows[:3])
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_cut_off_line_of_metrics_is_left_out(tmp_path):
    run = Run(tmp_path)
    run.metrics_path.write_text(json.dumps({"step": 1, "val/loss": 2.0}) + '\n{"step": 2, "val/')
    assert run.metrics() == [{"step": 1, "val/loss": 2.0}]


def test_differences_names_dotted_keys():
    a, b = {"x": {"y": 1, "z": 2}, "w": 0}, {"x": {"y": 1, "z": 3}, "v": 0}
    assert differences(a, b) == {"x.z": (2, 3), "w": (0, None), "v": (None, 0)}
