"""Muon: steps along the nearest orthogonal matrix of the averaged gradient (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon).

torch.optim.Muon takes matrices alone; most of the weights here are kernels of convolutions. A
kernel counts as the matrix (out, in · height · width) that it is to the patches it sees.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from vqvae_lightning.training.sharding import part_of, whole

BETAS, EPS = (0.9, 0.999), 1e-8  # of torch.optim.AdamW
ITERATIONS = 5
# Of the quintic iteration: singular values from 0.01 to 1 end between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Of a step in units of the rate, as AdamW has it (Liu et al. 2025, arXiv 2502.16982, §2.2).
RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for the groups with an `out_axis`, AdamW for the others, with one learning rate.

    `out_axis` is the axis of the outputs of a weight: 0, or 1 of a transposed convolution. The
    step of a weight is scaled so that its root mean square is that of AdamW.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float) -> None:
        # `fused` tells load_state_dict where AdamW wants its count of steps.
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "out_axis": None}
        super().__init__(groups, {**defaults, "fused": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves the weights; returns what a closure returns, which is called before that."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if group["out_axis"] is None:
                self._adamw(weights, group)
            else:
                for weight in weights:
                    self._move(weight, group)
        return loss

    def _adamw(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[weight] for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=weight.device)
                state["mean"] = torch.zeros_like(weight)
                state["square"] = torch.zeros_like(weight)
        adamw(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=EPS,
        )

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        gradient, state = weight.grad, self.state[weight]
        assert gradient is not None
        if not state:
            state["average"] = torch.zeros_like(weight)
        average = state["average"]
        average.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(average, group["momentum"])  # Nesterov's: one step further
        # A part of a matrix has no orthogonal matrix nearby: every rank computes that of the whole.
        by_output = whole(ahead).movedim(group["out_axis"], 0)  # out, ...
        matrix = orthogonalized(by_output.flatten(1))  # out, in · height · width
        rate = group["lr"] * RMS * max(matrix.shape) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        change = matrix.view_as(by_output).movedim(0, group["out_axis"])
        weight.add_(part_of(change, weight), alpha=-rate)


def orthogonalized(matrix: Tensor) -> Tensor:
    """About U Vᵀ of a matrix U S Vᵀ (rows, columns), by a Newton-Schulz iteration: its singular
    values become 0.7 to 1.2, but for those below a hundredth of its norm.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if is_tall else x
