"""Bounds on log p(x) over a whole split, in nats and bits, and where a VAE spends its rate."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from vqvae_lightning.config import EvaluateOptions
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.kinds import Kind, kind_names
from vqvae_lightning.metrics.information import bits_per_dim
from vqvae_lightning.models.autoencoder import Autoencoder, LogPrior
from vqvae_lightning.models.bottlenecks import Noise, fresh_noise
from vqvae_lightning.models.first_stage import FirstStage
from vqvae_lightning.training.flow import LatentFlow

IMAGES_PER_PASS = 5000  # decoded at once, images times draws: about 1 GB for 3 x 32 x 32


class Weighs(Protocol):
    """An autoencoder, or a frozen one."""

    def log_weights(self, x: Tensor, k: int, noise: Noise, log_prior: Any) -> Tensor:
        """See `Autoencoder.log_weights`."""


def iwae_bound(
    net: Weighs,
    batches: Iterable[Batch],
    samples: int,
    chunk: int | None = None,
    prior_of: Callable[[Batch], LogPrior] | None = None,
) -> float:
    """The importance-weighted bound on log p(x), in nats per image, a mean over all images.

    Burda et al. 2016 (arXiv 1509.00519), eq. 8: the mean over images of log 1/S sum_s p(x, z_s) /
    q(z_s|x). It is never above the mean of log p(x) in expectation, and rises with S. The draws of
    an image are a function of the batches' seed and of its row.

    Args:
        net: an autoencoder in evaluation mode.
        batches: images (N, C, H, W) in [-1, 1].
        samples: S, draws of z per image.
        chunk: draws decoded at once, by default what IMAGES_PER_PASS allows; it changes nothing but
            memory.
        prior_of: the log p(z) of a batch, in place of the autoencoder's own.

    Raises:
        ValueError: the autoencoder has no p(z), as an AE.
    """
    total, images = 0.0, 0
    for batch in batches:
        n, noise = batch.x.shape[0], batch.row_noise("latent").normal
        log_prior = prior_of(batch) if prior_of else None
        at_once = chunk or max(1, IMAGES_PER_PASS // n)
        total += log_mean_weight(net, batch.x, samples, at_once, noise, log_prior).sum().item()
        images += n
    return total / images


@torch.inference_mode()
def log_mean_weight(
    net: Weighs,
    x: Tensor,
    samples: int,
    chunk: int,
    noise: Noise = fresh_noise,
    log_prior: LogPrior | None = None,
) -> Tensor:
    """log of the mean weight of `samples` draws for each image of x (N, C, H, W), float64 (N,).

    `chunk` of them are made at a time. A `log_prior` takes the place of the autoencoder's own.
    """
    total = torch.full((x.shape[0],), -math.inf, dtype=torch.float64, device=x.device)
    for start in range(0, samples, chunk):
        k = min(chunk, samples - start)
        log_weights = net.log_weights(x, k, noise, log_prior).double()  # k,N
        total = torch.logaddexp(total, log_weights.logsumexp(0))
    return total - math.log(samples)


def prior_under(flow: LatentFlow, batch: Batch) -> LogPrior:
    """log p(z), or log p(z | label), of a flow for draws of the images of a batch."""
    labels = flow.labels_of(batch)

    def log_prior(z: Tensor) -> Tensor:
        # Draw by draw, each of all images.
        repeated = None if labels is None else labels.repeat(len(z) // len(labels))
        return flow.net.log_prob(z.to(flow.dtype), repeated)

    return log_prior


@torch.inference_mode()
def kl_per_dim(net: Autoencoder, batches: Iterable[Batch]) -> list[float] | None:
    """KL(q(z|x) || p(z)) of each latent dimension (D·h·w) in nats, a mean over all images.

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


def mean_distortion(first_stage: FirstStage, batches: Iterable[Batch]) -> float:
    """−log p(x|z) in nats per image with a z of its own, a mean over all images.

    z of a VAE is that of the evaluation of the VAE itself. A class-conditional decoder is given the
    labels of the batches.
    """
    total, images = 0.0, 0
    for batch in batches:
        noise = batch.row_noise("latent").normal
        total += first_stage.distortion(batch.x, noise, batch.labels).double().sum().item()
        images += batch.x.shape[0]
    return total / images


def iwae_metrics(
    net: Autoencoder, images: ImageDataModule, split: str, samples: int
) -> dict[str, float]:
    """`iwae_nats`, the bound on −log p(x) per image, `iwae_samples`, and `iwae_bits_per_dim`.

    The last is there for a discrete likelihood. A quantizer draws nothing, so that one sample is as
    good as any number.
    """
    used = samples if net.bottleneck.random else 1
    bound = iwae_bound(net, images.batches(split, own_device()), used)
    return _named_bound(-bound, used, net.dims if net.likelihood.discrete else None)


