"""What is measured over a whole split: sums and counts that add up over batches and ranks, never means of means."""

import math

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.image import StructuralSimilarityIndexMeasure

from vqvae_lightning.models.autoencoder import Objective
from vqvae_lightning.models.quantizers.quantizer import histogram


class ReconstructionMetrics(Metric):
    """Loss, distortion, rate, MSE, PSNR, SSIM and bits per dimension of a split.

    MSE, PSNR and SSIM are of pixels in [0, 1], as in the literature; PSNR is that of the split's MSE. Bits per
    dimension are given only where distortion + rate bounds −log p of discrete data.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, dims: int, has_bits: bool) -> None:
        super().__init__()
        self.dims, self.has_bits = dims, has_bits
        # float64 sums: a split's total in float32 would depend on the order of the batches
        self.add_state("sums", torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")
        self.ssim = StructuralSimilarityIndexMeasure(data_range=1.0)

    def update(self, x: Tensor, objective: Objective) -> None:
        """Adds a batch: images x (N, C, H, W) in [-1, 1] and what the model made of them."""
        n = x.shape[0]
        target, reconstruction = ((image + 1) / 2 for image in (x, objective.reconstruction))
        error = (target - reconstruction).double().square().flatten(1).mean(1).sum()
        terms = [
            torch.as_tensor(float(n), device=x.device),
            objective.loss * n,
            objective.distortion.sum(),
            objective.latent.rate.sum(),
            error,
        ]
        self.sums += torch.stack([term.double() for term in terms])
        self.ssim.update(reconstruction, target)

    def reset(self) -> None:
        super().reset()
        self.ssim.reset()  # torchmetrics does not reset a metric inside a metric

    def compute(self) -> dict[str, Tensor]:
        count, *sums = self.sums.unbind()
        loss, distortion, rate, mse = (value / count for value in sums)
        values = {
            "loss": loss,
            "distortion": distortion,
            "rate": rate,
            "mse": mse,
            "psnr": -10 * mse.log10(),
            "ssim": torch.as_tensor(self.ssim.compute()),
        }
        if self.has_bits:
            values["bits_per_dim"] = (distortion + rate) / (self.dims * math.log(2))
        return values


class CodebookUsage(Metric):
    """Entropy, perplexity and number of codes used, from counts summed over a whole split.

    Of M codes per place each has a histogram of its own: entropy and codes used are means over the M, and perplexity is
    exp of that entropy, at most K.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, codebook_size: int, maps: int = 1) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(maps, codebook_size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Adds codes (…, M), or of any shape with M = 1, or sequences of them (N, T)."""
        maps, codebook_size = self.counts.shape
        self.counts += histogram(codes, codebook_size, maps)

    def compute(self) -> dict[str, Tensor]:
        share = self.counts.double() / self.counts.sum(1, keepdim=True)  # M,K
        entropy = -torch.special.xlogy(share, share).sum(1).mean()  # nats
        return {
            "perplexity": entropy.exp(),
            "codes_used": (self.counts > 0).sum(1).double().mean(),
            "code_entropy_bits": entropy / math.log(2),
        }


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
