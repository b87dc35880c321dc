"""Log-mel windows of recordings, as uint8 levels, and back to a waveform.

```
waveform N,S ──► STFT ──► power in mel bands ──► dB below the loudest ──► levels N,1,bands,frames
waveform N,S ◄── Griffin-Lim ◄── power in bins ◄── dB ◄────────────────────┤
waveform N,S ◄── a vocoder that was trained ◄──────────────────────────────┘
```

Level 0 is padding. Levels 1 … 255 are −80 … 0 dB, in steps of 0.315 dB, relative to the loudest
band of the recording, or to −60 dB of a full-scale sine where that is louder: what is all but
silent stays so. How loud a recording was is therefore not kept. Row 0 is the highest band, so that
a picture of the array is a spectrogram the right way up.

Letters: N recordings, S = hop · frames samples, F frames, B = window / 2 + 1 bins.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, MelWindow

RANGE = 80.0  # dB from level 1 to level 255
DB_PER_LEVEL = RANGE / 254
SILENT = -60.0  # dB of a full-scale sine: no recording is taken to be less loud than that
QUIET = 8  # mean level of a frame below which a decoded one is taken for padding
BATCH = 32  # recordings transformed at once, so that what is between stays in a CPU's cache
MOMENTUM = 0.99  # of Griffin-Lim
UPDATES = 4  # of the power in bins
PEAK = 0.7  # of a waveform that is heard, of full scale
TINY = 1e-14

# Windows (N, 1, bands, frames) in [-1, 1] to waveforms (N, S), both on the CPU.
Vocoder = Callable[[Tensor], Tensor]


class LogMel:
    """The log-mel windows of one set of parameters.

    Triangular filters with centres at equal distances in mel (HTK's, 2595 log10(1 + f/700)), of
    height 1. Between the lowest and the highest centre they add up to 1, so that a window's bands
    hold the energy of its bins. Computed in float64, so that two machines get the same levels.
    """

    iterations = 32  # of Griffin-Lim

    def __init__(self, form: MelWindow) -> None:
        """Raises ConfigError for bands that are narrower than the distance of two bins."""
        self.rate, self.bands, self.window, self.hop, self.frames = form
        self.samples = self.hop * self.frames  # S
        # Also where a module is built on the meta device.
        self.hann = torch.hann_window(self.window, dtype=torch.float64, device="cpu")
        self.filters = mel_filters(self.rate, self.window, self.bands)  # bands,B
        if not bool((self.filters.sum(1) > 0).all()):
            raise ConfigError(
                f"data.sound.bands: got {self.bands}, more than the {self.window // 2 + 1} bins of"
                f" data.sound.window={self.window} can tell apart; wanted fewer"
            )

    def spectra(self, waveforms: Tensor) -> Tensor:
        """Complex spectra (N, F, B) of waveforms (N, S); a sine of full scale has magnitude 1."""
        around = (self.window - self.hop) // 2
        padded = torch.nn.functional.pad(waveforms, (around, self.window - self.hop - around))
        frames = padded.unfold(1, self.window, self.hop)  # N,F,window
        hann = self.hann.to(waveforms)
        spectra: Tensor = torch.fft.rfft(frames * hann) * (2 / hann.sum())
        return spectra

    def overlapped(self, spectra: Tensor) -> Tensor:
        """Waveforms (N, S) whose spectra are nearest to complex spectra (N, F, B).

        Least squares: windowed frames added up, divided by the sum of the squared windows
        (Griffin & Lim 1984, eq. 6).
        """
        hann = self.hann.to(spectra.real)
        frames = torch.fft.irfft(spectra * (hann.sum() / 2), self.window) * hann  # N,F,window
        waveforms = self._added(frames)
        squares = self._added(hann.square().expand(1, self.frames, -1))
        around = (self.window - self.hop) // 2
        whole = waveforms / squares.clamp_min(1e-3)
        return whole[:, around : around + self.samples]

    def _added(self, frames: Tensor) -> Tensor:
        """Frames (N, F, window), a hop apart, added up: (N, S + window − hop)."""
        steps = self.window // self.hop
        added = frames.new_zeros(len(frames), self.frames + steps - 1, self.hop)
        for step in range(steps):
            part = frames[:, :, step * self.hop : (step + 1) * self.hop]
            added[:, step : step + self.frames] += part
        return added.flatten(1)

    def power(self, waveforms: Tensor) -> Tensor:
        """Power in each band, (N, bands, F), the lowest band first, of waveforms (N, S)."""
        spectra = self.spectra(waveforms)
        power = spectra.real.square() + spectra.imag.square()  # N,F,B
        return (power @ self.filters.to(power).T).transpose(1, 2)

    def levels(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Levels uint8 (N, 1, bands, frames) of waveforms (N, S) in [-1, 1] of so many samples.

        A frame that begins after the last sample is padding.
        """
        parts = zip(waveforms.split(BATCH), lengths.split(BATCH), strict=True)
        return torch.cat([self._levels(*part) for part in parts])

    def _levels(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        decibels = 10 * self.power(waveforms.double()).clamp_min(TINY).log10()
        loudest = decibels.amax((1, 2), keepdim=True).clamp_min(SILENT)
        levels = 1 + ((decibels - loudest) / DB_PER_LEVEL + 254).round().clamp(0, 254)
        frames = -(-lengths // self.hop)[:, None]  # N,1
        is_recorded = torch.arange(self.frames) < frames  # N,F
        return (levels * is_recorded[:, None]).to(torch.uint8).flip(1)[:, None]

    def windows(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """The same levels as floats in [-1, 1], on the CPU, of waveforms on any device."""
        levels = self.levels(waveforms.detach().cpu(), lengths.cpu())
        return levels.float().div_(127.5).sub_(1)

    def at_loudest(self, waveforms: Tensor) -> Tensor:
        """Waveforms (N, S) as loud as windows take recordings to be: the loudest band has power
        1.
        """
        loudest = self.power(waveforms).amax((1, 2)).clamp_min(10 ** (SILENT / 10))
        return waveforms / loudest.sqrt()[:, None]

    def waveforms(self, x: Tensor, vocoder: Vocoder | None = None) -> list[Tensor]:
        """What windows x (N, 1, bands, frames) in [-1, 1] sound like: (n,) float32 each.

        A waveform ends where its window does, and its peak is 0.7 of full scale. Without a vocoder
        it is that of `griffin_lim`.
        """
        x = x.detach().float().cpu()
        found = []
        for part in x.split(BATCH):
            waveforms = (vocoder or self.griffin_lim)(part)  # N,S
            lengths = (self.hop * ends(part)).tolist()
            pairs = zip(waveforms, lengths, strict=True)
            found += [_at_peak(waveform[:length]) for waveform, length in pairs]
        return found

    def griffin_lim(self, x: Tensor) -> Tensor:
        """Waveforms (N, S) of windows x (N, 1, bands, frames) in [-1, 1].

        The phases are those that the magnitudes fit best, found by the fast Griffin-Lim algorithm
        (Perraudin et al. 2013, "A fast Griffin-Lim algorithm") from phases that are always the
        same.
        """
        return self.with_phases(self.bins(powers_of(x)).sqrt())

    def bins(self, power: Tensor) -> Tensor:
        """Power of bins (N, F, B) that has the power (N, bands, F) of bands, none below 0.

        A few multiplicative updates of non-negative least squares (Lee & Seung 2001).
        """
        filters = self.filters.to(power)  # bands,B
        wanted = power.transpose(1, 2) @ filters  # N,F,B
        found = wanted
        for _ in range(UPDATES):
            found = found * wanted / (found @ (filters.T @ filters)).clamp_min(TINY)
        return found

    def with_phases(self, magnitudes: Tensor, start: Tensor | None = None) -> Tensor:
        """Waveforms (N, S) of magnitudes (N, F, B), whose phases are found from those of `start`
        (N, F, B), or from phases that are always the same.
        """
        if start is None:
            generator = torch.Generator().manual_seed(0)
            drawn = 2 * math.pi * torch.rand(magnitudes.shape[1:], generator=generator)
            start = drawn.expand(magnitudes.shape)
        phases = torch.polar(torch.ones_like(start), start)  # N,F,B
        before = torch.zeros_like(phases)
        for _ in range(self.iterations):
            found = self.spectra(self.overlapped(magnitudes * phases))
            ahead = found - before * (MOMENTUM / (1 + MOMENTUM))
            before, phases = found, ahead / ahead.abs().clamp_min(TINY)
        return self.overlapped(magnitudes * phases)


def mel_filters(rate: int, window: int, bands: int) -> Tensor:
    """Weights (bands, B) float64 of bins 0 … rate / 2 in triangular bands, the lowest first."""
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    mels = torch.linspace(0, highest, bands + 2, dtype=torch.float64, device="cpu")
    edges = 700 * (10 ** (mels / 2595) - 1)[:, None]  # bands + 2,1 in Hz
    numbers = torch.arange(window // 2 + 1, dtype=torch.float64, device="cpu")
    bins = numbers * rate / window  # B, in Hz
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0)


def powers_of(x: Tensor) -> Tensor:
    """Power (N, bands, frames) of windows (N, 1, bands, frames) in [-1, 1], the lowest band first.

    The loudest band of a recording has 1, and padding what level 1 has.
    """
    levels = ((x[:, 0] + 1) * 127.5).clamp(1, 255).flip(1)
    power: Tensor = 10 ** ((levels - 255) * DB_PER_LEVEL / 10)
    return power


def recorded(x: Tensor) -> Tensor:
    """Which frames (N, frames) bool of stored windows x (N, 1, bands, frames) are no padding."""
    return (x > -1 + 0.5 / 127.5).flatten(1, 2).any(1)


def ends(x: Tensor) -> Tensor:
    """How many frames, (N,) int64, a decoded window has up to its last one that is not quiet."""
    is_loud = (x[:, 0] + 1).mean(1) * 127.5 >= QUIET  # N,frames
    numbers = torch.arange(1, x.shape[-1] + 1, device=x.device)
    return (is_loud * numbers).amax(1)


def _at_peak(waveform: Tensor) -> Tensor:
    peak = float(waveform.abs().max()) if len(waveform) else 0.0
    return waveform * (PEAK / peak) if peak > 1e-3 else torch.zeros_like(waveform)
