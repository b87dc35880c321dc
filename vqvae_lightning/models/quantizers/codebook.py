"""What quantizers with a codebook have in common: lookup, initialization, reset of dead codes."""

import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae_lightning.config import MOST_PASSES, documented, setting
from vqvae_lightning.models.distributed import all_reduce_sum, rank_and_world
from vqvae_lightning.models.quantizers.composed import ResidualQuantizer
from vqvae_lightning.models.quantizers.estimators import ESTIMATORS, Estimator
from vqvae_lightning.models.quantizers.nearest import code_sums, kmeans, nearest_code
from vqvae_lightning.models.quantizers.quantizer import NamedQuantizer, Quantized, Quantizer


class CodebookQuantizer(NamedQuantizer):
    """Nearest-code lookup (van den Oord et al. 2017, arXiv 1711.00937, §3.1–3.2).

    ```
    z_e N,h,w,D ──► rows R,D ──► nearest_code ──► codes N,h,w ──► decode ──► z_q N,h,w,D   R = N·h·w
          └────────────────────── estimator: dz/dz_e ──────────────────────┘
    ```

    The codebook is random during the first optimizer step. It is then initialized by k-means on
    that step's encoder outputs, of all ranks and micro-batches.

    A running `usage` of every code (1 = its uniform share 1/K; an average with factor `decay` per
    step) tells which are dead: a code whose usage falls below `reset_below` is reset to an
    encoder output of the current batch, drawn at random over all ranks. `age` counts the optimizer
    steps since a code was last used or reset.
    """

    @documented
    @dataclass
    class Config(NamedQuantizer.Config):
        """Settings of a codebook, and of quantizers composed of several.

        A subclass that does not use one of them declares it a constant.
        """

        codebook_size: int = setting(512, "K, number of codes", at_least=1, at_most=2**20)
        commitment: float = setting(0.25, "beta, weight of ||z_e - sg[e]||^2", at_least=0)
        decay: float = setting(
            0.99,
            "factor per step of the moving averages of codes and of their use",
            at_least=0,
            below=1,
        )
        reset_below: float = setting(
            0.1,
            "a code used less than this share of 1/K is reset to an encoder output; 0: never",
            at_least=0,
            below=1,
        )
        estimator: Literal["straight_through", "rotation"] = setting(
            "straight_through", "how the decoder's gradient passes the choice of a code"
        )
        lookup_dim: int | None = setting(
            None,
            "dimensions that codes are looked up in, between two projections; empty: those of z",
            at_least=1,
        )
        residual_levels: int = setting(
            1, "codebooks one after another, each of the residual of those before it", at_least=1
        )

    codebook: Tensor  # K,D
    usage: Tensor  # K
    age: Tensor  # K    int64, the same on every rank
    initialized: Tensor  # ()

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        commitment: float = Config.commitment,
        decay: float = Config.decay,
        reset_below: float = Config.reset_below,
        estimator: str | Estimator = Config.estimator,
    ) -> None:
        """A codebook of K random vectors, for z of `dim` channels.

        The settings are those of `Config`, whose ranges are checked; an estimator may be a function
        of one's own. Raises ConfigError.
        """
        named = {"estimator": estimator} if isinstance(estimator, str) else {}
        self.check(
            dim,
            codebook_size=codebook_size,
            commitment=commitment,
            decay=decay,
            reset_below=reset_below,
            **named,
        )
        chosen = ESTIMATORS[estimator] if isinstance(estimator, str) else estimator
        super().__init__(codebook_size, dim, estimator=chosen)
        self.commitment, self.decay, self.reset_below = commitment, decay, reset_below
        self.register_buffer("usage", torch.ones(codebook_size))
        self.register_buffer("age", torch.zeros(codebook_size, dtype=torch.int64))
        self.register_buffer("initialized", torch.tensor(False))
        # `initialized` once it is known to be true: saves a device sync at every step
        self._is_initialized = False
        # (rows R,D; codes R) of the micro-batches since the last update. If it is never called, the
        # oldest of more than MOST_PASSES are dropped: they would fill the memory.
        self._seen: deque[tuple[Tensor, Tensor]] = deque(maxlen=MOST_PASSES)
        self._has_warned = False
        self.register_codebook(torch.randn(codebook_size, dim))

    @classmethod
    def build(cls, config: Any, dim: int) -> Quantizer:
        """A residual of `residual_levels` codebooks, of `lookup_dim` channels if that is given."""
        dim = config.lookup_dim or dim
        levels = [cls.single(config, dim) for _ in range(config.residual_levels)]
        if len(levels) == 1:
            return levels[0]
        return ResidualQuantizer(levels, ESTIMATORS[config.estimator])

    @classmethod
    def single(cls, config: Any, dim: int) -> "CodebookQuantizer":
        """One codebook by its settings, of `dim` channels."""
        return cls(
            config.codebook_size,
            dim,
            config.commitment,
            config.decay,
            config.reset_below,
            config.estimator,
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # What was known of the state before, and seen with it.
        self._is_initialized = False
        self._seen.clear()

    def features(self, z_e: Tensor) -> Tensor:
        """What is compared with the codes, of z_e (N, h, w, D)."""
        return z_e

    def vectors(self) -> Tensor:
        """The codes as they are compared and looked up, (K, D)."""
        return self.codebook

    @abstractmethod
    def register_codebook(self, codebook: Tensor) -> None:
        """Registers a codebook (K, D) as a parameter or a buffer."""

    @abstractmethod
    def codebook_penalty(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """The term that moves the codebook, ()."""

    @abstractmethod
    def update_codebook(self, counts: Tensor, sums: Tensor) -> None:
        """Moves the codebook by the rows of one step: counts (K,), sums (K, D) over all ranks."""

    @abstractmethod
    def reset_codes(self, dead: Tensor, rows: Tensor) -> None:
        """Resets the codes marked in dead (K,) bool to rows (K, D)."""

    def quantize(self, z_e: Tensor) -> Quantized:
        z_e = self.features(z_e)
        rows = z_e.detach().reshape(-1, z_e.shape[-1])  # R,D
        vectors = self.vectors()
        codes = nearest_code(rows, vectors.detach())
        z_q = F.embedding(codes, vectors).view_as(z_e)  # N,h,w,D
        commitment = F.mse_loss(z_e, z_q.detach())
        penalty = self.commitment * commitment + self.codebook_penalty(z_e, z_q)
        if self.training:
            self._remember(rows, codes)
        logs = {"commitment": commitment.detach()}
        return Quantized(self.estimate(z_e, z_q), codes.view(z_e.shape[:-1]), penalty, logs)

    def _remember(self, rows: Tensor, codes: Tensor) -> None:
        if len(self._seen) == MOST_PASSES and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{type(self).__name__}: more than {MOST_PASSES} passes in training without"
                " update(), so only the last of them are kept to learn from; call update() once"
                " per optimizer step, or eval() where the codebook is not to learn",
                stacklevel=2,
            )
        self._seen.append((rows, codes))

    def decode(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.vectors())

    @property
    def is_initialized(self) -> bool:
        self._is_initialized = self._is_initialized or bool(self.initialized)
        return self._is_initialized

    def statistics(self) -> list[Tensor]:
        if not self._seen:
            return []
        if len({len(rows) for rows, _ in self._seen}) > 1:
            # A loader's last batch may be smaller: all of them count as one micro-batch.
            whole = torch.cat([r for r, _ in self._seen]), torch.cat([c for _, c in self._seen])
            self._seen.clear()
            self._seen.append(whole)
        if not self.is_initialized:
            return [self._all_rows()]
        k, d = self.codebook.shape
        dtype = self.codebook.dtype
        counts, sums = torch.zeros(k, dtype=dtype), torch.zeros(k, d, dtype=dtype)
        counts, sums = counts.to(self.usage.device), sums.to(self.usage.device)
        for rows, codes in self._seen:
            more_counts, more_sums = code_sums(rows, codes, k)
            counts, sums = counts + more_counts, sums + more_sums
        candidates = self._candidates() if self.reset_below > 0 else sums[:0]
        self._seen.clear()
        return [torch.cat([counts, sums.flatten(), candidates.flatten()])]

    def apply_statistics(self, summed: Iterator[Tensor]) -> None:
        k, d = self.codebook.shape
        packed = next(summed)
        if not self.is_initialized:
            centres = kmeans(packed.view(-1, d), k)
            # A GPU adds up in any order, so the other ranks take the first one's last bits.
            if rank_and_world()[0] > 0:
                centres.zero_()
            self.reset_codes(torch.ones_like(self.usage, dtype=torch.bool), all_reduce_sum(centres))
            self.initialized.fill_(True)
            return
        counts, sums = packed[:k], packed[k : k + k * d].view(k, d)
        share = counts * (k / counts.sum())  # 1 = the uniform share
        self.usage.lerp_(share.to(self.usage.dtype), 1 - self.decay)
        self.age.add_(1).masked_fill_(counts > 0, 0)
        self.update_codebook(counts, sums)
        if self.reset_below > 0:
            dead = self.usage < self.reset_below
            self.reset_codes(dead, packed[k + k * d :].view(k, d))
            self.usage.masked_fill_(dead, 1.0)
            self.age.masked_fill_(dead, 0)

    def diagnostics(self) -> dict[str, Tensor]:
        return {"oldest_code": self.age.max()}

    def _candidates(self) -> Tensor:
        """K random rows of the global batch, (K, D): zero where a row is of another rank, so that
        the sum over ranks has all.

        Row g of the global batch is row g mod m of rank (g div m) mod world in micro-batch g div
        (m · world), where every rank has m rows in every micro-batch: the order does not depend on
        how the batch was cut.
        """
        rank, world = rank_and_world()
        m, d = self._seen[0][0].shape
        device = self._seen[0][0].device
        total = len(self._seen) * m * world
        drawn = torch.randint(total, (self.codebook_size,), device=device)  # K
        part, row = drawn // m, drawn % m  # K
        chosen = self._seen[0][0].new_zeros(self.codebook_size, d)
        # a gather from each micro-batch: stacking them would copy all rows
        for i, (rows, _) in enumerate(self._seen):
            chosen = torch.where((part == i * world + rank)[:, None], rows[row], chosen)
        return chosen

    def _all_rows(self) -> Tensor:
        """All rows of the global batch in the order of `_candidates`, flat; zero where a row is of
        another rank.
        """
        rank, world = rank_and_world()
        own = torch.stack([rows for rows, _ in self._seen])  # P,m,D
        self._seen.clear()
        rows = own.new_zeros(len(own), world, *own.shape[1:])
        rows[:, rank] = own
        return rows.flatten()
