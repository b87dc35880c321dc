"""The loss of a vocoder: how far the spectra of two waveforms are apart, at several resolutions."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vqvae_lightning.signals.mel import DB_PER_LEVEL, RANGE, LogMel, powers_of

WINDOWS = (128, 256, 512, 1024)  # samples of a frame; a hop is a quarter of them
QUIETEST = 10 ** (-RANGE / 20)  # magnitude below which two are alike, as in a window


def spectral_losses(mel: LogMel, x: Tensor, wanted: Tensor, found: Tensor) -> Mapping[str, Tensor]:
    """The parts of the loss of each recording, (N,) each, by name; the loss is their sum.

    `convergence` and `log_magnitude` are the multi-resolution STFT loss of Yamamoto et al. 2020,
    "Parallel WaveGAN" (arXiv 1910.11480): ‖|S| − |Ŝ|‖ / ‖|S|‖, and the mean difference of
    log |S| in nepers. `mel` is the mean difference in dB of the bands, as a share of 20 dB.

    Args:
        mel: the window.
        x: windows (N, 1, bands, frames) in [-1, 1].
        wanted: waveforms (N, S) of the recordings, whose loudest band has power 1.
        found: waveforms (N, S).
    """
    convergence, log_magnitude = [], []
    for window in WINDOWS:
        share, logs = _apart(magnitudes(wanted, window), magnitudes(found, window))
        convergence.append(share)
        log_magnitude.append(logs)
    of_bands = decibels(mel.power(found)) - decibels(powers_of(x))  # N,bands,F
    return {
        "convergence": torch.stack(convergence).mean(0),
        "log_magnitude": torch.stack(log_magnitude).mean(0),
        "mel": of_bands.abs().mean((1, 2)) / 20,
    }


def magnitude_losses(wanted: Tensor, found: Tensor) -> Tensor:
    """Convergence and log magnitude of magnitudes (N, F, B) of one resolution, added up: (N,)."""
    share, logs = _apart(wanted, found)
    return share + logs


def _apart(wanted: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Convergence and log magnitude, (N,) each, of magnitudes (N, ·, ·) of one resolution."""
    distance = (wanted - found).square().sum((1, 2)).clamp_min(1e-12).sqrt()
    logs = wanted.clamp_min(QUIETEST).log() - found.clamp_min(QUIETEST).log()
    share = distance / wanted.square().sum((1, 2)).sqrt().clamp_min(1e-3)
    return share, logs.abs().mean((1, 2))


def magnitudes(waveforms: Tensor, window: int) -> Tensor:
    """Magnitudes (N, B, F) of waveforms (N, S); a sine of full scale has 1."""
    hann = torch.hann_window(window, dtype=waveforms.dtype, device=waveforms.device)
    spectra = torch.stft(
        waveforms, window, window // 4, window=hann, pad_mode="constant", return_complex=True
    )
    power = spectra.real.square() + spectra.imag.square()
    # The gradient of a root at 0 is infinite.
    magnitudes: Tensor = (power * (2 / hann.sum()).square()).clamp_min(1e-12).sqrt()
    return magnitudes


def decibels(power: Tensor) -> Tensor:
    """Power in dB, of what is below the quietest level that of the quietest."""
    return 10 * power.clamp_min(10 ** (-(RANGE - DB_PER_LEVEL / 2) / 10)).log10()
