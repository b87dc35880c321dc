"""`sample show=…`: the table of what can be shown of test images, what lies between two of them,
and what they are as other classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, Experiment, SampleOptions, name_of
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.completion import completion, inpainting
from vqvae_lightning.evaluation.examples import examples
from vqvae_lightning.evaluation.samplers import (
    classes_of,
    decode,
    labels_of,
    sampling,
)
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.kinds import Kind, kind_names
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.priors.prior import Completes
from vqvae_lightning.pictures import Grid
from vqvae_lightning.training.flow import LatentFlow

STEPS = 10
CONVERSIONS = 10  # classes in a row, at most


def interpolation(subject: Subject, options: SampleOptions) -> Grid:
    """Between pairs of test images of two classes: original, STEPS decoded latents, original;
    n/columns rows.

    The latents lie on the straight line between the two E[z|x] (`Latent.mean`), so the outer ones
    are the reconstructions; those of a class-conditional decoder are as `decoded_as`, by default
    its first class. A line need not stay where p(z) is: in a VAE's D dimensions its middle
    is nearer to 0 than any typical z.
    """
    if subject.kind.stage == 2:
        return flow_interpolation(subject, options)
    net = subject.net
    classes = torch.arange(-(-options.n // options.columns))
    wanted = torch.stack([classes, classes + 1]).flatten()  # left, then right
    images = examples(subject.images, wanted, options.seed)[0].to(own_device())
    left, right = images.chunk(2)  # rows,C,H,W each
    between = interpolate(net, left, right, STEPS, options.decoded_as or 0)  # rows,STEPS,C,H,W
    rows = torch.cat([left[:, None], between, right[:, None]], dim=1)  # rows,STEPS+2,C,H,W
    return Grid(rows.flatten(0, 1), STEPS + 2)


def conversion(subject: Subject, options: SampleOptions) -> Grid:
    """Test images decoded as each of the first ten classes, after the original; n/columns rows.

    The latents of a row are the same in all of its images but the first. Raises ConfigError for a
    decoder that is given no label, and for `decoded_as`.
    """
    check_labels(subject, "show: conversion")
    if options.decoded_as is not None:
        raise ConfigError(
            f"decoded_as: got {options.decoded_as}, but show=conversion decodes as each class;"
            " wanted none"
        )
    net = subject.net
    rows = torch.arange(-(-options.n // options.columns))
    images, labels = examples(subject.images, rows, options.seed)
    images = images.to(own_device())
    shown = min(net.classes, CONVERSIONS)
    as_each = torch.arange(shown).repeat(len(images))  # rows·shown
    with torch.inference_mode():
        z = net.encode(images).mean.repeat_interleave(shown, 0)
        found = net.decode(z, as_each.to(z.device)).unflatten(0, (-1, shown))
    grid = torch.cat([images[:, None], found], dim=1)  # rows,1+shown,C,H,W
    names = torch.cat([labels[:, None], as_each.view(-1, shown)], dim=1)  # rows,1+shown
    return Grid(grid.flatten(0, 1), 1 + shown, names.flatten())


def check_labels(plan: Plan, what: str) -> None:
    """Raises ConfigError for a run of stage 1 whose decoder is given no label."""
    if not plan.experiment.model.class_conditional:
        raise ConfigError(
            f"{what} needs a decoder that is given the label, wanted a run with"
            " model.class_conditional=true"
        )


def flow_interpolation(subject: Subject, options: SampleOptions) -> Grid:
    """Between pairs of test images, along the noise from which the flow leads to their latents; as
    `interpolation`.

    Two images of a pair are of one class if the flow is class-conditional, and else of two.
    """
    prior, device = cast(LatentFlow, subject.module), own_device()
    classes = labels_of(options, subject.prior.classes)[:: options.columns]
    step = 0 if prior.config.class_conditional else 1
    wanted = torch.stack([classes, classes + step]).flatten()
    images, labels = examples(subject.images, wanted, options.seed)
    left, right = images.to(device).chunk(2)  # rows,C,H,W each
    between = prior.between(
        left,
        right,
        classes_of(subject.prior, labels.to(device).chunk(2)[0]),
        STEPS,
        **sampling(subject.experiment, options),
    )
    rows = torch.cat([left[:, None], between, right[:, None]], dim=1)  # rows,STEPS+2,C,H,W
    return Grid(rows.flatten(0, 1), STEPS + 2)


@torch.inference_mode()
def interpolate(
    net: Autoencoder, left: Tensor, right: Tensor, steps: int, label: int = 0
) -> Tensor:
    """Decoded latents (N, steps, C, H, W) on a line from E[z|left] to E[z|right], both (N, C, H,
    W), with both ends. A class-conditional decoder is given that label.
    """
    a, b = net.encode(left).mean, net.encode(right).mean  # N,D,h,w each
    weights = torch.linspace(0, 1, steps, device=a.device, dtype=a.dtype)
    weights = weights.view(-1, 1, 1, 1)  # steps,1,1,1
    z = torch.lerp(a[:, None], b[:, None], weights)  # N,steps,D,h,w; exact at both ends
    images: Tensor = decode(net, z.flatten(0, 1), label).unflatten(0, (len(a), steps))
    return images


@dataclass(frozen=True)
class Show:
    """A grid of test images."""

    draw: Callable[[Subject, SampleOptions], Grid]
    offered_by: Callable[[Kind], bool]
    completes: tuple[Completes, ...] = ()  # what a prior has to keep of given latents


# What `show` may be beside samples.
SHOWS: dict[str, Show] = {
    "interpolation": Show(interpolation, lambda kind: not (kind.has_codes or kind.is_vocoder)),
    "conversion": Show(conversion, lambda kind: kind.stage == 1),
    "completion": Show(completion, lambda kind: kind.stage == 2, ("any", "beginning")),
    "inpainting": Show(inpainting, lambda kind: kind.stage == 2, ("any",)),
}


def check_show(kind: Kind, name: str) -> None:
    """Raises ConfigError unless a run of this kind has the grid."""
    offered_by = SHOWS[name].offered_by
    if not offered_by(kind):
        wanted = " or ".join(kind_names(offered_by))
        raise ConfigError(f"show: {name} needs a run of kind {wanted}, got one of kind {kind.name}")


def check_completes(experiment: Experiment, name: str) -> None:
    """Raises ConfigError if the prior of a run does not keep those latents that the grid gives."""
    model, enough = experiment.model, SHOWS[name].completes
    if enough and model.completes not in enough:
        got, of = name_of(model.network, model.networks), model.networks.items()
        able = [
            network
            for network, member in of
            if replace(model, network=member.Config()).completes in enough
        ]
        what = "any mask" if enough == ("any",) else "latents"
        raise ConfigError(
            f"show: {name} needs a prior that completes {what}, got one with"
            f" model.network.name={got}, wanted {' or '.join(able)}"
        )
