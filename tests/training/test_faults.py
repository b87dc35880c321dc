"""Trainings that are killed, told to stop or fed NaN: what they leave behind is whole, and what
goes on is the same.
"""

import itertools
import json
import signal
import sys
from pathlib import Path
from typing import Any

import fake_data
import pytest
import small
import torch
from own_process import environment, run_fork

TESTS = Path(__file__).parents[1]
# of a training, between validations, of an epoch: 280 images in batches of 40
STEPS, EVERY, EPOCH = (12, 4, 7)
SETTINGS = [
    "trainer.accelerator=cpu",
    f"trainer.steps={STEPS}",
    f"trainer.validate_every={EVERY}",
    "trainer.log_every=1",
    "data.batch_size=40",
    "data.eval_batch_size=20",
    "data.validation_size=40",
    "optimizer.lr=1e-3",
]
KINDS = {
    "ae": [*small.KINDS["ae"], "data.flip=true"],
    "vae": small.KINDS["vae"],
    "vqvae": [*small.KINDS["vqvae"], "model.quantizer.reset_below=0.5"],
    "prior": [*small.KINDS["prior"], "model.network.dropout=0.1"],
    "vqvae averaged": [*small.KINDS["vqvae"], "trainer.ema_decay=0.9"],
    "vqvae on own images": [*small.KINDS["vqvae"], "data.flip=true"],
    "prior averaged": [*small.KINDS["prior"], "trainer.ema_decay=0.9"],
}
POINTS = {
    "the first step after a checkpoint": {"point": "batch", "step": EVERY + 1},
    "the middle of an epoch": {"point": "batch", "step": EPOCH + 3},
    "the last step of an epoch": {"point": "batch", "step": EPOCH},
    "a validation": {"point": "validation", "step": 2 * EVERY},
    "a save": {"point": "save", "step": 2 * EVERY},
}


