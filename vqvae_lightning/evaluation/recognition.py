"""Whether what a run makes is taken for what it should be: the share of right classes.

```
test images ──► autoencoder ──► reconstructions ──┐
labels ──► prior ──► samples ─────────────────────┴──► classifier ──► share of right classes
                          recordings also through the vocoder and back into a window
```
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, EvaluateOptions, SampleOptions
from vqvae_lightning.data.images import to_uint8
from vqvae_lightning.data.imageset import image_set, overlap
from vqvae_lightning.data.rows import MemoryRows, spread
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.classifier import ClassifierFeatures
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.features import extract
from vqvae_lightning.evaluation.samplers import draw, reconstructed, samplers_of
from vqvae_lightning.evaluation.subject import Plan, Subject

SAMPLES = 1000  # of a prior, at most: one for each of so many labels of the split
CONVERSIONS = 2000  # of a split, at most: each image as so many other classes, but at least one


class Recognition(Evaluator):
    """The share of reconstructions, or of a prior's samples, that a dataset's own classifier takes
    for their class, beside that of the originals.

    Of a class-conditional decoder each image is also decoded as another class, or as several if
    that makes no more than `CONVERSIONS`, drawn by the seed: `converted` is the share that the
    classifier takes for that class, and `kept`, where the data set has labels of another sort, the
    share that the classifier of those takes for what they were.

    `recognized` is judged as the decoder gives it. Of recordings `recognized_heard` is judged after
    the vocoder, as they are heard, and so is `recognized_vocoded`, of originals: what the vocoder
    loses is so told apart from what the latents lose. Conversions of recordings are judged as they
    are heard. A prior draws with the usual settings: those of `fid_samples` are of that only.
    """

    settings = ("recognition",)
    heard = ("recognized_heard", "recognized_vocoded", "converted", "kept")

    def asked(self, options: EvaluateOptions) -> bool | None:
        return options.recognition

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        data = plan.experiment.data
        if data.binarize != "none":
            return (
                f"recognition: the run is one with data.binarize={data.binarize}, and the"
                " classifier knows grey images; wanted one on grey images"
            )
        if plan.kind.stage == 2 and not plan.experiment.model.class_conditional:
            return (
                "recognition: the run draws samples of no class, wanted one with"
                " model.class_conditional=true"
            )
        try:
            _classifier(plan)
            if plan.kind.stage == 1 and plan.experiment.model.class_conditional:
                _other_classifier(plan)
        except ConfigError as error:
            return str(error).replace("fid_network", "recognition", 1)
        return None

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        classifier = _classifier(subject)
        labels = subject.images.splits[options.split].labels
        if subject.kind.stage == 2:
            labels = labels[spread(min(SAMPLES, len(labels)), len(labels))]
            made = {"recognized": sampled(subject, options, labels)}
        else:
            originals, reconstructions = zip(*round_trips(subject, options), strict=True)
            made = {
                "recognized_original": torch.cat(originals),
                "recognized": torch.cat(reconstructions),
            }
        if subject.signal.rate:
            names = {"recognized_original": "recognized_vocoded", "recognized": "recognized_heard"}
            made |= {names[of]: subject.signal.played(x) for of, x in made.items()}
        found = {name: share(classifier, x, labels, name) for name, x in made.items()}
        if subject.kind.stage == 1 and subject.net.classes:
            found |= converted(subject, options, classifier)
        return found


def share(classifier: ClassifierFeatures, x: Tensor, labels: Tensor, what: str) -> float:
    """The share of images x (N, C, H, W) in [-1, 1] taken for their labels (N,).

    `what` names the images in the line of progress.
    """
    features = extract(classifier, MemoryRows(to_uint8(x), labels), None, what)
    return classifier.accuracy(features, labels)


def converted(
    subject: Subject, options: EvaluateOptions, classifier: ClassifierFeatures
) -> dict[str, float]:
    """`converted` and `kept` of the split: see `Recognition`."""
    net, labels = subject.net, subject.images.splits[options.split].labels
    times = max(1, min(net.classes - 1, CONVERSIONS // len(labels)))
    generator = torch.Generator().manual_seed(options.seed)
    # A row of an image has all other classes in an order of its own.
    others = 1 + torch.rand(len(labels), net.classes - 1, generator=generator).argsort(1)
    wanted = ((labels[:, None] + others[:, :times]) % net.classes).T  # times,N
    size = subject.images.config.eval_batch_size
    parts = [
        reconstructed(net, batch._replace(labels=asked.to(batch.labels.device))).cpu()
        for row in wanted
        for batch, asked in zip(
            subject.images.batches(options.split, own_device()), row.split(size), strict=True
        )
    ]
    x = subject.signal.played(torch.cat(parts))
    found = {"converted": share(classifier, x, wanted.flatten(), "converted")}
    if other := _other_classifier(subject):
        data = replace(subject.experiment.data, label=None)
        kept = image_set(data).rows(Path(data.root), options.split).labels.repeat(times)
        found["kept"] = share(other, x, kept, "kept")
    return found


def round_trips(subject: Subject, options: EvaluateOptions) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of the split and their reconstructions, (N, C, H, W) in [-1, 1], on the CPU."""
    for batch in subject.images.batches(options.split, own_device()):
        yield batch.x.cpu(), reconstructed(subject.net, batch).cpu()


def sampled(subject: Subject, options: EvaluateOptions, labels: Tensor) -> Tensor:
    """A sample (N, C, H, W) of a run of stage 2 for each label (N,), on the CPU."""
    settings = SampleOptions(n=len(labels), seed=options.seed)
    return draw(subject, samplers_of(subject.kind)[0], settings, labels).cpu()


def _classifier(plan: Plan) -> ClassifierFeatures:
    data = plan.experiment.data
    return ClassifierFeatures(data, Path(data.root))


def _other_classifier(plan: Plan) -> ClassifierFeatures | None:
    """That of the usual labels of the data set, where the run's say nothing of them."""
    data = plan.experiment.data
    usual = replace(data, label=None)
    if overlap(image_set(usual), image_set(data)):
        return None
    return ClassifierFeatures(usual, Path(data.root))
