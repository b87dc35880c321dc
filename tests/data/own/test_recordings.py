"""A folder of recordings: formats, rates, channels, and every odd thing that a file may be."""

import io
import math
import os
import struct

import numpy as np
import pytest
import torch
from fake_sounds import wav
from own_images import classes_of, place, refusal, splits_of, unread

from vqvae_lightning.config import DataConfig, SoundConfig
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.own.build import resolve
from vqvae_lightning.data.own.collections import open_collection, summary
from vqvae_lightning.data.own.store import OwnImages

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")
SMALL = SoundConfig(rate=8000, bands=24, window=256, hop=64, frames=32)
SAMPLES = 64 * 32


def tone(hertz=500.0, rate=8000, seconds=0.2):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def encoded(samples, rate, kind):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind)
    return buffer.getvalue()


def folder(root, **files):
    """A folder with these files, `__` in a name for a dot, opened with small windows."""
    for name, data in files.items():
        path = root / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return open_collection(root, SMALL)


def levels(found, index=0):
    return found.read(index, 1).pixels


def loudest(pixels):
    """The row of the loudest band in the middle of a tenth of a second."""
    return int(pixels[0, :, 3:10].astype(float).mean(1).argmax())


def test_the_window_is_of_the_settings_and_the_usual_one_of_16_khz(tmp_path):
    found = folder(tmp_path, a__wav=wav(tone()))
    assert levels(found).shape == (1, 24, 32)
    usual = open_collection(tmp_path)
    assert usual.window == SoundConfig().resolved(16000)
    assert usual.read(0, 1).pixels.shape == (1, 80, 64)
    assert usual.channels == 1


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_every_format_is_the_same_window(tmp_path, kind):
    found = folder(tmp_path, **{f"a__{kind.lower()}": encoded(tone(), 8000, kind)})
    plain = folder(tmp_path / "plain", a__wav=wav(tone()))
    assert loudest(levels(found)) == loudest(levels(plain))
    assert (levels(found) > 0).any(1).sum() == (levels(plain) > 0).any(1).sum()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_another_rate_is_resampled_so_that_pitch_and_length_stay(tmp_path, rate):
    found = folder(tmp_path, a__wav=wav(tone(1000, rate), rate))
    assert loudest(levels(found)) == loudest(levels(folder(tmp_path / "8", a__wav=wav(tone(1000)))))
    assert abs(int((levels(found) > 0).any(1).sum()) - math.ceil(1600 / 64)) <= 1


def test_of_several_channels_the_mean_is_taken(tmp_path):
    left, right = tone(500), tone(2000)
    stereo = folder(tmp_path, a__wav=wav(np.stack([left, right], axis=1), channels=2))
    mono = folder(tmp_path / "mono", a__wav=wav((left + right) / 2))
    assert np.abs(levels(stereo).astype(int) - levels(mono).astype(int)).max() <= 2


def test_one_sample_silence_and_a_clipped_recording_are_used(tmp_path):
    clipped = np.clip(4 * tone(), -1, 1)
    files = {"a__wav": wav(np.ones(1)), "b__wav": wav(np.zeros(640)), "c__wav": wav(clipped)}
    one, silent, loud = (levels(folder(tmp_path, **files), index) for index in range(3))
    assert (one > 0).any(1).sum() == 1
    assert set(np.unique(silent)) == {0, 1}
    assert (silent == 1).all(1).sum() == 10
    assert loud.max() == 255


def test_no_more_of_a_long_recording_is_read_than_the_window_holds(tmp_path):
    beginning = tone(700, seconds=1.0)
    long = folder(tmp_path, a__wav=wav(np.concatenate([beginning, tone(2000, seconds=20)])))
    short = folder(tmp_path / "short", a__wav=wav(beginning))
    assert np.array_equal(levels(long), levels(short))
    assert (levels(long) > 0).all()


def test_a_recording_that_ends_too_soon_is_used_as_far_as_it_goes(tmp_path):
    whole = wav(tone())
    found = folder(tmp_path, a__wav=whole[: 44 + 640 * 2])
    assert (levels(found) > 0).any(1).sum() == 10


ODD = {
    "is empty": b"",
    "is no recording": b"this is a text, not a sound",
    "is damaged": b"RIFF\xff\xff\xff\xffWAVEfmt \x02\0\0\0",
    "has no samples": wav(np.zeros(0)),
    "has samples that are no numbers": encoded(np.full(10, np.nan), 8000, "WAV"),
}


