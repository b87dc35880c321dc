"""`python experiments/fsdd/labels.py RUN [GUIDANCE]`: the share of samples of their own digit.

```
1,000 labels ──► run of stage 2 ──► samples ──► classifier ──► share, before the vocoder
                                       └► waveform ──► window ──► classifier ──► share, as heard
```

`evaluate RUN recognition=true` measures this of samples without guidance. The classifier
is that of `make classifier DATASET=fsdd`.
"""

import sys
from pathlib import Path

from vqvae_lightning.config import SampleOptions
from vqvae_lightning.data.rows import spread
from vqvae_lightning.evaluation.classifier import ClassifierFeatures
from vqvae_lightning.evaluation.recognition import share
from vqvae_lightning.evaluation.samplers import check_sampling, draw, samplers_of
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.training.runs import Run

SAMPLES = 1000


def main(folder: str, guidance: float = 1.0) -> None:
    """Prints a line for each of the two shares."""
    root = Path("data")
    subject = Subject(Run.open(folder), str(root))
    options = SampleOptions(n=SAMPLES, guidance=guidance)
    check_sampling(subject.experiment, options)
    labels = subject.images.published("test").labels
    labels = labels[spread(SAMPLES, len(labels))]
    samples = draw(subject, samplers_of(subject.kind)[0], options, labels).cpu()
    classifier = ClassifierFeatures(subject.experiment.data, root)
    for name, x in (("samples", samples), ("as heard", subject.signal.played(samples))):
        print(f"{name:<10}{share(classifier, x, labels, name):.1%} of {SAMPLES:,}", flush=True)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("labels: wanted RUN [GUIDANCE]")
    main(sys.argv[1], *map(float, sys.argv[2:]))
