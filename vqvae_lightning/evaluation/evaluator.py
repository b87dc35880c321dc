"""What every part of an evaluation offers: whether it applies to a subject, and its numbers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from vqvae_lightning.config import EvaluateOptions
from vqvae_lightning.evaluation.subject import Plan, Subject


class Evaluator(ABC):
    """One part of an evaluation. It keeps nothing of its own between two subjects."""

    # Those of EvaluateOptions that nothing else reads: of no use to a kind that cannot have it.
    settings: tuple[str, ...] = ()
    stages: tuple[int, ...] = (1, 2)  # of the kinds that are asked whether they can have it
    heard: tuple[str, ...] = ()  # names of what it measures that another vocoder would change

    def is_for(self, plan: Plan) -> bool:
        """Whether `study` and `ablate` measure it of this run, where their settings ask for it."""
        return True

    def asked(self, options: EvaluateOptions) -> bool | None:
        """Whether the settings ask for it: if they do, a refusal is an error.

        None: no setting asks for it, and every run that can have it gets it.
        """
        return None

    def refuses(self, plan: Plan, options: EvaluateOptions) -> str | None:
        """Why this run, or these settings, cannot have it; None if they can.

        Every evaluator is asked before anything is computed: by `evaluate` of a finished run, and
        by `study` and `ablate` of a run that they are about to train.
        """
        return None

    @abstractmethod
    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        """What it measures on `options.split`, by name.

        `known` holds what earlier evaluators measured. Results that are no single numbers are
        written to the run here.
        """
