"""Which run goes on, from which checkpoint: the newest valid one, of the same settings, or none."""

import os
import shutil

import pytest

from vqvae_lightning.config import ConfigError
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.training.resume import Resumed, check_settings, newest_checkpoint, resumed_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.settings import computed_settings
from vqvae_lightning.verified import write_checkpoint


def experiment(root, *overrides):
    return load_experiment(None, [f"runs={root}", *overrides])


def training(run, step, **more):
    """What a checkpoint holds that a training goes on from."""
    some = {"any": 1}
    of_lightning = {
        "loops": some,
        "callbacks": some,
        "optimizer_states": [some],
        "lr_schedulers": [some],
    }
    settings = computed_settings(run.experiment())
    return {
        "global_step": step,
        "state_dict": some,
        "run": run.record.id,
        "settings": settings,
        **of_lightning,
        **more,
    }


@pytest.fixture
def run(tmp_path):
    """A stopped run with its best checkpoint of step 5 and its last of step 9."""
    made = Run.create(experiment(tmp_path, "name=a"))
    write_checkpoint(made.best, training(made, 5))
    write_checkpoint(made.last, training(made, 9))
    made.write(status="interrupted")
    return made


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_newest_checkpoint_is_that_of_most_steps_whatever_the_files_times(run):
    # A newer file.
    os.utime(run.best)
    os.utime(run.last, (0, 0))
    assert newest_checkpoint(run) == Resumed(run.last, 9)


def test_a_damaged_checkpoint_is_named_and_the_valid_one_taken(run, capsys):
    damage(run.last)
    assert newest_checkpoint(run) == Resumed(run.best, 5)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"{run.last} is damaged" in said


def test_a_checkpoint_of_another_run_is_named_and_passed_over(tmp_path, run, capsys):
    other = Run.create(experiment(tmp_path, "name=b"))
    write_checkpoint(other.last, training(other, 99))
    for name in (other.last.name, f"{other.last.name}.sha256"):
        shutil.copy(other.last.with_name(name), run.last.with_name(name))
    assert newest_checkpoint(run) == Resumed(run.best, 5)
    assert f"is of run {other.record.id}, wanted {run.record.id}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [{"global_step": 10**30}, {"global_step": -5}, {"global_step": "x"},
    {"optimizer_states": []},
              {"loops": {}}, {"callbacks": 5}, {"hyper_parameters": [1]}, {"settings": {"seed": 7}},
              {"settings": {"data.flip": True}}, {"settings": {"optimizer.lr": 0.5}}],
)  # fmt: skip
def test_a_checkpoint_that_no_training_of_the_run_wrote_is_passed_over(run, wrong, capsys):
    write_checkpoint(run.last, training(run, 9, **wrong))
    expected = Resumed(run.last, 9) if "hyper_parameters" in wrong else Resumed(run.best, 5)
    assert newest_checkpoint(run) == expected
    assert capsys.readouterr().out.count("\n") == (0 if "hyper_parameters" in wrong else 1)


def test_without_a_valid_checkpoint_a_run_starts_over(run):
    damage(run.last)
    run.best.unlink()
    assert newest_checkpoint(run) == Resumed(None, 0)


def test_auto_without_a_name_is_the_newest_unfinished_run_with_these_settings(tmp_path, run):
    Run.create(experiment(tmp_path, "name=other", "optimizer.lr=0.5"))
    Run.create(experiment(tmp_path, "name=kind", "kind=vae"))
    finish(Run.create(experiment(tmp_path, "name=done")))
    found = resumed_run(
        experiment(tmp_path, "resume=auto", "trainer.steps=5000", "trainer.devices=2")
    )
    assert found
    assert found.path == run.path
    finish(run)
    assert resumed_run(experiment(tmp_path, "resume=auto")) is None
    assert resumed_run(experiment(tmp_path, "resume=auto", "name=new")) is None
    assert resumed_run(experiment(tmp_path)) is None


def test_auto_takes_a_moved_run_by_its_name(tmp_path, run):
    run.path.rename(tmp_path / "moved")
    found = resumed_run(experiment(tmp_path, "name=moved", "resume=auto"))
    assert found
    assert newest_checkpoint(found).checkpoint == tmp_path / "moved" / "checkpoints" / "last.ckpt"


def test_auto_names_a_run_that_it_cannot_read_and_takes_the_next(tmp_path, run, capsys):
    bad = Run.create(experiment(tmp_path, "name=bad"))
    (bad.path / "config.yaml").write_text("no_such_key: 1\n")
    found = resumed_run(experiment(tmp_path, "resume=auto"))
    assert found
    assert found.path == run.path
    assert "no_such_key" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no_such_key"):
        check_settings(Run.open(bad.path), experiment(tmp_path, "name=bad", "resume=auto"))


def finish(run):
    run.write(status="finished", finished=run.record.created, test={}, parameters=1)


def test_other_settings_are_another_run(tmp_path, run):
    check_settings(
        run, experiment(tmp_path, "trainer.steps=5000", "trainer.devices=2", f"resume={run.path}")
    )
    with pytest.raises(ConfigError, match=r"optimizer\.lr was 0\.001 .* and is 0\.01 now"):
        check_settings(run, experiment(tmp_path, "name=a", "optimizer.lr=0.01"))
