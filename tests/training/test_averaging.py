"""Averaged weights (`trainer.ema_decay`): what is validated, kept, tested, drawn and coded is the
average, and what is trained is what it would be without one.
"""

from pathlib import Path
from typing import Any

import pytest
import small
import torch
import untrained

from vqvae_lightning import cli
from vqvae_lightning.config import merge_overrides
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.models.first_stage import fingerprint
from vqvae_lightning.training import callbacks
from vqvae_lightning.training.averaging import AveragedWeights
from vqvae_lightning.training.loading import kept_first_stage, load_run
from vqvae_lightning.training.resume import Resumed, newest_checkpoint
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.trainer import build_trainer
from vqvae_lightning.verified import read_checkpoint, write_checkpoint

DECAY = "trainer.ema_decay=0.9"
KINDS = {
    "ae": ("ae",),
    "vae": ("vae",),
    "ema": ("vqvae", "model.quantizer.reset_below=0.5"),
    "gradient": ("vqvae", "model.quantizer.name=gradient"),
    "prior": ("prior", "model.network.dropout=0.1"),
}
EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "mnist"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Generated data in place of MNIST, and the tokenizer of priors."""
    root = tmp_path_factory.mktemp("averaging")
    with untrained.workplace(root):
        train(root, "ema", "tokenizer", "trainer.ema_decay=0.9")
        yield root


def train(root: Path, name: str, run: str, *more: str) -> Run:
    """A training of six steps, validated after three and six."""
    kind, *settings = KINDS[name]
    if kind == "prior":
        settings.append(f"model.tokenizer={root / 'runs' / 'tokenizer'}")
    places = [f"data.root={root / 'data'}", f"runs={root / 'runs'}", f"name={run}"]
    words = merge_overrides(
        small.DATA, small.TRAINER, small.KINDS[kind], ["optimizer.lr=1e-2"], settings, places, more
    )
    cli.main(["train", str(EXPERIMENTS / f"{kind}.yaml"), *words])
    return Run.open(root / "runs" / run)


@pytest.fixture(scope="module", params=KINDS)
def pair(request, root):
    """A run without and one with averaged weights, otherwise the same."""
    name = request.param
    return train(root, name, f"{name}-plain"), train(root, name, f"{name}-averaged", DECAY)


def logged(run: Run, split: str) -> list[dict[str, Any]]:
    """The metrics of a split by step, without times."""
    rows = [{k: v for k, v in row.items() if k.startswith(f"{split}/")} for row in run.metrics()]
    return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in rows if row]


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_the_average_changes_nothing_of_what_is_trained(pair):
    plain, averaged = pair
    assert logged(plain, "train") == logged(averaged, "train")
    one, other = read_checkpoint(plain.last), read_checkpoint(averaged.last)
    assert_equal(one["state_dict"], {**other["state_dict"], **other["current_model_state"]})
    assert not {"current_model_state", "averaging_state"} & one.keys()
    # negative control: they are validated with other weights
    assert logged(plain, "val") != logged(averaged, "val")


def test_a_checkpoint_holds_current_parameters_beside_their_averages(pair):
    _, run = pair
    module, checkpoint = load_run(run), read_checkpoint(run.last)
    parameters = {name for name, _ in module.named_parameters()}
    average, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert current.keys() == parameters <= average.keys()
    # all but those that no step has moved
    same = {name for name in parameters if torch.equal(average[name], current[name])}
    assert len(same) < 0.2 * len(parameters)
    for name in average:
        if name.endswith(".codebook") and name in parameters:  # it learns by a gradient
            assert name not in same


def test_a_large_codebook_is_kept_once(root):
    """A checkpoint whose tensors claim more bytes than the file has is refused when it is read."""
    name, large = "large-codebook", "model.quantizer.codebook_size=4096"
    plain, averaged = (
        train(root, "ema", f"{name}-{len(also)}", large, *also) for also in ([], [DECAY])
    )
    module: Any = load_run(averaged)
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    larger = averaged.last.stat().st_size - plain.last.stat().st_size
    assert larger < weights + 2**16 < module.net.bottleneck.codebook.numel() * 4


def test_evaluate_sees_the_weights_that_were_validated_and_tested(pair):
    _, run = pair
    best = min(logged(run, "val"), key=lambda row: row["val/loss"])
    measured = cli.evaluate([str(run.path), "split=val"])
    assert {name: measured[name] for name in best} == pytest.approx(best, rel=1e-6)
    tested = run.record.test
    measured = cli.evaluate([str(run.path)])
    assert {name: measured[name] for name in tested} == pytest.approx(tested, rel=1e-6)


def test_pictures_of_a_validation_are_drawn_with_the_average(root, monkeypatch):
    drawn, render = [], callbacks.render
    monkeypatch.setattr(
        callbacks, "render", lambda m, *more: drawn.append(fingerprint(m.net)) or render(m, *more)
    )
    run = train(root, "ema", "drawn", DECAY, "trainer.steps=3")
    assert drawn == [run.record.fingerprint] * 2  # of the validation and of the test


def test_a_prior_learns_the_codes_of_the_averaged_tokenizer(root):
    run = Run.open(root / "runs" / "tokenizer")
    net: Any = load_run(run).net
    assert run.record.fingerprint == fingerprint(net)
    prior = train(root, "prior", "on-the-average")
    assert prior.record.learned_from.fingerprint == run.record.fingerprint
    assert kept_first_stage(prior).fingerprint == run.record.fingerprint


@pytest.mark.parametrize("decay", [0.1, 0.999])
def test_the_average_is_that_by_hand(root, decay):
    """Over three steps, each the end of a training that the next one goes on from."""
    name, constant = f"by-hand-{decay}", "optimizer.schedule=constant"
    first = ["trainer.steps=1", "trainer.validate_every=1", constant]
    run = train(root, "ae", name, f"trainer.ema_decay={decay}", *first)
    checkpoints = [read_checkpoint(run.last)]
    for steps in (2, 3):
        cli.main(["train", f"resume={run.path}", f"trainer.steps={steps}"])
        checkpoints.append(read_checkpoint(run.last))
    one, two, three = (checkpoint["current_model_state"] for checkpoint in checkpoints)
    second, third = min(decay, 2 / 11), min(decay, 3 / 12)
    for key, average in checkpoints[2]["state_dict"].items():
        expected = second * one[key] + (1 - second) * two[key]
        expected = third * expected + (1 - third) * three[key]
        torch.testing.assert_close(average, expected, msg=key)
    assert_equal(checkpoints[0]["state_dict"], one)
    assert int(checkpoints[2]["averaging_state"]["n_averaged"]) == 3


def test_a_resumed_average_goes_on_bit_for_bit(root):
    # The rate of a step must not depend on the length of the training.
    same = [DECAY, "optimizer.schedule=constant", "optimizer.warmup_steps=0"]
    whole = train(root, "ema", "whole", *same)
    part = train(root, "ema", "part", *same, "trainer.steps=3")
    cli.main(["train", f"resume={part.path}", "trainer.steps=6"])
    one, other = read_checkpoint(whole.last), read_checkpoint(part.last)
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert_equal(one[key], other[key])
    assert logged(whole, "val") == logged(part, "val")


@pytest.mark.parametrize("lost", ["current_model_state", "averaging_state"])
def test_a_checkpoint_without_its_average_is_not_gone_on_from(root, capsys, lost):
    run = train(root, "ae", f"lost-{lost}", DECAY)
    checkpoint = read_checkpoint(run.last)
    del checkpoint[lost]
    write_checkpoint(run.last, checkpoint)
    capsys.readouterr()
    step = read_checkpoint(run.best)["global_step"]
    assert newest_checkpoint(run) == Resumed(run.best, step)
    assert f"holds no {lost} to resume from" in capsys.readouterr().out


def test_several_micro_batches_are_one_step_of_the_average(root):
    run = train(root, "ae", "accumulated", DECAY, "trainer.accumulate=2")
    assert int(read_checkpoint(run.last)["averaging_state"]["n_averaged"]) == 6


def test_without_a_decay_there_is_no_average(tmp_path):
    for words, wanted in (([], 0), (["trainer.ema_decay=0.5"], 1)):
        experiment = load_experiment(None, ["kind=ae", "trainer.accelerator=cpu", *words])
        trainer: Any = build_trainer(experiment, 1, None)
        found = [isinstance(callback, AveragedWeights) for callback in trainer.callbacks]
        assert sum(found) == wanted
