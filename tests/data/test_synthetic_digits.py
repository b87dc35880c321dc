"""Synthetic digits: their settings and splits, how sentences are cut, and what flite may do."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_sounds import wav

from vqvae_lightning import cli
from vqvae_lightning.config import DataConfig
from vqvae_lightning.data import synthetic_digits
from vqvae_lightning.data.digits import RATE, WORDS, labels_of
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.imageset import image_set
from vqvae_lightning.data.sources import DATASETS, holds, prepare
from vqvae_lightning.data.synthetic_digits import (
    FILES,
    PLACES,
    SETTINGS,
    SHA256,
    SPOKEN_DIGITS,
    VERSION,
    VOICES,
    halved,
    options_of,
    spoken,
    words_of,
)

ONE_EACH = {file: settings[:1] for file, settings in FILES.items()}
SENTENCE = "pau:0.100 t:0.150 uw:0.300 pau:0.400 t:0.500 uw:0.600 pau:0.700 uw:0.800 pau:0.900 "
# What a stand-in of flite does, by its case: it copies a sound that lies beside it.
SCRIPTS = {
    "usual": f'cp "$here/$voice ${{text%%,*}}.wav" "$out"; echo "{SENTENCE}"',
    "no sound": f'echo "{SENTENCE}"',
    "no times": 'cp "$here/$voice ${text%%,*}.wav" "$out"',
    "half a sound": f'head -c 300 "$here/awb one.wav" > "$out"; echo "{SENTENCE}"',
    "another voice": f'cp "$here/awb one.wav" "$out"; echo "{SENTENCE}"',
    "it fails": "exit 3",
    "it hangs": "exec sleep 9",
}

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a stand-in of flite on PATH, which sings a tone for each word and voice."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(synthetic_digits, "FILES", ONE_EACH)
    times = np.arange(2 * RATE) / (2 * RATE)
    for number, word in enumerate(WORDS):
        for voice, name in enumerate(VOICES):
            tone = np.sin(2 * np.pi * (300 + 100 * number + 1000 * voice) * times)
            (folder / f"{name} {word}.wav").write_bytes(wav(0.5 * tone, 2 * RATE))

    def installed(case: str = "usual", version: str = VERSION) -> Path:
        program = folder / "flite"
        program.write_text(
            f"""#!/bin/sh
here={folder}
if [ "$1" = --version ]; then echo "  version: {version} Sep 2018"; exit 1; fi
while [ $# -gt 0 ]; do
  case "$1" in -o) out=$2;; -t) text=$2;; -voice) voice=$2;; esac
  shift
done
{SCRIPTS[case]}
"""
        )
        program.chmod(0o755)
        return program

    return installed


@pytest.fixture
def made(install: Install, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files that the stand-in makes, which `spoken_digits` means."""
    files = dict(spoken(install(), "", {}))
    for file, data in files.items():
        monkeypatch.setitem(synthetic_digits.SIZES, file, len(data))
    hashes = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
    small = replace(SPOKEN_DIGITS, files=hashes, train_size=90, validation_size=90, test_size=90)
    monkeypatch.setitem(DATASETS, "spoken_digits", small)
    return files


def test_it_is_called_synthetic_wherever_it_has_a_title() -> None:
    assert "synthetic" in SPOKEN_DIGITS.title
    assert "synthesised by flite" in SPOKEN_DIGITS.licence


def test_no_setting_is_in_two_splits_and_no_two_settings_sound_alike() -> None:
    every = [setting for settings in FILES.values() for setting in settings]
    assert sorted(every) == list(SETTINGS)
    for voice in VOICES:
        options = {" ".join(options_of(voice, setting)) for setting in SETTINGS}
        assert len(options) == len(SETTINGS)
    of_one = PLACES * len(WORDS) * len(VOICES)
    sizes = [SPOKEN_DIGITS.train_size, SPOKEN_DIGITS.validation_size, SPOKEN_DIGITS.test_size]
    assert sizes == [len(settings) * of_one for settings in FILES.values()]


def test_settings_of_validation_and_test_lie_between_those_of_training() -> None:
    train, *others = FILES.values()
    assert all(min(train) < setting < max(train) for some in others for setting in some)


def test_a_voice_without_a_pitch_is_told_none() -> None:
    assert any("int_f0_target_mean" in option for option in options_of("awb", 0))
    assert not any("int_f0_target_mean" in option for option in options_of("rms", 0))


def test_a_sentence_is_cut_into_words_with_a_little_of_the_pauses() -> None:
    samples = np.arange(2 * RATE).astype("<i2")
    words = words_of(samples, SENTENCE)
    assert [(word[0], len(word)) for word in words] == [(960, 4480), (5760, 4480), (10560, 2880)]
    assert len(words_of(samples[:5000], SENTENCE)) == 1
    assert words_of(samples, "pau:0.100 ") == words_of(samples, "") == []


