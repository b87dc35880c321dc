"""Two gloo ranks train as one process does: codebooks, gradients, metrics, and the command line that starts them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1]
STEPS = 4

# One rank's work: a float64 VQ-VAE trained on its share of fixed global batches, DDP's buffer broadcast off.
RANK = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from vqvae_lightning.config import NetworkConfig, VAEConfig, VQVAEConfig
from vqvae_lightning.models.autoencoder import Autoencoder

kind, path, steps, local_statistics = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "local"
torch.set_num_threads(1)
dist.init_process_group("gloo") if "RANK" in __import__("os").environ else None
rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
if local_statistics:  # negative control: each rank learns from its own rows
    import vqvae_lightning.models.quantizers as q
    q.all_reduce_sum = lambda x: x
torch.manual_seed(0)
network = NetworkConfig(hidden=8, residual_hidden=4, residual_blocks=1)
config = {
    "ema": VQVAEConfig(codebook_size=16, latent_dim=4, network=network, restart_below=0.5, decay=0.5),
    "gradient": VQVAEConfig(codebook_size=16, latent_dim=4, network=network, codebook="gradient"),
    "vae": VAEConfig(latent_dim=4, network=network),
    "free bits": VAEConfig(latent_dim=4, network=network),
}[kind]
arguments = (1.0, 0.0136) if kind == "free bits" else ()  # between the means of one dimension on the two ranks
net = Autoencoder((1, 8, 8), config).double()
model = DistributedDataParallel(net, forward_sync_buffers=False) if world > 1 else net
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
data = torch.rand(steps, 12, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
share = 12 // world
for step in range(steps):
    torch.manual_seed(step)
    optimizer.zero_grad()
    model(data[step, rank * share : (rank + 1) * share], *arguments).loss.backward()
    net.bottleneck.update()
    optimizer.step()
torch.save({k: v.contiguous() for k, v in net.state_dict().items()}, f"{path}-{rank}.pt")
if world > 1:  # gloo's threads must have ended before the interpreter does
    dist.barrier()
    dist.destroy_process_group()
"""


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def run_ranks(world: int, arguments: list[str]) -> None:
    """Runs RANK in `world` processes; every one must succeed within a minute."""
    port, processes = free_port(), []
    for rank in range(world):
        group = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(group if world > 1 else {})}
        processes.append(subprocess.Popen([sys.executable, "-c", RANK, *arguments], env=environment))
    try:
        assert [process.wait(timeout=60) for process in processes] == [0] * world
    finally:
        for process in processes:
            process.kill()


def states(tmp_path: Path, world: int, kind: str, statistics: str = "summed") -> list[dict[str, torch.Tensor]]:
    path = tmp_path / f"{kind}-{world}-{statistics}"
    run_ranks(world, [kind, str(path), str(STEPS), statistics])
    return [torch.load(f"{path}-{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize("kind", ["ema", "gradient", "vae", "free bits"])
def test_two_ranks_equal_one_process(tmp_path, kind):
    (one,), (first, second) = states(tmp_path, 1, kind), states(tmp_path, 2, kind)
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), f"{name} differs between ranks"
        if name.endswith("usage"):
            assert torch.equal(value, first[name]), name
        else:
            torch.testing.assert_close(value, first[name], rtol=1e-10, atol=1e-10, msg=name)


def test_the_comparison_sees_statistics_that_are_not_summed(tmp_path):
    first, second = states(tmp_path, 2, "ema", "local")
    assert not torch.equal(first["bottleneck.codebook"], second["bottleneck.codebook"])


def test_the_command_line_trains_on_two_ranks_as_on_one(tmp_path):
    """`trainer.devices=2` gives one run folder and the metrics of one process."""
    runs = tmp_path / "runs"
    settings = ["kind=vqvae", "model.network.hidden=8", "model.codebook_size=16", "model.latent_dim=8",
                "data.batch_size=20", "data.eval_batch_size=15", "data.validation_size=40", "trainer.accelerator=cpu",
                "trainer.steps=3", "trainer.validate_every=3", "trainer.log_every=1", f"runs={runs}"]  # fmt: skip
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    for devices in (1, 2):
        words = ["train", str(empty), *settings, f"trainer.devices={devices}", f"name=d{devices}"]
        subprocess.run(
            [sys.executable, str(TESTS / "launch_fake.py"), str(tmp_path / "data"), *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=120,
            check=True,
        )
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["d1", "d2"]
    one, two = (json.loads((tmp_path / "runs" / name / "run.json").read_text()) for name in ("d1", "d2"))
    assert two["status"] == "finished"
    assert two["test"] == pytest.approx(one["test"], rel=1e-3)
    assert len(list((tmp_path / "runs" / "d2" / "wandb").glob("offline-run-*"))) == 1


def test_a_launcher_that_disagrees_with_the_settings_is_refused(tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    words = ["train", str(empty), "trainer.accelerator=cpu", "trainer.devices=1", f"runs={tmp_path}/runs"]
    result = subprocess.run(
        [sys.executable, str(TESTS / "launch_fake.py"), str(tmp_path / "data"), *words],
        env={**os.environ, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert "2 processes were started, but trainer.devices x trainer.nodes is 1" in result.stderr
    assert not (tmp_path / "runs").exists()
