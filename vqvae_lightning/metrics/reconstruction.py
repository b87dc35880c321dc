"""Quality of reconstructions: their errors, and the terms of the ledger over a whole split.

```
x, Objective ──► loss, distortion, rate          of every signal
             └─► Errors: MSE, PSNR, SSIM         of images; see `signals` for others
```

Metrics of a split hold sums, which add up over batches and ranks; a mean of batch means would
depend on the batches.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from vqvae_lightning.metrics.information import bits_per_dim
from vqvae_lightning.models.autoencoder import Objective

SSIM_IMAGES = 32  # at a time on a CPU, so that what is between the filters stays in its cache


def psnr(mse: Tensor) -> Tensor:
    """PSNR in dB of the mean squared error of pixels in [0, 1], of any shape."""
    return -10 * mse.log10()


def psnr_of_levels(again: Tensor, pixels: Tensor) -> float:
    """PSNR in dB of the mean squared error over all images uint8 (N, C, H, W)."""
    # Parts, for float64 takes eight times the memory.
    parts = zip(again.split(500), pixels.split(500), strict=True)
    errors = torch.stack([(a.double() - b.double()).square().sum() for a, b in parts]).sum()
    return float(psnr(errors / pixels.numel() / 255**2))


class Errors(ABC):
    """How far reconstructions are from what was encoded, in the measures of one signal."""

    terms: int  # numbers that are averaged over a split

    @abstractmethod
    def of_batch(self, x: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """Cheap values, () each, of a batch (N, C, H, W) in [-1, 1]: for training logs."""

    @abstractmethod
    def sums(self, x: Tensor, reconstruction: Tensor) -> list[Tensor]:
        """`terms` sums over a batch (N, C, H, W) in [-1, 1], () float64 each."""

    @abstractmethod
    def values(self, means: Sequence[Tensor]) -> dict[str, Tensor]:
        """The measures of a split, by key, from the means of its sums."""


class PixelErrors(Errors):
    """MSE, PSNR and SSIM of pixels in [0, 1], as in the literature.

    The PSNR of a split is that of its MSE, and so is that of a batch: its mean over batches is not
    the PSNR of a split.
    """

    terms = 2

    def of_batch(self, x: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        mse = (reconstruction - x).square().mean() / 4  # of pixels in [0, 1]
        return {"mse": mse, "psnr": psnr(mse)}

    def sums(self, x: Tensor, reconstruction: Tensor) -> list[Tensor]:
        target, found = ((image + 1) / 2 for image in (x, reconstruction))
        error = (target - found).double().square().flatten(1).mean(1).sum()
        # SSIM subtracts nearly equal products, so it is never computed in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            similarity = structural_similarity(found, target)
        return [error, similarity.double().sum()]

    def values(self, means: Sequence[Tensor]) -> dict[str, Tensor]:
        mse, ssim = means
        return {"mse": mse, "psnr": psnr(mse), "ssim": ssim}


PIXELS = PixelErrors()


class ReconstructionMetrics(Metric):
    """Loss, distortion, rate, bits per dimension and the errors of a split.

    Bits per dimension are given only where distortion + rate bounds −log p of discrete data.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, dims: int, has_bits: bool, errors: Errors = PIXELS) -> None:
        super().__init__()
        self.dims, self.has_bits, self.errors = dims, has_bits, errors
        # float64 sums: a split's total in float32 would depend on the order of the batches
        zeros = torch.zeros(4 + errors.terms, dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, x: Tensor, objective: Objective) -> None:
        """Adds a batch: images x (N, C, H, W) in [-1, 1] and what the model made of them."""
        n = x.shape[0]
        terms = [
            torch.as_tensor(float(n), device=x.device),
            objective.loss * n,
            objective.distortion.sum(),
            objective.latent.rate.sum(),
            *self.errors.sums(x, objective.reconstruction),
        ]
        self.sums += torch.stack([term.double() for term in terms])

    def compute(self) -> dict[str, Tensor]:
        count, *sums = self.sums.unbind()
        loss, distortion, rate, *means = (value / count for value in sums)
        values = {
            "loss": loss,
            "distortion": distortion,
            "rate": rate,
            **self.errors.values(means),
        }
        if self.has_bits:
            values["bits_per_dim"] = bits_per_dim(distortion + rate, self.dims)
        return values


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (N,) of images x and y (N, C, H, W) in [0, 1] (Wang et al. 2004).

    Windows are Gaussian, of 11 pixels and σ = 1.5; SSIM is the mean over all pixels, with images
    mirrored at their edges, as in torchmetrics. A Gaussian is separable, and a filter along one
    side is a product with a banded matrix. This costs a tenth of a two-dimensional convolution.
    """
    few = SSIM_IMAGES if x.device.type == "cpu" else len(x)
    return torch.cat(
        [_ssim(some_x, some_y) for some_x, some_y in zip(x.split(few), y.split(few), strict=True)]
    )


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    fields = torch.stack([x, y, x * x + y * y, x * y])  # 4,N,C,H,W
    for side in x.shape[:1:-1]:  # W, then H
        filtered = fields @ gaussian_windows(side).to(fields)
        fields = filtered.transpose(-1, -2)  # 4,N,C,W,H, then 4,N,C,H,W
    mean_x, mean_y, squares, product = fields
    mean_product, mean_squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    luminance = (2 * mean_product + 0.01**2) / (mean_squares + 0.01**2)
    structure = (2 * (product - mean_product) + 0.03**2) / (
        (squares - mean_squares).clamp_min(0) + 0.03**2
    )
    similarity: Tensor = luminance * structure  # N,C,H,W
    return similarity.flatten(1).mean(1)


@functools.cache
def gaussian_windows(side: int, size: int = 11, sigma: float = 1.5) -> Tensor:
    """Weights of the window around each pixel of a side, one window in each column: (side, side)
    float64.
    """
    reach = torch.arange(size) - size // 2
    weights = torch.exp(-(reach.double() / sigma).square() / 2)
    pixels = (torch.arange(side) + reach[:, None]).abs()  # size,side: mirrored at the first pixel
    pixels = torch.where(pixels < side, pixels, 2 * (side - 1) - pixels)  # … and at the last
    windows = torch.zeros(side, side, dtype=torch.float64)
    return windows.scatter_add_(0, pixels, (weights / weights.sum())[:, None].expand(-1, side))
