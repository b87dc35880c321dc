"""Distances between two sets of features: Fréchet distance, kernel distance, precision, recall."""

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vqvae_lightning.device import own_device

if TYPE_CHECKING:  # takes seconds to import, which a comparison of runs does not need
    from torchmetrics import Metric

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
NEIGHBOURS = 3  # of the manifolds of precision and recall
ROWS = 1000  # of a distance matrix at once


class _Features(nn.Identity):
    """Lets torchmetrics take features instead of images."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size


def distances(reference: Tensor, samples: Tensor, kernel: bool) -> dict[str, float]:
    """Distances of samples (M, F) from a reference (N, F), both features, at least 2 rows each.

    - `frechet`: Fréchet distance of two Gaussians with their means and covariances (Heusel et al.
      2017, arXiv 1706.08500); biased upwards the more, the fewer the samples;
    - `precision`, `recall`: share of the samples within the manifold of the reference, and the
      reverse (Kynkäänniemi et al. 2019, arXiv 1904.06991), with 3 neighbours;
    - `kid`, `kid_std`, with `kernel`: squared MMD with the kernel (a·b/F + 1)³, mean and deviation
      over 100 subsets of 1,000 (or of as many as there are), drawn by a seed of their own
      (Bińkowski et al. 2018, arXiv 1801.01401). The kernel is made for the scale of Inception's
      features.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    features = _Features(reference.shape[1])
    fid = _updated(FrechetInceptionDistance(features), reference, samples)
    found = {
        "frechet": fid.compute().item(),
        "precision": covered(samples, reference),
        "recall": covered(reference, samples),
    }
    if kernel:
        rows = min(KID_SUBSET_SIZE, len(reference), len(samples))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*save all extracted features.*")
            kid = KernelInceptionDistance(features, subsets=KID_SUBSETS, subset_size=rows)
        device = own_device()
        _updated(kid.to(device), reference.to(device), samples.to(device))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            mean, deviation = kid.compute()
        found |= {"kid": mean.item(), "kid_std": deviation.item()}
    return found


def _updated(metric: "Metric", reference: Tensor, samples: Tensor) -> "Metric":
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    return metric


def covered(points: Tensor, manifold: Tensor) -> float:
    """Share of the points (M, F) that lie within the manifold of others (N, F), N at least 2.

    The manifold is the union of balls around the others. A ball's radius is the distance from its
    centre to the NEIGHBOURS-th nearest other centre.
    """
    device = own_device()
    points, manifold = points.to(device).double(), manifold.to(device).double()
    neighbours = min(NEIGHBOURS, len(manifold) - 1)
    # One more than the neighbours: the nearest of all is the point itself.
    radii = torch.cat(
        [
            torch.cdist(rows, manifold).kthvalue(neighbours + 1).values
            for rows in manifold.split(ROWS)
        ]
    )
    inside = [(torch.cdist(rows, manifold) <= radii).any(1) for rows in points.split(ROWS)]
    return torch.cat(inside).double().mean().item()
