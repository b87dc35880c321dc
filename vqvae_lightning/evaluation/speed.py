"""What an image of a prior costs in time."""

import time
from collections.abc import Mapping

import torch

from vqvae_lightning.config import EvaluateOptions
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.samplers import classes_of
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.training.stages import Generates

TIMED = 100  # images drawn at once


def seconds_per_image(prior: Generates) -> float:
    """Wall-clock seconds for an image of a prior, latents and decoding: the faster of two draws."""
    labels = classes_of(prior, torch.arange(TIMED) % prior.classes)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        prior.sample(TIMED, labels).cpu()
        seconds.append(time.perf_counter() - started)
    return min(seconds) / TIMED


class SecondsPerImage(Evaluator):
    """The time that a prior takes for an image, and its passes through the network."""

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        return None if plan.kind.stage == 2 else "it decodes in one pass"

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        return {
            "seconds_per_image": seconds_per_image(subject.prior),
            "evaluations_per_image": float(subject.prior.net.evaluations),
        }
