"""Sounds of a comparison's page: embedded beside their pictures, few bytes, of our own header."""

import io
import os
import re
import wave
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from run_folders import Checker, check, page, write_run

from vqvae_lightning.comparison.compare import compare
from vqvae_lightning.comparison.report import PAGE_BYTES
from vqvae_lightning.comparison.report.sounds import SOUND_BYTES, open_sound
from vqvae_lightning.training.runs import Run


def sound(samples: int = 400, channels: int = 1, width: int = 2, rate: int = 8000) -> bytes:
    """A WAV file of noise."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).bytes(samples * channels * width))
    return buffer.getvalue()


def heard(html: str) -> list[bytes]:
    """The WAV files of a page."""
    return [b64decode(data) for data in re.findall(r"data:audio/wav;base64,([^\"]+)", html)]


def spoken(root: Path, kind: str = "vqvae", dataset: str = "fsdd", name: str = "") -> Run:
    """A run folder whose pictures have a sound each."""
    run = write_run(root, kind, dataset=dataset, name=name)
    for path in run.pictures():
        path.with_suffix(".wav").write_bytes(sound())
    return run


def players(html: str) -> Checker:
    checker = check(html)
    assert all(source.startswith("data:") for source in checker.sources)
    return checker


def test_every_sound_stands_beside_its_picture_with_the_licence(tmp_path: Path) -> None:
    run = spoken(tmp_path)
    html = page(compare([run]), tmp_path)
    assert players(html).tags.count("audio") == 2
    assert heard(html) == [sound(), sound()]
    assert html.count("Recordings: Free Spoken Digit Dataset, CC BY-SA 4.0.") == 2
    assert html.index("each recording, then its") < html.index("samples, one after another")
    (run.images / "samples.png").unlink()
    assert len(heard(page(compare([run]), tmp_path))) == 1


def test_a_page_of_images_has_nothing_to_play(tmp_path: Path) -> None:
    html = page(compare([write_run(tmp_path, "vqvae")]), tmp_path)
    assert "audio" not in players(html).tags
    assert "Recordings" not in html


BAD_SOUNDS = {
    "no WAV file": b"<script>alert(1)</script>",
    "nothing": b"",
    "a header only": sound()[:30],
    "no samples": sound(0),
    "two channels": sound(channels=2),
    "bytes": sound(width=1),
    "a rate that no recording has": sound(rate=1),
}


@pytest.mark.parametrize("case", BAD_SOUNDS)
def test_what_cannot_be_played_is_named_and_left_out(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = spoken(tmp_path)
    bad = run.images / "samples.wav"
    bad.write_bytes(BAD_SOUNDS[case])
    html = page(compare([run]), tmp_path)
    assert players(html).tags.count("audio") == 1
    assert "1 of 2 sounds are left out" in html
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert line.startswith(f"left out  {bad}: ")


def test_no_sound_is_followed_out_of_a_run_folder_or_waited_for(tmp_path: Path) -> None:
    run = spoken(tmp_path)
    secret = tmp_path / "secret.wav"
    secret.write_bytes(sound(800))
    for name, replace in (("samples", "link"), ("reconstructions", "pipe")):
        path = run.images / f"{name}.wav"
        path.unlink()
        os.mkfifo(path) if replace == "pipe" else path.symlink_to(secret)
    html = page(compare([run]), tmp_path)
    assert heard(html) == []
    assert "sounds are left out" not in html


def test_only_samples_of_a_file_reach_the_page(tmp_path: Path) -> None:
    run, plain = spoken(tmp_path), sound()
    chunk = b"LIST" + (26).to_bytes(4, "little") + b"<script>alert(1)</script> "
    size = (len(plain) + len(chunk) - 8).to_bytes(4, "little")
    (run.images / "samples.wav").write_bytes(plain[:4] + size + plain[8:36] + chunk + plain[36:])
    assert heard(page(compare([run]), tmp_path)) == [plain, plain]


def test_a_file_that_ends_too_soon_is_played_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    path.write_bytes(sound()[:-101])
    data = open_sound(path)
    assert data is not None
    with wave.open(io.BytesIO(data)) as file:
        assert file.getnframes() == 349


def test_sounds_add_at_most_four_megabytes_to_a_page(tmp_path: Path) -> None:
    runs = [spoken(tmp_path, name=f"run-{number}") for number in range(4)]
    large = sound(SOUND_BYTES // 6)  # a third of all bytes
    for run in runs:
        for path in run.sounds():
            path.write_bytes(large)
    html = page(compare(runs), tmp_path)
    assert len(heard(html)) == 2  # headers count, too
    assert "6 of 8 sounds are left out" in html
    assert len(html.encode()) <= PAGE_BYTES + SOUND_BYTES * 4 // 3
    (runs[0].images / "samples.wav").write_bytes(sound(SOUND_BYTES))
    assert open_sound(runs[0].images / "samples.wav") is None
