"""Densities fitted to the latents of training images, once a model has been trained.

"Ex-post density estimation" (Ghosh et al. 2020, arXiv 1903.12436). A fitted density replaces the
p(z) that the model was trained with. Its samples say nothing about that p(z), and the ledger does
not count it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.bottlenecks import Latent

if TYPE_CHECKING:  # takes seconds to import, as Lightning does
    from vqvae_lightning.data.images import ImageDataModule

TRAIN_IMAGES = 10_000  # of the training split: enough for a fit, seconds on a CPU
COMPONENTS = 10


class TrainLatents:
    """Latents of TRAIN_IMAGES training images, evenly spaced, encoded when first looked at.

    Images are not augmented. A VAE's z is one sample of q(z|x) per image, not its mean: the fit is
    then to the aggregate posterior, which is what the decoder was trained on. `net` is in
    evaluation mode.
    """

    def __init__(self, net: Autoencoder, images: "ImageDataModule") -> None:
        self.net, self.images = net, images

    @cached_property
    def encoded(self) -> tuple[Tensor, Tensor | None]:
        """z (N, D, h, w) and codes, or None without a codebook; on the CPU, the same every time."""
        device = next(self.net.parameters()).device
        latents: list[Latent] = []
        with torch.inference_mode():
            for batch in self.images.batches("train", device, TRAIN_IMAGES):
                latents.append(self.net.encode(batch.x, batch.row_noise("latent").normal))
        z = torch.cat([latent.z.cpu() for latent in latents])
        codes = [latent.codes.cpu() for latent in latents if latent.codes is not None]
        return z, torch.cat(codes) if codes else None

    @property
    def rows(self) -> Tensor:
        """z as float64 rows (N, D·h·w)."""
        return self.encoded[0].flatten(1).double()

    @property
    def codes(self) -> Tensor:
        """Codes (N, h, w) or (N, h, w, M) int64."""
        codes = self.encoded[1]
        assert codes is not None  # samplers of codes are offered only where there are codes
        return codes


@dataclass(frozen=True)
class GaussianMixture:
    """Σ_m weight_m · N(mean_m, factor_m factor_mᵀ) over rows of length D, in float64."""

    weights: Tensor  # M
    means: Tensor  # M,D
    factors: Tensor  # M,D,D

    def sample(self, n: int) -> Tensor:
        """n rows (n, D), drawn from torch's global random state."""
        component = torch.multinomial(self.weights, n, replacement=True)  # n
        rows = torch.randn(n, self.means.shape[1], dtype=self.means.dtype)  # n,D
        for m, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            rows[component == m] = mean + rows[component == m] @ factor.T
        return rows


def fit_gaussian(rows: Tensor) -> GaussianMixture:
    """The Gaussian with the mean and the covariance of float64 rows (N, D), N at least 2."""
    covariance = torch.atleast_2d(rows.T.cov())  # D,D
    return GaussianMixture(
        torch.ones(1, dtype=rows.dtype), rows.mean(0)[None], square_root(covariance)[None]
    )


def fit_mixture(rows: Tensor, components: int = COMPONENTS) -> GaussianMixture:
    """A mixture of full-covariance Gaussians fitted to float64 rows (N, D) by EM after k-means.

    The settings of Ghosh et al. 2020 (RAE): 10 components, tolerance 1e-3, at most 2000 iterations.
    The fit has a seed of its own, so that the seed of a picture changes what is drawn, not what it
    is drawn from.
    """
    from sklearn.mixture import GaussianMixture as Fit  # takes a second to import

    fit = Fit(components, covariance_type="full", tol=1e-3, max_iter=2000, random_state=0).fit(
        rows.numpy()
    )
    factors = torch.stack(
        [square_root(torch.from_numpy(covariance)) for covariance in fit.covariances_]
    )
    return GaussianMixture(torch.from_numpy(fit.weights_), torch.from_numpy(fit.means_), factors)


def square_root(covariance: Tensor) -> Tensor:
    """A (D, D) with A Aᵀ = covariance (D, D).

    The covariance may be singular: a latent that never varies has no variance.
    """
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp_min(0).sqrt()
    return root
