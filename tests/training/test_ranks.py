"""What happens to one of two ranks happens to the training: both end, soon, with a word, and the
run can go on.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from own_process import Fork, environment
from wandb_server import WandbServer

TESTS = Path(__file__).parents[1]
SETTINGS = [
    "kind=vqvae",
    *small.KINDS["vqvae"],
    "data.batch_size=20",
    "data.eval_batch_size=15",
    "data.validation_size=40",
    "trainer.accelerator=cpu",
    "trainer.steps=8",
    "trainer.validate_every=4",
    "trainer.log_every=1",
    "trainer.devices=2",
]
pytestmark = pytest.mark.faults


def start(
    root: Path,
    words: list[str],
    fault: dict[str, Any] | None = None,
    variables: dict[str, str] | None = None,
) -> Fork:
    """A command, such as a training on two ranks. Where its words do not name `trainer.devices`, as
    those of a resume, Lightning starts the second in an interpreter of its own.
    """
    alone = {"WANDB_MODE": "disabled", "FAULT": json.dumps(fault or {})}
    return Fork(
        [sys.executable, str(TESTS / "launch_fake.py"), str(root / "data"), *words],
        environment(**alone | (variables or {})),
    )


def words(root: Path, name: str) -> list[str]:
    (root / "empty.yaml").write_text("{}\n")
    return ["train", str(root / "empty.yaml"), *SETTINGS, f"runs={root / 'runs'}", f"name={name}"]


def end(process: Fork, limit: float) -> tuple[int, str]:
    """Exit code and output; the whole process group must be gone within `limit` seconds of the
    first rank's end.
    """
    with process:
        done = process.wait()
        started = time.monotonic()
        while group_lives(process.pid):
            assert time.monotonic() - started < limit, "a rank is left over"
            time.sleep(0.1)
        return done.returncode, done.stdout + done.stderr


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_one_rank_stops_both_at_one_step_and_the_run_goes_on(
    tmp_path, rank, number, code
):
    fault = {"rank": rank, "fault": {"point": "batch", "step": 6, "signals": [number]}}
    ended, output = end(start(tmp_path, words(tmp_path, "run"), fault), limit=10)
    assert ended == code, output
    assert output.count("stopped at step 6; to go on: ") == 1
    assert "Traceback" not in output
    run = tmp_path / "runs" / "run"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    # once is enough: one rank's resume is shown in test_faults.py
    if rank == 1 and number == signal.SIGTERM:
        assert end(start(tmp_path, ["train", f"resume={run}"]), limit=10)[0] == 0
        assert end(start(tmp_path, words(tmp_path, "whole")), limit=10)[0] == 0
        states = [
            torch.load(tmp_path / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True)[
                "state_dict"
            ]
            for name in ("run", "whole")
        ]
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(
    ("rank", "number", "code"), [(0, signal.SIGTERM, 143), (1, signal.SIGINT, 130)]
)
def test_a_signal_to_one_rank_in_the_final_test_ends_both_with_its_code(
    tmp_path, rank, number, code
):
    fault = {"rank": rank, "fault": {"point": "test", "signals": [number]}}
    ended, output = end(start(tmp_path, words(tmp_path, "run"), fault), limit=10)
    assert ended == code, output
    assert "Traceback" not in output
    assert (
        json.loads((tmp_path / "runs" / "run" / "run.json").read_text())["status"] == "interrupted"
    )


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stopped_rank_holds_the_other_for_seconds_after_a_signal_and_no_longer_after_two(
    tmp_path, signals
):
    patience = 3 if signals == 1 else 300
    fault = {
        "rank": 1,
        "fault": {"point": "batch", "step": 6, "signals": [signal.SIGSTOP]},
        "patience": patience,
    }
    with start(tmp_path, words(tmp_path, "run"), fault) as process:
        while "T" not in (states := group_states(process.pid)):
            assert states, "ended before a rank was stopped"
            time.sleep(0.1)
        for _ in range(signals):
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.2)
        code, output = end(process, limit=5)
    assert code == 143, output
    assert (
        f"the last one is {tmp_path / 'runs' / 'run' / 'checkpoints' / 'last.ckpt'}" in output
    ) == (signals == 1)
    assert (
        torch.load(tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt", weights_only=True)[
            "global_step"
        ]
        == 4
    )


def group_states(group: int) -> str:
    """The states of the processes of a group, a letter for each."""
    states = ""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of_group = file.read_text().rpartition(")")[2].split()[:3]
            states += state * (int(of_group) == group)
    return states.replace("Z", "")


def test_a_signal_to_a_sweep_stops_its_training_which_goes_on_later(tmp_path):
    (tmp_path / "empty.yaml").write_text("{}\n")
    alone = [word for word in SETTINGS if not word.startswith(("trainer.devices", "trainer.steps"))]
    (tmp_path / "sweep.yaml").write_text(
        f"method: grid\ncommand: [{tmp_path / 'empty.yaml'}]\nparameters: {{seed: {{values:"
        " [1]}}\n"
    )
    line = [
        "sweep",
        str(tmp_path / "sweep.yaml"),
        *alone,
        "trainer.steps=5000",
        f"runs={tmp_path / 'runs'}",
    ]
    fault = {
        "rank": 0,
        "fault": {"point": "batch", "step": 6, "signals": [signal.SIGTERM], "parent": True},
    }
    code, output = end(start(tmp_path, line, fault), limit=5)
    assert code == 143, output
    (run,) = (file.parent for file in tmp_path.glob("runs/**/run.json"))
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_takes_the_run_down(tmp_path, rank):
    fault = {"rank": rank, "fault": {"point": "batch", "step": 6, "signals": [signal.SIGKILL]}}
    started = time.monotonic()
    code, output = end(start(tmp_path, words(tmp_path, "run"), fault), limit=30)
    assert code != 0, output
    assert time.monotonic() - started < 90
    assert (
        torch.load(tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt", weights_only=True)[
            "global_step"
        ]
        == 4
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_on_one_rank_ends_both_and_its_traceback_is_seen(tmp_path, rank):
    fault = {"rank": rank, "fault": {"point": "batch", "step": 6}}
    code, output = end(start(tmp_path, words(tmp_path, "run"), fault), limit=30)
    assert code not in (0, 2), output
    assert "RuntimeError: an error on one rank" in output


def test_nan_on_one_rank_stops_both_before_anything_learns_from_it(tmp_path):
    code, output = end(
        start(tmp_path, words(tmp_path, "run"), {"rank": 1, "fault": {}, "poison": 6}), limit=30
    )
    assert code == 1, output
    lines = [line for line in output.splitlines() if line.startswith("vqvae: ")]
    assert any(
        "step 6, rank 1: gradient of " in line and "input of image " in line for line in lines
    ), output
    last = torch.load(tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in last["state_dict"].values())


@pytest.mark.parametrize(("ranks", "decay"), [(1, 0), (2, 0), (1, 0.9)])
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path, ranks, decay):
    """Stopped at step 6 of 8, an epoch being 14: the same images in the same order, in float64 the
    same weights, and the same average of them.
    """
    double = [*words(tmp_path, "run"), "trainer.precision=64-true", f"trainer.ema_decay={decay}"]
    other = [
        word.replace("devices=2", f"devices={ranks}").replace("name=run", "name=whole")
        for word in double
    ]
    assert end(start(tmp_path, other), limit=10)[0] == 0
    started = [word.replace("devices=2", f"devices={3 - ranks}") for word in double]
    fault = {"rank": 0, "fault": {"point": "batch", "step": 6, "signals": [signal.SIGTERM]}}
    assert end(start(tmp_path, started, fault), limit=10)[0] == 143
    run = tmp_path / "runs" / "run"
    assert (
        end(start(tmp_path, ["train", f"resume={run}", f"trainer.devices={ranks}"]), limit=10)[0]
        == 0
    )
    one, two = (
        torch.load(tmp_path / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("run", "whole")
    )
    assert one["global_step"] == two["global_step"] == 8
    for state in ("state_dict", "current_model_state") if decay else ("state_dict",):
        for name, tensor in one[state].items():
            torch.testing.assert_close(
                tensor, two[state][name], rtol=1e-10, atol=1e-10, msg=f"{state} {name}"
            )


@pytest.mark.parametrize("lost", ["in the middle", "at the end", "its mind", ""])
def test_a_tracker_that_is_lost_costs_seconds_and_no_metric(tmp_path, lost):
    """And one run for two ranks, no file outside the run folder, no key in a file."""
    server, key, started = WandbServer(lost), "5ec4e7" * 7, time.monotonic()
    home = tmp_path / "home"
    home.mkdir()
    online = {
        "WANDB_MODE": "online",
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": key,
        "HOME": str(home),
        # torchmetrics imports matplotlib where it is installed, which keeps a list of fonts.
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
    }
    code, output = end(start(tmp_path, words(tmp_path, "run"), variables=online), limit=10)
    server.over.set()
    server.shutdown()
    server.server_close()
    assert code == 0, output
    assert time.monotonic() - started < 60
    assert "Traceback" not in output
    assert output.count("W&B: failed") <= 1, output
    run = tmp_path / "runs" / "run"
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged if "train/loss" in row] == list(range(8))
    assert [row["step"] for row in logged if "val/loss" in row] == [3, 7]
    assert sum("test/loss" in row for row in logged) == 1
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert len(server.runs) == 1
    if not lost:
        rows = [json.loads(row) for row in server.history]
        for name in ("train/loss", "val/loss", "test/loss"):
            here = {row["step"]: row[name] for row in logged if name in row}
            assert {row["trainer/global_step"]: row[name] for row in rows if name in row} == here
    assert list(home.rglob("*")) == []
    assert [
        path for path in run.rglob("*") if path.is_file() and key.encode() in path.read_bytes()
    ] == []
