"""The network of a vocoder, and the loss that it learns by."""

import math

import pytest
import torch
from torch import Tensor

from vqvae_lightning.config import MelWindow
from vqvae_lightning.data.images import to_float
from vqvae_lightning.signals.mel import LogMel
from vqvae_lightning.signals.sound import Recordings
from vqvae_lightning.signals.spectral_loss import magnitude_losses, spectral_losses
from vqvae_lightning.signals.vocoder import VocoderConfig, VocoderNet

FORM = MelWindow(8000, 24, 256, 64, 40)
TINY = VocoderConfig(width=32, hidden=32, blocks=1)


def network(form: MelWindow = FORM) -> VocoderNet:
    torch.manual_seed(0)
    return VocoderNet(TINY, form)


def sines(n: int = 4) -> tuple[Tensor, Tensor]:
    """Waveforms (N, S) of sines, whose loudest band has power 1, and their windows."""
    mel = LogMel(FORM)
    times = torch.arange(mel.samples) / FORM.rate
    hertz = torch.linspace(300, 2000, n)[:, None]
    waveforms = mel.at_loudest(torch.sin(2 * math.pi * hertz * times))
    levels = mel.levels(waveforms, torch.full((n,), mel.samples))
    return waveforms, to_float(levels)


def loss_of(net: VocoderNet, waveforms: Tensor, x: Tensor) -> Tensor:
    parts = spectral_losses(net.mel, x, waveforms, net(x))
    return torch.stack([*parts.values()]).sum(0).mean()


def test_a_waveform_has_a_hop_of_samples_for_each_frame() -> None:
    for frames in (8, 40):
        form = FORM._replace(frames=frames)
        net = network(form)
        assert net(torch.rand(3, 1, 24, frames) * 2 - 1).shape == (3, frames * form.hop)


def test_the_same_window_always_makes_the_same_waveform() -> None:
    _, x = sines()
    net = network()
    assert torch.equal(net.heard(x), net.heard(x))
    assert torch.equal(network().heard(x), net.heard(x))
    # … whatever is beside it, up to rounding
    assert torch.allclose(net(x)[2:3], net(x[2:3]), atol=1e-3)


def test_the_network_is_heard_in_evaluation_mode_and_left_as_it_was() -> None:
    net = network().train()
    net.heard(sines()[1])
    assert net.training


def test_a_steady_tone_can_go_on_from_frame_to_frame() -> None:
    # What a convolution says of frames in the middle of a steady tone is the same of each. A phase
    # that stands still would make the tone one of the frame rate, 125 Hz.
    _, x = sines(1)
    net = network()
    torch.nn.init.zeros_(net.spectrum.weight)
    torch.nn.init.zeros_(net.spectrum.bias)
    found = net(x).detach()
    # At first a phase goes on as that of its bin's centre does: the loudest is 312.5 Hz, bin 10.
    middle = found[0, 512:2048] * torch.hann_window(1536)
    loudest = float(torch.fft.rfft(middle).abs().argmax()) * FORM.rate / 1536
    assert abs(loudest - 300) < FORM.rate / FORM.window
    assert abs(loudest - 312.5) < 6


def test_nothing_is_lost_where_nothing_differs_and_silence_is_finite() -> None:
    waveforms, x = sines()
    same = spectral_losses(LogMel(FORM), x, waveforms, waveforms)
    assert float(same["convergence"].max()) < 1e-3
    assert float(same["log_magnitude"].max()) < 1e-6
    assert float(same["mel"].max()) * 20 < 0.2  # half a level
    of_bins = LogMel(FORM).spectra(waveforms).abs()
    assert float(magnitude_losses(of_bins, of_bins).max()) < 1e-3
    assert float(magnitude_losses(of_bins, 2 * of_bins).min()) > 1
    silent, nothing = torch.zeros_like(waveforms), torch.full_like(x, -1.0)
    found = silent.clone().requires_grad_()
    for wanted, window in ((silent, nothing), (waveforms, x)):
        parts = spectral_losses(LogMel(FORM), window, wanted, found)
        (gradient,) = torch.autograd.grad(torch.stack([*parts.values()]).sum(), found)
        assert all(bool(part.isfinite().all()) for part in parts.values())
        assert bool(gradient.isfinite().all())


def test_the_loss_does_not_hear_phases() -> None:
    waveforms, x = sines()
    turned = spectral_losses(LogMel(FORM), x, waveforms, -waveforms)
    assert float(torch.stack([*turned.values()]).sum(0).max()) < 0.02


def test_what_is_heard_has_the_magnitudes_that_the_network_says() -> None:
    _, x = sines()
    net = network()
    magnitudes, phases = (part.detach() for part in net.spectra(x))
    plain = net.mel.overlapped(torch.polar(magnitudes, phases))
    assert torch.equal(plain, net(x).detach())

    def distance(waveforms: Tensor) -> float:
        return float((net.mel.spectra(waveforms).abs() - magnitudes).norm())

    assert distance(net.heard(x)) < 0.9 * distance(plain)


def test_a_loud_recording_and_a_quiet_one_are_learned_alike() -> None:
    mel, (waveforms, _) = LogMel(FORM), sines()
    assert torch.allclose(mel.at_loudest(waveforms * 0.01), waveforms, rtol=1e-4, atol=1e-5)
    assert bool((mel.at_loudest(torch.zeros_like(waveforms)) == 0).all())


def test_a_few_steps_on_sines_make_the_loss_fall() -> None:
    waveforms, x = sines(8)
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    first = float(loss_of(net, waveforms, x).detach())
    for _ in range(60):
        optimizer.zero_grad()
        loss = loss_of(net, waveforms, x)
        loss.backward()
        optimizer.step()
    assert float(loss_of(net, waveforms, x).detach()) < 0.7 * first


def test_windows_are_heard_through_a_vocoder_that_is_given() -> None:
    _, x = sines()
    net = network()
    heard, guessed = (Recordings(FORM, vocoder).sounds(x) for vocoder in (net.heard, None))
    for clip, other, waveform in zip(heard, guessed, net.heard(x), strict=True):
        assert clip.rate == FORM.rate
        assert len(clip.samples) == len(other.samples)
        scale = 0.7 / float(waveform[: len(clip.samples)].abs().max())
        found = torch.from_numpy(clip.samples)
        assert torch.allclose(found, waveform[: len(found)] * scale, atol=1e-5)
    played = Recordings(FORM, net.heard).played(x)
    assert played.shape == x.shape
    assert not torch.equal(played, Recordings(FORM).played(x))


def test_the_shipped_vocoder_has_about_a_million_numbers() -> None:
    with torch.device("meta"):
        net = VocoderNet(VocoderConfig(), MelWindow(8000, 64, 512, 128, 64))
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(1.1e6, rel=0.05)
