"""Weights as safetensors: a JSON header and raw numbers. Nothing in them can be executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from vqvae_lightning.config import one_line
from vqvae_lightning.training.loading import find_kept_first_stage, module_of, own_checkpoint
from vqvae_lightning.training.runs import Run
from vqvae_lightning.verified import CheckpointError, read_checkpoint


def checkpoints_of(run: Run) -> dict[str, dict[str, Any]]:
    """The checkpoint of each part of a run: `model`, and of a prior its `tokenizer`."""
    found = {"model": own_checkpoint(run, run.best)}
    if run.record.tokenizer:
        found["tokenizer"] = read_checkpoint(find_kept_first_stage(run)[1])
    return found


def hyper_parameters(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of a module, without paths of this machine."""
    given = dict(checkpoint["hyper_parameters"])
    if given["config"].get("tokenizer"):
        given["config"] = {**given["config"], "tokenizer": None}
    return given


def weights_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as the bytes of a safetensors file."""
    from safetensors.torch import save

    plain = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
    data: bytes = save(plain, metadata={"format": "pt"})
    return data


def module_from(data: bytes, given: Mapping[str, Any], path: Path) -> pl.LightningModule:
    """The module of these hyper-parameters with the weights in `data`, in evaluation mode.

    Raises CheckpointError if they do not fit. `path` is for messages.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"export: {path} is no safetensors file ({one_line(error)})"
        ) from error
    return module_of({"hyper_parameters": dict(given), "state_dict": state}, path)
