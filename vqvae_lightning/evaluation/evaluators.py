"""The evaluators, in the order in which they are asked and in which their numbers stand."""

from collections.abc import Mapping

import pytorch_lightning as pl

from vqvae_lightning.config import EvaluateOptions
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.fidelity import Generation
from vqvae_lightning.evaluation.hearing import Hearing
from vqvae_lightning.evaluation.information import Codes, PriorSavings
from vqvae_lightning.evaluation.likelihood import (
    ImportanceWeightedBound,
    RatePerLatentDimension,
    TwoStageLikelihood,
)
from vqvae_lightning.evaluation.on_disk import BytesOnDisk
from vqvae_lightning.evaluation.recognition import Recognition
from vqvae_lightning.evaluation.representation import Representation
from vqvae_lightning.evaluation.speed import SecondsPerImage
from vqvae_lightning.evaluation.subject import Subject


class OwnPass(Evaluator):
    """The metrics that the module itself logs in a pass over the split.

    On one device, so that no number depends on how images are dealt to several.
    """

    stages = (1, 2, 3)

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        module, data, split = subject.module, subject.data, options.split
        trainer = pl.Trainer(
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        step = trainer.test if split == "test" else trainer.validate
        (measured,) = step(module, datamodule=data, verbose=False)
        # The Trainer has moved it to the CPU.
        module.to(own_device())
        return {name.removeprefix(f"{split}/"): value for name, value in measured.items()}


EVALUATORS: dict[str, Evaluator] = {
    "own_pass": OwnPass(),
    "iwae": ImportanceWeightedBound(),
    "two_stages": TwoStageLikelihood(),
    "codes": Codes(),
    "savings": PriorSavings(),
    "speed": SecondsPerImage(),
    "representation": Representation(),
    "hearing": Hearing(),
    "recognition": Recognition(),
    "rate_per_dim": RatePerLatentDimension(),
    "on_disk": BytesOnDisk(),
    "generation": Generation(),
}
