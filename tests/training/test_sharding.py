"""`trainer.strategy=fsdp`: a prior in parts on two gloo ranks trains as by DDP, its checkpoints are
DDP's, and what cannot be sharded is refused.
"""

import json
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import small
import torch
import untrained
from own_process import command, environment, run_fork, start_ranks, wait_for_all

from vqvae_lightning import cli
from vqvae_lightning.config import ConfigError, merge_overrides
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.training.averaging import STATE
from vqvae_lightning.training.runs import Run
from vqvae_lightning.verified import read_checkpoint

PLAIN = [
    "model.network.layers=2",
    "model.network.dropout=0.1",
    # of one row, which only one of two ranks can keep
    "model.class_conditional=false",
    "model.network.positions=both",
    "model.network.norm=rms",
    "model.network.mlp=swiglu",
    "model.network.qk_norm=true",
    "model.network.order=annealed",
    "optimizer.clip=0.05",
]
# All that keeps tensors beside the weights, on a network that draws in parallel steps.
MUCH = [
    "model.network.name=masked",
    "model.label_dropout=0.2",
    "optimizer.name=muon",
    "optimizer.weight_decay=0.1",
    "trainer.ema_decay=0.9",
    "trainer.accumulate=2",
]
# The rate of a step must not depend on the length of the training.
SAME = [
    "optimizer.schedule=constant",
    "optimizer.warmup_steps=0",
    "trainer.precision=64-true",
    "trainer.devices=2",
    "trainer.validate_every=2",
]
CASES = {"plain": PLAIN, "much": MUCH}
FSDP = "trainer.strategy=fsdp"
LAUNCH = Path(__file__).parents[1] / "launch_fake.py"


def training(root: Path, name: str, *more: str) -> list[str]:
    """The command line of a training of six steps."""
    places = [
        f"data.root={root / 'data'}",
        f"runs={root / 'runs'}",
        f"model.tokenizer={root / 'runs' / 'vqvae'}",
        f"name={name}",
    ]
    words = merge_overrides(small.DATA, small.TRAINER, small.KINDS["prior"], SAME, more, places)
    return ["train", str(root / "empty.yaml"), "kind=prior", *words]


def plan(root: Path) -> list[list[str]]:
    """By DDP and in parts; and a training that changes from one to the other twice."""
    lines = []
    for case, more in CASES.items():
        lines += [training(root, f"{case}-ddp", *more)]
        lines += [training(root, f"{case}-fsdp", *more, FSDP)]
    lines += [training(root, "changing", *MUCH, FSDP, "trainer.steps=2")]
    for steps, strategy in ((4, "ddp"), (6, "fsdp")):
        resume = [f"resume={root / 'runs' / 'changing'}", f"trainer.strategy={strategy}"]
        lines += [["train", *resume, f"trainer.steps={steps}"]]
    return lines


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The runs of `plan`, and their tokenizer, which has learned to use several codes."""
    root = tmp_path_factory.mktemp("sharding")
    (root / "empty.yaml").write_text("{}\n")
    with untrained.workplace(root):
        places = [f"data.root={root / 'data'}", f"runs={root / 'runs'}", "name=vqvae"]
        words = [*small.DATA, *small.TRAINER, *small.KINDS["vqvae"], *places]
        cli.main(["train", str(root / "empty.yaml"), "kind=vqvae", *words])
        (root / "plan.json").write_text(json.dumps(plan(root)))
        with ExitStack() as stack:
            ranks = start_ranks(stack, command("train_sharded", root), 2)
            wait_for_all(ranks, timeout=200)
        yield root


def run_of(root: Path, name: str) -> Run:
    return Run.open(root / "runs" / name)


def tensors(value: Any, at: str) -> dict[str, torch.Tensor]:
    """The tensors in a part of a checkpoint, by where they lie in it."""
    if isinstance(value, torch.Tensor):
        return {at: value}
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    found: dict[str, torch.Tensor] = {}
    for key, part in inner.items() if isinstance(inner, dict) else ():
        found |= tensors(part, f"{at}.{key}")
    return found


def assert_close(one: Run, other: Run) -> None:
    """Two runs have the same checkpoints: weights, averages and the optimizer's state."""
    for files in ((one.last, other.last), (one.best, other.best)):
        ours, theirs = (read_checkpoint(file) for file in files)
        parts = ("state_dict", "optimizer_states", *STATE)
        for part in (part for part in parts if part in ours):
            found, wanted = tensors(theirs[part], part), tensors(ours[part], part)
            assert list(found) == list(wanted)
            for name, tensor in wanted.items():
                torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.dist
