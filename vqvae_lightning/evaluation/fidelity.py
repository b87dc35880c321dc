"""How near the samples of a run are to real images, one figure for each of its samplers.

Each figure is kept with its protocol: network and weights, preprocessing, sampler, number of
samples, reference split. Two figures are comparable only where all of that is the same.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.config import (
    ConfigError,
    DataConfig,
    Drawing,
    EvaluateOptions,
    Experiment,
    SampleOptions,
    to_dict,
)
from vqvae_lightning.data.images import ImageDataModule, to_uint8
from vqvae_lightning.data.imageset import image_set, sound_of
from vqvae_lightning.data.rows import MemoryRows, spread
from vqvae_lightning.data.sources import DATASETS, prepare
from vqvae_lightning.evaluation.classifier import ClassifierFeatures
from vqvae_lightning.evaluation.distances import distances
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.features import FeatureNetwork, Inception, extract
from vqvae_lightning.evaluation.samplers import (
    RECONSTRUCTION,
    changed_sampling,
    check_sampling,
    draw,
    reconstructed,
    sampler_names,
    sampling,
)
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.signals.build import signal_of

CALIBRATED, TOLERANCE = 3.15, 0.02  # FID of CIFAR-10 train against test


def check_fidelity(experiment: Experiment, options: EvaluateOptions) -> list[str]:
    """The samplers to measure, none with fid_samples=0.

    Raises ConfigError for settings by which such a run cannot be measured.
    """
    samples = options.fid_samples
    if not samples:
        if options.sampler:
            raise ConfigError(
                f"sampler: got '{options.sampler}', but nothing is drawn with fid_samples=0"
            )
        for name, value in changed_sampling(to_dict(options)).items():
            raise ConfigError(f"{name}: got {value}, but nothing is drawn with fid_samples=0")
        return []
    if samples < 2:
        raise ConfigError(f"fid_samples: got {samples}, wanted 0, or at least 2 for a covariance")
    check_sampling(experiment, options)
    data, is_prior = experiment.data, KINDS[experiment.kind].stage == 2
    if data.binarize != "none":
        raise ConfigError(
            f"fid_samples: the run is one with data.binarize={data.binarize}, and real images are"
            " grey; wanted one on grey images"
        )
    # A prior's reconstructions are its tokenizer's.
    also = () if is_prior else (RECONSTRUCTION,)
    names = sampler_names(experiment, options.sampler or "all", also)
    available = image_set(data).test_size
    if RECONSTRUCTION in names and samples > available:
        raise ConfigError(
            f"fid_samples: got {samples}, but there are only {available} test images to"
            " reconstruct; name a sampler"
        )
    return names


def feature_network(options: EvaluateOptions, data: DataConfig, root: Path) -> FeatureNetwork:
    """The network that `fid_network` names.

    Raises ConfigError if it is not at hand, or no judge of this signal, CheckpointError if damaged.
    """
    able = signal_of(sound_of(data)).feature_networks
    if options.fid_network not in able:
        raise ConfigError(
            f"fid_network: got {options.fid_network}, but {data.dataset} holds recordings, wanted"
            f" {' or '.join(able)}"
        )
    return Inception() if options.fid_network == "inception" else ClassifierFeatures(data, root)


def fidelity(
    subject: Subject, network: FeatureNetwork, names: list[str], options: EvaluateOptions
) -> list[dict[str, Any]]:
    """Measures samplers of a run and keeps each figure in its run.json as soon as it is known.

    A figure that is there already, of the same checkpoint by the same protocol, is not measured
    again, and figures of an older checkpoint are not kept. The features of the reference are cached
    in `options.root`, by default in `data`, wherever the images are: the run may name any folder.

    A class-conditional prior draws the labels of the reference in their shares. With a classifier's
    features it also gets `class_accuracy`: the share of its samples that the classifier takes for
    what they were drawn as. Not so with guidance=0, which measures p(codes).

    Args:
        subject: the run.
        network: whose features are compared.
        names: the samplers, as `check_fidelity` gives them.
        options: the number of samples, their seed, and the reference.

    Returns:
        The figures of the named samplers, each with its protocol.
    """
    run, name = subject.run, subject.experiment.data.dataset
    cache = Path(options.root or DataConfig().root) / "features"
    images = subject.images.published(options.fid_reference)
    real: Tensor | None = None  # features of the reference, once they are needed
    figures = []
    for sampler in names:
        protocol = {
            "sampler": sampler,
            **network.identity,
            "samples": options.fid_samples,
            "reference": options.fid_reference,
            "reference_images": len(images),
            "seed": options.seed,
            "checkpoint_sha256": subject.checkpoint,
            **(sampling(subject.experiment, options) if subject.kind.stage == 2 else {}),
        }
        found = _known(run.record.generation, protocol)
        if not found:
            drawn_labels = images.labels[spread(options.fid_samples, len(images))]
            samples = drawn(subject, sampler, options, drawn_labels)
            if real is None:
                real = extract(network, images, cache, f"{name} {options.fid_reference}")
            own = MemoryRows(samples, drawn_labels)
            features = extract(network, own, None, f"{run.name} {sampler}")
            kernel = isinstance(network, Inception)
            figure = {**protocol, **distances(real, features, kernel)}
            if isinstance(network, ClassifierFeatures) and _shows_labels(subject, options):
                figure["class_accuracy"] = network.accuracy(features, drawn_labels)
            with run.change() as values:
                kept = figures_of(values.get("generation", []), subject.checkpoint)
                values["generation"] = [*kept, figure]
            found = [figure]
        figures += found
    return figures


def drawn(subject: Subject, sampler: str, options: EvaluateOptions, labels: Tensor) -> Tensor:
    """The images of one figure, uint8 (fid_samples, C, H, W)."""
    if sampler == RECONSTRUCTION:
        return reconstructions(subject.net, subject.images, options.fid_samples)
    how = {field.name: getattr(options, field.name) for field in fields(Drawing)}
    settings = SampleOptions(n=options.fid_samples, seed=options.seed, **how)
    return to_uint8(draw(subject, sampler, settings, labels)).cpu()


def _shows_labels(subject: Subject, options: EvaluateOptions) -> bool:
    """Whether each sample was drawn as an image of a class."""
    return (
        subject.kind.stage == 2
        and subject.prior.config.class_conditional
        and bool(options.guidance)
    )


def _known(figures: list[dict[str, Any]], protocol: dict[str, Any]) -> list[dict[str, Any]]:
    own = figures_of(figures, protocol["checkpoint_sha256"])
    return [figure for figure in own if protocol.items() <= figure.items()]


def figures_of(figures: list[dict[str, Any]], checkpoint: str) -> list[dict[str, Any]]:
    """The figures that are of the checkpoint with this SHA-256."""
    return [figure for figure in figures if figure["checkpoint_sha256"] == checkpoint]


def reconstructions(net: Autoencoder, images: ImageDataModule, count: int) -> Tensor:
    """`count` test images after a round trip, uint8 (count, C, H, W)."""
    batches = images.batches("test", next(net.parameters()).device, count)
    return torch.cat([to_uint8(reconstructed(net, batch)).cpu() for batch in batches])


class Generation(Evaluator):
    """`generation` in run.json: how near the samples of each sampler are to real images."""

    def asked(self, options: EvaluateOptions) -> bool | None:
        return bool(options.fid_samples or options.sampler or changed_sampling(to_dict(options)))

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        try:
            check_fidelity(plan.experiment, options)
            _network(plan, options)
        except ConfigError as error:
            return str(error)
        return None

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        names = check_fidelity(subject.experiment, options)
        fidelity(subject, _network(subject, options), names, options)
        return {}


def _network(plan: Plan, options: EvaluateOptions) -> FeatureNetwork:
    data = plan.experiment.data
    return feature_network(options, data, Path(data.root))


def calibrate(root: Path, download: bool) -> dict[str, Any]:
    """The Fréchet distance of CIFAR-10's train from its test images by Inception, with its
    protocol.

    The literature has 3.15 (official TensorFlow: 3.1508). Raises ValueError for one that is further
    off than 0.02: no FID made here is then comparable with the literature's. Features are cached in
    parts, so that a stopped calibration resumes.
    """
    network, found = Inception(), {}
    prepare("cifar10", root, download)
    for split in ("test", "train"):
        images = DATASETS["cifar10"].rows(root, split)
        found[split] = extract(network, images, root / "features", f"cifar10 {split}")
    measured = distances(found["test"], found["train"], kernel=True)
    if abs(measured["frechet"] - CALIBRATED) > TOLERANCE:
        raise ValueError(
            f"fid-calibrate: got a Fréchet distance of {measured['frechet']:.4f} between CIFAR-10"
            f" train and test, wanted {CALIBRATED} ± {TOLERANCE}"
        )
    return {
        **network.identity,
        "samples": "all 50,000 train",
        "reference": "all 10,000 test",
        **measured,
    }