@pytest.mark.parametrize("reason", ODD)
def test_what_cannot_be_used_says_why_in_a_word(tmp_path, reason):
    data = ODD[reason]
    if reason.endswith("numbers"):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.full(10, np.nan), 8000, format="WAV", subtype="FLOAT")
        data = buffer.getvalue()
    assert unread(folder(tmp_path, a__wav=data), 0) == reason


def test_rates_and_channels_of_no_recorder_are_an_attack(tmp_path):
    data = bytearray(wav(tone()))
    data[24:28] = struct.pack("<I", 2**31 - 1)
    said = unread(folder(tmp_path, a__wav=bytes(data)), 0)
    assert said == "has 2,147,483,647 samples per second and 1 channels"


def test_a_pipe_is_no_recording(tmp_path):
    found = folder(tmp_path, a__wav=wav(tone()))
    (tmp_path / "a.wav").unlink()
    os.mkfifo(tmp_path / "a.wav")
    assert unread(found, 0) == "is no regular file"


def test_classes_and_splits_are_folders_and_other_files_are_named(tmp_path):
    names = ("train/no/a.wav", "test/yes/b.wav", "train/yes/c/d.wav")
    place(tmp_path, *names, data=wav(tone()))
    place(tmp_path, "train/no/notes.txt", "train/no/e.mp3", data=b"x")
    found = open_collection(tmp_path)
    assert classes_of(found) == dict(zip(names, ("no", "yes", "yes"), strict=True))
    assert splits_of(found) == dict(zip(names, ("train", "test", "train"), strict=True))
    said = summary(found.left_out)
    assert said == "2 files left out: 2 are no recordings (train/no/e.mp3, train/no/notes.txt)"


def test_a_folder_with_an_image_is_one_of_images(tmp_path):
    place(tmp_path, "a.png")
    place(tmp_path, "b.wav", data=wav(tone()))
    found = open_collection(tmp_path)
    assert (found.window, list(found.names)) == (None, ["a.png"])


def test_a_folder_of_other_sounds_is_refused_in_one_line(tmp_path):
    place(tmp_path, "a.txt", data=b"x")
    assert "got a folder without images" in refusal(tmp_path)


class TestStore:
    def config(self, root, **settings):
        sounds = {f"{name}/{n}.wav": tone(300 + 100 * n + 900 * (name == "b")) for name in "ab"
                  for n in range(6)}  # fmt: skip
        for name, samples in sounds.items():
            place(root / "sounds", name, data=wav(samples))
        return DataConfig(
            path=str(root / "sounds"), root=str(root / "data"), batch_size=4, **settings
        )

    def test_a_store_holds_windows_and_pins_them(self, tmp_path):
        config = self.config(tmp_path, sound=SMALL)
        found = resolve(config)
        assert (found.size, found.channels, found.sound) == ([24, 32], 1, SMALL)
        own = OwnImages(found)
        assert (own.shape, own.class_names) == ((1, 24, 32), ("a", "b"))
        assert own.sound == SMALL.resolved()
        data = ImageDataModule(config, 0)
        data.setup()
        assert sum(data.sizes.values()) == 12
        assert len(data.signal.sounds(data.references("test", 1))) == 1

    def test_other_windows_of_the_same_folder_are_another_store(self, tmp_path):
        usual, small = (
            resolve(self.config(tmp_path, sound=sound)) for sound in (SoundConfig(), SMALL)
        )
        assert usual.fingerprint != small.fingerprint
        assert usual.sound == SoundConfig(16000, 80, 1024, 256, 64)
        assert resolve(self.config(tmp_path, sound=SMALL)) == small

    def test_a_resolved_store_is_found_without_its_folder(self, tmp_path):
        found = resolve(self.config(tmp_path, sound=SMALL))
        (tmp_path / "sounds").rename(tmp_path / "elsewhere")
        data = ImageDataModule(found, 0)
        data.setup()
        assert data.references("train", 2).shape == (2, 1, 24, 32)
        assert torch.isfinite(data.references("train", 2)).all()

    @pytest.mark.parametrize(("name", "value"), [("size", 64), ("channels", 1)])
    def test_a_size_of_recordings_is_refused(self, tmp_path, name, value):
        with pytest.raises(DataError, match=rf"data\.{name}: got {value}, but .* recordings"):
            resolve(self.config(tmp_path, **{name: value}))
        assert not (tmp_path / "data").exists()

    def test_a_window_of_images_is_refused(self, tmp_path):
        place(tmp_path / "sounds", *(f"{n}.png" for n in range(5)))
        with pytest.raises(DataError, match=r"data\.sound: got rate=8000, but .* holds images"):
            resolve(self.config(tmp_path, sound=SoundConfig(rate=8000)))
        assert not (tmp_path / "data").exists()
