"""What is measured of latents over a whole split."""

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric


class ActiveUnits(Metric):
    """Latent dimensions whose posterior mean varies over the data: Var_x(E[z|x]) > 0.01.

    The measure of Burda et al. 2016 (arXiv 1509.00519, §5.2).
    """

    full_state_update = False
    threshold = 0.01
    count: Tensor
    sums: Tensor
    squares: Tensor

    def __init__(self, units: int) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(units, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(units, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, mean: Tensor) -> None:
        """Adds posterior means (N, D, h, w)."""
        values = mean.double().flatten(1)  # N,units
        self.count += values.shape[0]
        self.sums += values.sum(0)
        self.squares += values.square().sum(0)

    def compute(self) -> dict[str, Tensor]:
        variance = self.squares / self.count - (self.sums / self.count).square()
        return {"active_units": (variance > self.threshold).sum().double()}


class Mean(MeanMetric):
    """Mean of per-row values over a split, summed in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(torch.float64)
