"""Tracking: everything is in metrics.jsonl, W&B is offline unless it can be online, and nothing is ever asked."""

import json
import os
import subprocess
import sys

import pytest

from vqvae_lightning.training.tracking import JsonLinesLogger, choose_wandb_mode

WANDB = ("WANDB_MODE", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ERROR_REPORTING", "WANDB_BASE_URL", "WANDB_API_KEY")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """W&B's variables as on a fresh machine, and put back afterwards whatever the code under test sets."""
    for name in WANDB:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_lines_are_flushed_and_readable(tmp_path):
    logger = JsonLinesLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"val/loss": 1.5}, step=3)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 3, "val/loss": 1.5}


def test_offline_is_the_default_and_files_stay_in_the_run(tmp_path):
    assert choose_wandb_mode(tmp_path) is None
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["WANDB_DATA_DIR"].startswith(str(tmp_path))


def test_a_mode_that_was_chosen_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_wandb_mode(tmp_path) is None
    assert os.environ["WANDB_MODE"] == "disabled"


def test_online_without_a_server_says_so_and_goes_on_offline(tmp_path):
    # in a process of its own: wandb reads its settings once
    code = f"from vqvae_lightning.training.tracking import choose_wandb_mode as c; import pathlib as p, os; \
print(c(p.Path({str(tmp_path)!r})), os.environ['WANDB_MODE'])"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "W&B: offline although WANDB_MODE=online, because its server does not answer" in result.stdout
    assert result.stdout.strip().endswith("offline")
