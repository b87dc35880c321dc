"""The subject of an evaluation: a finished run, opened once for a command; and its plan.

```
Run ──► kind, settings             known before anything is loaded
    ├─► module                     the best checkpoint, on `own_device()`
    └─► images, latents of stage 2 read, verified and decoded
```

An evaluator, a sampler or a picture asks the subject's `kind` what it offers, and takes the part
that it needs. Each part is opened when it is first asked for, and then kept.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
import torch

from vqvae_lightning.config import ConfigError, Experiment, MelWindow
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.heard import HeardDataModule
from vqvae_lightning.data.images import ImageDataModule, data_of, opened_images
from vqvae_lightning.data.imageset import sound_of
from vqvae_lightning.data.latents import LatentDataModule
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.densities import TrainLatents
from vqvae_lightning.evaluation.vocoders import open_vocoder
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.signals.build import signal_of
from vqvae_lightning.signals.signal import Signal
from vqvae_lightning.storage import file_hash
from vqvae_lightning.training.build import latents_of
from vqvae_lightning.training.loading import latents_folder, load_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.stages import Generates, HasLatents, Hears


class Plan:
    """A run as far as its settings tell: it need not be trained yet.

    `path` names it in messages: its folder, or the file of its settings.
    """

    def __init__(self, path: Path, experiment: Experiment, root: str | None = None) -> None:
        self.path, self.kind = path, KINDS[experiment.kind]
        self.experiment = replace(experiment, data=data_of(experiment.data, root))

    @property
    def sound(self) -> MelWindow | None:
        """The window of its recordings; None of images."""
        return sound_of(self.experiment.data)

    @property
    def signal(self) -> Signal:
        """Whether it learns images or recordings, and all that follows from that."""
        return signal_of(self.sound)


class Subject(Plan):
    """A finished run, with its images in `root`.

    Without `root` the images are where the run says, or in `data` (see `data_of`). Raises
    ConfigError for settings that cannot be read, for a run of another stage than `stages`, and for
    a `vocoder`, the folder of a run, that it cannot be heard through. Reading `module` raises
    CheckpointError for a damaged checkpoint, and reading `images` or `codes` raises DataError if
    they cannot be had.
    """

    def __init__(
        self,
        run: Run,
        root: str | None = None,
        vocoder: str | None = None,
        stages: tuple[int, ...] = (1, 2),
    ) -> None:
        super().__init__(run.path, run.experiment(), root)
        self.run = run
        if self.kind.stage not in stages:
            raise ConfigError(
                f"run: {run.path} is of kind {self.kind.name}, which only makes sounds of what"
                f" others make: give it as vocoder={run.path} beside one of them"
            )
        if vocoder is not None and self.kind.is_vocoder:
            raise ConfigError(
                f"vocoder: got {vocoder}, but {run.path} is a vocoder itself; wanted none"
            )
        self._vocoder = open_vocoder(vocoder, self.sound) if vocoder is not None else None

    @property
    def vocoder(self) -> str | None:
        """SHA-256 of the vocoder that it is heard through; None: Griffin-Lim, or its own."""
        return self._vocoder.sha256 if self._vocoder else None

    @property
    def signal(self) -> Signal:
        if self.kind.is_vocoder:
            return signal_of(self.sound, cast(Hears, self.module).net.heard)
        return signal_of(self.sound, self._vocoder.heard if self._vocoder else None)

    @cached_property
    def _loaded(self) -> tuple[pl.LightningModule, str]:
        """Module and SHA-256 of its file, read one after the other.

        Loading draws random weights first, so the random state is restored: a sampler's seed then
        gives the same images whenever the module is loaded.
        """
        with torch.random.fork_rng(devices=[]):
            module = load_run(self.run)
        return module.to(own_device()), file_hash(self.run.best)

    @property
    def module(self) -> pl.LightningModule:
        """The best checkpoint's module, in evaluation mode; one of stage 2 has its first stage."""
        return self._loaded[0]

    @property
    def checkpoint(self) -> str:
        """SHA-256 of the file that `module` was read from."""
        return self._loaded[1]

    @cached_property
    def images(self) -> ImageDataModule:
        """The images that the run, or its first stage, was trained on."""
        return opened_images(self.experiment.data, self.experiment.seed)

    @cached_property
    def latents(self) -> LatentDataModule:
        """The latents that a run of stage 2 was trained on."""
        folder = latents_folder(self.run)
        data = latents_of(self.kind, self.images, self.prior.first_stage, folder)
        data.prepare_data()
        return data

    @property
    def codes(self) -> CodeDataModule:
        """The codes that a prior was trained on."""
        return cast(CodeDataModule, self.latents)

    @property
    def data(self) -> ImageDataModule | LatentDataModule:
        """What the module was trained on."""
        if self.kind.is_vocoder:
            return HeardDataModule(self.experiment.data, self.experiment.seed)
        return self.images if self.kind.stage == 1 else self.latents

    @property
    def net(self) -> Autoencoder:
        """The autoencoder of a run of stage 1."""
        assert self.kind.stage == 1, self.kind.name
        return cast(HasLatents, self.module).net

    @property
    def prior(self) -> Generates:
        """The module of a run of stage 2."""
        assert self.kind.stage == 2, self.kind.name
        return cast(Generates, self.module)

    @cached_property
    def train_latents(self) -> TrainLatents:
        """Latents of training images, of a run of stage 1; encoded when first looked at."""
        return TrainLatents(self.net, self.images)
