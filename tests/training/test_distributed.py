"""Two gloo ranks train as one process does: codebooks, gradients, metrics, and the command line
that starts them.
"""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import small
import torch
from own_process import (
    Fork,
    command,
    environment,
    free_port,
    run_fork,
    start_ranks,
    wait_for_all,
)
from programs.train_ranks import CASES, LOCAL

from vqvae_lightning.config import ConfigError
from vqvae_lightning.training.launch import check_launch

TESTS = Path(__file__).parents[1]
LAUNCH = [sys.executable, str(TESTS / "launch_fake.py")]
STEPS = 4
SMALL = [
    "kind=vqvae",
    *small.KINDS["vqvae"],
    "data.batch_size=20",
    "data.eval_batch_size=15",
    "data.validation_size=40",
    "trainer.accelerator=cpu",
    "trainer.steps=3",
    "trainer.validate_every=3",
    "trainer.log_every=1",
]
pytestmark = pytest.mark.dist


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """(case, world) → gradients and state of every rank; all cases train in the same processes."""
    folders = {world: tmp_path_factory.mktemp(f"world-{world}") for world in (1, 2)}
    with ExitStack() as stack:
        one, two = (command("train_ranks", folders[world], STEPS, *CASES) for world in (1, 2))
        alone = stack.enter_context(Fork(one, environment()))
        wait_for_all([alone, *start_ranks(stack, two, 2)])

    def states(case: str, world: int) -> list[dict[str, torch.Tensor]]:
        return [
            torch.load(folders[world] / f"{case}-{rank}.pt", weights_only=True)
            for rank in range(world)
        ]

    return states


@pytest.mark.parametrize("case", [case for case in CASES if case != LOCAL])
def test_two_ranks_equal_one_process(states, case):
    (one,), (first, second) = states(case, 1), states(case, 2)
    assert sum(name.startswith("gradient of ") for name in one) >= 4
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), f"{name} differs between ranks"
        if name.endswith("usage"):
            assert torch.equal(value, first[name]), name
        else:
            close = 1e-12 if name.startswith("gradient of ") else 1e-10
            torch.testing.assert_close(value, first[name], rtol=close, atol=close, msg=name)


def test_the_comparison_sees_statistics_that_are_not_summed(states):
    first, second = states(LOCAL, 2)
    assert not torch.equal(first["bottleneck.codebook"], second["bottleneck.codebook"])


def test_the_command_line_trains_on_two_and_three_ranks_as_on_one(tmp_path):
    """And in two passes as in one: a run folder each, and in float64 one result, each test image
    counted once.

    280 images are 3 batches of 72 but 7 passes of 36, and there are two epochs of them.
    """
    own = [
        "data.batch_size=72",
        "trainer.steps=6",
        "trainer.precision=64-true",
        f"runs={tmp_path / 'runs'}",
    ]
    settings = [
        word for word in SMALL if not word.startswith(("data.batch_size", "trainer.steps"))
    ] + own
    file = tmp_path / "two.yaml"
    # Not in the words of "two": its second rank is a new interpreter, as a user's is.
    file.write_text("trainer: {devices: 2}\n")
    cuts = {
        "one": ["trainer.devices=1"],
        "passes": ["trainer.devices=1", "trainer.accumulate=2"],
        "two": [],
        "three": ["trainer.devices=3"],
    }
    for name, words in cuts.items():
        line = ["train", str(file), *settings, *words, f"name={name}"]
        done = run_fork(
            [*LAUNCH, str(tmp_path / "data"), *line],
            environment(WANDB_MODE="offline" if name == "two" else "disabled"),
        )
        assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "runs").iterdir()} == set(cuts)
    runs = {name: tmp_path / "runs" / name for name in cuts}
    infos = {name: json.loads((run / "run.json").read_text()) for name, run in runs.items()}
    states = {
        name: torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        for name, run in runs.items()
    }
    for name in ("passes", "two", "three"):
        assert infos[name]["status"] == "finished"
        # the metrics' sums are in float32
        assert infos[name]["test"] == pytest.approx(infos["one"]["test"], rel=1e-6)
        for key, value in states["one"]["state_dict"].items():
            torch.testing.assert_close(
                states[name]["state_dict"][key], value, rtol=1e-10, atol=1e-10, msg=key
            )
    assert len(list((runs["two"] / "wandb").glob("offline-run-*"))) == 1


def test_a_launcher_that_disagrees_with_the_settings_is_refused(tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    words = [
        "train",
        str(empty),
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        f"runs={tmp_path}/runs",
    ]
    result = run_fork(
        [*LAUNCH, str(tmp_path / "data"), *words],
        environment(WORLD_SIZE="2", RANK="0", LOCAL_RANK="0"),
    )
    assert result.returncode == 2
    assert (
        "torchrun started 2 processes (WORLD_SIZE=2), but trainer.devices x trainer.nodes is 1"
        in result.stderr
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"WORLD_SIZE": "1"}, "torchrun started 1 process "),
        ({"SLURM_NTASKS": "1"}, "SLURM started 1 process "),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train"}, "SLURM started 4 processes "),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "bash"}, None),
        ({"SLURM_NTASKS": "2", "WORLD_SIZE": "2"}, None),
        ({}, None),
    ],
)
def test_two_processes_must_be_what_was_launched(monkeypatch, variables, line):
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if line is None:
        check_launch(2, 1)
    else:
        with pytest.raises(ConfigError, match=line):
            check_launch(2, 1)


@pytest.mark.parametrize(
    ("variables", "fits"),
    [({}, False), ({"WORLD_SIZE": "2"}, True), ({"NODE_RANK": "0"}, True)],
)
def test_several_machines_need_a_launcher(monkeypatch, variables, fits):
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "SLURM_JOB_NAME", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if fits:
        check_launch(1, 2)
    else:
        with pytest.raises(ConfigError, match=r"^trainer\.nodes: got 2, but nothing started"):
            check_launch(1, 2)


@pytest.mark.slow
def test_torchrun_and_two_nodes_on_loopback_train_as_lightning_does(tmp_path):
    """`torchrun --nproc-per-node 2`, and two agents of one process each, as two machines would
    be.
    """
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}

    def start(name: str, launch: list[str], *more: str) -> subprocess.Popen[bytes]:
        torchrun = [sys.executable, "-m", "torch.distributed.run", *launch]
        places = [f"runs={tmp_path / 'runs'}", f"name={name}", *more]
        words = [
            str(TESTS / "launch_fake.py"),
            str(tmp_path / "data"),
            "train",
            str(empty),
            *SMALL,
            *places,
        ]
        return subprocess.Popen([*torchrun, *words], env=environment)

    one_machine = start("one", ["--standalone", "--nproc-per-node", "2"], "trainer.devices=2")
    assert one_machine.wait(timeout=120) == 0
    port = free_port()
    agents = [
        start(
            "two",
            [
                "--nnodes",
                "2",
                "--nproc-per-node",
                "1",
                "--node-rank",
                str(rank),
                "--master-addr",
                "127.0.0.1",
                "--master-port",
                port,
            ],
            "trainer.devices=1",
            "trainer.nodes=2",
        )
        for rank in (0, 1)
    ]
    assert [agent.wait(timeout=120) for agent in agents] == [0, 0]
    one, two = (
        json.loads((tmp_path / "runs" / name / "run.json").read_text()) for name in ("one", "two")
    )
    assert one["status"] == two["status"] == "finished"
    assert one["test"] == two["test"]
