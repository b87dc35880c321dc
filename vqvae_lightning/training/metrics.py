"""What is measured over a whole split: sums and counts that add up over batches and ranks, never
means of means.
"""

import functools
import math

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from vqvae_lightning.models.autoencoder import Objective
from vqvae_lightning.models.layout import histogram

SSIM_IMAGES = 32


class ReconstructionMetrics(Metric):
    """Loss, distortion, rate, MSE, PSNR, SSIM and bits per dimension of a split.

    MSE, PSNR and SSIM are of pixels in [0, 1], as in the literature; PSNR is that of the split's
    MSE. Bits per dimension are given only where distortion + rate bounds −log p of discrete data.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, dims: int, has_bits: bool) -> None:
        super().__init__()
        self.dims, self.has_bits = dims, has_bits
        # float64 sums: a split's total in float32 would depend on the order of the batches
        self.add_state("sums", torch.zeros(6, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, x: Tensor, objective: Objective) -> None:
        """Adds a batch: images x (N, C, H, W) in [-1, 1] and what the model made of them."""
        n = x.shape[0]
        target, reconstruction = ((image + 1) / 2 for image in (x, objective.reconstruction))
        error = (target - reconstruction).double().square().flatten(1).mean(1).sum()
        with torch.autocast(
            x.device.type, enabled=False
        ):  # SSIM is of differences of nearly equal products
            similarity = structural_similarity(reconstruction, target)
        terms = [
            torch.as_tensor(float(n), device=x.device),
            objective.loss * n,
            objective.distortion.sum(),
            objective.latent.rate.sum(),
            error,
            similarity.double().sum(),
        ]
        self.sums += torch.stack([term.double() for term in terms])

    def compute(self) -> dict[str, Tensor]:
        count, *sums = self.sums.unbind()
        loss, distortion, rate, mse, ssim = (value / count for value in sums)
        values = {
            "loss": loss,
            "distortion": distortion,
            "rate": rate,
            "mse": mse,
            "psnr": -10 * mse.log10(),
            "ssim": ssim,
        }
        if self.has_bits:
            values["bits_per_dim"] = (distortion + rate) / (self.dims * math.log(2))
        return values


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (N,) of images x and y (N, C, H, W) in [0, 1] (Wang et al. 2004): Gaussian windows of
    11, σ = 1.5.

    The mean over all pixels, images mirrored at their edges, as torchmetrics takes it. A Gaussian
    is separable, and a filter along a side a product with a banded matrix: a tenth of the cost of a
    two-dimensional convolution. Few images at a time, so that what is between the filters stays in
    a CPU's cache.
    """
    few = SSIM_IMAGES if x.device.type == "cpu" else len(x)
    return torch.cat(
        [_ssim(some_x, some_y) for some_x, some_y in zip(x.split(few), y.split(few), strict=True)]
    )


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    fields = torch.stack([x, y, x * x + y * y, x * y])  # 4,N,C,H,W
    for side in x.shape[:1:-1]:  # W, then H
        fields = (fields @ gaussian_windows(side).to(fields)).transpose(
            -1, -2
        )  # 4,N,C,W,H, then 4,N,C,H,W
    mean_x, mean_y, squares, product = fields
    mean_product, mean_squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    luminance = (2 * mean_product + 0.01**2) / (mean_squares + 0.01**2)
    structure = (2 * (product - mean_product) + 0.03**2) / (
        (squares - mean_squares).clamp_min(0) + 0.03**2
    )
    return (luminance * structure).flatten(1).mean(1)


@functools.cache
def gaussian_windows(side: int, size: int = 11, sigma: float = 1.5) -> Tensor:
    """Weights of the window around each place of a side, one in each column: (side, side),
    float64.
    """
    reach = torch.arange(size) - size // 2
    weights = torch.exp(-(reach.double() / sigma).square() / 2)
    places = (torch.arange(side) + reach[:, None]).abs()  # size,side: mirrored at the first place
    places = torch.where(places < side, places, 2 * (side - 1) - places)  # … and at the last
    windows = torch.zeros(side, side, dtype=torch.float64)
    return windows.scatter_add_(0, places, (weights / weights.sum())[:, None].expand(-1, side))


class CodebookUsage(Metric):
    """Entropy, perplexity and number of codes used, from counts summed over a whole split.

    Each of M codebooks has a histogram of its own: entropy and codes used are means over the M, and
    perplexity is exp of that entropy, at most K.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, codebook_size: int, num_codebooks: int = 1) -> None:
        super().__init__()
        counts = torch.zeros(num_codebooks, codebook_size, dtype=torch.int64)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Adds codes (…, M), or of any shape with M = 1, or sequences of them (N, T)."""
        num_codebooks, codebook_size = self.counts.shape
        self.counts += histogram(codes, codebook_size, num_codebooks)

    def compute(self) -> dict[str, Tensor]:
        entropy = code_entropy(self.counts)
        return {
            "perplexity": entropy.exp(),
            "codes_used": (self.counts > 0).sum(1).double().mean(),
            "code_entropy_bits": entropy / math.log(2),
        }


def code_entropy(counts: Tensor) -> Tensor:
    """Entropy of a code in nats, (), of counts (…, K): a mean over histograms, at most log K."""
    share = counts.double() / counts.sum(-1, keepdim=True)  # …,K
    return -torch.special.xlogy(share, share).sum(-1).mean()


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
