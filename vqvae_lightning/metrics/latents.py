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


class Moments:
    """Mean and standard deviation of each channel of latents (N, D, h, w), summed in float64."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sums = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)

    def update(self, z: Tensor) -> None:
        """Adds latents (n, D, h, w), on the CPU."""
        values = z.double().transpose(0, 1).flatten(1)  # D,n·h·w
        self.count += values.shape[1]
        self.sums += values.sum(1)
        self.squares += values.square().sum(1)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (D,) each."""
        mean = self.sums / self.count
        return mean, (self.squares / self.count - mean.square()).clamp_min(0).sqrt()
