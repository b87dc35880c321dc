"""Averaged weights: training moves the current ones, everything else sees their average.

```
step ──► current weights ──► average ──► validation, pictures, best.ckpt, final test
                │                └─────► state_dict of a checkpoint: what `evaluate` loads
                └──► current_model_state of a checkpoint: what a resumed run goes on from,
                     with the buffers of state_dict
```
"""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from vqvae_lightning.training.sharding import gathered, part_of

# The entries of a checkpoint that a training with averaged weights is restored from.
STATE = {"current_model_state": dict, "averaging_state": dict}


class AveragedWeights(Callback):
    """An exponential moving average of a module's parameters, updated after every optimizer step.

    average ← d · average + (1 − d) · current, d = min(decay, (1 + n)/(10 + n)) after n steps. It
    begins with the weights after the first step. The smaller d of the first steps forgets them
    soon: with a constant d a run of 1/(1 − d) steps would end with a third of its beginning.

    Buffers are not averaged: the codebook of `ema` is an average already, and its counts and sums
    belong together. A codebook that learns by a gradient is a parameter.

    Stands after the callbacks that look at a validation and before those that save: Lightning calls
    a `Checkpoint` last, so that every checkpoint is saved with the current weights in the module.
    Lightning's own `WeightAveraging` copies the module, which cannot be done to a sharded one.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0  # how many the average is of
        self.averages: list[Tensor] = []  # of the parameters, in their order; none before a step

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Those of a checkpoint are whole, and on the CPU.
        given = self.averages or [p.detach() for p in module.parameters()]
        self.averages = [
            part_of(average, like=p).clone()
            for average, p in zip(given, module.parameters(), strict=True)
        ]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: object
    ) -> None:
        if trainer.global_step == self.steps:
            return  # still accumulating
        n = self.steps
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        torch._foreach_lerp_(self.averages, list(module.parameters()), 1 - decay)
        self.steps = trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._swap(module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._swap(module)

    @torch.no_grad()
    def _swap(self, module: pl.LightningModule) -> None:
        """Swaps the averages and the current weights; neither, outside of a training."""
        for average, current in zip(self.averages, module.parameters(), strict=False):
            kept = average.clone()
            average.copy_(current)
            current.copy_(kept)

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for average, current in zip(self.averages, module.parameters(), strict=True):
            current.copy_(average)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        average_of = dict(zip(module.parameters(), self.averages, strict=True))
        # A parameter that two layers share has two names in a checkpoint.
        named = {name: average_of[p] for name, p in module.named_parameters(remove_duplicate=False)}
        current = checkpoint["state_dict"]
        # Without buffers: the file stores a tensor of two names once, and a checkpoint whose
        # tensors claim more bytes than its file has is refused.
        checkpoint["current_model_state"] = {k: v for k, v in current.items() if k in named}
        checkpoint["state_dict"] = {**current, **gathered(named)}
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self.steps)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # The module has the averages by now, which are what a test is of.
        if trainer.state.fn == TrainerFn.FITTING:
            self.averages = [
                checkpoint["state_dict"][name] for name, _ in module.named_parameters()
            ]
            self.steps = int(checkpoint["averaging_state"]["n_averaged"])
            current = {**checkpoint["state_dict"], **checkpoint["current_model_state"]}
            trainer.strategy.load_model_state_dict({"state_dict": current})
