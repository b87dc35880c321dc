"""The record of recordings beside that of images: errors, sounds, and settings without a use."""

import io
import wave

import numpy as np
import pytest
import torch

from vqvae_lightning.config import ConfigError, DataConfig, SoundConfig
from vqvae_lightning.data.images import to_float
from vqvae_lightning.pictures import Grid
from vqvae_lightning.signals import image, sound
from vqvae_lightning.signals.build import signal_of
from vqvae_lightning.signals.clips import LONGEST, MOST, PAUSE, heard, wav
from vqvae_lightning.signals.mel import DB_PER_LEVEL, recorded
from vqvae_lightning.signals.signal import Clip
from vqvae_lightning.signals.sound import log_spectral_distance

FORM = SoundConfig(bands=32, frames=16).resolved(8000)
RECORDINGS, IMAGES = signal_of(FORM), signal_of(None)


def windows(n: int, frames: int = 12) -> torch.Tensor:
    """Levels (n, 1, 32, 16), of which `frames` are no padding."""
    levels = torch.randint(1, 200, (n, *FORM.shape), generator=torch.Generator().manual_seed(n))
    levels[..., frames:] = 0
    return levels


def test_a_difference_of_levels_is_a_distance_in_db() -> None:
    x = windows(3)
    louder = torch.where(x > 0, x + 20, x)
    found = log_spectral_distance(to_float(x), to_float(louder))
    assert found.tolist() == pytest.approx([20 * DB_PER_LEVEL] * 3, rel=1e-5)


def test_padding_takes_no_part_in_the_distance() -> None:
    x = windows(2)
    other = torch.where(x > 0, x, 200)
    assert log_spectral_distance(to_float(x), to_float(other)).tolist() == [0, 0]
    nothing = torch.full((1, *FORM.shape), -1.0)
    assert log_spectral_distance(nothing, nothing + 0.5).tolist() == [0]


def test_the_distance_of_a_split_is_the_mean_over_recordings() -> None:
    errors, x = RECORDINGS.errors, to_float(windows(4))
    y = x + torch.tensor([0.0, 0.1, 0.2, 0.3]).view(-1, 1, 1, 1)
    parts = [errors.sums(x[some], y[some])[0] for some in (slice(0, 1), slice(1, 4))]
    found = errors.values([torch.stack(parts).sum() / 4])["log_spectral_distance"]
    assert float(found) == pytest.approx(0.15 * 127.5 * DB_PER_LEVEL, rel=1e-5)
    assert float(errors.of_batch(x, y)["log_spectral_distance"]) == pytest.approx(float(found))


def test_images_are_heard_as_nothing_and_recordings_as_one_clip_each() -> None:
    x = to_float(windows(3))
    assert IMAGES.sounds(x) == []
    clips = RECORDINGS.sounds(x)
    assert [(len(clip.samples), clip.rate) for clip in clips] == [(12 * FORM.hop, 8000)] * 3


