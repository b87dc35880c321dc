"""Which run goes on, from which checkpoint: the newest valid one, of the same settings, or none."""

import os

import pytest

from vqvae_lightning.config import ConfigError, load_experiment
from vqvae_lightning.storage import write_checkpoint
from vqvae_lightning.training.resume import Resumed, check_settings, find_resumed
from vqvae_lightning.training.runs import Run


def experiment(root, *overrides):
    return load_experiment(None, [f"runs={root}", *overrides])


@pytest.fixture
def run(tmp_path):
    """A stopped run with its best checkpoint of step 5 and its last of step 9."""
    made = Run.create(experiment(tmp_path, "name=a"))
    write_checkpoint(made.best, {"global_step": 5})
    write_checkpoint(made.last, {"global_step": 9})
    made.write(status="interrupted")
    return made


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def same(found, run, checkpoint, step):
    return found._replace(run=found.run.path) == Resumed(run.path, checkpoint, step)


@pytest.mark.parametrize("resume", ["auto", "RUN"])
def test_the_newest_checkpoint_is_that_of_most_steps_whatever_the_files_times(tmp_path, run, resume):
    os.utime(run.best)  # a newer file
    os.utime(run.last, (0, 0))
    settings = experiment(tmp_path, "name=a", f"resume={resume.replace('RUN', str(run.path))}")
    assert same(find_resumed(settings), run, run.last, 9)


@pytest.mark.parametrize("resume", ["auto", "RUN"])
def test_a_damaged_checkpoint_is_named_and_the_valid_one_taken(tmp_path, run, resume, capsys):
    damage(run.last)
    settings = experiment(tmp_path, "name=a", f"resume={resume.replace('RUN', str(run.path))}")
    assert same(find_resumed(settings), run, run.best, 5)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"{run.last} is damaged" in said


def test_without_a_valid_checkpoint_a_named_run_is_an_error_and_auto_starts_it_over(tmp_path, run):
    damage(run.last)
    run.best.unlink()
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        find_resumed(experiment(tmp_path, f"resume={run.path}"))
    assert same(find_resumed(experiment(tmp_path, "name=a", "resume=auto")), run, None, 0)


def test_auto_without_a_name_is_the_newest_unfinished_run_with_these_settings(tmp_path, run):
    Run.create(experiment(tmp_path, "name=other", "optimizer.lr=0.5"))
    Run.create(experiment(tmp_path, "name=kind", "kind=vae"))
    Run.create(experiment(tmp_path, "name=done")).write(status="finished")
    found = find_resumed(experiment(tmp_path, "resume=auto", "trainer.steps=5000", "trainer.devices=2"))
    assert same(found, run, run.last, 9)
    run.write(status="finished")
    assert find_resumed(experiment(tmp_path, "resume=auto")) is None
    assert find_resumed(experiment(tmp_path, "resume=auto", "name=new")) is None
    assert find_resumed(experiment(tmp_path)) is None


def test_auto_takes_a_moved_run_by_its_name(tmp_path, run):
    run.path.rename(tmp_path / "moved")
    found = find_resumed(experiment(tmp_path, "name=moved", "resume=auto"))
    assert found.checkpoint == tmp_path / "moved" / "checkpoints" / "last.ckpt"


def test_other_settings_are_another_run(tmp_path, run):
    check_settings(run, experiment(tmp_path, "trainer.steps=5000", "trainer.devices=2", f"resume={run.path}"))
    with pytest.raises(ConfigError, match=r"optimizer\.lr was 0\.001 .* and is 0\.01 now"):
        check_settings(run, experiment(tmp_path, "name=a", "optimizer.lr=0.01"))
