"""`make full-cifar10`, its networks and trainings made small: the whole chain, and that a second
call adds nothing.
"""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small

from vqvae_lightning.experiment import describe, load_experiment
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.training.runs import Run

ROOT = Path(__file__).parents[1]
RECIPES = {
    "vqvae_full": "vqvae",
    "prior_full": "prior",
    "prior_masked_full": "prior",
    "ae_full": "ae",
    "ae_flow_full": "ae_flow",
    "vae_full": "vae",
    "vae_flow_full": "vae_flow",
    "vae_bits": "vae",
    "vqvae_bits": "vqvae",
    "prior_bits": "prior",
}
DIMS = 28 * 28
EVERY = [
    "data.name=mnist",
    "data.batch_size=20",
    "data.eval_batch_size=40",
    "data.validation_size=40",
    "trainer.steps=2",
    "trainer.validate_every=1",
    "trainer.accelerator=cpu",
]


def make(folder: Path) -> str:
    """`make full-cifar10` in a folder, on generated digits, without FID; returns what it
    printed.
    """
    command = f"{sys.executable} {ROOT / 'tests' / 'launch_fake.py'} {folder / 'data'}"
    words = [
        "make",
        "-o",
        ".venv/.fid",
        "-o",
        ".venv/.run",
        "full-cifar10",
        f"VQVAE={command}",
        "FID=",
    ]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_the_whole_chain_runs_once_and_is_then_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "experiments" / "cifar10").mkdir(parents=True)
    for recipe, kind in RECIPES.items():
        path = Path("experiments") / "cifar10" / f"{recipe}.yaml"
        toy = load_experiment(ROOT / path, [*EVERY, *small.KINDS[kind]])
        (tmp_path / path).write_text(describe(toy))
    make(tmp_path)
    runs = {recipe: Run.open(tmp_path / "runs" / f"cifar10_{recipe}") for recipe in RECIPES}
    assert {recipe: run.record.kind for recipe, run in runs.items()} == RECIPES
    assert all(run.record.status == "finished" and run.record.evaluated for run in runs.values())
    first_stages = {
        recipe: run.record.learned_from.run
        for recipe, run in runs.items()
        if KINDS[RECIPES[recipe]].stage == 2
    }
    assert first_stages == {
        "prior_full": "cifar10_vqvae_full",
        "prior_masked_full": "cifar10_vqvae_full",
        "ae_flow_full": "cifar10_ae_full",
        "vae_flow_full": "cifar10_vae_full",
        "prior_bits": "cifar10_vqvae_bits",
    }
    for recipe in ("vae_bits", "vqvae_bits", "prior_bits"):
        test = runs[recipe].record.test
        nats = test["test/bits_per_dim"] * DIMS * math.log(2)
        assert nats == pytest.approx(test["test/distortion"] + test["test/rate"], rel=1e-4)
    assert "test/iwae_bits_per_dim" in runs["vae_bits"].record.test
    assert (tmp_path / "runs" / "compare.html").is_file()

    checkpoints = {recipe: run.last.read_bytes() for recipe, run in runs.items()}
    finished = {recipe: run.record.finished for recipe, run in runs.items()}
    assert make(tmp_path).count("is finished: nothing to do") == len(RECIPES)
    assert {recipe: run.last.read_bytes() for recipe, run in runs.items()} == checkpoints
    assert {recipe: run.record.finished for recipe, run in runs.items()} == finished
