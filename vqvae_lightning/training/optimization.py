"""AdamW, its schedule, and gradient clipping: shared by autoencoders and priors."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from vqvae_lightning.config import OptimizerConfig

DECAYED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def configure_adamw(module: nn.Module, config: OptimizerConfig, steps: int) -> dict[str, Any]:
    """Optimizer and per-step schedule over `steps`, in the form Lightning asks for."""
    optimizer = torch.optim.AdamW(parameter_groups(module, config.weight_decay), lr=config.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config, steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of linear and convolution layers decay; biases, norms, embeddings and codebooks do not."""
    decayed = {id(m.weight) for m in module.modules() if isinstance(m, DECAYED)}
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
    ]


def learning_rate_factor(step: int, config: OptimizerConfig, steps: int) -> float:
    """Factor on the peak rate at `step` (0 … steps): linear warm-up, then constant or half a cosine down to 0."""
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def clip_gradients(module: nn.Module, largest_norm: float) -> Tensor:
    """Scales the gradients down to `largest_norm` (0: leaves them) and returns the norm they had."""
    parameters = [p for p in module.parameters() if p.grad is not None]
    return nn.utils.clip_grad_norm_(parameters, largest_norm if largest_norm > 0 else math.inf)


def logs_now(module: pl.LightningModule) -> bool:
    """Whether Lightning logs the step under way: what is only logged need not be computed at the others."""
    return (module.trainer.global_step + 1) % module.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
