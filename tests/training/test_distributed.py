"""Two gloo ranks train as one process does: codebooks, gradients, metrics, and the command line
that starts them.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.build import PRIORS
from vqvae_lightning.training.launch import check_launch

TESTS = Path(__file__).parents[1]
STEPS = 4
SMALL = [
    "kind=vqvae",
    "model.trunk.hidden=8",
    "model.quantizer.codebook_size=16",
    "model.latent_dim=8",
    "data.batch_size=20",
    "data.eval_batch_size=15",
    "data.validation_size=40",
    "trainer.accelerator=cpu",
    "trainer.steps=3",
    "trainer.validate_every=3",
    "trainer.log_every=1",
]
pytestmark = pytest.mark.dist

# One rank's work: a float64 model trained on its share of fixed global batches, DDP's buffer
# broadcast off.
RANK = """
import os, sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.models.build import (
    PRIORS, AEConfig, PriorConfig, VAEConfig, VQVAEConfig, build_autoencoder, build_prior
)
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer, VectorQuantizer
from vqvae_lightning.models.quantizers.lookup_free import LFQ
from vqvae_lightning.models.trunks.conv import ConvTrunk

kind, path, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
local_statistics = sys.argv[4] == "local"
torch.set_num_threads(1)
dist.init_process_group("gloo") if "RANK" in os.environ else None
rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
if local_statistics:  # negative control: each rank learns from its own rows
    import vqvae_lightning.models.quantizers.quantizer as q
    q.all_reduce_sum = lambda x: x
torch.manual_seed(0)
network = ConvTrunk.Config(hidden=8, residual_hidden=4, residual_blocks=1)
config = {
    "ae": AEConfig(latent_dim=4, trunk=network),
    "ema": VQVAEConfig(
        latent_dim=4, trunk=network,
        quantizer=EMAVectorQuantizer.Config(16, restart_below=0.5, decay=0.5),
    ),
    "gradient": VQVAEConfig(latent_dim=4, trunk=network, quantizer=VectorQuantizer.Config(16)),
    "residual products": VQVAEConfig(
        trunk=network, groups=2,
        quantizer=EMAVectorQuantizer.Config(
            4, lookup_dim=2, residual_levels=2, restart_below=0.5, decay=0.5
        ),
    ),
    "lfq": VQVAEConfig(trunk=network, quantizer=LFQ.Config(16, entropy=0.3)),
    "vae": VAEConfig(latent_dim=4, trunk=network),
    "free bits": VAEConfig(latent_dim=4, trunk=network),
    **{
        name: PriorConfig(network=prior.Config(layers=1, width=16, dropout=0))
        for name, prior in PRIORS.items()
    },
}[kind]
# between the means of one dimension on the two ranks
arguments = (1.0, 0.0136) if kind == "free bits" else ()
generator = torch.Generator().manual_seed(1)
data = torch.rand(steps, 12, 1, 8, 8, dtype=torch.float64, generator=generator) * 2 - 1
labels = torch.randint(10, (steps, 12), generator=generator)
if kind in PRIORS:
    net = build_prior(config, CodeLayout((2, 2), 16), 10).double()
    data = torch.randint(16, (steps, 12, 4), generator=generator)
else:
    net = build_autoencoder(config, (1, 8, 8)).double()


class Loss(torch.nn.Module):  # what DDP wraps: its forward gives the loss
    def __init__(self):
        super().__init__()
        self.net = net

    def forward(self, x, y):
        if kind in PRIORS:
            return net.nll(x, y).mean()
        batch = Batch(x, y, y, step, part=rank, parts=world)
        return net(x, *arguments, noise=batch.step_noise).loss


