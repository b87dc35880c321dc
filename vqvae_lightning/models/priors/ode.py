"""Ordinary differential equations in a fixed number of steps, and the trace of their Jacobian.

Letters: M numbers of the state of each of N trajectories.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.func import vjp, vmap

Solver = Literal["heun", "midpoint"]
EVALUATIONS = 2  # of the field at each step, of either solver

# dx/dt (N, M) of x (N, M) at time t.
Field = Callable[[Tensor, float], Tensor]


def integrate(
    field: Field, x: Tensor, start: float, end: float, steps: int, solver: Solver
) -> Tensor:
    """x (N, M) at time `end`, if it was x (N, M) at time `start`; of second order in 1/steps.

    Args:
        field: dx/dt.
        x: the state at the start.
        start: the first time.
        end: the last time, which may be before the first.
        steps: how many steps of equal length.
        solver: `heun` averages the field at both ends of a step, `midpoint` takes that in the
            middle. Heun asks for the field at both ends of time, the midpoint at neither.
    """
    times = [start + (end - start) * i / steps for i in range(steps)]
    for here, there in pairwise([*times, end]):
        length = there - here
        slope = field(x, here)
        if solver == "heun":
            x = x + length / 2 * (slope + field(x + length * slope, there))
        else:
            x = x + length * field(x + length / 2 * slope, (here + there) / 2)
    return x


def trace(
    function: Callable[[Tensor], Tensor], x: Tensor, probe: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y = function(x), (N, M), and the trace (N,) of its Jacobian dy/dx, for each row of x (N, M).

    Args:
        function: maps each row for itself.
        x: where.
        probe: signs ±1 (N, M), whose estimate of the trace is p·(dy/dx)p (Hutchinson 1990). Its
            mean over probes is the trace. Without a probe the trace is exact, at M times the work.
    """

    found = vjp(function, x)
    y, pull = found[0], found[1]

    def along(direction: Tensor) -> Tensor:
        rows: Tensor = pull(direction.expand_as(x))[0]  # N,M: directionᵀ dy/dx
        return (rows * direction).sum(1)

    if probe is not None:
        return y, along(probe)
    basis = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    parts: Tensor = vmap(along)(basis)  # M,N
    return y, parts.sum(0)
