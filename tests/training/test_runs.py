"""Run folders: names stay inside their root, settings of a resumed run do not change, records are
readable.
"""

import errno
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from own_process import command

from vqvae_lightning import storage
from vqvae_lightning.config import ConfigError
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.storage import UNFINISHED
from vqvae_lightning.training import runs
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.search import find_runs
from vqvae_lightning.training.settings import differences


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
    for name, status, finished in (
        ("a", "finished", "2026-02"),
        ("b", "failed", ""),
        ("c", "finished", "2026-01"),
    ):
        made = Run.create(experiment(tmp_path, f"name={name}"), test={}, parameters=1)
        made.write(status=status, finished=finished)
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
        Run.open(run.path)


def test_a_run_is_trained_by_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path):
    run = Run.create(experiment(tmp_path, "name=a"))
    holder = subprocess.Popen(command("hold_run", run.path), stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(ConfigError, match=f"a is being trained by process {holder.pid} on "),
        run.lock(),
    ):
        pass
    holder.kill()
    holder.communicate()
    with run.lock():
        assert (run.record.process or "").startswith(f"{os.getpid()} on ")


def test_a_rewound_run_holds_what_was_logged_before_a_step_and_nothing_unfinished(tmp_path):
    run = Run(tmp_path)
    rows = [{"step": step, "loss": 1.0} for step in (0, 1, 1, 2, 3)]
    run.metrics_path.write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "val/'
    )
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f".last.ckpt.x{UNFINISHED}").write_text("half")
    run.rewind(2)
    assert run.metrics_path.read_text() == "".join(json.dumps(row) + "\n" for row in rows[:3])
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_cut_off_line_of_metrics_is_left_out(tmp_path):
    run = Run(tmp_path)
    run.metrics_path.write_text(json.dumps({"step": 1, "val/loss": 2.0}) + '\n{"step": 2, "val/')
    assert run.metrics() == [{"step": 1, "val/loss": 2.0}]


# What run.json holds in place of what a training wrote, and what is said of it.
BAD_RECORDS: dict[str, Any] = {
    "no mapping": ([], "wanted a mapping"),
    "nothing": (None, "wanted a mapping"),
    "no kind": ({"kind": None}, "run.json.kind is None, wanted text"),
    "a kind that is none": ({"kind": "gan"}, "kind is 'gan', wanted one of ae"),
    "a dataset that is none": (
        {"dataset": "imagenet"},
        "dataset is 'imagenet', wanted one of mnist",
    ),
    "a status that is none": ({"status": "done"}, "status is 'done', wanted one of running"),
    "no identity": ({"id": None}, "run.json.id is None, wanted text"),
    "a number for a text": ({"name": 3}, "run.json.name is 3, wanted text"),
    "a text for a number": ({"seed": "0"}, "seed is '0', wanted a whole number"),
    "a truth for a number": ({"seed": True}, "seed is True, wanted a whole number"),
    "finished without its end": ({"finished": None}, "run.json.finished is None, wanted text"),
    "test metrics that are a list": ({"test": [1]}, "run.json.test is list, wanted a mapping"),
    "a test metric that is a text": ({"test": {"test/psnr": "x"}}, "psnr is 'x', wanted a number"),
    "a number beyond all": ({"test": {"test/psnr": 10**400}}, ", wanted a number"),
    "figures that are none": ({"generation": [1]}, "run.json.generation.0 is 1, wanted a mapping"),
    "a tokenizer that is none": ({"tokenizer": "x"}, "run.json.tokenizer is 'x', wanted a mapping"),
    "a tokenizer without its codes": ({"tokenizer": {}}, "run.json.tokenizer has no run"),
    "data that are none": ({"data": 5}, "run.json.data is 5, wanted a mapping"),
    "a prior without a tokenizer": ({"kind": "prior"}, "run.json has no tokenizer"),
    "what a terminal obeys": ({"name": "a\x1b[2J"}, "holds control characters"),
    "what a terminal obeys, deep": ({"versions": {"x\x9b": "1"}}, "holds control characters"),
}


@pytest.mark.parametrize("record", BAD_RECORDS)
def test_a_record_that_no_training_writes_is_left_out_of_a_search_and_refused_by_name(
    tmp_path, capsys, record
):
    for name in ("bad", "good"):
        Run.create(experiment(tmp_path, f"name={name}"), test={}, parameters=1)
    finish = {"status": "finished", "finished": "2026"}
    Run(tmp_path / "good").write(**finish)
    values, said = BAD_RECORDS[record]
    path = tmp_path / "bad" / "run.json"
    known = json.loads(path.read_text()) | finish
    path.write_text(json.dumps(known | values if isinstance(values, dict) else values))
    assert [run.name for run in find_runs(tmp_path)] == ["good"]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert "bad/run.json" in error
    assert "\x1b" not in error
    with pytest.raises(ConfigError, match=r"bad/run\.json is damaged"):
        Run.open(tmp_path / "bad")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b"9" * 10_000])
def test_a_record_that_is_no_json_is_left_out_of_a_search(tmp_path, capsys, content):
    run = Run.create(experiment(tmp_path, "name=bad"))
    (run.path / "run.json").write_bytes(content)
    assert find_runs(tmp_path) == []
    assert "bad/run.json is damaged" in capsys.readouterr().err


def test_a_search_passes_over_what_is_no_file(tmp_path):
    (tmp_path / "folder" / "run.json").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "run.json")
    assert find_runs(tmp_path) == []


