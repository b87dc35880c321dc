"""`vqvae runs`: every run folder is there with what can be said of it, and nothing of a folder is
believed that its record does not hold.
"""

import json
import os
import platform
from contextlib import nullcontext
from pathlib import Path

import pytest
from filelock import FileLock
from run_folders import write_run

from vqvae_lightning import cli
from vqvae_lightning.comparison.overview import overview, overviews
from vqvae_lightning.training.record import RUN_LOCK
from vqvae_lightning.training.runs import Run


def log(run: Run, *rows: dict[str, float]) -> None:
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_finished_run_shows_its_test_and_an_unfinished_one_its_last_validation(
    tmp_path: Path,
) -> None:
    done = write_run(tmp_path, "vqvae", "trainer.steps=150", "trainer.validate_every=50")
    half = write_run(
        tmp_path, "vqvae", "trainer.steps=300", "trainer.validate_every=50", name="half"
    )
    half.write(status="interrupted", test=None, finished=None)
    log(
        half,
        {"step": 49, "val/loss": 2.0, "val/psnr": 10.0},
        {"step": 99, "val/loss": 1.0, "val/psnr": 20.0, "val/distortion": 784.0},
        {"step": 124, "train/loss": 1.0},
    )
    log(done, {"step": 149, "val/loss": 9.0}, {"step": 150, "test/loss": 1.0})
    first, second = overview(done.path), overview(half.path)
    assert (first.status, first.step, first.steps, first.split) == ("finished", 150, 150, "test")
    assert first.figures == pytest.approx({"psnr": 25, "perplexity": 300, "distortion": 90 / 784})
    assert (second.status, second.step, second.steps) == ("interrupted", 125, 300)
    assert (second.split, second.figures) == ("val", {"psnr": 20.0, "distortion": 1.0})


def test_a_run_that_failed_before_its_first_step_is_listed_without_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ae")
    run.write(status="failed", test=None, finished=None)
    run.metrics_path.unlink()
    (run.path / "config.yaml").unlink()
    found = overview(run.path)
    assert (found.status, found.step, found.steps) == ("failed", None, None)
    assert (found.split, found.figures) == ("", {})


@pytest.mark.parametrize(
    ("process", "held", "status"),
    [
        (f"{os.getpid()} on {platform.node()}", True, "running"),
        (f"{os.getpid()} on {platform.node()}", False, "killed"),
        (f"{2**31 - 1} on another-machine", False, "running"),
        (None, False, "running"),
    ],
    # Both workers of a suite must give a test the same name.
    ids=["held", "not held, though the number is another process's", "another machine", "none"],
)
def test_a_run_whose_lock_ended_with_its_process_on_this_machine_is_not_called_running(
    tmp_path: Path, process: str | None, held: bool, status: str
) -> None:
    run = write_run(tmp_path, "ae")
    run.write(status="running", process=process, test=None, finished=None)
    with FileLock(run.path / RUN_LOCK) if held else nullcontext():
        before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
        assert overview(run.path).status == status
        assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_what_a_foreign_folder_holds_reaches_no_terminal_and_hides_no_other_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "ae", name="good")
    for name, text in (
        ("steering", '{"kind": "ae", "name": "\\u001b[2J"}'),
        ("list", "[1]"),
        ("cut", '{"kind": '),
        ("empty", ""),
        ("odd\x1b[2Jname", "{}"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    linked = write_run(tmp_path, "ae", name="linked")
    linked.metrics_path.unlink()
    linked.metrics_path.symlink_to("/etc/passwd")
    found = cli.runs([f"runs={tmp_path}"])
    said = capsys.readouterr()
    assert [run.name for run in found] == ["good"]
    assert said.err.count("left out  ") == len(said.err.splitlines()) == 6
    assert "\x1b" not in said.out + said.err


def test_lines_of_a_log_that_are_cut_or_no_numbers_are_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ae")
    run.write(status="interrupted", test=None, finished=None)
    lines = [
        '{"step": 9, "val/loss": 1, "val/psnr": 30}',
        '{"step": "x"}',
        "[]",
        '{"step": true}',
        '{"step": 12, "v',
    ]
    run.metrics_path.write_text("\n".join(lines))
    found = overview(run.path)
    assert (found.step, found.figures) == (10, {"psnr": 30})


def test_runs_are_in_the_order_in_which_they_began_and_of_the_dataset_that_is_named(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, "prior")  # made a day later
    write_run(tmp_path, "ae")
    write_run(tmp_path, "vae", dataset="cifar10")
    assert [run.name for run in overviews(tmp_path)] == ["ae_run", "vae_run", "prior_run"]
    assert [run.name for run in overviews(tmp_path, "cifar10")] == ["vae_run"]


def test_runs_of_own_images_are_listed_by_the_path_of_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {name: write_run(tmp_path, "ae", name=name) for name in ("dataset", "photos", "other")}
    for name in ("photos", "other"):
        config = runs[name].path / "config.yaml"
        config.write_text(config.read_text().replace("path: null", f"path: {tmp_path / name}"))
    assert [run.name for run in cli.runs([f"runs={tmp_path}", f"path={tmp_path / 'photos'}"])] == [
        "photos"
    ]
    capsys.readouterr()
    assert cli.runs([f"runs={tmp_path}", f"path={tmp_path / 'none'}"]) == []
    where = f"of {tmp_path / 'none'} in {tmp_path}/"
    assert capsys.readouterr().out == f"runs      there are none {where}\n"


def test_the_table_has_a_line_for_each_run_and_columns_of_equal_width(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("ae", "vqvae", "prior"):
        write_run(tmp_path, kind)
    cli.runs([f"runs={tmp_path}"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["run", "status", "kind", "dataset", "steps", "split"]
    assert [line[head.index("PSNR") :].split()[0] for line in lines] == ["24.00", "25.00", "–"]


def test_a_folder_without_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.runs([f"runs={tmp_path}"]) == []
    assert capsys.readouterr().out == f"runs      there are none in {tmp_path}/\n"