model = Loss()
model = DistributedDataParallel(model, forward_sync_buffers=False) if world > 1 else model
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
share = slice(rank * 12 // world, (rank + 1) * 12 // world)
found = {}
for step in range(steps):
    torch.manual_seed(step)
    optimizer.zero_grad()
    model(data[step, share], labels[step, share]).backward()
    if step == 0:
        gradients = {k: p.grad for k, p in net.named_parameters() if p.grad is not None}
        found = {f"gradient of {k}": gradient.contiguous() for k, gradient in gradients.items()}
    if kind not in PRIORS:
        net.bottleneck.update()
    optimizer.step()
held = {k: v.contiguous() for k, v in net.state_dict().items()}
torch.save({**found, **held}, f"{path}-{rank}.pt")
if world > 1:
    dist.barrier()
    sys.stderr.flush()
    # gloo's threads outlive the group while DDP holds it, and can abort an interpreter that ends
    os._exit(0)
"""


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def run_ranks(world: int, arguments: list[str]) -> None:
    """Runs RANK in `world` processes; every one must succeed within a minute."""
    port, processes = free_port(), []
    for rank in range(world):
        group = {
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(group if world > 1 else {})}
        processes.append(
            subprocess.Popen([sys.executable, "-c", RANK, *arguments], env=environment)
        )
    try:
        assert [process.wait(timeout=60) for process in processes] == [0] * world
    finally:
        for process in processes:
            process.kill()


def states(
    tmp_path: Path, world: int, kind: str, statistics: str = "summed"
) -> list[dict[str, torch.Tensor]]:
    path = tmp_path / f"{kind}-{world}-{statistics}"
    run_ranks(world, [kind, str(path), str(STEPS), statistics])
    return [torch.load(f"{path}-{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize(
    "kind", ["ae", "ema", "gradient", "residual products", "lfq", "vae", "free bits", *PRIORS]
)
def test_two_ranks_equal_one_process(tmp_path, kind):
    (one,), (first, second) = states(tmp_path, 1, kind), states(tmp_path, 2, kind)
    assert sum(name.startswith("gradient of ") for name in one) >= 4
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), f"{name} differs between ranks"
        if name.endswith("usage"):
            assert torch.equal(value, first[name]), name
        else:
            close = 1e-12 if name.startswith("gradient of ") else 1e-10
            torch.testing.assert_close(value, first[name], rtol=close, atol=close, msg=name)


def test_the_comparison_sees_statistics_that_are_not_summed(tmp_path):
    first, second = states(tmp_path, 2, "ema", "local")
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
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    cuts = {"one": (1, 1), "passes": (1, 2), "two": (2, 1), "three": (3, 1)}
    for name, (devices, passes) in cuts.items():
        words = [f"trainer.devices={devices}", f"trainer.accumulate={passes}", f"name={name}"]
        subprocess.run(
            [
                sys.executable,
                str(TESTS / "launch_fake.py"),
                str(tmp_path / "data"),
                "train",
                str(empty),
                *settings,
                *words,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=120,
            check=True,
        )
    assert {p.name for p in (tmp_path / "runs").iterdir()} == set(cuts)
    runs = {name: tmp_path / "runs" / name for name in cuts}
    infos = {name: json.loads((run / "run.json").read_text()) for name, run in runs.items()}
    states = {
        name: torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        for name, run in runs.items()
    }
    for name in ("passes", "two", "three"):
        assert infos[name]["status"] == "finished"
        assert infos[name]["test"] == pytest.approx(
            infos["one"]["test"], rel=1e-6
        )  # the metrics' sums are in float32
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
    result = subprocess.run(
        [sys.executable, str(TESTS / "launch_fake.py"), str(tmp_path / "data"), *words],
        env={**os.environ, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
        capture_output=True,
        text=True,
        timeout=60,
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
        check_launch(2)
    else:
        with pytest.raises(ConfigError, match=line):
            check_launch(2)


@pytest.mark.slow
def test_torchrun_and_two_nodes_on_loopback_train_as_lightning_does(tmp_path):
    """`torchrun --nproc-per-node 2`, and two agents of one process each, as two machines would
    be.
    """
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}

    def start(name: str, launch: list[str], *more: str) -> subprocess.Popen:
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