@pytest.mark.parametrize(
    "part", ["images", "checkpoints", "codes", "wandb", "config.yaml", "metrics.jsonl", "run.json",
             "checkpoints/last.ckpt", "codes/mnist.npz"],
)  # fmt: skip
def test_a_link_in_a_run_folder_is_refused_and_what_it_points_to_stays(tmp_path, part):
    run, outside = Run.create(experiment(tmp_path / "runs", "name=a")), tmp_path / "outside"
    path = run.path / part
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        path.rmdir()
    if path.is_file():
        path.rename(outside)
    else:
        outside.mkdir()
        (outside / "holiday.png").touch()
    path.symlink_to(outside)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=f"a/{part} is a link, wanted a "):
        Run.open(run.path)
    assert find_runs(tmp_path / "runs") == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_below_wandb_is_refused_if_it_leads_out_of_the_run(tmp_path):
    run = Run.create(experiment(tmp_path / "runs", "name=a"))
    (run.path / "wandb" / "offline-run-1").mkdir(parents=True)
    (run.path / "wandb" / "latest-run").symlink_to("offline-run-1")
    (run.path / "wandb" / "offline-run-1" / "core.log").symlink_to(tmp_path / "core.log")
    Run.open(run.path)
    (run.path / "wandb" / "wandb").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="wandb/wandb is a link that leads out of the run folder"):
        Run.open(run.path)


def test_lines_that_no_logger_writes_are_left_out(tmp_path):
    run = Run(tmp_path)
    lines = [
        '{"step": 1, "val/loss": 2.0}',
        "[1]",
        "3",
        "null",
        '"text"',
        '{"val/loss": 1}',
        '{"step": "x"}',
        '{"step": 2, "val/loss": "high", "val/psnr": 3}',
        "[" * 99_999,
    ]
    run.metrics_path.write_text("\n".join(lines))
    assert run.metrics() == [{"step": 1, "val/loss": 2.0}, {"step": 2, "val/psnr": 3}]


def test_pictures_are_files_and_nothing_that_only_has_the_name_of_one(tmp_path):
    run = Run.create(experiment(tmp_path, "name=a"))
    (run.images / "real.png").touch()
    (run.images / "linked.png").symlink_to(run.images / "real.png")
    os.mkfifo(run.images / "pipe.png")
    (run.images / "folder.png").mkdir()
    assert [path.name for path in run.pictures()] == ["real.png"]


@pytest.mark.parametrize("where", ["mkdir", "config.yaml", "run.json", "rename"])
def test_a_run_folder_is_whole_or_its_name_is_free(tmp_path, monkeypatch, where):
    def full(*arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail(whole):
        return lambda path, data: full() if path.name == where else whole(path, data)

    if where in ("mkdir", "rename"):
        monkeypatch.setattr(Path, where, full)
    else:
        monkeypatch.setattr(runs, "write_atomic", fail(storage.write_atomic))
        monkeypatch.setattr(storage, "write_atomic", fail(storage.write_atomic))
    with pytest.raises(ConfigError, match="No space left on device"):
        Run.create(experiment(tmp_path, "name=a"))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert Run.create(experiment(tmp_path, "name=a")).path == tmp_path / "a"


def test_a_killed_creation_leaves_the_name_free_and_is_swept_by_the_next(tmp_path):
    subprocess.run(command("create_run_killed", tmp_path), timeout=60)
    assert [path.name.startswith(".a.") for path in tmp_path.iterdir()] == [True]
    assert find_runs(tmp_path) == []
    Run.create(experiment(tmp_path, "name=a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_trainings_without_a_name_that_begin_in_one_second_have_folders_of_their_own(tmp_path):
    made = [Run.create(experiment(tmp_path)) for _ in range(3)]
    assert len({run.path for run in made}) == len({run.record.id for run in made}) == 3
    assert [run.record.name for run in made] == [run.name for run in made]


def test_an_empty_folder_is_nobodys_and_one_with_something_in_it_is_somebodys(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    Run.check_new(experiment(tmp_path, "name=empty"))
    Run.create(experiment(tmp_path, "name=empty"))
    for refused in (Run.check_new, Run.create):
        with pytest.raises(ConfigError, match=r"full exists and is no run folder; choose another"):
            refused(experiment(tmp_path, "name=full"))
        with pytest.raises(
            ConfigError, match=r"empty exists already; choose another name, or go on"
        ):
            refused(experiment(tmp_path, "name=empty"))


def test_writers_at_once_lose_nothing(tmp_path):
    run = Run.create(experiment(tmp_path, "name=a"))

    def write(writer):
        for number in range(10):
            Run(run.path).write(**{f"key-{writer}-{number}": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    values = json.loads((run.path / "run.json").read_text())
    assert sum(key.startswith("key-") for key in values) == 80


def test_differences_names_dotted_keys():
    a, b = {"x": {"y": 1, "z": 2}, "w": 0}, {"x": {"y": 1, "z": 3}, "v": 0}
    assert differences(a, b) == {"x.z": (2, 3), "w": (0, None), "v": (None, 0)}


def test_a_mistyped_run_is_told_the_nearest_beside_it_or_in_runs_or_else_what_there_is(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("mnist-vqvae-s0", "mnist-ae-s0"):
        Run.create(experiment("runs", f"name={name}"))
    for typed in ("runs/mnist-vqva-s0", "mnist-vqvae-s0", "elsewhere/mnist-vqvae-s1"):
        with pytest.raises(ConfigError, match=r"; did you mean runs/mnist-vqvae-s0\?$"):
            Run.open(typed)
    with pytest.raises(ConfigError, match=r"; known: runs/mnist-ae-s0, runs/mnist-vqvae-s0$"):
        Run.open("runs/x")
    Path("runs/empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty is no run folder \(it holds no run\.json\)$"):
        Run.open("runs/empty")
