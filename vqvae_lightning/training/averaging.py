"""Averaged weights: training moves the current ones, everything else sees their average.

```
step ──► current weights ──► average ──► validation, pictures, best.ckpt, final test
                │                └─────► state_dict of a checkpoint: what `evaluate` loads
                └──► current_model_state of a checkpoint: what a resumed run goes on from
```
"""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

# The entries of a checkpoint that Lightning's callback restores a training from.
STATE = {"current_model_state": dict, "averaging_state": dict}


class AveragedWeights(WeightAveraging):
    """An exponential moving average of a module's parameters, updated after every optimizer step.

    average ← d · average + (1 − d) · current, d = min(decay, (1 + n)/(10 + n)) after n steps. It
    begins with the weights after the first step. The smaller d of the first steps forgets them
    soon: with a constant d a run of 1/(1 − d) steps would end with a third of its beginning.

    Buffers are not averaged but taken over: the codebook of `ema` is an average already, and its
    counts and sums belong together. A codebook that learns by a gradient is a parameter.

    Stands after the callbacks that look at a validation and before those that save: Lightning calls
    a `Checkpoint` last, so that every checkpoint is saved with the current weights in the module.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=self._average)
        self.decay = decay

    def _average(
        self,
        averages: tuple[Tensor, ...] | list[Tensor],
        current: tuple[Tensor, ...] | list[Tensor],
        steps: Tensor | int,
    ) -> None:
        n = int(steps)
        decay = min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(averages, current, 1 - decay)

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        # The module itself is moved to its device after this.
        self._device = trainer.strategy.root_device
        super().setup(trainer, module, stage)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, module)

    # Lightning swaps in these two, between which no pictures are drawn.
    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        pass

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        pass

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Lightning would put the current weights into a module that is to be tested.
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, module, checkpoint)
