"""Quantizers without a codebook to learn: the codes are points of a fixed lattice, and are found by
rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae_lightning.config import ConfigError, documented, setting
from vqvae_lightning.models.distributed import all_reduce_sum, rank_and_world
from vqvae_lightning.models.quantizers.quantizer import NamedQuantizer, Quantized

TEMPERATURE = 0.01  # of LFQ's soft assignment: that of MaskGIT's and MAGVIT's code
LARGEST_CODEBOOK = 2**20


class FSQ(NamedQuantizer):
    """Finite scalar quantization: each of d channels is rounded to one of L_i levels (Mentzer et
    al. 2023, §3).

    ```
    z_e N,h,w,d ──► bound: tanh onto L_i levels ──► round ──► digits N,h,w,d
    codes N,h,w = Σ digit_i · ∏_j<i L_j
    ```

    arXiv 2309.15505. K = ∏ L_i; nothing is learned, there is no penalty, and z lies in [−1, 1].
    `bound` is that of the paper's listing (app. A.1) with atanh for its tan, so that 0 is a level's
    middle, and 1 + ε for its 1 − ε, as in vector-quantize-pytorch.
    """

    @documented
    @dataclass
    class Config(NamedQuantizer.Config):
        """The lattice; the size of the codebook follows from it."""

        levels: list[int] = field(
            default_factory=lambda: [8, 8, 8],
            metadata={"meaning": "levels of each channel; their product is K"},
        )

        def __post_init__(self) -> None:
            key = "model.quantizer.levels"
            if min(self.levels, default=0) < 3:
                raise ConfigError(
                    f"{key}: got {self.levels}, wanted numbers of at least 3; for 2 take"
                    " model.quantizer.name=lfq"
                )
            if self.codebook_size > LARGEST_CODEBOOK:
                raise ConfigError(
                    f"{key}: {self.levels} make {self.codebook_size} codes, wanted at most"
                    f" {LARGEST_CODEBOOK}"
                )

        @property
        def codebook_size(self) -> int:
            return math.prod(self.levels)

    levels: Tensor  # d  floating point, so that the module's dtype is that of its z
    basis: Tensor  # d  int64, ∏_j<i L_j

    def __init__(self, levels: Sequence[int] | None = None) -> None:
        """A lattice of `levels`; by default those of `Config`. Raises ConfigError."""
        levels = self.Config().levels if levels is None else levels
        self.check(len(levels), levels=levels)
        super().__init__(math.prod(levels), len(levels))
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32))
        self.register_buffer(
            "basis", torch.tensor([math.prod(levels[:i]) for i in range(len(levels))])
        )

    @classmethod
    def build(cls, config: Any, dim: int) -> "FSQ":
        return cls(config.levels)

    def bound(self, z_e: Tensor) -> Tensor:
        """z_e (..., d) squashed so that rounding gives the L_i integers from −⌊L_i/2⌋ on."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z_e + torch.atanh(offset / half)) * half - offset

    def quantize(self, z_e: Tensor) -> Quantized:
        bounded, half = self.bound(z_e), self.levels // 2
        digits = bounded.detach().round() + half  # N,h,w,d
        # beyond 1,000 levels ε is more than half of one
        digits = digits.clamp_min(0).minimum(self.levels - 1)
        codes = (digits.long() * self.basis).sum(-1)
        z = self.estimate(bounded / half, self.decode(codes))
        return Quantized(z, codes, z_e.new_zeros(()), {})

    def decode(self, codes: Tensor) -> Tensor:
        half = self.levels // 2
        digits = codes[..., None] // self.basis % self.levels.long()
        return (digits - half) / half


