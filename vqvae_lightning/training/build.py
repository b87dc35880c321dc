"""From settings to the data and the module of a run; nothing is trained, fetched or written."""

from typing import cast

import pytorch_lightning as pl
import torch

from vqvae_lightning.config import Experiment
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.training.loading import (
    check_tokenizer,
    codes_folder,
    kept_tokenizer,
    own_checkpoint,
    tokenizer_of,
)
from vqvae_lightning.training.record import TokenizerRecord
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.stages import Generates

DataModule = ImageDataModule | CodeDataModule
ANY_TOKENIZER = TokenizerRecord("", "", codebook_size=512, grid=[7, 7], dims=784).as_dict()


def build(experiment: Experiment, run: Run | None = None) -> tuple[DataModule, pl.LightningModule]:
    """The data module and the module of an experiment; nothing is trained, fetched or written.

    A prior that has a run already keeps the tokenizer that it was trained on, wherever that is now.
    """
    pl.seed_everything(experiment.seed, verbose=False)
    images = ImageDataModule(experiment.data, experiment.seed, experiment.trainer.accumulate)
    shape, classes = images.dataset.shape, images.dataset.classes
    kind = KINDS[experiment.kind]
    if kind.stage == 1:
        return images, kind.module(experiment.model, shape, experiment.optimizer)
    if run:
        tokenizer, codes, description = (
            kept_tokenizer(run),
            codes_folder(run),
            run.record.first_stage.as_dict(),
        )
    else:
        source = Run.open(experiment.model.tokenizer)
        check_tokenizer(source, experiment.data)
        tokenizer = tokenizer_of(own_checkpoint(source, source.best), source.best)
        codes = source.path / "codes"
        description = TokenizerRecord.of(tokenizer, source.name).as_dict()
    prior = kind.module(experiment.model, description, classes, experiment.optimizer)
    return CodeDataModule(images, tokenizer, codes), cast(Generates, prior).attach(tokenizer)


def check(experiment: Experiment) -> None:
    """Raises ConfigError or ValueError, one line, for an experiment that `build` would refuse.

    The module is built on the meta device, which costs no memory. The tokenizer of a prior is not
    looked for: ANY_TOKENIZER stands in for it.
    """
    images = ImageDataModule(experiment.data, experiment.seed, experiment.trainer.accumulate)
    kind, dataset = KINDS[experiment.kind], images.dataset
    with torch.device("meta"):
        if kind.stage == 1:
            kind.module(experiment.model, dataset.shape, experiment.optimizer)
        else:
            kind.module(experiment.model, ANY_TOKENIZER, dataset.classes, experiment.optimizer)
