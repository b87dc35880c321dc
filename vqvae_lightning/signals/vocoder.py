"""A vocoder that is learned: levels of a window to a waveform, in the shape of Vocos.

```
levels N,1,bands,F ──► ConvNeXt blocks ──► magnitude, phase N,F,B ──► inverse STFT ──► N,S
                   └─► magnitudes of Griffin-Lim ─┘ times a factor         └─► Griffin-Lim: heard
```

Siuzdak 2023, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders" (arXiv
2306.00814), without its adversaries. Three things are our own. The network corrects magnitudes that
fit the bands. It says by how much a phase goes on from frame to frame, because a convolution cannot
tell two frames of a steady tone apart, whose phases differ. And what is heard goes on from its
phases by Griffin-Lim: what bands lose is more of the magnitudes than of the phases.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqvae_lightning.config import MelWindow, setting
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.settings import ModelConfig
from vqvae_lightning.signals.mel import LogMel, powers_of

KERNEL = 7  # frames that a convolution sees
LARGEST_FACTOR = 5.0  # of a magnitude, as its logarithm: 43 dB


@dataclass
class VocoderConfig(ModelConfig):
    """A vocoder."""

    width: int = setting(192, "channels between the blocks", at_least=8, at_most=4096)
    hidden: int = setting(576, "channels inside a block", at_least=8, at_most=16384)
    blocks: int = setting(4, "ConvNeXt blocks", at_least=1, at_most=64)


class Block(nn.Module):
    """A ConvNeXt block along time (Liu et al. 2022, arXiv 2201.03545): (N, width, F) to the
    same.
    """

    def __init__(self, width: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.along = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, h: Tensor) -> Tensor:
        inner = self.norm(self.along(h).transpose(1, 2))
        inner = self.down(nn.functional.gelu(self.up(inner))) * self.scale
        added: Tensor = h + inner.transpose(1, 2)
        return added


class VocoderNet(nn.Module):
    """The network of one log-mel window."""

    advance: Tensor  # B

    def __init__(self, config: VocoderConfig, window: MelWindow) -> None:
        """Raises ConfigError for a window that no `LogMel` can have."""
        super().__init__()
        self.window, self.mel = window, LogMel(window)
        self.bins = window.window // 2 + 1
        self.first = nn.Conv1d(window.bands, config.width, KERNEL, padding=KERNEL // 2)
        self.norm = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.hidden, 1 / config.blocks) for _ in range(config.blocks)
        )
        self.last = nn.LayerNorm(config.width)
        self.spectrum = nn.Linear(config.width, 3 * self.bins)
        # how far the phase at a bin's centre goes on from frame to frame
        advance = 2 * math.pi * window.hop / window.window * torch.arange(self.bins)
        self.register_buffer("advance", advance % (2 * math.pi), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Waveforms (N, S) of windows x (N, 1, bands, frames) in [-1, 1], by the inverse STFT;
        their loudest band has power 1.
        """
        return self.mel.overlapped(torch.polar(*self.spectra(x)))

    def spectra(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitudes and phases (N, F, B) of windows x (N, 1, bands, frames) in [-1, 1]."""
        h = self.norm(self.first(x[:, 0]).transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            h = block(h)
        with torch.autocast(x.device.type, enabled=False):
            said = self.spectrum(self.last(h.transpose(1, 2).to(self.advance.dtype)))
            factor, on, ahead = said.split(self.bins, dim=2)  # N,F,B
            factor = LARGEST_FACTOR * (factor / LARGEST_FACTOR).tanh()
            magnitudes = self.mel.bins(powers_of(x.to(said.dtype))).sqrt() * factor.exp()
            return magnitudes, (self.advance + on).cumsum(1) + ahead

    @torch.no_grad()
    def heard(self, x: Tensor) -> Tensor:
        """Waveforms (N, S) of windows x, from the CPU and to it: a `Vocoder` of `LogMel`.

        In evaluation mode; the phases are the start of Griffin-Lim.
        """
        with evaluating(self):
            magnitudes, phases = (
                found.float().cpu() for found in self.spectra(x.to(self.last.weight))
            )
        return self.mel.with_phases(magnitudes, phases)

    def compile_layers(self) -> None:
        """Compiles the blocks in place."""
        for block in self.blocks:
            block.compile()
