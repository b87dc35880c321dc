"""From settings to the data and the module of a run; nothing is trained, fetched or written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch

from vqvae_lightning.config import Experiment
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.heard import HeardDataModule
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.imageset import ImageSet
from vqvae_lightning.data.latents import LatentDataModule
from vqvae_lightning.kinds import KINDS, Kind
from vqvae_lightning.models.first_stage import FirstStage, FrozenLatents
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.signals.build import signal_of
from vqvae_lightning.training.loading import (
    check_first_stage,
    first_stage_of,
    kept_first_stage,
    latents_folder,
    own_checkpoint,
)
from vqvae_lightning.training.record import LatentsRecord, TokenizerRecord
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.stages import Generates, Hears

DataModule = ImageDataModule | LatentDataModule
ANY_TOKENIZER = TokenizerRecord("", "", codebook_size=512, grid=[7, 7], dims=784).as_dict()
ANY_LATENTS = LatentsRecord("", "", shape=[16, 1, 1], dims=784).as_dict()


def build(experiment: Experiment, run: Run | None = None) -> tuple[DataModule, pl.LightningModule]:
    """The data module and the module of an experiment; nothing is trained, fetched or written.

    A prior that has a run already keeps the first stage that it was trained on, wherever that is
    now.
    """
    pl.seed_everything(experiment.seed, verbose=False)
    kind = KINDS[experiment.kind]
    of_data = (experiment.data, experiment.seed, experiment.trainer.accumulate)
    if kind.is_vocoder:
        heard = HeardDataModule(*of_data)
        module = vocoder_module(experiment, heard.dataset)
        heard.signal = signal_of(heard.dataset.sound, cast(Hears, module).net.heard)
        return heard, module
    images = ImageDataModule(*of_data)
    dataset = images.dataset
    if kind.stage == 1:
        return images, first_stage_module(experiment, dataset)
    if run:
        first_stage, folder = kept_first_stage(run), latents_folder(run)
        description = run.record.learned_from.as_dict()
    else:
        source = Run.open(experiment.model.first_stage_run)
        check_first_stage(kind, source, experiment.data)
        folder = source.path
        first_stage = first_stage_of(own_checkpoint(source, source.best), source.best)
        description = described(first_stage, source.name)
    module = second_stage_module(experiment, description, dataset)
    data = latents_of(kind, images, first_stage, folder)
    return data, cast(Generates, module).attach(first_stage)


def first_stage_module(experiment: Experiment, dataset: ImageSet) -> pl.LightningModule:
    """A new module of stage 1 for the images, or the recordings, of a data set."""
    module = KINDS[experiment.kind].module
    shape, sound = dataset.shape, dataset.sound
    return module(experiment.model, shape, experiment.optimizer, sound, dataset.classes)


def vocoder_module(experiment: Experiment, dataset: ImageSet) -> pl.LightningModule:
    """A new vocoder for the windows of a data set."""
    module = KINDS[experiment.kind].module
    return module(experiment.model, dataset.sound, experiment.optimizer)


def second_stage_module(
    experiment: Experiment, description: Mapping[str, Any], dataset: ImageSet
) -> pl.LightningModule:
    """A new module of stage 2 for the latents of a described first stage."""
    model, module = experiment.model, KINDS[experiment.kind].module
    texts = {"texts": dataset.texts} if model.reads_texts else {}
    return module(model, description, dataset.classes, experiment.optimizer, **texts)


def described(first_stage: FirstStage, run: str) -> dict[str, Any]:
    """The record of a first stage of a run, as a module of stage 2 takes it."""
    if isinstance(first_stage, Tokenizer):
        return TokenizerRecord.of(first_stage, run).as_dict()
    return LatentsRecord.of(cast(FrozenLatents, first_stage), run).as_dict()


def latents_of(
    kind: Kind, images: ImageDataModule, first_stage: FirstStage, folder: Path
) -> LatentDataModule:
    """What a kind of stage 2 learns of images, stored in a run folder."""
    if kind.has_codes:
        return CodeDataModule(images, cast(Tokenizer, first_stage), folder)
    return LatentDataModule(images, first_stage, folder)


def check(experiment: Experiment) -> None:
    """Raises ConfigError or ValueError, one line, for an experiment that `build` would refuse.

    The module is built on the meta device, which costs no memory. The first stage of a prior is not
    looked for: ANY_TOKENIZER or ANY_LATENTS stands in for it.
    """
    kind = KINDS[experiment.kind]
    of_data = (experiment.data, experiment.seed, experiment.trainer.accumulate)
    dataset = (HeardDataModule if kind.is_vocoder else ImageDataModule)(*of_data).dataset
    with torch.device("meta"):
        if kind.stage == 1:
            first_stage_module(experiment, dataset)
        elif kind.is_vocoder:
            vocoder_module(experiment, dataset)
        else:
            stand_in = ANY_TOKENIZER if kind.has_codes else ANY_LATENTS
            second_stage_module(experiment, stand_in, dataset)