def test_half_the_samples_hold_the_low_half_of_the_sounds() -> None:
    times = np.arange(4000) / (2 * RATE)
    low, high = (np.round(9000 * np.sin(2 * np.pi * f * times)).astype("<i2") for f in (1e3, 6e3))
    middle = slice(100, 1900)
    assert np.abs(halved(low)[middle].astype(int) - low[::2][middle]).max() < 90
    assert np.abs(halved(high)[middle]).max() < 90
    assert halved(np.full(200, -(2**15), "<i2")).min() == -(2**15)


def test_files_are_made_once_and_verified(
    made: dict[str, bytes], install: Install, tmp_path: Path
) -> None:
    folder = prepare("spoken_digits", tmp_path / "data")
    assert {file: (folder / file).read_bytes() for file in made} == made
    assert sorted(os.listdir(folder)) == sorted(made)
    install("it fails")
    prepare("spoken_digits", tmp_path / "data")
    (folder / "val-recordings.wavs").unlink()
    install()
    prepare("spoken_digits", tmp_path / "data")
    assert holds("spoken_digits", tmp_path / "data")


def test_flite_is_not_asked_where_nothing_is_to_be_fetched(
    made: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="flite: not asked"):
        prepare("spoken_digits", tmp_path / "data", download=False)
    assert not (tmp_path / "data").exists()


def test_labels_say_which_digit_and_which_voice(made: dict[str, bytes], tmp_path: Path) -> None:
    prepare("spoken_digits", tmp_path)

    def chosen(label: str | None) -> tuple[tuple[str, ...], list[int]]:
        images = image_set(DataConfig(name="spoken_digits", root=str(tmp_path), label=label))
        return images.class_names, images.rows(tmp_path, "test").labels.tolist()

    names, both = chosen("digit_and_speaker")
    assert names == labels_of(VOICES)["digit_and_speaker"]
    assert both == list(range(30)) * PLACES
    assert chosen(None)[1] == [label // 3 for label in both]
    assert chosen("speaker") == (VOICES, [label % 3 for label in both])
    # A control: the tone of a recording is that of its digit and voice.
    recordings = DATASETS["spoken_digits"].recordings(tmp_path, "test")
    for label, recording in zip(both, recordings, strict=True):
        pitch = np.abs(np.fft.rfft(recording)).argmax() * RATE / len(recording)
        assert abs(pitch - (300 + 100 * (label // 3) + 1000 * (label % 3))) < 20


def test_without_flite_one_line_says_how_to_get_it_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Source, "path", lambda source, folder: tmp_path / "bin" / "flite")
    with pytest.raises(SystemExit) as end:
        cli.main(["data", "name=spoken_digits", f"root={tmp_path / 'data'}"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cannot obtain spoken_digits" in said
    assert "flite: not installed, wanted that of `apt-get install flite`" in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("case", "version", "reason"),
    [
        ("usual", "flite-1.3-release", f"is version flite-1.3-release, wanted {VERSION}"),
        ("usual", "", "is version unknown, wanted"),
        ("no sound", VERSION, "spoke 0 words by -voice awb"),
        ("no times", VERSION, "spoke 0 words by -voice awb"),
        ("it fails", VERSION, "spoke 0 words by -voice awb"),
        ("half a sound", VERSION, "spoke 0 words by -voice awb"),
        ("another voice", VERSION, r"sha256 of train-recordings\.wavs is"),
        ("it hangs", VERSION, "took longer than"),
        ("no program", VERSION, "cannot be run: Exec format error"),
    ],
)
def test_a_flite_that_speaks_otherwise_is_one_line_and_leaves_no_file(
    case: str,
    version: str,
    reason: str,
    made: dict[str, bytes],
    install: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(synthetic_digits, "TIMEOUT", 0.3 if case == "it hangs" else 60)
    program = install("usual" if case == "no program" else case, version)
    if case == "no program":
        program.write_text("flite")
    with pytest.raises(DataError, match=reason) as error:
        prepare("spoken_digits", tmp_path / "data")
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path / "data") == [".spoken_digits.lock"]


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs Debian's package flite")
def test_flite_speaks_the_test_split_as_it_always_did(monkeypatch: pytest.MonkeyPatch) -> None:
    file = "test-recordings.wavs"
    monkeypatch.setattr(synthetic_digits, "FILES", {file: FILES[file]})
    ((_, data),) = spoken(Path(str(shutil.which("flite"))), "", {})
    assert hashlib.sha256(data).hexdigest() == SHA256[file]