def two_stage_iwae_metrics(
    flow: LatentFlow, images: ImageDataModule, split: str, samples: int
) -> dict[str, float]:
    """As `iwae_metrics`, of a VAE under the p(z) of its flow.

    If the flow knows the label, the bound is on −log p(x|label).
    """
    first_stage, batches = flow.latents, images.batches(split, own_device())
    bound = iwae_bound(first_stage, batches, samples, prior_of=partial(prior_under, flow))
    return _named_bound(-bound, samples, first_stage.dims if first_stage.discrete else None)


def _named_bound(nats: float, samples: int, dims: int | None) -> dict[str, float]:
    """The figures of a bound; `dims` of a discrete likelihood."""
    found = {"iwae_nats": nats, "iwae_samples": float(samples)}
    if dims is not None:
        found["iwae_bits_per_dim"] = bits_per_dim(nats, dims)
    return found


def two_stage_metrics(
    first_stage: FirstStage, images: ImageDataModule, split: str, rate: float | None
) -> dict[str, float]:
    """`distortion` of a prior's first stage in nats, and `bits_per_dim` of the two stages.

    The latter is there for a discrete likelihood and a rate: distortion + rate, a bound on
    −log p(x), or on −log p(x|label) if the prior knows the label. `rate` is the prior's, in nats
    per image, and None where there is none: over the z of an AE.
    """
    device = own_device()
    distortion = mean_distortion(first_stage.to(device), images.batches(split, device))
    if rate is None or not first_stage.discrete:
        return {"distortion": distortion}
    return {
        "distortion": distortion,
        "bits_per_dim": bits_per_dim(distortion + rate, first_stage.dims),
    }


def has_bound(kind: Kind) -> bool:
    """Whether more draws of z bound log p(x) of such a run: its own, or its VAE's under a flow."""
    return kind.has_density and (kind.stage == 1 or not kind.has_codes)


class ImportanceWeightedBound(Evaluator):
    """The bound of `iwae_samples` draws on log p(x), of an autoencoder that has a p(z), or of a VAE
    with a flow.
    """

    settings = ("iwae_samples",)

    def is_for(self, plan: Plan) -> bool:
        # A flow that follows a velocity is asked thousands of times for each draw.
        one_pass = plan.kind.stage == 1 or plan.experiment.model.one_pass
        return has_bound(plan.kind) and one_pass

    def asked(self, options: EvaluateOptions) -> bool | None:
        return options.iwae_samples > 0

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        kind, place = plan.kind, plan.path
        if kind.stage == 1 and plan.experiment.model.class_conditional:
            return (
                f"iwae_samples: the decoder of {place} is given the label, and the bound is on"
                " log p(x); wanted a run with model.class_conditional=false"
            )
        if kind.has_density and not has_bound(kind):
            *names, last = kind_names(has_bound)
            wanted = f"{', '.join(names)} or {last}"
            return f"iwae_samples: {place} is a prior over codes, wanted a run of kind {wanted}"
        if not kind.has_density:
            return (
                f"iwae_samples: {place} is a run of kind {kind.name}, which has no p(z) and so no"
                " likelihood"
            )
        if kind.stage == 2 and isinstance(plan, Subject):
            net = cast(LatentFlow, plan.module).net
            if not net.is_exact:
                return (
                    f"iwae_samples: log p(z) of the {net.size} numbers of {place} is an estimate,"
                    " whose weights give no bound; wanted a flow with model.network.name=coupling"
                )
        return None

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        images, split, samples = subject.images, options.split, options.iwae_samples
        if subject.kind.stage == 1:
            return iwae_metrics(subject.net, images, split, samples)
        return two_stage_iwae_metrics(cast(LatentFlow, subject.module), images, split, samples)


class TwoStageLikelihood(Evaluator):
    """What a prior and its first stage say together of log p(x)."""

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        return None if plan.kind.stage == 2 else "it has no first stage"

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        first_stage = subject.prior.first_stage
        if first_stage.classes not in (0, subject.prior.classes):
            # The decoder is given labels of another sort than those of the data.
            return {}
        return two_stage_metrics(first_stage, subject.images, options.split, known.get("rate"))


class RatePerLatentDimension(Evaluator):
    """`kl_per_dim` in run.json: where a continuous latent spends its rate, on the test split."""

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        if plan.kind.stage == 2:
            return "it has no latent of images"
        return None if options.split == "test" else "run.json keeps that of the test split"

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        rates = kl_per_dim(subject.net, subject.images.batches(options.split, own_device()))
        if rates is not None:
            subject.run.write(kl_per_dim=rates)
        return {}
