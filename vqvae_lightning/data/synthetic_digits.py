"""`spoken_digits`: synthetic recordings of ten digits by the three voices of flite, 8 kHz.

```
"seven, seven, seven" ──► flite, 16 kHz ──► three words ──► 8 kHz ──► <split>-recordings.wavs
   at a speed and a pitch                     without the pauses
```

Nobody has spoken them. A setting is a speed and a pitch, and each of the 40 is in one split only.
A word is spoken in three places of a sentence, because a voice lowers its pitch along it and
lengthens its end. Other words would leave their sounds at its edges, so there are none. The voice
rms has no pitch that can be set: its settings are speeds. Licence of flite and its voices: that of
Carnegie Mellon University, much like BSD's.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from vqvae_lightning.config import SoundConfig
from vqvae_lightning.data.dataset import Recording
from vqvae_lightning.data.digits import FSDD, RATE, WORDS, decode
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.formats import DataError, Format, stated_sizes
from vqvae_lightning.data.waveforms import recordings
from vqvae_lightning.wav import wav_file

VOICES = ("awb", "rms", "slt")
PITCHES = {"awb": 120, "slt": 170}  # Hz: the middle of the settings, near what the voice has
SETTINGS = range(40)
PLACES = 3  # of a word in its sentence
# File → the settings of its recordings. Those of validation and test lie between those of training.
FILES = {
    "train-recordings.wavs": [number for number in SETTINGS if number % 10 not in (3, 8)],
    "val-recordings.wavs": [number for number in SETTINGS if number % 10 == 3],
    "test-recordings.wavs": [number for number in SETTINGS if number % 10 == 8],
}
MARGIN = 0.04  # seconds of the pauses that stay around a word
# What flite says of itself where it is Debian's package 2.2-5.
VERSION = "flite-2.2-current"
TIMEOUT = 60.0  # seconds for a sentence, which takes a tenth of one
# A low-pass filter of 3.7 kHz, for every second sample of 16 kHz. The taps are integers, so that
# every machine has the same samples; their sum is about 2**15.
_TAPS = np.arange(-32, 33)
TAPS = np.round(2**15 * 0.46 * np.sinc(0.46 * _TAPS) * np.hamming(65)).astype(np.int64)


def options_of(voice: str, setting: int) -> list[str]:
    """What flite is told of a setting: 0.8 to 1.29 times as slow, up to 4 semitones up or down.

    The speeds go up, and the pitches jump about: no two settings share either.
    """
    options = ["-voice", voice, "--setf", f"duration_stretch={0.8 + setting / 80:.4f}"]
    if voice in PITCHES:
        semitones = 8 * (setting * 13 % len(SETTINGS)) / (len(SETTINGS) - 1) - 4
        options += ["--setf", f"int_f0_target_mean={PITCHES[voice] * 2 ** (semitones / 12):.1f}"]
    return options


def halved(samples: Recording) -> Recording:
    """A recording of half as many samples per second."""
    filtered = np.convolve(samples.astype(np.int64), TAPS, "same")[::2]
    return (filtered >> 15).clip(-(2**15), 2**15 - 1).astype("<i2")


def words_of(spoken: Recording, segments: str) -> list[Recording]:
    """The words of a sentence, each with MARGIN of the pauses around it.

    A word after the end of the samples is left out.

    Args:
        spoken: samples of the sentence.
        segments: each sound and where it ends, in seconds: `pau:0.253 w:0.362 …`.
    """
    words: list[tuple[float, float]] = []
    start, end, last = 0.0, 0.0, "pau"
    for sound, until in re.findall(r"(\S+):(\d+\.\d+)", segments):
        if sound == "pau" and last != "pau":
            words.append((start, end))
        if sound != "pau" and last == "pau":
            start = end
        last, end = sound, float(until)
    rate = 2 * RATE
    found = [
        spoken[max(round((start - MARGIN) * rate), 0) : round((end + MARGIN) * rate)]
        for start, end in words
    ]
    return [word for word in found if len(word)]


def spoken(program: Path, prefix: str, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """The files, spoken by flite: a layout of its program. Raises DataError."""
    said = _said(program, "--version")
    if VERSION not in said:
        found = re.search(r"version: (\S+)", said)
        raise DataError(
            f"is version {found[1] if found else 'unknown'}, wanted {VERSION}, as in Debian's"
            " package flite 2.2-5: another one speaks otherwise"
        )
    for file, settings in FILES.items():
        yield file, b"".join(_joined(program, setting) for setting in settings)


def _joined(program: Path, setting: int) -> bytes:
    """WAV files of the recordings of a setting: by place in the sentence, digit, voice."""
    sentences = [_sentence(program, word, voice, setting) for word, voice in product(WORDS, VOICES)]
    return b"".join(
        wav_file(halved(sentence[place]).tobytes(), RATE)
        for place in range(PLACES)
        for sentence in sentences
    )


def _sentence(program: Path, word: str, voice: str, setting: int) -> list[Recording]:
    text, options = ", ".join([word] * PLACES), options_of(voice, setting)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "spoken.wav")
        segments = _said(program, *options, "-psdur", "-t", text, "-o", str(file))
        found = list(recordings(file.read_bytes(), 2 * RATE)) if file.is_file() else []
    words = [word for samples in found for word in words_of(samples, segments)]
    if len(words) != PLACES:
        raise DataError(f"spoke {len(words)} words by {' '.join(options)}, wanted {PLACES}: {text}")
    return words


def _said(program: Path, *words: str) -> str:
    """What flite prints. Its exit code says nothing: it is 1 after --version."""
    try:
        done = subprocess.run(
            [program, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"took longer than {TIMEOUT:.0f} s") from error
    except OSError as error:
        raise DataError(f"cannot be run: {error.strerror}") from error
    return done.stdout.decode(errors="replace")


SIZES = {
    "train-recordings.wavs": 22_287_344,
    "val-recordings.wavs": 2_751_312,
    "test-recordings.wavs": 2_890_000,
}
SHA256 = {
    "train-recordings.wavs": "d5c5dd9d67c1b6834def0f489938173ca824e8f2e981edfd1e4bbb22dc342e96",
    "val-recordings.wavs": "dfb8289290769b27caa5aafa5e1a292f2e7634e48225e56f19cecf41d72ac4df",
    "test-recordings.wavs": "47aac6f830fdbf13fa1e7650c100b178c70336abd9e4775d416bfaf22cd0f5ed",
}

_WINDOW = SoundConfig().resolved(RATE)

SPOKEN_DIGITS = replace(
    FSDD,
    name="spoken_digits",
    title="Spoken digits, synthetic",
    train_size=2_880,
    validation_size=360,
    test_size=360,
    files=SHA256,
    format=Format(
        partial(decode, window=_WINDOW, label="digit", speakers=len(VOICES)),
        partial(stated_sizes, SIZES),
    ),
    sources=(Source("program:flite", spoken),),
    speakers=VOICES,
    licence="synthesised by flite, whose licence is CMU's, much like BSD's",
)