class LFQ(NamedQuantizer):
    """Lookup-free quantization: the code is the signs of the D = log2 K channels (Yu et al. 2023,
    §3.1).

    ```
    z_e N,h,w,D ──► sign ──► z_q in {−1, 1} N,h,w,D;  codes N,h,w = Σ 2^i [z_e,i > 0]
          └──► p(c|z_e) ∝ exp(−‖z_e − c‖²/τ) ──► entropy · (E[H(p)] + KL(E[p] ‖ uniform))
    ```

    MAGVIT-v2, arXiv 2310.05737. Its entropy penalty (eq. 5), E[H(p)] − H(E[p]), pulls every z_e to
    one code and all of them apart to all codes; log K is added here, so that the penalty is never
    negative. The mean is over the batch of all ranks, which an evaluation does not have: there the
    penalty is the commitment alone. p is a product over channels, so E[H(p)] is a sum over them,
    and E[p] over all K codes one product of two matrices.
    """

    @documented
    @dataclass
    class Config(NamedQuantizer.Config):
        """Settings of `lfq`."""

        codebook_size: int = setting(
            512, "K, number of codes, a power of 2", at_least=2, at_most=LARGEST_CODEBOOK
        )
        commitment: float = setting(0.25, "beta, weight of ||z_e - sign(z_e)||^2", at_least=0)
        entropy: float = setting(0.1, "weight of the entropy terms", at_least=0)

        def __post_init__(self) -> None:
            if self.codebook_size < 2 or self.codebook_size & (self.codebook_size - 1):
                raise ConfigError(
                    f"model.quantizer.codebook_size: got {self.codebook_size}, but lfq wants a"
                    " power of 2 above 1"
                )

        @property
        def batch_terms(self) -> dict[str, float]:
            return {"entropy": self.entropy}

    signs: Tensor  # 2  floating point, so that the module's dtype is that of its z
    basis: Tensor  # D  int64, 2^i

    def __init__(
        self,
        bits: int = Config.codebook_size.bit_length() - 1,
        commitment: float = Config.commitment,
        entropy: float = Config.entropy,
    ) -> None:
        """Codes of `bits` signs, K = 2^bits. The settings are those of `Config`.

        Raises ConfigError.
        """
        if not 1 <= bits < LARGEST_CODEBOOK.bit_length():
            raise ConfigError(
                f"{type(self).__name__}.bits: got {bits}, wanted 1 to"
                f" {LARGEST_CODEBOOK.bit_length() - 1}"
            )
        self.check(bits, codebook_size=2**bits, commitment=commitment, entropy=entropy)
        super().__init__(2**bits, bits)
        self.commitment, self.entropy = commitment, entropy
        self.register_buffer("signs", torch.tensor([-1.0, 1.0]))
        self.register_buffer("basis", 2 ** torch.arange(bits))

    @classmethod
    def build(cls, config: Any, dim: int) -> "LFQ":
        return cls(config.codebook_size.bit_length() - 1, config.commitment, config.entropy)

    def quantize(self, z_e: Tensor) -> Quantized:
        codes = ((z_e > 0) * self.basis).sum(-1)  # N,h,w
        z_q = self.decode(codes)
        commitment = F.mse_loss(z_e, z_q)
        penalty, logs = self.commitment * commitment, {"commitment": commitment.detach()}
        if self.training:
            entropy, divergence = assignment_entropies(z_e.reshape(-1, z_e.shape[-1]))
            penalty = penalty + self.entropy * (entropy + divergence)
            logs |= {
                "assignment_entropy": entropy.detach(),
                "usage_divergence": divergence.detach(),
            }
        return Quantized(self.estimate(z_e, z_q), codes, penalty, logs)

    def decode(self, codes: Tensor) -> Tensor:
        return self.signs[codes[..., None] // self.basis % 2]


def assignment_entropies(rows: Tensor) -> tuple[Tensor, Tensor]:
    """E[H(p)] and KL(E[p] ‖ uniform), () each in nats, of p(c|z) ∝ exp(−‖z − c‖²/τ) over the
    corners c of {−1, 1}^D.

    E is over rows z (M, D) of all ranks; each rank's gradient is its part of the whole, as in
    `rate_with_free_bits`, and E[H(p)] is this rank's, for means of ranks are taken by whoever
    averages their gradients.
    """
    # M,D  log p(c_i = 1) − log p(c_i = −1): a difference of two squares
    logits = 4 * rows / TEMPERATURE
    p = logits.sigmoid()
    entropy = (F.softplus(logits) - logits * p).sum(1).mean()
    half = rows.shape[1] // 2
    # 2^(D−half),2^half: E[p], the first bit fastest
    mean = corners(p[:, half:]).T @ corners(p[:, :half]) / len(rows)
    whole = all_reduce_sum(mean.detach().clone()) / rank_and_world()[1]
    mean = mean + (whole - mean.detach())
    # finite, and so is its gradient, where p underflows
    log = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
    return entropy, (mean * (log + math.log(mean.numel()))).sum()


def corners(p: Tensor) -> Tensor:
    """The 2^D probabilities (M, 2^D) of D independent bits with probabilities p (M, D) of being 1;
    bit i counts 2^i.
    """
    joint = p.new_ones(len(p), 1)
    for one in p.T[:, :, None]:  # M,1
        joint = torch.cat([joint * (1 - one), joint * one], dim=1)
    return joint