def test_of_pairs_each_original_is_heard_before_its_reconstruction() -> None:
    x = to_float(torch.cat([windows(1, frames) for frames in (3, 4, 5, 6, 7, 8, 9, 10)]))
    clips = heard(Grid(x, columns=2, is_pairs=True), RECORDINGS)
    # Rows: 3 4 | 5 6 | 7 8 | 9 10, of which the second and the fourth are reconstructions.
    assert [len(clip.samples) // FORM.hop for clip in clips] == [3, 5, 4, 6, 7, 9, 8, 10]
    one_by_one = heard(Grid(x, columns=2), RECORDINGS)
    assert [len(clip.samples) // FORM.hop for clip in one_by_one] == [3, 4, 5, 6, 7, 8, 9, 10]


def test_what_is_heard_of_many_is_spread_over_all_of_them() -> None:
    x = to_float(torch.cat([windows(1, 1 + number // 10) for number in range(100)]))
    lengths = [len(clip.samples) // FORM.hop for clip in heard(Grid(x, 10), RECORDINGS)]
    assert len(lengths) == MOST
    assert set(lengths) == set(range(1, 11))


def test_of_long_windows_fewer_are_heard_so_that_files_stay_small() -> None:
    form = SoundConfig(frames=250).resolved(8000)  # 4 s
    clips = heard(Grid(torch.rand(30, *form.shape), 10), signal_of(form))
    assert len(clips) == int(LONGEST / 4)


def test_a_wav_file_holds_the_clips_with_a_pause_after_each() -> None:
    clips = [Clip(np.full(100, value, np.float32), 8000) for value in (0.5, -1.0)]
    with wave.open(io.BytesIO(wav(clips))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        found = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    pause = round(PAUSE * 8000)
    assert len(found) == 2 * (100 + pause)
    assert set(found[:100].tolist()) == {16384}
    assert set(found[100 : 100 + pause].tolist()) == {0}
    assert set(found[100 + pause : 200 + pause].tolist()) == {-32767}


@pytest.mark.parametrize(("name", "value"), [("flip", True), ("binarize", "static")])
def test_what_only_images_can_have_is_refused_for_recordings(name: str, value: object) -> None:
    data = DataConfig(name="fsdd", **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"data\.{name}: got {value}, but fsdd holds recordings"):
        RECORDINGS.check_data(data)
    IMAGES.check_data(data)


def test_what_only_recordings_can_have_is_refused_for_images() -> None:
    data = DataConfig(name="mnist", sound=SoundConfig(bands=40))
    with pytest.raises(ConfigError, match=r"data\.sound\.bands: got 40, but mnist holds images"):
        IMAGES.check_data(data)
    RECORDINGS.check_data(data)


def test_an_image_is_varied_by_a_move_of_whole_pixels() -> None:
    torch.manual_seed(0)
    x = torch.rand(150, 3, 7, 5)
    rows, columns = torch.arange(7), torch.arange(5)
    found = set()
    for before, after in zip(x, IMAGES.varied(x), strict=True):
        moves = [
            (up, left)
            for up in range(-3, 4)
            for left in range(-3, 4)
            if torch.equal(
                after, before[:, (rows + up).clamp(0, 6)][:, :, (columns + left).clamp(0, 4)]
            )
        ]
        assert len(moves) == 1
        found.update(moves)
    possible = range(-image.SHIFT, image.SHIFT + 1)
    # all of them, and each by its own
    assert found == {(up, left) for up in possible for left in possible}


def test_variations_are_drawn_anew_at_every_call() -> None:
    for signal in (IMAGES, RECORDINGS):
        x = to_float(windows(20))
        assert not torch.equal(signal.varied(x), signal.varied(x))


def test_a_varied_recording_is_whole_at_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BANDS", "HISS", "MASK"):
        monkeypatch.setattr(sound, name, 0)
    torch.manual_seed(0)
    x = to_float(windows(100, frames=12))
    found = set()
    for before, after in zip(x, RECORDINGS.varied(x), strict=True):
        (later,) = (n for n in range(5) if torch.equal(after[..., n : n + 12], before[..., :12]))
        assert bool((after[..., :later] == -1).all() and (after[..., later + 12 :] == -1).all())
        found.add(later)
    assert found == set(range(5))


def test_where_padding_begins_is_hidden_in_most_varied_recordings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sound, "MASK", 0)
    torch.manual_seed(0)
    after = RECORDINGS.varied(to_float(windows(200)))
    is_padding = recorded(after).logical_not().any(1)
    assert 0.1 < is_padding.float().mean() < 0.4  # a quarter has no hiss
    assert bool((after >= -1).all() and (after <= 1).all())


def test_what_is_played_is_the_window_of_what_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RECORDINGS.mel, "iterations", 2)  # type: ignore[attr-defined]
    times = torch.arange(FORM.hop * 10) / FORM.rate
    waveform = torch.zeros(1, RECORDINGS.samples)
    waveform[0, : len(times)] = torch.sin(2 * torch.pi * 500 * times)
    x = to_float(RECORDINGS.mel.levels(waveform, torch.tensor([len(times)])))  # type: ignore[attr-defined]
    again = RECORDINGS.played(x)
    assert again.shape == x.shape
    assert torch.equal(recorded(again), recorded(x))
    assert float(log_spectral_distance(x, again)) < 15
    assert torch.equal(IMAGES.played(x), x)
