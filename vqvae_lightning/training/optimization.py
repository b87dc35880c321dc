"""The optimizer, its schedule, and gradient clipping: shared by autoencoders and priors."""

import math
import os
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from vqvae_lightning.config import OptimizerConfig
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.randomness import derive_seed
from vqvae_lightning.models.bottlenecks import NonFiniteError
from vqvae_lightning.training.muon import Muon
from vqvae_lightning.training.sharding import whole

DECAYED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def configure_optimizer(
    module: nn.Module, config: OptimizerConfig, steps: int | None
) -> dict[str, Any]:
    """Optimizer and per-step schedule over `steps`, in the form Lightning asks for.

    Without a number of steps the rate stays constant after the warm-up.
    """
    groups = parameter_groups(module, config.weight_decay)
    # fused: one pass over each parameter, on CPUs too, instead of a dozen operations
    optimizer: torch.optim.Optimizer
    if config.name == "muon":
        groups = [part for group in groups for part in matrices_apart(module, group)]
        optimizer = Muon(groups, lr=config.lr, momentum=config.momentum)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, config, steps)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def planned_steps(trainer: pl.Trainer) -> int | None:
    """The optimizer steps that a Trainer will take: by `max_steps` or `max_epochs`.

    None if it has no end, or one in time, or a loader that does not say how many batches it has.
    """
    steps = trainer.estimated_stepping_batches
    return int(steps) if 0 < steps < math.inf else None


def progress(trainer: pl.Trainer) -> float | None:
    """The share of the optimizer steps of a training that is done; None if it has no end."""
    steps = planned_steps(trainer)
    return None if steps is None else trainer.global_step / steps


def check_precision(trainer: pl.Trainer) -> None:
    """Raises ValueError for a precision that scales the gradients, or has weights of 16 bits.

    The optimizer is fused and would undo the scale after `clip_step`, which would clip scaled ones.
    A codebook and a loss are float32 at least, whatever the rest is.
    """
    plugin = trainer.precision_plugin
    if getattr(plugin, "scaler", None) is not None:
        reason = "whose gradients are scaled"
    elif plugin.precision in ("bf16-true", "16-true"):
        reason = "whose weights have 16 bits"
    else:
        return
    raise ValueError(
        f"precision: got {plugin.precision}, {reason}, wanted 32-true, bf16-mixed or 64-true"
    )


