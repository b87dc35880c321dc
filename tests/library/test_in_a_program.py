"""`train` as a function: in a thread, twice in a process, and in a notebook."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import small
import torch

from vqvae_lightning import ConfigError, Experiment, TrainResult, load, load_experiment, train
from vqvae_lightning.training.launch import device_count


@pytest.fixture(autouse=True)
def untracked(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def experiment(place: Path, name: str, *more: str) -> Experiment:
    words = [f"data.root={place / 'data'}", f"runs={place / 'trained'}", f"name={name}", *more]
    return load_experiment(
        None, ["kind=vqvae", *small.DATA, *small.TRAINER, *small.KINDS["vqvae"], *words]
    )


def test_a_training_in_a_thread_equals_one_in_the_main_thread(place):
    results: list[TrainResult] = []
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    thread = threading.Thread(target=lambda: results.append(train(experiment(place, "thread"))))
    thread.start()
    thread.join()
    results.append(train(experiment(place, "main")))
    in_thread, in_main = results
    assert in_thread.test == in_main.test
    assert in_thread.run.record.status == "finished"
    assert load(in_thread.run).kind == "vqvae"
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_the_programs_dtype_and_environment_change_no_run_and_stay_as_they_were(place):
    usual = train(experiment(place, "usual"))
    before = dict(os.environ)
    torch.set_default_dtype(torch.float64)
    try:
        result = train(experiment(place, "float64", "trainer.deterministic=true"))
        assert torch.get_default_dtype() == torch.float64
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.test == usual.test
    assert dict(os.environ) == before


def test_a_notebook_takes_one_device(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    asked = Experiment()
    asked.data.eval_batch_size = 4
    assert device_count(asked) == 1
    asked.trainer.devices = 2
    with pytest.raises(ConfigError, match=r"trainer.devices: got 2, but a notebook"):
        device_count(asked)
    monkeypatch.delattr(sys, "ps1")
    assert device_count(asked) == 2
