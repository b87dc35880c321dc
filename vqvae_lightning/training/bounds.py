"""A bound on the cost of settings in a checkpoint: the module is first built without memory."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from vqvae_lightning.verified import CheckpointError

# Bytes of states that are in no file: counts of codes without a codebook, states of metrics.
BYTES, TENSORS = 2**26, 1000


def built_on_meta(
    build: Callable[[], nn.Module], path: Path, tensors: int, nbytes: int
) -> nn.Module:
    """The module that `build` makes of the settings in a checkpoint, on the meta device.

    Args:
        build: makes the module.
        path: the checkpoint, which errors name.
        tensors: how many tensors the checkpoint holds.
        nbytes: their bytes.

    Raises:
        CheckpointError: the module has many more tensors, or needs much more memory. Its memory is
            that of weights, buffers and the states of metrics, which no file holds.
    """
    registered = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal registered
        registered += 1
        if registered > tensors + TENSORS:
            raise CheckpointError(
                f"checkpoint: the settings in {path} want more tensors than the {tensors} it holds"
            )

    hooks = (
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    )
    try:
        with torch.device("meta"):
            module = build()
    finally:
        for hook in hooks:
            hook.remove()
    from torchmetrics import Metric  # takes seconds, which who only reads run folders would wait

    held = [*module.parameters(), *module.buffers()]
    for metric in module.modules():
        if isinstance(metric, Metric):
            held += [state for state in metric.metric_state.values() if isinstance(state, Tensor)]
    wanted = sum(tensor.numel() * tensor.element_size() for tensor in held)
    if wanted > nbytes + BYTES:
        raise CheckpointError(
            f"checkpoint: the settings in {path} want {wanted:,} bytes, but it holds {nbytes:,}"
        )
    return module
