"""Fully sharded training (`trainer.strategy=fsdp`): each device keeps a part of every weight, of
its gradient and of the optimizer's state (ZeRO: Rajbhandari et al. 2020, arXiv 1910.02054; torch's
`fully_shard`).

```
 training     a block at a time: parts ──► whole block ──► forward, backward ──► parts
 evaluation   parts ──► whole network on each device, until its end
 checkpoint   parts ──► whole tensors on rank 0 ──► the file that DDP writes, and back
```
"""

from collections.abc import Hashable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from vqvae_lightning.models.priors.prior import PriorNetwork

Name = TypeVar("Name", bound=Hashable)


def shard(net: PriorNetwork, mesh: DeviceMesh) -> None:
    """Leaves each device of a mesh its part of the weights of a network that `shards`, once.

    A block is whole on a device while it computes. What is no block, such as the embeddings, is
    whole from the forward pass to the end of the backward pass.
    """
    if isinstance(net, FSDPModule):
        return
    for block in cast(nn.ModuleList, net.blocks):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(net, mesh=mesh, reshard_after_forward=False)
    # What steps call in the place of `forward`.
    for name in ("training_nll", "rate"):
        register_fsdp_forward_method(net, name)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, of which this device may hold a part. All ranks have to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as a parameter is kept: on its device, and the same part of it."""
    if not isinstance(like, DTensor):
        return tensor.to(like)
    # Every rank has all of it, so that none has to send the others their parts.
    return distribute_tensor(
        tensor.to(like.device, like.dtype), like.device_mesh, like.placements, src_data_rank=None
    )


def gathered(values: Mapping[Name, Any]) -> dict[Name, Any]:
    """The values, with each sharded tensor whole on the CPU of rank 0, and None on other ranks.

    All ranks have to call it, with the same names in the same order.
    """
    found: dict[Name, Any] = {}
    for name, value in values.items():
        if isinstance(value, DTensor):
            # One at a time. The copy leaves behind what pads the parts to one size.
            all_of_it = value.full_tensor()
            found[name] = all_of_it.to("cpu", copy=True) if dist.get_rank() == 0 else None
        else:
            found[name] = value
    return found


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for a module whose `configure_model` calls `shard`.

    Its checkpoints are those of DDP: Lightning's own reads them past `CheckpointIO`, which verifies
    them, and names the states of the optimizer in another way.
    """

    def __init__(self, devices: int, timeout: timedelta) -> None:
        """Shards over all `devices`, which wait for each other as long as `timeout`."""
        super().__init__(
            data_parallel_size=devices,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            timeout=timeout,
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return gathered(ParallelStrategy.lightning_module_state_dict(self))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        own = ParallelStrategy.lightning_module_state_dict(self)
        parts = {
            name: part_of(tensor, own[name]) if name in own else tensor
            for name, tensor in checkpoint["state_dict"].items()
        }
        ParallelStrategy.load_model_state_dict(self, {"state_dict": parts}, strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = ParallelStrategy.optimizer_state(self, optimizer)
        of_parameters = {place: gathered(values) for place, values in state["state"].items()}
        return {**state, "state": of_parameters}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            of_parameters = {
                place: {
                    # a count of steps has another shape than the parameter
                    name: part_of(value, like) if value.shape == like.shape else value
                    for name, value in values.items()
                }
                for place, values in state["state"].items()
                for like in (parameters[place],)
            }
            states.append({**state, "state": of_parameters})
        ParallelStrategy.load_optimizer_state_dict(self, {"optimizer_states": states})


class WholeInEvaluation(Callback):
    """Keeps the network whole on each device from the first batch of an evaluation to its end.

    Ranks may have different numbers of batches there, and rank 0 draws the pictures alone: none
    could wait for the parts of the others. Stands after what looks at a validation and before
    `AveragedWeights`, which moves the parts.
    """

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        keep_whole(module, True)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        keep_whole(module, False)

    def on_test_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        keep_whole(module, True)


def keep_whole(module: nn.Module, keep: bool) -> None:
    """Whether the sharded parts of a module stay whole once they are; if not, none is whole now."""
    net, *blocks = (part for part in module.modules() if isinstance(part, FSDPModule))
    for block in blocks:
        block.set_reshard_after_forward(not keep, recurse=False)
    if not keep:
        for part in (net, *blocks):
            part.reshard()
