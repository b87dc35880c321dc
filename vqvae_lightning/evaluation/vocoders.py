"""From the run folder of a vocoder to what makes sounds of the windows of other runs."""

from typing import NamedTuple, cast

import torch

from vqvae_lightning.config import ConfigError, MelWindow, canonical
from vqvae_lightning.device import own_device
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.signals.mel import Vocoder
from vqvae_lightning.storage import file_hash
from vqvae_lightning.training.loading import module_of, own_checkpoint
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.stages import Hears
from vqvae_lightning.verified import CheckpointError


class Opened(NamedTuple):
    """A vocoder, and what it is known by."""

    heard: Vocoder
    sha256: str  # of its checkpoint


def open_vocoder(folder: str, sound: MelWindow | None) -> Opened:
    """The vocoder of a finished run, on `own_device()`, for windows of recordings.

    The windows may have more frames than those that it has learned, or fewer.

    Raises:
        ConfigError: there is no finished run of a vocoder, or it has learned other windows, or
            there are no recordings to be heard.
        CheckpointError: the checkpoint is damaged, or not that of the run.
    """
    if sound is None:
        raise ConfigError("vocoder: got one for a run on images, which nobody hears; wanted none")
    run = Run.open(canonical(folder, "vocoder"))
    kind, path = KINDS[run.record.kind], run.path
    if not kind.is_vocoder:
        raise ConfigError(f"vocoder: {path} is a run of kind {kind.name}, wanted one of a vocoder")
    if run.record.status != "finished":
        raise ConfigError(f"vocoder: {path} has status={run.record.status}, wanted a finished run")
    checkpoint = own_checkpoint(run, run.best)
    named = checkpoint.get("hyper_parameters")
    settings = named if isinstance(named, dict) else {}
    learned = settings.get("sound")
    # Before anything of its size is made: the checkpoint may be a stranger's.
    if not isinstance(learned, list) or len(learned) != len(sound):
        raise CheckpointError(f"checkpoint: {run.best} names no window, wanted that of a vocoder")
    for name, got, wanted in zip(sound._fields, learned, sound, strict=True):
        if got != wanted and name != "frames":
            raise ConfigError(
                f"vocoder: {path} was trained with data.sound.{name}={got}, but the run has"
                f" {wanted}; wanted a vocoder of the same windows"
            )
    with torch.random.fork_rng(devices=[]):
        given = {**settings, "sound": [*sound]}
        module = module_of({**checkpoint, "hyper_parameters": given}, run.best)
    net = cast(Hears, module).net.to(own_device())
    return Opened(net.heard, file_hash(run.best))
