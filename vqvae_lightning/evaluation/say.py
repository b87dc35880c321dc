"""`say(run, text)`: a WAV file of what a prior that reads texts draws for one."""

import re
from pathlib import Path
from typing import Any, cast

import torch

from vqvae_lightning.config import ConfigError, SayOptions, check_free, run_options
from vqvae_lightning.data.texts import said_by, speakers_of
from vqvae_lightning.evaluation.samplers import check_sampling, sampling
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.signals.clips import write_sounds
from vqvae_lightning.storage import check_writable
from vqvae_lightning.surroundings import own_surroundings
from vqvae_lightning.training.prior import CodePrior
from vqvae_lightning.training.runs import Run

LONGEST_NAME = 60  # characters of the usual name of a file


@own_surroundings()
def say(
    run: Run | str | Path, text: str, options: SayOptions | None = None, **settings: Any
) -> Path:
    """Draws codes given a text, decodes them, and writes what is heard as a WAV file, atomically.

    Args:
        run: a finished run of a prior with condition=text, or its folder.
        text: what is said, of characters that the prior has read.
        options: settings; by default those of `vqvae say`.
        settings: single ones on top, such as `speaker="george"`.

    Returns:
        The file.

    Raises:
        ConfigError: another run, a text or a speaker that it does not know, a setting out of range,
            or a file that exists or cannot be written. Nothing is then written.
    """
    run = Run.of(run)
    options = run_options(SayOptions, run.path, options, settings)
    subject = Subject(run, options.root, options.vocoder)
    _check_run(subject)
    check_sampling(subject.experiment, options)
    module = cast(CodePrior, subject.module)
    if not text.strip():
        raise ConfigError("text: got an empty one, wanted something to say")
    whole = _with_speaker(module, text, options.speaker)
    module.check_text(whole)
    words = "-".join(re.findall(r"\w+", f"{options.speaker or ''} {text}"))
    target = Path(options.to or f"{words[:LONGEST_NAME] or 'said'}.wav")
    check_free(target, "the name of a new file")
    check_writable(target, "to")
    torch.manual_seed(options.seed)
    how = {"decoded_as": options.decoded_as, **sampling(subject.experiment, options)}
    drawn = module.say(whole, options.n, **how)
    write_sounds(target, subject.signal.sounds(drawn))
    return target


def _check_run(subject: Subject) -> None:
    """Raises ConfigError unless a run draws recordings given texts."""
    kind, model = subject.kind, subject.experiment.model
    if kind.stage == 1:
        raise ConfigError(
            f"text: {subject.path} is a run of kind {kind.name}, which reads none; wanted a prior"
            " with model.condition=text"
        )
    if not model.reads_texts:
        raise ConfigError(
            f"text: {subject.path} is given labels, wanted a prior with model.condition=text; draw"
            " by label with `vqvae sample`"
        )


def _with_speaker(module: CodePrior, text: str, speaker: str | None) -> str:
    """The text as the prior reads it. Raises ConfigError for a speaker that it does not know."""
    known = speakers_of(module.texts)
    if speaker is None and not known:
        return text
    if speaker not in known:
        wanted = f"one of {', '.join(known)}" if known else "none, since its texts name no speaker"
        raise ConfigError(f"speaker: got {speaker or 'none'}, wanted {wanted}")
    return said_by(speaker, text)
