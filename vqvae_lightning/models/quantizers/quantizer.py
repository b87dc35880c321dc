"""What all quantizers share: the shapes that they take, the uniform prior's rate, and one
collective per optimizer step.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, section_config
from vqvae_lightning.models.bottlenecks import (
    Bottleneck,
    Latent,
    Noise,
    NonFiniteError,
    at_least_float32,
    fresh_noise,
)
from vqvae_lightning.models.distributed import all_reduce_sum
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.quantizers.estimators import Estimator, straight_through
from vqvae_lightning.models.tracing import is_traced


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of features (N, h, w, D)."""

    z: Tensor  # N,h,w,D  see `Quantizer.estimate`
    codes: Tensor  # N,h,w or N,h,w,M
    penalty: Tensor  # ()
    logs: dict[str, Tensor]  # () each: named values to log


class Quantizer(Bottleneck):
    """A bottleneck with M codes per grid cell, each one of K.

    ```
    h N,D,h,w ──► quantize ──► z N,D,h,w;  codes N,h,w or N,h,w,M
    codes ──► codes_to_latents ──► the same z, bit for bit in evaluation
    ```

    In a model of one's own, h may also be vectors (N, D) or sequences (N, T, D), channels last: two
    or three axes end with D, four are always N, D, h, w. z has the shape of h. Codes are (N,),
    (N, T) or (N, h, w), with an axis M at the end if there are several per position.

    What a codebook learns by other means than a gradient, it learns in `update`. The modules of
    `training` call it once per optimizer step, and so has a loop of one's own to. All ranks call it
    together, after batches of equal size and with the same random state.

    The rate is T log K, what T = h·w·M codes cost under a uniform prior. Everything in here is
    float32 whatever the autocast says: a nearest code chosen in bf16 is another code.
    """

    codebook_size: int

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        num_codebooks: int = 1,
        estimator: Estimator = straight_through,
    ) -> None:
        super().__init__()
        self.codebook_size, self.num_codebooks = codebook_size, num_codebooks
        self.estimator = estimator
        self.in_channels = self.out_channels = dim

    def extra_repr(self) -> str:
        several = f", num_codebooks={self.num_codebooks}" if self.num_codebooks > 1 else ""
        return f"codebook_size={self.codebook_size}, dim={self.in_channels}{several}"

    @abstractmethod
    def quantize(self, z_e: Tensor) -> Quantized:
        """Codes of features (N, h, w, D), and the vectors that take their place."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """The vectors (N, h, w, D) of codes (N, h, w) or (N, h, w, M).

        The codes have to be in 0 … K−1; `codes_to_latents` checks that.
        """

    @property
    def is_initialized(self) -> bool:
        """Whether the codebook has been initialized from data, where that is needed."""
        return True

    def statistics(self) -> list[Tensor]:
        """Flat tensors to be summed over ranks, of the micro-batches since the last call; [] if
        there were none.
        """
        return []

    def apply_statistics(self, summed: Iterator[Tensor]) -> None:
        """Learns from its own `statistics`, summed over ranks: takes as many tensors from `summed`
        as it gave.
        """

    def estimate(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """z_q (N, h, w, D) with the estimator's gradient.

        In evaluation it has the codes' own values, and the straight-through gradient if one is
        asked for.
        """
        if self.training:
            return self.estimator(z_e, z_q)
        return z_q.detach() + (z_e - z_e.detach()) if z_e.requires_grad else z_q.detach()

    def forward(self, h: Tensor, noise: Noise = fresh_noise) -> Latent:
        """The codes of h (N, D, h, w), (N, T, D) or (N, D).

        Raises ValueError for another shape, and in evaluation NonFiniteError unless all of h is
        finite: NaN has no nearest code.
        """
        self._check_shape(h)
        h = at_least_float32(h)
        # Training refuses the gradient of such a step. To look here too would wait for the device
        # at every step.
        if not self.training and not is_traced():
            check_finite(h)
        # The axes h and w that vectors and sequences do not have.
        added = {2: (1, 2), 3: (1,), 4: ()}[h.dim()]
        features = h if added else h.movedim(1, -1)
        for axis in added:
            features = features.unsqueeze(axis)
        with torch.autocast(h.device.type, enabled=False):
            found = self.quantize(features)  # N,h,w,D: a view if h is channels_last
            z = found.z.squeeze(added) if added else found.z.movedim(-1, 1)  # like h
        codes = found.codes.squeeze(added) if added else found.codes
        nats = self.layout((features.shape[1], features.shape[2])).uniform_nats
        rate = torch.full((h.shape[0],), nats, dtype=h.dtype, device=h.device)
        return Latent(z=z, mean=z, rate=rate, penalty=found.penalty, codes=codes, logs=found.logs)

    def _check_shape(self, h: Tensor) -> None:
        """Raises ValueError unless h has the channels of the codes, where they belong."""
        d = self.in_channels
        if not 2 <= h.dim() <= 4 or h.shape[1 if h.dim() == 4 else -1] != d:
            raise ValueError(
                f"{type(self).__name__}: got shape {tuple(h.shape)}, wanted (N, {d}), (N, T, {d})"
                f" or (N, {d}, h, w)"
            )

    def layout(self, grid: tuple[int, int]) -> CodeLayout:
        return CodeLayout(grid, self.codebook_size, self.num_codebooks)

    def codes_to_latents(self, codes: Tensor) -> Tensor:
        """z of codes, both of the shapes that `forward` gives them.

        Raises ValueError for a code outside 0 … K−1.
        """
        if not is_traced():
            check_codes(codes, self.codebook_size)
        with torch.autocast(codes.device.type, enabled=False):
            z = self.decode(codes)  # N,h,w,D, or N,T,D, or N,D
            return z.movedim(-1, 1) if z.dim() == 4 else z

    @torch.no_grad()
    def update(self) -> None:
        own = self.statistics()
        if own:
            summed = all_reduce_sum(torch.cat(own))
            self.apply_statistics(iter(summed.split([part.numel() for part in own])))

    def rsample(self, h: Tensor, k: int, noise: Noise = fresh_noise) -> tuple[Tensor, Tensor]:
        """k times the same z, for q(z|x) is one code sequence: log q = 0, and log p(z) = −T log
        K.
        """
        latent = self(h)
        return latent.z.expand(k, *latent.z.shape), -latent.rate.expand(k, -1)

    def sample(self, n: int, grid: tuple[int, int], device: torch.device) -> Tensor:
        shape = self.layout(grid).shape
        return self.codes_to_latents(torch.randint(self.codebook_size, (n, *shape), device=device))


class NamedQuantizer(Quantizer):
    """A quantizer that `model.quantizer.name` can choose: a member of `QUANTIZERS`."""

    @dataclass
    class Config:
        """The settings of a member."""

        @property
        def codebook_size(self) -> int:
            """K. A member has it as a field, or as a property."""
            raise ConfigError(
                f"model.quantizer: {type(self).__qualname__} has no codebook_size, wanted a field"
                " or a property of that name"
            )

        @property
        def batch_terms(self) -> dict[str, float]:
            """Weights, by setting, of the terms of the penalty that are of the whole batch."""
            return {}

    @classmethod
    def check(cls, dim: int, **settings: object) -> None:
        """Raises ConfigError unless settings given to a constructor are in the ranges of Config."""
        own = {f.name for f in dataclasses.fields(cls.Config)}
        given = {name: value for name, value in settings.items() if name in own}
        section_config(cls.Config, given, cls.__name__)
        if dim < 1:
            raise ConfigError(f"{cls.__name__}.dim: got {dim}, wanted at least 1")

    @classmethod
    @abstractmethod
    def build(cls, config: Any, dim: int) -> Quantizer:
        """A quantizer by its settings, of `dim` channels if it can choose."""


def check_codes(codes: Tensor, codebook_size: int) -> None:
    """Raises ValueError unless all codes, of any shape, are in 0 … K−1."""
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= codebook_size):
        raise ValueError(
            f"codes: got values {int(codes.min())} to {int(codes.max())}, wanted 0 to"
            f" {codebook_size - 1}"
        )


def check_finite(h: Tensor) -> None:
    """Raises NonFiniteError unless all of h (N, ...) is finite."""
    rows = torch.isfinite(h).flatten(1).all(1).logical_not().nonzero()[:, 0].tolist()
    if rows:
        first = ", ".join(map(str, rows[:5]))
        raise NonFiniteError(
            f"encoder output of {len(rows)} of {len(h)} images is not finite (row {first}), so they"
            " have no codes"
        )
