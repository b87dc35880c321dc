"""Ordinary differential equations in a fixed number of steps, and the trace of their Jacobian.

Letters: M numbers of the state of each of N trajectories.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.func import vjp, vmap

Solver = Literal["heun", "midpoint"]
EVALUATIONS = 2  # of the field at each step, of either solver


class Field(Protocol):
    """dx/dt (N, M) of x (N, M) at a time."""

    def __call__(self, x: Tensor, /, time: float) -> Tensor: ...


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
    for i in range(steps):
        here = start + (end - start) * i / steps
        there = start + (end - start) * (i + 1) / steps
        length = there - here
        slope = field(x, here)
        if solver == "heun":
            x = x + length / 2 * (slope + field(x + length * slope, there))
        else:
            x = x + length * field(x + length / 2 * slope, (here + there) / 2)
    return x


def log_volume(
    field: Field, x: Tensor, steps: int, dtype: torch.dtype, probe: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Where x (N, M) float64 is at time 0, if it was at x at time 1, and by how much the logarithm
    of a small volume has changed on the way, (N,).

    By midpoints, of second order in 1/steps. The times are 1 − (i/steps)², so steps are shortest at
    1, where the velocity of narrow densities varies fastest, and no midpoint lies.

    Args:
        field: dx/dt.
        x: the state at time 1.
        steps: how many steps.
        dtype: of what the field is asked; the state stays in float64.
        probe: signs for an estimate, see `trace`.
    """
    change = x.new_zeros(len(x))
    for i in range(steps):
        here, there = 1 - (i / steps) ** 2, 1 - ((i + 1) / steps) ** 2
        length, middle = there - here, (here + there) / 2
        halfway = (x + length / 2 * field(x.to(dtype), here).double()).to(dtype)
        slope, divergence = trace(partial(field, time=middle), halfway, probe)
        x = x + length * slope.double()
        change = change + length * divergence.double()
    return x, change


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
