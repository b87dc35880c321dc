"""`train_ranks.py FOLDER STEPS CASE…`: one rank's work, a process alone being rank 0 of 1.

For each case, a float64 model learns from this rank's share of fixed global batches, DDP's
broadcast of buffers being off. Its first gradients and its last state go to FOLDER/CASE-RANK.pt.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from small import model_config
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vqvae_lightning.config import OptimizerConfig
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.models.build import build_autoencoder, build_flow, build_prior
from vqvae_lightning.models.first_stage import FrozenLatents
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.parts import FLOWS, PRIORS
from vqvae_lightning.models.quantizers import quantizer
from vqvae_lightning.models.settings import FlowConfig, PriorConfig
from vqvae_lightning.training.flow import step_loss
from vqvae_lightning.training.optimization import configure_optimizer

RESETS = ("model.quantizer.reset_below=0.5", "model.quantizer.decay=0.5")
MUON = "ema by muon"
CASES = {
    "ae": ("ae",),
    "ema": ("vqvae", *RESETS),
    MUON: ("vqvae", *RESETS),
    "gradient": ("vqvae", "model.quantizer.name=gradient"),
    "residual products": (
        "vqvae",
        "model.quantizer.codebook_size=4",
        "model.quantizer.lookup_dim=2",
        "model.groups=2",
        "model.quantizer.residual_levels=2",
        *RESETS,
    ),
    "lfq": ("vqvae", "model.quantizer.name=lfq", "model.quantizer.entropy=0.3"),
    "vae": ("vae",),
    "free bits": ("vae",),
    # Of a prior the name of its network.
    **{name: (name,) for name in PRIORS},
    **{f"flow: {name}": (name,) for name in FLOWS},
}
# Negative control: each rank learns from its own rows.
LOCAL = "ema with local statistics"
CASES[LOCAL] = CASES["ema"]
BATCH = 12
# What flows learn the latents of. No flow asks for its weights.
FIRST_STAGE = FrozenLatents(build_autoencoder(model_config("vae"), (1, 8, 8)))


class Loss(nn.Module):
    """What DDP wraps: its forward gives the loss."""

    def __init__(self, net: Any, case: str, rank: int, world: int) -> None:
        super().__init__()
        self.net: Any = net
        self.case, self.rank, self.world = case, rank, world
        # β and free bits, which lie between the means of one dimension on the two ranks.
        self.arguments = (1.0, 0.0136) if case == "free bits" else ()

    def forward(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        batch = Batch(x, y, y, step, part=self.rank, parts=self.world)
        if self.case.startswith("flow"):
            return step_loss(self.net, FIRST_STAGE, batch, y)
        if self.case in PRIORS:
            nll: Tensor = self.net.nll(x, y, batch.step_uniform)
            return nll.mean()
        loss: Tensor = self.net(x, *self.arguments, noise=batch.step_noise).loss
        return loss


@contextmanager
def statistics_of(case: str) -> Iterator[None]:
    """Statistics summed over ranks, except in the negative control."""
    if case != LOCAL:
        yield
        return
    with mock.patch.object(quantizer, "all_reduce_sum", lambda x: x):
        yield


def train(case: str, steps: int, rank: int, world: int) -> dict[str, Tensor]:
    """Gradients of the first step, by the name of their parameter, and the last state."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    data = torch.rand(steps, BATCH, 1, 8, 8, dtype=torch.float64, generator=generator) * 2 - 1
    labels = torch.randint(10, (steps, BATCH), generator=generator)
    if case in PRIORS:
        network = PRIORS[case].Config(layers=1, width=16, dropout=0)
        net: Any = build_prior(PriorConfig(network=network), CodeLayout((2, 2), 16), 10).double()
        data = torch.randint(16, (steps, BATCH, 4), generator=generator)
    elif case.startswith("flow"):
        member: Any = FLOWS[CASES[case][0]]
        network = member.Config(layers=2, width=16)
        config = FlowConfig(network=network, label_dropout=0.5)
        net = build_flow(config, FIRST_STAGE.shape, 10).double()
        data = torch.randn(
            steps, BATCH, *FIRST_STAGE.record_shape, dtype=torch.float64, generator=generator
        )
    else:
        net = build_autoencoder(model_config(*CASES[case]), (1, 8, 8)).double()
    loss: nn.Module = Loss(net, case, rank, world)
    if world > 1:
        loss = DistributedDataParallel(loss, forward_sync_buffers=False)
    # Muon's rate is constant: the schedule is not stepped.
    by_muon = OptimizerConfig(name="muon", lr=1e-3, warmup_steps=0)
    optimizer = (
        configure_optimizer(net, by_muon, None)["optimizer"]
        if case == MUON
        else torch.optim.Adam(net.parameters(), 1e-3)
    )
    share = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    gradients = {}
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss(data[step, share], labels[step, share], step).backward()
        if step == 0:
            gradients = {
                f"gradient of {name}": parameter.grad.clone()
                for name, parameter in net.named_parameters()
                if parameter.grad is not None
            }
        if case not in PRIORS and not case.startswith("flow"):
            net.bottleneck.update()
        optimizer.step()
    return {**gradients, **{name: value.contiguous() for name, value in net.state_dict().items()}}


def main(folder: Path, steps: int, cases: list[str]) -> None:
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    for case in cases:
        with statistics_of(case):
            torch.save(train(case, steps, rank, world), folder / f"{case}-{rank}.pt")
    if world > 1:
        dist.barrier()
        sys.stderr.flush()
        # gloo's threads outlive the group while DDP holds it, and can abort an interpreter at its
        # end.
        os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
