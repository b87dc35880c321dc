"""Whether what a run makes is taken for what it should be: the share of right classes.

```
test images ──► autoencoder ──► reconstructions ──┐
labels ──► prior ──► samples ─────────────────────┴──► classifier ──► share of right classes
                          recordings also through the vocoder and back into a window
```
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, EvaluateOptions, SampleOptions
from vqvae_lightning.data.images import to_uint8
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.classifier import ClassifierFeatures
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.samplers import draw, samplers_of
from vqvae_lightning.evaluation.subject import Plan, Subject

SAMPLES = 1000  # of a prior, at most: one for each of the first labels of the split


class Recognition(Evaluator):
    """The share of reconstructions, or of a prior's samples, that a dataset's own classifier takes
    for their class, beside that of the originals.

    `recognized` is judged as the decoder gives it. Of recordings `recognized_heard` is judged after
    the vocoder, as they are heard, and so is `recognized_vocoded`, of originals: what the vocoder
    loses is so told apart from what the latents lose.
    """

    settings = ("recognition",)

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
        except ConfigError as error:
            return str(error).replace("fid_network", "recognition", 1)
        return None

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        classifier = _classifier(subject)
        labels = subject.images.splits[options.split].labels
        if subject.kind.stage == 2:
            labels = labels[:SAMPLES]
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
        return {
            name: classifier.accuracy(classifier(to_uint8(x)).cpu(), labels)
            for name, x in made.items()
        }


def round_trips(subject: Subject, options: EvaluateOptions) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of the split and their reconstructions, (N, C, H, W) in [-1, 1], on the CPU."""
    for batch in subject.images.batches(options.split, own_device()):
        with torch.inference_mode():
            found = subject.net.decode(subject.net.encode(batch.x).mean)
        yield batch.x.cpu(), found.cpu()


def sampled(subject: Subject, options: EvaluateOptions, labels: Tensor) -> Tensor:
    """A sample (N, C, H, W) of a run of stage 2 for each label (N,), on the CPU."""
    settings = SampleOptions(n=len(labels), seed=options.seed)
    return draw(subject, samplers_of(subject.kind)[0], settings, labels).cpu()


def _classifier(plan: Plan) -> ClassifierFeatures:
    data = plan.experiment.data
    return ClassifierFeatures(data, Path(data.root))
