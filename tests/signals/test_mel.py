"""Log-mel windows: what their levels mean, and that a waveform comes back out of them."""

import math

import pytest
import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, MelWindow, SoundConfig
from vqvae_lightning.data.images import to_float
from vqvae_lightning.signals import mel
from vqvae_lightning.signals.mel import DB_PER_LEVEL, LogMel, mel_filters, recorded
from vqvae_lightning.signals.sound import log_spectral_distance

EIGHT, SIXTEEN = (SoundConfig().resolved(rate) for rate in (8000, 16000))
SMALL = MelWindow(8000, 24, 256, 64, 40)


def sine(form: MelWindow, hertz: float, amplitude: float = 1.0) -> Tensor:
    """A waveform (1, S)."""
    times = torch.arange(form.hop * form.frames, dtype=torch.float64) / form.rate
    return amplitude * torch.sin(2 * math.pi * hertz * times)[None]


def speechlike(form: MelWindow, seed: int = 0) -> Tensor:
    """A waveform (1, S): a harmonic tone that glides, in noise, swelling and fading."""
    samples = form.hop * form.frames
    times = torch.arange(samples, dtype=torch.float64) / form.rate
    phase = 2 * math.pi * (140 * times + 30 * times.square())
    tone = sum(torch.sin(k * phase) / k for k in range(1, 12))
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.02
    swell = torch.sin(math.pi * torch.arange(samples) / samples).square()
    return ((tone * swell + noise) * 0.2)[None].float()


def levels_of(waveform: Tensor, form: MelWindow, length: int | None = None) -> Tensor:
    lengths = torch.tensor([length or waveform.shape[1]] * len(waveform))
    return LogMel(form).levels(waveform, lengths)


def test_the_usual_windows_are_of_16_ms_steps_and_about_a_second() -> None:
    assert EIGHT == (8000, 64, 512, 128, 64)
    assert SIXTEEN == (16000, 80, 1024, 256, 64)
    assert EIGHT.hop / EIGHT.rate == SIXTEEN.hop / SIXTEEN.rate == 0.016