def carry_out(root: Path, plan: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trainings of a plan, one after another; see faults.py."""
    done = run_fork(
        [sys.executable, str(TESTS / "faults.py"), str(root / "data")],
        environment(WANDB_MODE="disabled"),
        stdin=json.dumps(plan),
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def entry(root: Path, kind: str, name: str, **more: Any) -> dict[str, Any]:
    empty = root / "empty.yaml"
    empty.write_text("{}\n")
    of = kind.partition(" ")[0]
    places = [f"model.tokenizer={root / 'runs' / 'tokenizer'}"] if of == "prior" else []
    if kind.endswith("own images"):
        file = root / "own.npz"
        places.append(f"data.path={file if file.exists() else fake_data.write_own(file)}")
    words = ["train", str(empty), f"kind={of}", *SETTINGS, *KINDS[kind], *places]
    return {
        "words": [*words, f"runs={root / 'runs'}", f"name={name}"],
        "rows": str(root / f"{name}.rows"),
        **more,
    }


def resumed(root: Path, name: str, **more: Any) -> dict[str, Any]:
    return {
        "words": ["train", f"resume={root / 'runs' / name}"],
        "rows": str(root / f"{name}.rows"),
        **more,
    }


def tokenizer(root: Path, kind: str) -> list[dict[str, Any]]:
    return [entry(root, "vqvae", "tokenizer")] if kind.startswith("prior") else []


def record(root: Path, name: str) -> dict[str, Any]:
    """All that a run is: the rows of every step, every logged number but times, and both
    checkpoints.
    """
    run = root / "runs" / name
    logged: dict[str, Any] = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        for key, value in line.items():
            if key != "train/images_per_second":
                logged[f"{key} at {line['step']}"] = value
    rows = dict(map(json.loads, (root / f"{name}.rows").read_text().splitlines()))
    states = {}
    for file in ("best", "last"):
        checkpoint = torch.load(run / "checkpoints" / f"{file}.ckpt", weights_only=True)
        states[file] = [
            checkpoint[key]
            for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers")
        ] + [checkpoint.get(key) for key in ("current_model_state", "averaging_state")]
    info = json.loads((run / "run.json").read_text())
    return {
        "rows": rows,
        "logged": logged,
        "states": states,
        "test": info["test"],
        "status": info["status"],
    }


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_killed_anywhere_and_resumed_a_run_equals_one_that_was_not(tmp_path, kind):
    plan = [*tokenizer(tmp_path, kind), entry(tmp_path, kind, "whole")]
    for number, fault in enumerate(POINTS.values()):
        plan.append(
            entry(tmp_path, kind, f"killed-{number}", fault={**fault, "signals": [signal.SIGKILL]})
        )
        plan.append(resumed(tmp_path, f"killed-{number}"))
    results = carry_out(tmp_path, plan)[len(tokenizer(tmp_path, kind)) :]
    assert [result["code"] for result in results] == [0, *[-signal.SIGKILL, 0] * len(POINTS)], (
        results
    )
    whole = record(tmp_path, "whole")
    assert list(whole["rows"]) == list(range(1, STEPS + 1))
    for number, point in enumerate(POINTS):
        other = record(tmp_path, f"killed-{number}")
        for part in whole:
            assert equal(whole[part], other[part]), (point, part)
        assert not list((tmp_path / "runs" / f"killed-{number}").rglob(".*.tmp")), point


@pytest.mark.faults
def test_the_comparison_sees_a_run_that_forgot_where_it_was_in_the_data(tmp_path):
    fault = {"point": "batch", "step": EVERY + 1, "signals": [signal.SIGKILL]}
    plan = [entry(tmp_path, "ae", "whole"), entry(tmp_path, "ae", "killed", fault=fault)]
    carry_out(tmp_path, [*plan, resumed(tmp_path, "killed", forget=True)])
    whole, other = record(tmp_path, "whole"), record(tmp_path, "killed")
    assert not equal(whole["rows"], other["rows"])
    assert not equal(whole["states"], other["states"])


@pytest.mark.faults
@pytest.mark.parametrize(
    ("point", "saved"),
    [({"point": "batch", "step": 3}, 3), ({"point": "batch", "step": EVERY}, EVERY),
     ({"point": "validation", "step": EVERY}, EVERY), ({"point": "save", "step": EVERY}, EVERY)],
)  # fmt: skip
def test_a_signal_ends_a_training_at_a_step_from_which_it_goes_on(tmp_path, point, saved):
    runs = {"term": (signal.SIGTERM, 143), "int": (signal.SIGINT, 130), "hup": (signal.SIGHUP, 129)}
    plan = [entry(tmp_path, "vqvae", "whole")]
    for name, (number, _) in runs.items():
        plan += [
            entry(tmp_path, "vqvae", name, fault={**point, "signals": [number]}),
            resumed(tmp_path, name),
        ]
    whole, *others = carry_out(tmp_path, plan)
    assert whole["code"] == 0, whole["out"]
    for stopped, gone_on, (name, (_, code)) in zip(
        others[::2], others[1::2], runs.items(), strict=True
    ):
        assert (stopped["code"], gone_on["code"]) == (code, 0), stopped["out"]
        assert f"stopped at step {saved}; to go on: " in stopped["out"]
        assert "Traceback" not in stopped["out"]
        assert equal(record(tmp_path, "whole"), record(tmp_path, name))


@pytest.mark.faults
def test_a_second_signal_ends_a_training_at_once(tmp_path):
    fault = {"point": "batch", "step": EVERY + 2, "signals": [signal.SIGTERM, signal.SIGTERM]}
    (result,) = carry_out(tmp_path, [entry(tmp_path, "ae", "run", fault=fault)])
    assert result["code"] == 143
    last = torch.load(tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == EVERY  # of the last validation: nothing was saved in a hurry


# A command, and a function that it calls in the phase in which the signal comes.
PHASES = {
    "evaluate": "vqvae_lightning.training.autoencoders:AutoencoderModule.test_step",
    "sample": "vqvae_lightning.evaluation.sample:write_picture",
    "compare": "vqvae_lightning.comparison.report:write_report",
    "data": "vqvae_lightning.data.sources:prepare",
    "classifier": "vqvae_lightning.evaluation.classifier:Classifier.training_step",
    "classifier ": "vqvae_lightning.evaluation.classifier:Classifier.test_step",
}


@pytest.mark.faults
def test_a_signal_ends_every_command_in_every_phase_with_its_code(tmp_path):
    """The three signals in turn."""
    root, data = tmp_path / "runs", f"root={tmp_path / 'data'}"
    words = {
        "evaluate": ["evaluate", str(root / "whole")], "sample": ["sample", str(root / "whole")],
        "compare": ["compare", f"runs={root}"], "data": ["data", data],
        "classifier": ["classifier", "dataset=mnist", "steps=2", data],
        "classifier ": ["classifier", "dataset=mnist", "steps=2", data],
    }  # fmt: skip
    codes = itertools.cycle({signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}.items())
    plan, wanted = [entry(tmp_path, "vae", "whole")], []
    for phase, place in PHASES.items():
        number, code = next(codes)
        wanted.append((phase, code))
        plan.append({"words": words[phase], "strike": {"place": place, "signals": [number]}})
    results = carry_out(tmp_path, plan)[1:]
    assert [
        (phase, result["code"]) for phase, result in zip(PHASES, results, strict=True)
    ] == wanted, results
    assert not any("Traceback" in result["out"] for result in results), results
    assert not (root / "compare.html").exists()
    assert not (tmp_path / "data" / "classifiers").exists()


@pytest.mark.faults
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_in_the_final_test_interrupts_a_run_that_goes_on(tmp_path, number, code):
    fault = {"point": "test", "signals": [number]}
    stopped, gone_on = carry_out(
        tmp_path, [entry(tmp_path, "ae", "run", fault=fault), resumed(tmp_path, "run")]
    )
    assert (stopped["code"], gone_on["code"]) == (code, 0), stopped["out"]
    assert f"stopped at step {STEPS}; to go on" in stopped["out"]
    assert "Traceback" not in stopped["out"]


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["ae", "vae", "vqvae"])
def test_nan_stops_a_training_before_anything_learns_from_it(tmp_path, kind):
    whole, stopped = carry_out(
        tmp_path,
        [entry(tmp_path, kind, "whole"), entry(tmp_path, kind, "run", poison=EVERY + 2)],
    )
    assert (whole["code"], stopped["code"]) == (0, 1), stopped["out"]
    line = next(line for line in stopped["out"].splitlines() if line.startswith("vqvae: "))
    assert f"step {EVERY + 2}, rank 0: gradient of " in line
    assert "loss nan, input of image " in line
    assert "Traceback" not in stopped["out"]
    run = tmp_path / "runs" / "run"
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == EVERY
    assert all(torch.isfinite(tensor).all() for tensor in last["state_dict"].values())
    (gone_on,) = carry_out(tmp_path, [resumed(tmp_path, "run")])
    assert gone_on["code"] == 0
    assert equal(record(tmp_path, "whole"), record(tmp_path, "run"))
