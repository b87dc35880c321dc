"""Gradient estimators: how the gradient of the decoder passes the choice of a code, which has none
of its own.

Each maps encoder outputs z_e (..., D) and their codes' vectors z_q (..., D) to a tensor with the
value of z_q (up to the last bit) and a gradient to z_e alone.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Estimator = Callable[[Tensor, Tensor], Tensor]

# Most that a gradient is lengthened by, where the formula divides by a length: a zero vector has no
# direction.
LARGEST_GAIN = 30.0


def direction(x: Tensor) -> Tensor:
    """x (..., D) at length 1; LARGEST_GAIN · x where that is shorter, which bounds the gradient."""
    return F.normalize(x, dim=-1, eps=1 / LARGEST_GAIN)


def straight_through(z_e: Tensor, z_q: Tensor) -> Tensor:
    """dz/dz_e = I (Bengio et al. 2013, arXiv 1308.3432; van den Oord et al. 2017, §3.2)."""
    return z_e + (z_q - z_e).detach()


def rotation(z_e: Tensor, z_q: Tensor) -> Tensor:
    """dz/dz_e = λR, the rotation and scaling that take z_e to z_q, held constant (Fifty et al.
    2024, arXiv 2410.06424).

    With unit vectors ê, q̂ and r = (ê + q̂)/‖ê + q̂‖, R = I − 2rrᵀ + 2q̂êᵀ and λ = ‖z_q‖/‖z_e‖
    (§4.2): the gradient keeps its angle to the code, where straight-through keeps its direction.
    Where λ is above LARGEST_GAIN, z_e is next to zero and says nothing of an angle: there the
    gradient is straight-through's.
    """
    e, q = F.normalize(z_e.detach(), dim=-1), F.normalize(z_q.detach(), dim=-1)
    r = F.normalize(e + q, dim=-1)
    scale = z_q.detach().norm(dim=-1, keepdim=True) / z_e.detach().norm(
        dim=-1, keepdim=True
    ).clamp_min(1e-12)
    rotated = (
        z_e - 2 * r * (r * z_e).sum(-1, keepdim=True) + 2 * q * (e * z_e).sum(-1, keepdim=True)
    )
    rotated = torch.where(scale <= LARGEST_GAIN, scale * rotated, z_e)
    # its value already, but for rounding where ê and q̂ are opposite
    return straight_through(rotated, z_q)


ESTIMATORS: dict[str, Estimator] = {"straight_through": straight_through, "rotation": rotation}
