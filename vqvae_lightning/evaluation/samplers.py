"""Named samplers: the ways to draw images from a finished run, those that work and those that
theory says cannot.

```
                    ┌── normal, uniform: the p(z) of the rate ────────────┐
 train images ──► z ┴── gaussian, mixture, unigram: fitted later ─────────┴──► z, codes ──► Decoder
 label ──► CodePrior  ── prior: P(codes | label) ──► codes ────────────────────────────► Tokenizer
 label ──► LatentFlow ── flow: p(z | label) ──► z ─────────────────────────────────────► Decoder
```
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vqvae_lightning.config import (
    ConfigError,
    Drawing,
    Experiment,
    SampleOptions,
    name_of,
    to_dict,
)
from vqvae_lightning.data.imageset import shape_of
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.evaluation.densities import COMPONENTS, fit_gaussian, fit_mixture
from vqvae_lightning.kinds import KINDS, Kind
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.priors.sampling import check_forgotten
from vqvae_lightning.training.stages import Generates

if TYPE_CHECKING:  # takes seconds to import, as Lightning does
    from vqvae_lightning.evaluation.subject import Subject

# The test images after a round trip: what a perfect sampler would reach.
RECONSTRUCTION = "reconstruction"
LARGEST_LATENT = 512  # D·h·w: a full covariance has D·h·w squared entries
BATCH = 500  # images decoded at once


def own_prior(subject: "Subject", options: SampleOptions, labels: Tensor) -> Tensor:
    """z from the p(z) that the bottleneck charges its rate against.

    For an AE it is N(0, I), and nothing in its loss makes its latents look like that.
    """
    net = subject.net
    device = next(net.parameters()).device
    return decode(net, net.bottleneck.sample(options.n, net.grid, device), options.decoded_as)


def gaussian(subject: "Subject", options: SampleOptions, labels: Tensor) -> Tensor:
    """z from one Gaussian with the mean and the covariance of the training latents."""
    fit = fit_gaussian(subject.train_latents.rows)
    return decode_rows(subject.net, fit.sample(options.n), options.decoded_as)


def mixture(subject: "Subject", options: SampleOptions, labels: Tensor) -> Tensor:
    """z from a mixture of Gaussians fitted to the training latents."""
    fit = fit_mixture(subject.train_latents.rows)
    return decode_rows(subject.net, fit.sample(options.n), options.decoded_as)


def unigram(subject: "Subject", options: SampleOptions, labels: Tensor) -> Tensor:
    """Codes drawn i.i.d. from their training marginal, which has no spatial structure."""
    net, layout = subject.net, subject.net.layout
    assert layout is not None  # only a tokenizer offers this sampler
    counts = layout.histogram(subject.train_latents.codes).double()  # M,K
    drawn = torch.multinomial(counts, options.n * layout.cells, replacement=True)  # M,n·h·w
    codes = layout.from_cells(drawn.T)  # n,h,w or n,h,w,M
    device = next(net.parameters()).device
    return decode(net, net.bottleneck.codes_to_latents(codes.to(device)), options.decoded_as)


def prior(subject: "Subject", options: SampleOptions, labels: Tensor) -> Tensor:
    """Latents from the learned prior, p(z | label) or p(z)."""
    parts = [
        subject.prior.sample(
            len(part),
            classes_of(subject.prior, part),
            decoded_as=options.decoded_as,
            **sampling(subject.experiment, options),
        )
        for part in labels.split(BATCH)
    ]
    return torch.cat(parts)


@dataclass(frozen=True)
class Sampler:
    """One way to draw images.

    `draw` makes options.n images (n, C, H, W) in [-1, 1]. The class of each image, labels (n,),
    matters to a class-conditional prior only.
    """

    draw: "Callable[[Subject, SampleOptions, Tensor], Tensor]"
    description: str
    offered_by: Callable[[Kind], bool]
    has_covariance: bool = False  # a full one, whose size is the square of the latent's


# By name. Of those that a kind offers, the first is its default.
SAMPLERS: dict[str, Sampler] = {
    "normal": Sampler(
        own_prior, "z ~ N(0, I)", lambda kind: kind.stage == 1 and not kind.has_codes
    ),
    # A VAE has a Gaussian p(z) already: only what it leaves over, a mixture, is worth a fit.
    "gaussian": Sampler(
        gaussian,
        "z from a Gaussian fitted to the training latents",
        lambda kind: kind.stage == 1 and not kind.has_codes and not kind.has_density,
        has_covariance=True,
    ),
    "mixture": Sampler(
        mixture,
        f"z from a mixture of {COMPONENTS} Gaussians fitted to the training latents",
        lambda kind: kind.stage == 1 and not kind.has_codes,
        has_covariance=True,
    ),
    "uniform": Sampler(own_prior, "codes drawn uniformly", lambda kind: kind.is_tokenizer),
    "unigram": Sampler(
        unigram, "codes drawn in their shares, without order", lambda kind: kind.is_tokenizer
    ),
    "prior": Sampler(
        prior, "codes from the learned prior", lambda kind: kind.stage == 2 and kind.has_codes
    ),
    "flow": Sampler(
        prior, "z from the learned flow", lambda kind: kind.stage == 2 and not kind.has_codes
    ),
}


def samplers_of(kind: Kind) -> list[str]:
    """The names of the samplers that a kind of run offers, the default first."""
    return [name for name, sampler in SAMPLERS.items() if sampler.offered_by(kind)]


def sampler_names(experiment: Experiment, name: str | None, also: Sequence[str] = ()) -> list[str]:
    """The samplers that `name` means for a run: one, `all` that it can have, or the default.

    A latent of more than LARGEST_LATENT numbers can have no full covariance.

    Args:
        experiment: the settings of the run.
        name: a sampler, `all`, or None for the default.
        also: further names that are known.

    Raises:
        ConfigError: the run has no such sampler, or its latent is too large for it.
    """
    kind, size = experiment.kind, latent_size(experiment)
    known = [*samplers_of(KINDS[kind]), *also]
    if name not in (None, "all", *known):
        raise ConfigError(
            f"sampler: got '{name}', but a run of kind {kind} has {', '.join(known)}; wanted one of"
            " them, or all"
        )
    if size > LARGEST_LATENT:
        fitted = [other for other, sampler in SAMPLERS.items() if sampler.has_covariance]
        if name in fitted:
            raise ConfigError(
                f"sampler: a full covariance of {size} latent numbers is too large, wanted at most"
                f" {LARGEST_LATENT}; use sampler=normal, or train with model.latent=vector"
            )
        known = [sampler for sampler in known if sampler not in fitted]
    return known if name == "all" else [name or known[0]]


def latent_size(experiment: Experiment) -> int:
    """D·h·w of the z of a run of stage 1 with a continuous latent; 0 of another one."""
    kind = KINDS[experiment.kind]
    if kind.has_codes or kind.stage == 2:
        return 0
    model = experiment.model
    grid = model.build_trunk(shape_of(experiment.data)).grid
    return int(model.latent_dim * math.prod(grid))


def draw(
    subject: "Subject", name: str, options: SampleOptions, labels: Tensor | None = None
) -> Tensor:
    """Images of one of the samplers that the subject offers, the same for a seed.

    Args:
        subject: the run.
        name: the sampler, one of `samplers_of(subject.kind)`.
        options: how many images, the seed, and how a prior draws.
        labels: the class of each image (n,) for a class-conditional prior; by default a row of the
            grid per class.

    Returns:
        options.n images (n, C, H, W) in [-1, 1].

    Raises:
        ConfigError: the prior has no such label.
        ValueError: `top_k` is above K, or guidance needs a prior trained with label_dropout.
    """
    torch.manual_seed(options.seed)
    if labels is None:
        labels = labels_of(options, subject.prior.classes if subject.kind.stage == 2 else 1)
    return SAMPLERS[name].draw(subject, options, labels)


def classes_of(prior: Generates, labels: Tensor) -> Tensor | None:
    """The labels (N,) as a prior takes them: None if it is not class-conditional."""
    return labels if prior.config.class_conditional else None


def decode(net: Autoencoder, z: Tensor, decoded_as: int | None = None) -> Tensor:
    """Mean images (N, C, H, W) in [-1, 1] of latents z (N, D, h, w), BATCH at a time.

    A class-conditional decoder is given the class `decoded_as`, or classes that are drawn.
    """
    labels = net.drawn_labels(len(z))
    if decoded_as is not None and labels is not None:
        labels = torch.full_like(labels, decoded_as)
    rows = torch.arange(len(z), device=z.device).split(BATCH)
    with torch.inference_mode():
        return torch.cat(
            [net.decode(z[part], None if labels is None else labels[part]) for part in rows]
        )


def reconstructed(net: Autoencoder, batch: Batch) -> Tensor:
    """The images of a batch decoded from their E[z|x], (N, C, H, W) in [-1, 1]."""
    with torch.inference_mode():
        return net.decode(net.encode(batch.x).mean, batch.labels)


def decode_rows(net: Autoencoder, rows: Tensor, decoded_as: int | None = None) -> Tensor:
    """Mean images (N, C, H, W) in [-1, 1] of latents as rows (N, D·h·w) on the CPU."""
    z = rows.view(len(rows), -1, *net.grid)  # N,D,h,w
    return decode(net, z.float().to(next(net.parameters()).device), decoded_as)


def sampling(experiment: Experiment, options: Drawing) -> dict[str, Any]:
    """The settings of drawing that a run of stage 2 has."""
    return {f.name: getattr(options, f.name) for f in fields(experiment.model.sampling)}


def check_sampling(experiment: Experiment, options: Drawing) -> None:
    """Raises ConfigError for a sampling setting that is given, but that the run's prior has not, or
    that is out of its range.
    """
    if KINDS[experiment.kind].stage == 1:
        return
    has = sampling(experiment, options)
    for name, value in changed_sampling(to_dict(options)).items():
        if name not in has:
            network = name_of(experiment.model.network, experiment.model.networks)
            raise ConfigError(
                f"{name}: got {value}, but this run is one with model.network.name={network},"
                f" which has {', '.join(has)}"
            )
    model = experiment.model
    try:
        model.sampling.of(has)
        check_forgotten(options.guidance, model.label_dropout, "this run", "density")
    except ValueError as error:
        raise ConfigError(str(error)) from error


def changed_sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling settings that differ from plain ancestral sampling of P(codes | label).

    `given` holds settings, or a figure with its protocol.
    """
    return {
        name: given[name]
        for name, usual in to_dict(Drawing()).items()
        if given.get(name, usual) != usual
    }


def labels_of(options: SampleOptions, classes: int) -> Tensor:
    """The class of each image of the grid, (n,): one row after another.

    Raises ConfigError for a label that no class has.
    """
    if options.label is not None:
        if not 0 <= options.label < classes:
            raise ConfigError(f"label: got {options.label}, wanted 0 to {classes - 1}")
        return torch.full((options.n,), options.label)
    return (torch.arange(options.n) // options.columns) % classes