class TestTwoRanks:
    @pytest.mark.parametrize("case", CASES)
    def test_in_parts_a_prior_trains_as_by_ddp(self, root, case):
        by_ddp, in_parts = run_of(root, f"{case}-ddp"), run_of(root, f"{case}-fsdp")
        assert_close(by_ddp, in_parts)
        assert in_parts.record.status == "finished"
        assert by_ddp.record.test == pytest.approx(in_parts.record.test, rel=1e-6)
        rows = [
            [
                {key: value for key, value in json.loads(line).items() if "per_second" not in key}
                for line in run.metrics_path.read_text().splitlines()
            ]
            for run in (by_ddp, in_parts)
        ]
        assert len(rows[0]) > 6
        for row, other in zip(*rows, strict=True):
            assert row == pytest.approx(other, rel=1e-6)

    @pytest.mark.parametrize("case", CASES)
    def test_pictures_are_those_of_ddp(self, root, case):
        one, other = (
            (run_of(root, f"{case}-{strategy}").images / "samples.png").read_bytes()
            for strategy in ("ddp", "fsdp")
        )
        assert one == other

    def test_a_checkpoint_says_the_same_things_in_the_same_order(self, root):
        one, other = (
            read_checkpoint(run_of(root, f"much-{strategy}").last) for strategy in ("ddp", "fsdp")
        )
        assert list(one) == list(other)
        for state in ("optimizer_states", "lr_schedulers", "loops"):
            assert str(shapes(one[state])) == str(shapes(other[state]))

    def test_from_parts_to_ddp_and_back_is_the_uninterrupted_training(self, root):
        assert_close(run_of(root, "much-fsdp"), run_of(root, "changing"))

    def test_one_device_evaluates_what_was_trained_in_parts(self, root):
        run = run_of(root, "much-fsdp")
        measured = cli.evaluate([str(run.path)])
        tested = run.record.test
        assert {name: measured[name] for name in tested} == pytest.approx(tested, rel=1e-6)

    @pytest.mark.parametrize("rank", [0, 1])
    def test_a_rank_keeps_half_and_the_norm_is_that_of_all(self, root, rank):
        found = json.loads((root / f"gradients-{rank}.json").read_text())
        # no more than a row of each tensor is over
        assert 0.45 < found["kept"] / found["everything"] < 0.55
        assert found["norm"] == pytest.approx(found["by_hand"], rel=1e-6)
        assert found["clipped"] == pytest.approx(0.01, rel=1e-3)

    def test_what_is_not_finite_on_one_rank_is_refused_on_both_by_one_name(self, root):
        first, second = (
            json.loads((root / f"gradients-{rank}.json").read_text())["refused"] for rank in (0, 1)
        )
        assert first == second == "gradient of position is not finite"


@pytest.mark.faults
@pytest.mark.parametrize("point", ["batch", "test"])
def test_a_signal_to_one_rank_stops_both_and_the_run_goes_on(root, point):
    """At the end of a step, and in the final test, after which no step is left."""
    step = 3 if point == "batch" else 6
    name = f"stopped-{point}"
    fault = {"rank": 1, "fault": {"point": point, "step": step, "signals": [signal.SIGTERM]}}
    launch = [sys.executable, str(LAUNCH), str(root / "data")]
    variables = environment(WANDB_MODE="disabled", FAULT=json.dumps(fault))
    # The launcher names the data itself.
    words = [w for w in training(root, name, *MUCH, FSDP) if not w.startswith("data.root=")]
    stopped = run_fork([*launch, *words], variables)
    assert stopped.returncode == 143, stopped.stderr
    assert stopped.stdout.count(f"stopped at step {step}; to go on: ") == 1
    assert "Traceback" not in stopped.stderr
    run = run_of(root, name)
    assert read_checkpoint(run.last)["global_step"] == step
    ended = run_fork([*launch, "train", f"resume={run.path}"], environment(WANDB_MODE="disabled"))
    assert ended.returncode == 0, ended.stderr
    assert_close(run_of(root, "much-fsdp"), run)


def shapes(value: Any) -> Any:
    """A checkpoint with a shape in the place of each tensor."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype, type(value)
    if isinstance(value, dict):
        return {key: shapes(part) for key, part in value.items()}
    return [shapes(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["kind=vqvae"], "got fsdp with kind=vqvae, .* wanted ddp, or kind=prior"),
        (["kind=vae_flow"], "got fsdp with kind=vae_flow, model.network.name=mlp, "),
        (["kind=prior", "model.network.name=pixelcnn"], r"network\.name=transformer or masked"),
    ],
)
def test_what_cannot_be_sharded_is_refused(words, line):
    with pytest.raises(ConfigError, match=line) as error:
        load_experiment(None, [*words, FSDP])
    assert "\n" not in str(error.value)


def test_it_is_refused_with_code_2_before_anything_is_made(tmp_path, capsys):
    (tmp_path / "empty.yaml").write_text("{}\n")
    words = ["train", str(tmp_path / "empty.yaml"), "kind=ae", FSDP, f"runs={tmp_path / 'runs'}"]
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("trainer.strategy: got fsdp") == 1
    assert not (tmp_path / "runs").exists()
