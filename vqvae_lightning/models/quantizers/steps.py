"""Optimizer steps of this process: a quantizer is to know of one that ended without `update`."""

from functools import cache

from torch.optim.optimizer import register_optimizer_step_post_hook


class _Steps:
    """The steps of all optimizers since the first quantizer was asked."""

    def __init__(self) -> None:
        self.count = 0
        register_optimizer_step_post_hook(self._add)

    def _add(self, *_: object) -> None:
        self.count += 1


# One hook for the whole process: an optimizer and a quantizer do not know each other.
_steps = cache(_Steps)


def optimizer_steps() -> int:
    """How many optimizer steps there have been; only two answers together mean something."""
    return _steps().count
