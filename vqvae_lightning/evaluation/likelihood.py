"""What a run says about log p(x), in nats and bits: bounds over a whole split, and where a VAE
spends its rate.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.bottlenecks import Noise, fresh_noise
from vqvae_lightning.models.distributed import own_device
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.training.runs import Run

IMAGES_PER_PASS = 5000  # decoded at once, images times draws: about 1 GB for 3 x 32 x 32


def check_samples(run: Run, samples: int) -> None:
    """Raises ConfigError if `iwae_samples` is asked of a run that has no bound to give."""
    if samples and run.info["kind"] == "ae":
        raise ConfigError(
            f"iwae_samples: {run.path} is an ae; an AE has no p(z), so it has no likelihood"
        )
    if samples and run.info["kind"] == "prior":
        raise ConfigError(
            f"iwae_samples: {run.path} is a prior of codes, wanted a run of kind vae or vqvae"
        )


def iwae_bound(
    net: Autoencoder, batches: Iterable[Batch], samples: int, chunk: int | None = None
) -> float:
    """The importance-weighted bound on log p(x) of `samples` draws, in nats per image, a mean over
    all images.

    Burda et al. 2016 (arXiv 1509.00519), eq. 8: the mean over images of log 1/S sum_s p(x, z_s) /
    q(z_s|x). It is never above the mean of log p(x) in expectation, and rises with S. `batches`
    hold images (N, C, H, W) in [-1, 1]; the draws of an image are a function of the batches' seed
    and of its row. `net` is in evaluation mode. At most `chunk` draws are decoded at once (default:
    what IMAGES_PER_PASS allows), which changes nothing but memory. Raises ValueError for an AE,
    which has no p(z).
    """
    total, images = 0.0, 0
    for batch in batches:
        n, noise = batch.x.shape[0], batch.row_noise("latent").normal
        total += (
            log_mean_weight(net, batch.x, samples, chunk or max(1, IMAGES_PER_PASS // n), noise)
            .sum()
            .item()
        )
        images += n
    return total / images


@torch.inference_mode()
def log_mean_weight(
    net: Autoencoder, x: Tensor, samples: int, chunk: int, noise: Noise = fresh_noise
) -> Tensor:
    """log of the mean weight of `samples` draws for each image of x (N, C, H, W), float64 (N,),
    `chunk` at a time.
    """
    total = torch.full((x.shape[0],), -math.inf, dtype=torch.float64, device=x.device)
    for start in range(0, samples, chunk):
        log_weights = net.log_weights(x, min(chunk, samples - start), noise).double()  # k,N
        total = torch.logaddexp(total, log_weights.logsumexp(0))
    return total - math.log(samples)


@torch.inference_mode()
def kl_per_dim(net: Autoencoder, batches: Iterable[Batch]) -> list[float] | None:
    """KL(q(z|x) || p(z)) of each latent dimension in nats, a mean over all images, in the order D,
    h, w flattened.

    None where the rate is no sum over latent dimensions (AE, VQ-VAE).
    """
    total, images = torch.zeros(()), 0
    for batch in batches:
        rates = net.encode(batch.x).rate_per_dim
        if rates is None:
            return None
        total = total.to(rates.device) + rates.double().sum(0)
        images += rates.shape[0]
    return (total / images).flatten().tolist()


def mean_distortion(tokenizer: Tokenizer, batches: Iterable[Batch]) -> float:
    """−log p(x|z) in nats per image with the codes of each image, a mean over all images."""
    total, images = 0.0, 0
    for batch in batches:
        total += tokenizer.distortion(batch.x).double().sum().item()
        images += batch.x.shape[0]
    return total / images


def likelihood_metrics(
    module: Any,
    data: ImageDataModule | CodeDataModule,
    split: str,
    measured: dict[str, float],
    samples: int,
) -> dict[str, float]:
    """Metrics of a split beside those `measured` in the module's own pass over it, by name.

    An autoencoder, with `samples` > 0: `iwae_nats` per image (the bound on −log p(x)),
    `iwae_samples`, and for a discrete likelihood `iwae_bits_per_dim`. A VQ-VAE draws nothing, so
    one sample is as good as any number.

    A prior: `distortion` of its tokenizer on the same images, and for a discrete likelihood
    `bits_per_dim` of the two stages: −log p(x|z) − log p(z), a bound on −log p(x), or on −log
    p(x|label) if the prior knows the label.
    """
    device = own_device()
    values: dict[str, float] = {}
    if isinstance(data, CodeDataModule):
        tokenizer = data.tokenizer.to(device)
        values["distortion"] = mean_distortion(tokenizer, data.images.batches(split, device))
        if tokenizer.discrete:
            values["bits_per_dim"] = bits_per_dim(
                values["distortion"] + measured[f"{split}/rate"], tokenizer.dims
            )
    elif samples:
        net: Autoencoder = module.to(device).eval().net
        used = samples if net.bottleneck.random else 1
        values["iwae_nats"] = -iwae_bound(net, data.batches(split, device), used)
        values["iwae_samples"] = float(used)
        if net.likelihood.discrete:
            values["iwae_bits_per_dim"] = bits_per_dim(values["iwae_nats"], net.dims)
    return {f"{split}/{name}": value for name, value in values.items()}


def latent_rates(
    module: Any, data: ImageDataModule | CodeDataModule, split: str
) -> list[float] | None:
    """`kl_per_dim` of a run's module over a split; None for all but a VAE."""
    if isinstance(data, CodeDataModule):
        return None
    device = own_device()
    return kl_per_dim(module.to(device).eval().net, data.batches(split, device))


def bits_per_dim(nats: float, dims: int) -> float:
    """Nats per image as bits for each of its C·H·W values."""
    return nats / (dims * math.log(2))
