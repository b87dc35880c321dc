"""Quantizers with a codebook of vectors, and how the codebook learns."""

from abc import abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import VQVAEConfig
from vqvae_lightning.models.distributed import all_reduce_sum, rank_and_world
from vqvae_lightning.models.quantizers.estimators import (
    ESTIMATORS,
    Estimator,
    direction,
    straight_through,
)
from vqvae_lightning.models.quantizers.nearest import code_sums, kmeans, nearest_code
from vqvae_lightning.models.quantizers.quantizer import NamedQuantizer, Quantized


class CodebookQuantizer(NamedQuantizer):
    """Nearest-code lookup (van den Oord et al. 2017, arXiv 1711.00937, §3.1–3.2).

    ```
    z_e N,h,w,D ──► rows M,D ──► nearest_code ──► codes N,h,w ──► embed ──► z_q N,h,w,D   M = N·h·w
          └────────────────────── estimator: dz/dz_e ──────────────────────┘
    ```

    The codebook is random in the first optimizer step, whose outputs it then starts from: their
    k-means centres, over all ranks and accumulated passes. A running `usage` of every code (1 = its
    uniform share 1/K; an average with factor `decay` per step) tells which are dead: a code whose
    usage falls below `restart_below` moves onto an encoder output of the current batch, drawn at
    random over all ranks. `age` counts the optimizer steps since a code was last used, or moved.
    """

    settings = frozenset(
        {"commitment", "decay", "restart_below", "estimator", "lookup_dim", "residual_levels"}
    )
    codebook: Tensor  # K,D
    usage: Tensor  # K
    age: Tensor  # K    int64, the same on every rank
    initialized: Tensor  # ()

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        commitment: float,
        decay: float,
        restart_below: float,
        estimator: Estimator = straight_through,
    ) -> None:
        super().__init__(codebook_size, latent_dim, estimator=estimator)
        self.commitment, self.decay, self.restart_below = commitment, decay, restart_below
        self.register_buffer("usage", torch.ones(codebook_size))
        self.register_buffer("age", torch.zeros(codebook_size, dtype=torch.int64))
        self.register_buffer("initialized", torch.tensor(False))
        self._started = (
            False  # `initialized` once it is known to be true: saves a device sync at every step
        )
        self._seen: list[tuple[Tensor, Tensor]] = []  # (rows M,D; codes M) since the last update
        self.hold(torch.randn(codebook_size, latent_dim))

    @classmethod
    def build(cls, config: VQVAEConfig, dim: int) -> "CodebookQuantizer":
        estimator = ESTIMATORS[config.estimator]
        return cls(
            config.codebook_size,
            dim,
            config.commitment,
            config.decay,
            config.restart_below,
            estimator,
        )

    def features(self, z_e: Tensor) -> Tensor:
        """What is compared with the codes, of z_e (N, h, w, D)."""
        return z_e

    def vectors(self) -> Tensor:
        """The codes as they are compared and looked up, (K, D)."""
        return self.codebook

    @abstractmethod
    def hold(self, codebook: Tensor) -> None:
        """Takes a codebook (K, D) as what it learns: a parameter, or a buffer."""

    @abstractmethod
    def codebook_penalty(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """The term that moves the codebook, ()."""

    @abstractmethod
    def learn(self, counts: Tensor, sums: Tensor) -> None:
        """Move the codebook by the rows of one step: counts (K,) and sums (K, D) over all ranks."""

    @abstractmethod
    def replace(self, dead: Tensor, rows: Tensor) -> None:
        """Put rows (K, D) in place of the codes marked in dead (K,) bool."""

    def quantize(self, z_e: Tensor) -> Quantized:
        z_e = self.features(z_e)
        rows = z_e.detach().reshape(-1, z_e.shape[-1])  # M,D
        vectors = self.vectors()
        codes = nearest_code(rows, vectors.detach())
        z_q = F.embedding(codes, vectors).view_as(z_e)  # N,h,w,D
        commitment = F.mse_loss(z_e, z_q.detach())
        penalty = self.commitment * commitment + self.codebook_penalty(z_e, z_q)
        if self.training:
            self._seen.append((rows, codes))
        terms = {"commitment": commitment.detach()}
        return Quantized(self.estimate(z_e, z_q), codes.view(z_e.shape[:-1]), penalty, terms)

    def embed(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.vectors())

    @property
    def started(self) -> bool:
        self._started = self._started or bool(self.initialized)
        return self._started

    def statistics(self) -> list[Tensor]:
        if not self._seen:
            return []
        if not self.started:
            return [self._all_rows()]
        k, d = self.codebook.shape
        dtype = self.codebook.dtype
        counts, sums = torch.zeros(k, dtype=dtype), torch.zeros(k, d, dtype=dtype)
        counts, sums = counts.to(self.usage.device), sums.to(self.usage.device)
        for rows, codes in self._seen:
            more_counts, more_sums = code_sums(rows, codes, k)
            counts, sums = counts + more_counts, sums + more_sums
        candidates = self._candidates() if self.restart_below > 0 else sums[:0]
        self._seen.clear()
        return [torch.cat([counts, sums.flatten(), candidates.flatten()])]

    def absorb(self, summed: Iterator[Tensor]) -> None:
        k, d = self.codebook.shape
        packed = next(summed)
        if not self.started:
            centres = kmeans(packed.view(-1, d), k)
            if (
                rank_and_world()[0] > 0
            ):  # a GPU adds up in any order, so ranks take the first one's last bits
                centres.zero_()
            self.replace(torch.ones_like(self.usage, dtype=torch.bool), all_reduce_sum(centres))
            self.initialized.fill_(True)
            return
        counts, sums = packed[:k], packed[k : k + k * d].view(k, d)
        share = counts * (k / counts.sum())  # 1 = the uniform share
        self.usage.lerp_(share.to(self.usage.dtype), 1 - self.decay)
        self.age.add_(1).masked_fill_(counts > 0, 0)
        self.learn(counts, sums)
        if self.restart_below > 0:
            dead = self.usage < self.restart_below
            self.replace(dead, packed[k + k * d :].view(k, d))
            self.usage.masked_fill_(dead, 1.0)
            self.age.masked_fill_(dead, 0)

    def diagnostics(self) -> dict[str, Tensor]:
        return {"oldest_code": self.age.max()}

    def _candidates(self) -> Tensor:
        """K rows of the global batch, (K, D): this rank's in their places and zero elsewhere, so
        that ranks sum to all.

        Row g of the global batch is row g mod m of rank (g div m) mod world in forward pass g div
        (m · world), where m rows is what each rank gave to each pass: the order does not depend on
        how the batch was cut.
        """
        rank, world = rank_and_world()
        m, d = self._seen[0][0].shape
        device = self._seen[0][0].device
        drawn = torch.randint(
            len(self._seen) * m * world, (self.codebook_size,), device=device
        )  # K
        part, row = drawn // m, drawn % m  # K
        chosen = self._seen[0][0].new_zeros(self.codebook_size, d)
        for i, (rows, _) in enumerate(
            self._seen
        ):  # a gather from each, for to stack them would copy all rows
            chosen = torch.where((part == i * world + rank)[:, None], rows[row], chosen)
        return chosen

    def _all_rows(self) -> Tensor:
        """All rows of the global batch in the order of `_candidates`, flat: this rank's, and zero
        elsewhere.
        """
        rank, world = rank_and_world()
        own = torch.stack([rows for rows, _ in self._seen])  # P,m,D
        self._seen.clear()
        rows = own.new_zeros(len(own), world, *own.shape[1:])
        rows[:, rank] = own
        return rows.flatten()


class VectorQuantizer(CodebookQuantizer):
    """The codebook is a parameter, moved by the gradient of ‖sg[z_e] − e‖² (van den Oord et al.
    2017, eq. 3).
    """

    def hold(self, codebook: Tensor) -> None:
        self.codebook = nn.Parameter(codebook)

    def codebook_penalty(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        return F.mse_loss(z_q, z_e.detach())

    def learn(self, counts: Tensor, sums: Tensor) -> None:
        """Nothing: the optimizer moves the codebook."""

    def replace(self, dead: Tensor, rows: Tensor) -> None:
        self.codebook.data.copy_(torch.where(dead[:, None], rows, self.codebook))


class EMAVectorQuantizer(CodebookQuantizer):
    """The codebook is the moving average of the rows that chose each code (van den Oord et al.
    2017, app. A.1).

    `usage` and `sums` are averages of counts and sums in units of the uniform share. They start at
    1 and at the codebook, so that the codebook is a weighted mean of itself and of data at every
    step: an unused code stays where it is, and no code leaves the data's hull.
    """

    sums: Tensor  # K,D

    def hold(self, codebook: Tensor) -> None:
        self.register_buffer("codebook", codebook)
        self.register_buffer("sums", codebook.clone())

    def codebook_penalty(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        return z_e.new_zeros(())

    def learn(self, counts: Tensor, sums: Tensor) -> None:
        self.sums.lerp_(sums * (self.codebook_size / counts.sum()), 1 - self.decay)
        # A code unused for thousands of steps has a usage that underflows; its last value stays
        # valid.
        usage = self.usage[:, None]
        self.codebook.copy_(
            torch.where(usage > 1e-12, self.sums / usage.clamp_min(1e-12), self.codebook)
        )

    def replace(self, dead: Tensor, rows: Tensor) -> None:
        self.codebook.copy_(torch.where(dead[:, None], rows, self.codebook))
        self.sums.copy_(torch.where(dead[:, None], rows, self.sums))


class CosineVectorQuantizer(VectorQuantizer):
    """The nearest code by angle: z_e and codes are compared and looked up at length 1 (Yu et al.
    2022, §3.2).

    ViT-VQGAN, arXiv 2110.04627. On the sphere the Euclidean distance orders codes as the cosine
    does; z (N, h, w, D) has length 1 at every place, and the codebook's gradient is that of
    ‖sg[ẑ_e] − ê‖². Vectors next to zero stay shorter, see `direction`.
    """

    settings = VectorQuantizer.settings - {
        "residual_levels"
    }  # what is left over of a direction has no length to keep

    def features(self, z_e: Tensor) -> Tensor:
        return direction(z_e)

    def vectors(self) -> Tensor:
        return direction(self.codebook)


class SimVQ(VectorQuantizer):
    """The codes are CW, with a random C (K, D) that never moves and a learned W (D, D) (Zhu et al.
    2024, §4).

    arXiv 2411.02038. The gradient of ‖sg[z_e] − CW‖² at the codes that were chosen moves W, and so
    all K codes at once: none is left behind, and none is restarted.
    """

    settings = VectorQuantizer.settings - {"decay", "restart_below"}

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        commitment: float,
        estimator: Estimator = straight_through,
    ) -> None:
        super().__init__(
            codebook_size,
            latent_dim,
            commitment,
            decay=0.99,
            restart_below=0.0,
            estimator=estimator,
        )
        self.codebook.requires_grad_(False).mul_(latent_dim**-0.5)  # C: vectors of length about 1
        self.weight = nn.Parameter(torch.eye(latent_dim))  # W
        self.initialized.fill_(True)  # by C itself, not by k-means

    @classmethod
    def build(cls, config: VQVAEConfig, dim: int) -> "SimVQ":
        return cls(config.codebook_size, dim, config.commitment, ESTIMATORS[config.estimator])

    def vectors(self) -> Tensor:
        return self.codebook @ self.weight
