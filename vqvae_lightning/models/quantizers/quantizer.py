"""What all quantizers share: codes and their order, the uniform prior's rate, and one collective
per optimizer step.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vqvae_lightning.config import VQVAEConfig
from vqvae_lightning.models.bottlenecks import (
    Bottleneck,
    Latent,
    Noise,
    NonFiniteError,
    at_least_float32,
    fresh_noise,
)
from vqvae_lightning.models.distributed import all_reduce_sum
from vqvae_lightning.models.quantizers.estimators import Estimator, straight_through


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of features (N, h, w, D)."""

    z: Tensor  # N,h,w,D  see `Quantizer.estimate`
    codes: Tensor  # N,h,w or N,h,w,M
    penalty: Tensor  # ()
    terms: dict[str, Tensor]  # () each: named parts to log


class Quantizer(Bottleneck):
    """A bottleneck with M codes per place, each one of K; its rate is T log K, what T codes cost
    under a uniform prior.

    ```
    h N,D,h,w ──► quantize ──► z N,D,h,w;  codes N,h,w or N,h,w,M
    codes ──► lookup ──► the same z, bit for bit in evaluation
    ```

    T = h·w·M. The order of a sequence of codes (N, T) is that of memory: code m at row r and column
    c is at position (r·w + c)·M + m, so that `flatten(1)` makes the sequence and `unflatten(1,
    code_shape(grid))` undoes it. Everything in here is float32 whatever the autocast says: a
    nearest code chosen in bf16 is another code.
    """

    codebook_size: int

    def __init__(
        self, codebook_size: int, dim: int, maps: int = 1, estimator: Estimator = straight_through
    ) -> None:
        super().__init__()
        self.codebook_size, self.maps, self.estimator = codebook_size, maps, estimator
        self.in_channels = self.out_channels = dim

    @abstractmethod
    def quantize(self, z_e: Tensor) -> Quantized:
        """Codes of features (N, h, w, D), and what goes on in their place."""

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """The vectors (N, h, w, D) of codes (N, h, w) or (N, h, w, M), each in 0 … K−1."""

    @property
    def started(self) -> bool:
        """Whether its codes are those that it begins to learn from."""
        return True

    def statistics(self) -> list[Tensor]:
        """Flat tensors to be summed over ranks, of the passes since this was last asked; [] if
        there were none.
        """
        return []

    def absorb(self, summed: Iterator[Tensor]) -> None:
        """Learns from its own `statistics`, summed over ranks: takes as many tensors from `summed`
        as it gave.
        """

    def estimate(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """z_q (N, h, w, D) with the estimator's gradient; in evaluation the codes' own bits, and no
        gradient.
        """
        return self.estimator(z_e, z_q) if self.training else z_q.detach()

    def forward(self, h: Tensor, noise: Noise = fresh_noise) -> Latent:
        """The codes of h.

        Raises NonFiniteError in evaluation unless all of h is finite: NaN has no nearest code.
        """
        h = at_least_float32(h)
        # Training refuses the gradient of such a step. To look here too would wait for the device
        # at every step.
        if not self.training:
            check_finite(h)
        with torch.autocast(h.device.type, enabled=False):
            found = self.quantize(h.movedim(1, -1))  # N,h,w,D: a view if h is channels_last
            z = found.z.movedim(-1, 1)  # N,D,h,w
        # nats of one image: T log K
        nats = found.codes.shape[1:].numel() * math.log(self.codebook_size)
        rate = torch.full((h.shape[0],), nats, dtype=h.dtype, device=h.device)
        return Latent(
            z=z, mean=z, rate=rate, penalty=found.penalty, codes=found.codes, terms=found.terms
        )

    def lookup(self, codes: Tensor) -> Tensor:
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= self.codebook_size):
            raise ValueError(
                f"codes: got values {int(codes.min())} to {int(codes.max())}, wanted 0 to"
                f" {self.codebook_size - 1}"
            )
        with torch.autocast(codes.device.type, enabled=False):
            return self.embed(codes).movedim(-1, 1)

    @torch.no_grad()
    def update(self) -> None:
        own = self.statistics()
        if own:
            summed = all_reduce_sum(torch.cat(own))
            self.absorb(iter(summed.split([part.numel() for part in own])))

    def draws(self, h: Tensor, k: int, noise: Noise = fresh_noise) -> tuple[Tensor, Tensor]:
        """k times the same z, for q(z|x) is one code sequence: log q = 0, and log p(z) = −T log
        K.
        """
        latent = self(h)
        return latent.z.expand(k, *latent.z.shape), -latent.rate.expand(k, -1)

    def sample(self, n: int, grid: tuple[int, int], device: torch.device) -> Tensor:
        return self.lookup(
            torch.randint(self.codebook_size, (n, *self.code_shape(grid)), device=device)
        )


class NamedQuantizer(Quantizer):
    """A quantizer that `model.codebook` can name, where others are composed of it."""

    settings: ClassVar[
        frozenset[str]
    ]  # of the config's settings, those that not all members share and this one reads

    @classmethod
    @abstractmethod
    def build(cls, config: VQVAEConfig, dim: int) -> Quantizer:
        """A quantizer by its settings, of `dim` channels if it can choose. Raises ConfigError."""


def check_finite(h: Tensor) -> None:
    """Raises NonFiniteError unless all of h (N, ...) is finite."""
    rows = torch.isfinite(h).flatten(1).all(1).logical_not().nonzero()[:, 0].tolist()
    if rows:
        first = ", ".join(map(str, rows[:5]))
        raise NonFiniteError(
            f"encoder output of {len(rows)} of {len(h)} images is not finite (row {first}), so they"
            " have no codes"
        )


def histogram(codes: Tensor, codebook_size: int, maps: int = 1) -> Tensor:
    """How often each code occurs in each map, (M, K) int64, of codes (N, h, w), (N, h, w, M) or
    sequences (N, T).
    """
    offsets = codebook_size * torch.arange(maps, device=codes.device)
    rows = codes.reshape(-1, maps) + offsets  # N·h·w,M
    return torch.bincount(rows.flatten(), minlength=maps * codebook_size).view(maps, codebook_size)
