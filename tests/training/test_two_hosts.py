"""Two machines, as two network namespaces that only a cable of their own connects."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vqvae_lightning.verified import read_checkpoint

TESTS = Path(__file__).parents[1]
HOSTS = ("vqvae-a", "vqvae-b")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
TIMEOUT = 15  # seconds that one host waits for the other
SMALL = [
    "kind=ae",
    "model.trunk.hidden=8",
    "model.trunk.residual_hidden=4",
    "data.name=mnist",
    "data.batch_size=8",
    "data.eval_batch_size=15",
    "data.validation_size=40",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.nodes=2",
    f"trainer.timeout={TIMEOUT}",
    "trainer.validate_every=10",
    "trainer.log_every=5",
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def kill(host: str) -> None:
    """Ends all processes of a host; a launcher's workers are no part of its group."""
    found = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True)
    for number in map(int, found.stdout.split()):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """The names of two hosts, whose network is taken down at the end."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("only root makes network namespaces, by `ip`")
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        ends = ("vqvae0", "vqvae1")
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for host, end, address in zip(HOSTS, ends, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", host, "name", "cable")
            ip("-n", host, "address", "add", f"{address}/24", "dev", "cable")
            for name in ("lo", "cable"):
                ip("-n", host, "link", "set", name, "up")
        yield HOSTS
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def launched(
    hosts: tuple[str, str], folder: Path, port: int, *settings: str
) -> list[subprocess.Popen[bytes]]:
    """One torchrun on each host, with one process."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        "GLOO_SOCKET_IFNAME": "cable",
    }
    (folder / "empty.yaml").write_text("{}\n")
    place = f"runs={folder / 'runs'}"
    return [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", host),
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
                *("--nproc-per-node", "1", "--node-rank", str(rank)),
                *("--master-addr", ADDRESSES[0], "--master-port", str(port)),
                *(str(TESTS / "launch_fake.py"), str(folder / "data"), "train"),
                *(str(folder / "empty.yaml"), *SMALL, place, "name=two", *settings),
            ],
            env=environment,
        )
        for rank, host in enumerate(hosts)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "cut off"])
def test_a_run_outlives_the_loss_of_a_host(
    fault: str, hosts: tuple[str, str], tmp_path: Path
) -> None:
    last = tmp_path / "runs" / "two" / "checkpoints" / "last.ckpt"
    agents = launched(hosts, tmp_path, 29511, "trainer.steps=100000")
    try:
        began = time.monotonic()
        while not last.is_file():
            assert time.monotonic() - began < 120
            time.sleep(0.2)
        if fault == "killed":
            kill(hosts[1])
        else:
            ip("-n", hosts[1], "link", "set", "cable", "down")
        lost = time.monotonic()
        assert agents[0].wait(timeout=120) != 0
        # The wait for the other, and the end of the processes.
        assert time.monotonic() - lost < TIMEOUT + 30
    finally:
        for host, agent in zip(hosts, agents, strict=True):
            kill(host)
            agent.wait()
    step = read_checkpoint(last)["global_step"]
    assert step % 10 == 0
    ip("-n", hosts[1], "link", "set", "cable", "up")
    steps = f"trainer.steps={step + 20}"
    again = launched(hosts, tmp_path, 29512, steps, "resume=auto")
    assert [agent.wait(timeout=120) for agent in again] == [0, 0]
    record = json.loads((tmp_path / "runs" / "two" / "run.json").read_text())
    assert record["status"] == "finished"
    assert read_checkpoint(last)["global_step"] == step + 20
