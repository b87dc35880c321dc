"""What settings in a file may cost: a module of them is built without memory first, and
measured.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torchmetrics import Metric

from vqvae_lightning.verified import CheckpointError

# Beside what a file holds: counts of codes without a codebook, and whatever else is no weight.
BYTES, TENSORS = 2**26, 1000


def built_on_meta(
    build: Callable[[], nn.Module], path: Path, tensors: int, nbytes: int
) -> nn.Module:
    """The module that `build` makes, on the meta device. Its settings are from the checkpoint at
    `path`.

    Raises CheckpointError if it has many more tensors than the `tensors` of that file, or if they
    need much more memory than its `nbytes` bytes: weights, buffers, and the states of its metrics,
    which no file holds.
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