@pytest.mark.parametrize("form", [EIGHT, SIXTEEN, SMALL], ids=str)
def test_a_sine_is_loudest_in_the_band_whose_centre_is_nearest(form: MelWindow) -> None:
    highest = 2595 * math.log10(1 + form.rate / 2 / 700)
    centres = [
        700 * (10 ** (highest * band / (form.bands + 1) / 2595) - 1)
        for band in range(1, form.bands + 1)
    ]
    for band in range(form.bands // 4, form.bands, form.bands // 4):
        power = LogMel(form).power(sine(form, centres[band]))[0, :, form.frames // 2]
        assert int(power.argmax()) == band


def test_a_sine_of_full_scale_has_the_energy_of_its_spectral_line() -> None:
    # A Hann window spreads it over three bins of amplitudes ½, 1, ½ (Harris 1978, table 1).
    power = LogMel(EIGHT).power(sine(EIGHT, 64 * 8000 / 512))[0, :, 30]
    assert float(power.sum()) == pytest.approx(1.5, rel=1e-3)


def test_filters_add_up_to_one_so_that_bands_hold_the_energy_of_bins() -> None:
    for form in (EIGHT, SIXTEEN):
        filters = mel_filters(form.rate, form.window, form.bands)
        first, last = int(filters[0].argmax()), int(filters[-1].argmax())
        assert torch.allclose(filters.sum(0)[first + 1 : last], torch.ones(1).double())
        assert (filters >= 0).all()


def test_filters_are_those_of_another_library() -> None:
    audio = pytest.importorskip("transformers.audio_utils")
    for form in (EIGHT, SIXTEEN):
        wanted = audio.mel_filter_bank(
            form.window // 2 + 1, form.bands, 0.0, form.rate / 2, form.rate, None, "htk"
        )
        found = mel_filters(form.rate, form.window, form.bands)
        assert torch.allclose(found, torch.from_numpy(wanted).T.double(), atol=1e-9)


@pytest.mark.parametrize("form", [EIGHT, SMALL], ids=str)
def test_the_energy_of_spectra_is_that_of_the_waveform(form: MelWindow) -> None:
    waveform = torch.zeros(1, form.hop * form.frames, dtype=torch.float64)
    middle = slice(form.window, -form.window)
    waveform[:, middle] = torch.randn(waveform[:, middle].shape, dtype=torch.float64)
    power = LogMel(form).spectra(waveform).abs().square()
    bins = 2 * power.sum(-1) - power[..., 0] - power[..., -1]  # of both halves
    # Parseval for each frame, and the sum of the squared windows at a sample.
    hann = torch.hann_window(form.window, dtype=torch.float64)
    scale = (hann.sum() / 2) ** 2 / form.window / (hann.square().sum() / form.hop)
    assert float(bins.sum() * scale) == pytest.approx(float(waveform.square().sum()), rel=1e-9)


@pytest.mark.parametrize("form", [EIGHT, SIXTEEN, SMALL], ids=str)
def test_a_waveform_comes_back_from_its_spectra(form: MelWindow) -> None:
    waveform, found = speechlike(form), LogMel(form)
    assert torch.allclose(found.overlapped(found.spectra(waveform)), waveform, atol=1e-5)


def test_level_0_is_padding_and_nothing_else_is() -> None:
    length = 10 * EIGHT.hop + 1
    found = levels_of(speechlike(EIGHT), EIGHT, length)
    assert found.dtype == torch.uint8
    assert found.shape == (1, 1, 64, 64)
    assert (found[..., :11] >= 1).all()
    assert (found[..., 11:] == 0).all()
    assert recorded(to_float(found)).sum() == 11


def test_row_0_is_the_highest_band() -> None:
    low = levels_of(sine(EIGHT, 200), EIGHT)[0, 0, :, 30]
    assert int(low.argmax()) > 48
    assert int(levels_of(sine(EIGHT, 3500), EIGHT)[0, 0, :, 30].argmax()) < 16


def test_loudness_is_not_kept() -> None:
    waveform = speechlike(EIGHT)
    loud, soft = levels_of(waveform, EIGHT), levels_of(waveform / 10, EIGHT)
    assert loud.max() == soft.max() == 255
    assert (loud.int() - soft.int()).abs().max() <= 1


def test_a_tenth_of_the_amplitude_is_20_db_in_levels() -> None:
    both = torch.cat([sine(EIGHT, 1000)[:, :4096], sine(EIGHT, 1000, 0.1)[:, 4096:]], dim=1)
    found = levels_of(both, EIGHT)[0, 0].amax(0).float()  # frames
    assert float(found[10] - found[50]) * DB_PER_LEVEL == pytest.approx(20, abs=DB_PER_LEVEL)


def test_silence_stays_silent_and_noise_of_one_step_stays_quiet() -> None:
    silence = torch.zeros(1, 8192)
    assert (levels_of(silence, EIGHT) == 1).all()
    step = torch.randint(-1, 2, (1, 8192), generator=torch.Generator().manual_seed(0)) / 32768
    assert levels_of(step, EIGHT).max() < 160


def test_levels_depend_on_no_other_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    several = torch.cat([speechlike(SMALL, seed) for seed in range(5)])
    together = levels_of(several, SMALL)
    monkeypatch.setattr(mel, "BATCH", 2)
    assert torch.equal(levels_of(several, SMALL), together)
    alone = torch.cat([levels_of(one[None], SMALL) for one in several])
    assert torch.equal(alone, together)


def test_a_waveform_of_levels_has_nearly_these_levels_and_more_so_after_more_iterations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = to_float(levels_of(speechlike(EIGHT), EIGHT))
    distances = []
    for iterations in (0, 32):
        monkeypatch.setattr(LogMel, "iterations", iterations)
        (waveform,) = LogMel(EIGHT).waveforms(x)
        again = levels_of(torch.nn.functional.pad(waveform, (0, 8192 - len(waveform)))[None], EIGHT)
        distances.append(float(log_spectral_distance(x, to_float(again))))
    assert distances[1] < 0.75 * distances[0]


def test_what_is_heard_ends_with_the_recording_and_is_the_same_every_time() -> None:
    x = to_float(levels_of(speechlike(EIGHT), EIGHT, 40 * EIGHT.hop))
    (first,), (second,) = LogMel(EIGHT).waveforms(x), LogMel(EIGHT).waveforms(x)
    assert torch.equal(first, second)
    assert len(first) == 40 * EIGHT.hop
    assert float(first.abs().max()) == pytest.approx(0.7, rel=1e-5)


def test_nothing_but_padding_and_silence_are_heard_as_nothing() -> None:
    for level in (0, 1):
        x = to_float(torch.full((1, *EIGHT.shape), level, dtype=torch.uint8))
        (found,) = LogMel(EIGHT).waveforms(x)
        assert len(found) == 0


def test_more_bands_than_bins_can_tell_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.sound\.bands: got 200, more than the 129 bins"):
        LogMel(MelWindow(8000, 200, 256, 64, 40))


@pytest.mark.parametrize("window", [100, 128])
def test_a_window_of_no_whole_number_of_hops_is_refused(window: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.sound\.window: got {window} with .*hop=128"):
        SoundConfig(hop=128, window=window).resolved(8000)
