"""Whisper as a judge of digits: what counts as a digit, and whose it is."""

import importlib.util
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

FILE = Path(__file__).parents[1] / "experiments" / "fsdd" / "whisper.py"


@pytest.fixture(scope="module")
def whisper() -> ModuleType:
    """experiments/fsdd/whisper.py, which needs no Whisper until it hears something."""
    spec = importlib.util.spec_from_file_location("whisper", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Reads:
    """In the place of Whisper: a waveform of the level d/20 says digit d − 1, of 0.9 nothing."""

    def transcribe(self, clip: Any, **settings: Any) -> tuple[list[Any], None]:
        edges = np.flatnonzero(np.diff(clip)) + 1
        words = [
            SimpleNamespace(
                word=f" {round(float(clip[start]) * 20) - 1},",
                start=start / 16_000 - 0.3,
                end=end / 16_000,
            )
            for start, end in pairwise(edges.tolist())
            if 0 < clip[start] < 0.8
        ]
        return [SimpleNamespace(words=words)], None


@pytest.mark.parametrize(
    ("word", "digits"),
    [
        (" 4", [4]),
        (" 4.", [4]),
        (" Four,", [4]),
        (" for.", [4]),
        (" to", [2]),
        (" 407", [4, 0, 7]),
        (" oh", [None]),
        (" thank", [None]),
        (" ...", []),
    ],
)
def test_a_written_word_is_the_digits_that_it_sounds_like(
    whisper: ModuleType, word: str, digits: list[int | None]
) -> None:
    assert whisper.digits_in(word) == digits


def test_each_recording_has_the_digits_of_its_time(whisper: ModuleType) -> None:
    labels = [number * 7 % 10 for number in range(23)]
    waveforms = [np.full(4000 + 300 * d, (d + 1) / 20, np.float32) for d in labels]
    waveforms[5][:] = 0.9
    heard = whisper.digits_of(Reads(), waveforms)
    wanted = [[label] for label in labels]
    wanted[5] = []
    assert heard == wanted


def test_the_digits_of_one_word_share_its_time(whisper: ModuleType) -> None:
    assert whisper.spread([4, 0], 1.0, 2.0) == [(4, 1.0, 1.5), (0, 1.5, 2.0)]
    assert whisper.spread([], 1.0, 2.0) == []


def test_waveforms_are_brought_to_one_rate_and_one_loudness(whisper: ModuleType) -> None:
    tone = 0.01 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)
    found = whisper.waveform(SimpleNamespace(samples=tone, rate=8000))
    assert (len(found), found.dtype) == (8000, np.float32)
    assert np.sqrt(np.square(found).mean()) == pytest.approx(0.1, rel=1e-3)
    assert not whisper.waveform(SimpleNamespace(samples=np.zeros(10), rate=8000)).any()


@pytest.mark.parametrize(
    "words", [[], ["a", "b"], ["a", "steps=2"], ["a", "vocoder=b", "vocoder="]]
)
def test_other_words_are_refused_in_one_line(whisper: ModuleType, words: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"^whisper: wanted RUN \[vocoder=RUN\] \[guidance=2\]$"):
        whisper.main(words)


def test_a_run_that_is_not_there_is_one_line(whisper: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^whisper: [^\n]*$"):
        whisper.main([str(tmp_path / "none")])


def test_a_guidance_that_is_no_number_is_one_line(whisper: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^whisper: guidance: got 'much', wanted a number$"):
        whisper.main([str(tmp_path / "none"), "guidance=much"])


def test_guidance_of_a_run_that_draws_nothing_is_one_line(whisper: ModuleType) -> None:
    run = SimpleNamespace(path=Path("runs/a"))
    subject = SimpleNamespace(kind=SimpleNamespace(stage=1, name="vqvae"), run=run)
    whisper.check_guidance(subject, 1.0)
    with pytest.raises(ValueError, match=r"^guidance: got 2, but runs/a is a run of kind vqvae"):
        whisper.check_guidance(subject, 2.0)
