"""`train_sharded.py FOLDER`: one rank's work of several trainings, in the same processes.

FOLDER/plan.json lists their command lines, FOLDER/data is what they learn from. What this rank
finds about sharded gradients goes to FOLDER/gradients-RANK.json.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import fake_data
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from vqvae_lightning import cli
from vqvae_lightning.models.bottlenecks import NonFiniteError
from vqvae_lightning.models.build import build_prior
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.prior import fresh_uniform
from vqvae_lightning.models.priors.transformer import CodeTransformer
from vqvae_lightning.models.settings import PriorConfig
from vqvae_lightning.training.optimization import clip_gradients
from vqvae_lightning.training.sharding import shard, whole


def gradients(rank: int) -> dict[str, Any]:
    """What is kept of a sharded network, and how clipping finds its gradients."""
    torch.manual_seed(0)
    config = PriorConfig(network=CodeTransformer.Config(layers=2, width=16, dropout=0))
    net = build_prior(config, CodeLayout((2, 2), 16), 10)
    everything = sum(p.numel() for p in net.parameters())
    shard(net, init_device_mesh("cpu", (2,)))
    kept = sum(p.to_local().numel() for p in net.parameters() if isinstance(p, DTensor))
    codes, labels = torch.arange(12).view(3, 4), torch.arange(3)
    net.training_nll(codes, labels, fresh_uniform, None).mean().backward()
    found = [whole(p.grad) for p in net.parameters() if p.grad is not None]
    by_hand = math.sqrt(sum(gradient.square().sum().item() for gradient in found))
    norm = float(clip_gradients(net, 0.01))
    clipped = float(clip_gradients(net, 0))
    net.zero_grad()
    nll = net.training_nll(codes, labels, fresh_uniform, None).mean()
    (nll * (math.nan if rank == 1 else 1.0)).backward()
    try:
        clip_gradients(net, 1.0)
        refused = ""
    except NonFiniteError as error:
        refused = str(error)
    return {
        "everything": everything,
        "kept": kept,
        "by_hand": by_hand,
        "norm": norm,
        "clipped": clipped,
        "refused": refused,
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    fake_data.install(folder / "data")
    for words in json.loads((folder / "plan.json").read_text()):
        cli.main(words)
        # Rank 0 writes the end of a run when the others are done with it.
        dist.barrier()
    rank = dist.get_rank()
    (folder / f"gradients-{rank}.json").write_text(json.dumps(gradients(rank)))
    dist.barrier()
    sys.stderr.flush()
    # gloo's threads can abort an interpreter at its end.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