def own_step_seed(step: int) -> int:
    """The seed of what a model draws at a step with a loader of one's own, the same on every rank.

    It follows from the seed of `pl.seed_everything`, if that was called.
    """
    return derive_seed(os.environ.get("PL_GLOBAL_SEED", "0"), "own loader", step)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of linear and convolution layers decay; biases, norms, embeddings and codebooks do
    not.
    """
    decayed = {id(m.weight) for m in module.modules() if isinstance(m, DECAYED)}
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
    ]


def matrices_apart(module: nn.Module, group: dict[str, Any]) -> list[dict[str, Any]]:
    """A group of parameters as those that Muon moves, by the axis of their outputs, and the rest.

    Muon moves the weights of linear and convolution layers of more than one input and output. It
    leaves grouped convolutions, which are several matrices, and weights shared with an embedding.
    """
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    # The weight of a transposed convolution is (in, out, ...), of all others (out, in, ...).
    axes = {
        id(m.weight): int(isinstance(m, nn.ConvTranspose2d))
        for m in module.modules()
        if isinstance(m, DECAYED)
        and min(m.weight.shape[:2]) > 1
        and getattr(m, "groups", 1) == 1
        and id(m.weight) not in embeddings
    }
    parts: dict[int | None, list[Tensor]] = {0: [], 1: [], None: []}
    for p in group["params"]:
        parts[axes.get(id(p))].append(p)
    return [group | {"params": params, "out_axis": axis} for axis, params in parts.items()]


def learning_rate_factor(step: int, config: OptimizerConfig, steps: int | None) -> float:
    """Factor on the peak rate at `step` (0 … steps): linear warm-up, then constant or half a cosine
    down to 0. Without an end, `steps` is None and the rate stays constant.
    """
    warmup = config.warmup_steps if steps is None else min(config.warmup_steps, steps)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant" or steps is None:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def clip_gradients(module: nn.Module, largest_norm: float) -> Tensor:
    """Scales the gradients down to `largest_norm` (0: leaves them) and returns the norm they had.

    The gradients are already summed over ranks, so a loss that is not finite on one rank is seen on
    all of them. Raises NonFiniteError in that case, and leaves the gradients as they are.
    """
    named = {name: p for name, p in module.named_parameters() if p.grad is not None}
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    norm = whole(nn.utils.get_total_norm(gradients.values()))
    if not torch.isfinite(norm):
        worst = next(
            (name for name, g in gradients.items() if not torch.isfinite(whole(g)).all()),
            "all of them together",
        )
        raise NonFiniteError(f"gradient of {worst} is not finite")
    if largest_norm > 0:
        nn.utils.clip_grads_with_norm_(named.values(), largest_norm, norm)
    return norm


def clip_step(
    module: pl.LightningModule,
    net: nn.Module,
    config: OptimizerConfig,
    step_record: "StepRecord",
    parts: Mapping[str, nn.Module] | None = None,
) -> None:
    """Clips the gradients of a step and logs the norms that they had, before anything learns from
    the step.

    Args:
        module: the module in training.
        net: its network, whose gradients are clipped.
        config: the settings that hold the largest norm.
        step_record: the micro-batches of the step. It is cleared.
        parts: parts of the network, by name, whose gradients are measured apart as well.

    Raises:
        NonFiniteError: a gradient is not finite. The error names the step, this rank, and which of
            its losses and input images are not finite.
    """
    norms = part_norms(parts or {}) if logs_now(module) else {}
    try:
        norm = clip_gradients(net, config.clip)
    except NonFiniteError as error:
        step = module.trainer.global_step + 1
        raise NonFiniteError(
            f"step {step}, rank {module.global_rank}: {error}; {step_record.describe()}"
        ) from None
    step_record.clear()
    if logs_now(module):
        module.log("train/gradient_norm", norm)
        module.log_dict({f"train/gradient_norm_{name}": part for name, part in norms.items()})


def part_norms(parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The norm of the gradients of each part that has any."""
    gradients = {
        name: [p.grad for p in part.parameters() if p.grad is not None]
        for name, part in parts.items()
    }
    return {name: nn.utils.get_total_norm(some) for name, some in gradients.items() if some}


class StepRecord:
    """Micro-batches of the current step, kept for the error message of a non-finite gradient."""

    def __init__(self) -> None:
        self.micro_batches: list[tuple[Batch, Tensor]] = []

    def append(self, batch: Batch, loss: Tensor) -> None:
        self.micro_batches.append((batch, loss.detach()))

    @property
    def first(self) -> Batch:
        """The first micro-batch; its seed is that of all of the step."""
        return self.micro_batches[0][0]

    def clear(self) -> None:
        self.micro_batches.clear()

    def describe(self) -> str:
        """The losses of this rank, and the rows of the data set whose pixels are not finite."""
        losses = ", ".join(f"{loss.item():.4g}" for _, loss in self.micro_batches)
        rows = [
            int(row)
            for batch, _ in self.micro_batches
            if batch.x.is_floating_point()
            for row, finite in zip(
                batch.rows, torch.isfinite(batch.x).flatten(1).all(1), strict=True
            )
            if not finite
        ]
        return f"loss {losses}" + (
            f", input of image {', '.join(map(str, rows[:5]))} is not finite" if rows else ""
        )


def logs_now(module: pl.LightningModule) -> bool:
    """Whether Lightning logs the current step. Others need not compute what is only logged."""
    # Lightning sets it outside of Trainer's own class.
    every: int = module.trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (module.trainer.global_step + 1) % every == 0
