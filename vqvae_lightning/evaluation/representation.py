"""How well labels can be read from the latents of an autoencoder: a linear probe and nearest
neighbours.

One protocol for all autoencoders, none of which has seen a label, so that figures are comparable.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vqvae_lightning.config import ConfigError, EvaluateOptions
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.imageset import image_set, split_sizes
from vqvae_lightning.data.loader import EvalLoader
from vqvae_lightning.data.randomness import derive_seed
from vqvae_lightning.data.rows import ChosenRows
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.kinds import Kind, kind_names
from vqvae_lightning.models.autoencoder import Autoencoder

NEIGHBOURS = 10
PROTOCOL = 10_000  # train images that the classifiers see, where there are as many
# Of the probe: C of the L2 penalty, and L-BFGS steps at most.
INVERSE_PENALTY, ITERATIONS = 0.1, 100

Array = np.ndarray[Any, Any]


def representation(
    net: Autoencoder, data: ImageDataModule, split: str, images: int | None = None
) -> dict[str, float]:
    """Accuracies, 0 to 1, on all images of `split` of classifiers that saw the latents of `images`
    train images.

    A latent is E[z|x] (`Latent.mean`), flattened to D · h · w numbers. The train images are the
    first of a permutation of the train split that depends on its size alone.

    - `probe_accuracy`: multinomial logistic regression on standardised latents, L2 penalty with C =
      0.1, at most 100 steps of L-BFGS from 0;
    - `knn_accuracy`: the vote of the 10 nearest train latents, Euclidean distance in the latents'
      own units.

    Figures compare only for the same number of train images, which is kept beside them as
    `representation_images`; the default, 10,000 or all if there are fewer, is the protocol. Raises
    ConfigError for more images than there are.
    """
    train = data.splits["train"]
    if refusal := too_many(len(train), images):
        raise ConfigError(refusal)
    images = images or min(PROTOCOL, len(train))
    generator = torch.Generator().manual_seed(derive_seed("representation"))
    rows = torch.randperm(len(train), generator=generator)[:images]
    chosen = ChosenRows(train, rows)
    loader = EvalLoader(chosen, data.config.eval_batch_size, data.seed, 0, 1)
    found = accuracies(*latents(net, data, loader), *latents(net, data, data.eval_loader(split)))
    return {**found, "representation_images": float(images)}


@torch.inference_mode()
def latents(net: Autoencoder, data: ImageDataModule, loader: EvalLoader) -> tuple[Array, Array]:
    """Flattened latents (N, D · h · w) float32 and labels (N,) of all images of a loader."""
    device = own_device()
    net = net.eval().to(device)
    means, labels = [], []
    for batch in loader:
        x = data.scale(batch._replace(x=batch.x.to(device))).x
        means.append(net.encode(x).mean.flatten(1).float().cpu().numpy())
        labels.append(batch.labels.numpy())
    return np.concatenate(means), np.concatenate(labels)


def accuracies(train_z: Array, train_labels: Array, z: Array, labels: Array) -> dict[str, float]:
    """Accuracies on latents z (M, F) of the two classifiers fitted to train_z (N, F), N at least
    10.

    On one thread: the numbers then do not depend on the machine's cores, and where other work runs
    on them, L-BFGS on two threads was measured at ten times the time.
    """
    from sklearn.exceptions import ConvergenceWarning  # takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=ITERATIONS)
    )
    neighbours = KNeighborsClassifier(NEIGHBOURS, algorithm="brute")
    with threadpool_limits(1), warnings.catch_warnings():
        # The number of steps is part of the protocol.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {
            "probe_accuracy": float(probe.fit(train_z, train_labels).score(z, labels)),
            "knn_accuracy": float(neighbours.fit(train_z, train_labels).score(z, labels)),
        }


def too_many(available: int, images: int | None) -> str | None:
    """The refusal of more train images than there are, or than the fits need."""
    if available < NEIGHBOURS:
        return f"representation: got {available} training images, wanted {NEIGHBOURS} at least"
    if images is None or images <= available:
        return None
    return f"representation_images: got {images}, but there are only {available} training images"


def sees_images(kind: Kind) -> bool:
    """Whether such a run has a latent of images."""
    return kind.stage == 1


class Representation(Evaluator):
    """Accuracies of the probe and of the nearest neighbours, of a run of stage 1."""

    settings = ("representation", "representation_images")

    def is_for(self, plan: Plan) -> bool:
        return sees_images(plan.kind)

    def asked(self, options: EvaluateOptions) -> bool | None:
        return options.representation

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        if not sees_images(plan.kind):
            *names, last = kind_names(sees_images)
            return (
                f"representation: {plan.path} is a prior; it sees codes, wanted an"
                f" {', '.join(names)} or {last} run"
            )
        data = plan.experiment.data
        images = image_set(data)
        if images.classes < 2:
            return f"representation: the images of {plan.path} have no labels"
        return too_many(split_sizes(data, images)["train"], options.representation_images)

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        return representation(
            subject.net, subject.images, options.split, options.representation_images
        )
