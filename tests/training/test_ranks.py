"""What happens to one of two ranks happens to the training: both end, soon, with a word, and the run can go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).parents[1]
SETTINGS = [
    "kind=vqvae", "model.network.hidden=8", "model.codebook_size=16", "model.latent_dim=8", "data.batch_size=20",
    "data.eval_batch_size=15", "data.validation_size=40", "trainer.accelerator=cpu", "trainer.steps=8",
    "trainer.validate_every=4", "trainer.log_every=1", "trainer.devices=2",
]  # fmt: skip
pytestmark = pytest.mark.faults


def start(root: Path, words: list[str], fault: dict[str, Any] | None = None) -> subprocess.Popen[str]:
    """A training on two ranks, in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "FAULT": json.dumps(fault or {})}
    return subprocess.Popen(
        [sys.executable, str(TESTS / "launch_fake.py"), str(root / "data"), "train", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def words(root: Path, name: str) -> list[str]:
    (root / "empty.yaml").write_text("{}\n")
    return [str(root / "empty.yaml"), *SETTINGS, f"runs={root / 'runs'}", f"name={name}"]


def end(process: subprocess.Popen[str], limit: float) -> tuple[int, str]:
    """Exit code and output; the whole process group must be gone within `limit` seconds of the first rank's end."""
    try:
        output, _ = process.communicate(timeout=120)
        started = time.monotonic()
        while group_lives(process.pid):
            assert time.monotonic() - started < limit, "a rank is left over"
            time.sleep(0.1)
        return process.returncode, output
    finally:
        if group_lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_one_rank_stops_both_at_one_step_and_the_run_goes_on(tmp_path, rank, number, code):
    fault = {"rank": rank, "fault": {"point": "batch", "step": 6, "signals": [number]}}
    ended, output = end(start(tmp_path, words(tmp_path, "run"), fault), limit=10)
    assert ended == code, output
    assert output.count("stopped at step 6; to go on: vqvae train resume=") == 1
    assert "Traceback" not in output
    run = tmp_path / "runs" / "run"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    if rank == 1 and number == signal.SIGTERM:  # once is enough: one rank's resume is shown in test_faults.py
        assert end(start(tmp_path, [f"resume={run}"]), limit=10)[0] == 0
        assert end(start(tmp_path, words(tmp_path, "whole")), limit=10)[0] == 0
        states = [
            torch.load(tmp_path / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for name in ("run", "whole")
        ]
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_takes_the_run_down(tmp_path, rank):
    fault = {"rank": rank, "fault": {"point": "batch", "step": 6, "signals": [signal.SIGKILL]}}
    started = time.monotonic()
    code, output = end(start(tmp_path, words(tmp_path, "run"), fault), limit=30)
    assert code != 0, output
    assert time.monotonic() - started < 90
    assert torch.load(tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_on_one_rank_ends_both_and_its_traceback_is_seen(tmp_path, rank):
    fault = {"rank": rank, "fault": {"point": "batch", "step": 6}}
    code, output = end(start(tmp_path, words(tmp_path, "run"), fault), limit=30)
    assert code not in (0, 2), output
    assert "RuntimeError: an error on one rank" in output


def test_nan_on_one_rank_stops_both_before_anything_learns_from_it(tmp_path):
    code, output = end(start(tmp_path, words(tmp_path, "run"), {"rank": 1, "fault": {}, "poison": 6}), limit=30)
    assert code == 1, output
    lines = [line for line in output.splitlines() if line.startswith("vqvae: ")]
    assert any("step 6, rank 1: gradient of " in line and "input of image " in line for line in lines), output
    last = torch.load(tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in last["state_dict"].values())
