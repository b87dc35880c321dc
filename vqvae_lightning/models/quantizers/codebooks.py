"""Quantizers with a codebook of vectors, which differ in how the codebook learns."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import documented
from vqvae_lightning.models.quantizers.codebook import CodebookQuantizer
from vqvae_lightning.models.quantizers.estimators import Estimator, direction


class VectorQuantizer(CodebookQuantizer):
    """The codebook is a parameter, moved by the gradient of ‖sg[z_e] − e‖² (van den Oord et al.
    2017, eq. 3).
    """

    @documented
    @dataclass
    class Config(CodebookQuantizer.Config):
        """Settings of `gradient`."""

    def register_codebook(self, codebook: Tensor) -> None:
        self.codebook = nn.Parameter(codebook)

    def codebook_penalty(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        return F.mse_loss(z_q, z_e.detach())

    def update_codebook(self, counts: Tensor, sums: Tensor) -> None:
        """Nothing: the optimizer moves the codebook."""

    def reset_codes(self, dead: Tensor, rows: Tensor) -> None:
        self.codebook.data.copy_(torch.where(dead[:, None], rows, self.codebook))


class EMAVectorQuantizer(CodebookQuantizer):
    """The codebook is the moving average of the rows that chose each code (van den Oord et al.
    2017, app. A.1).

    `usage` and `sums` are averages of counts and sums in units of the uniform share. They start at
    1 and at the codebook, so that the codebook is a weighted mean of itself and of data at every
    step: an unused code stays where it is, and no code leaves the data's hull.
    """

    @documented
    @dataclass
    class Config(CodebookQuantizer.Config):
        """Settings of `ema`."""

    sums: Tensor  # K,D

    def register_codebook(self, codebook: Tensor) -> None:
        self.register_buffer("codebook", codebook)
        self.register_buffer("sums", codebook.clone())

    def codebook_penalty(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        return z_e.new_zeros(())

    def update_codebook(self, counts: Tensor, sums: Tensor) -> None:
        self.sums.lerp_(sums * (self.codebook_size / counts.sum()), 1 - self.decay)
        # A code unused for thousands of steps has a usage that underflows; its last value stays
        # valid.
        usage = self.usage[:, None]
        self.codebook.copy_(
            torch.where(usage > 1e-12, self.sums / usage.clamp_min(1e-12), self.codebook)
        )

    def reset_codes(self, dead: Tensor, rows: Tensor) -> None:
        self.codebook.copy_(torch.where(dead[:, None], rows, self.codebook))
        self.sums.copy_(torch.where(dead[:, None], rows, self.sums))


class CosineVectorQuantizer(VectorQuantizer):
    """The nearest code by angle: z_e and codes are compared and looked up at length 1 (Yu et al.
    2022, §3.2).

    ViT-VQGAN, arXiv 2110.04627. On the sphere the Euclidean distance orders codes as the cosine
    does; z (N, h, w, D) has length 1 in every grid cell, and the codebook's gradient is that of
    ‖sg[ẑ_e] − ê‖². Vectors next to zero stay shorter, see `direction`.
    """

    @documented
    @dataclass
    class Config(VectorQuantizer.Config):
        """Settings of `cosine`."""

        # The residual of a direction has no length to keep. A class variable here takes the place
        # of the parent's field, which mypy does not allow for a dataclass in general.
        residual_levels: ClassVar[int] = 1  # type: ignore[misc]

    def features(self, z_e: Tensor) -> Tensor:
        return direction(z_e)

    def vectors(self) -> Tensor:
        return direction(self.codebook)


class SimVQ(VectorQuantizer):
    """The codes are CW, with a random C (K, D) that never moves and a learned W (D, D) (Zhu et al.
    2024, §4).

    arXiv 2411.02038. The gradient of ‖sg[z_e] − CW‖² at the codes that were chosen moves W, and so
    all K codes at once: none is left behind, and none is reset.
    """

    @documented
    @dataclass
    class Config(VectorQuantizer.Config):
        """Settings of `simvq`."""

        # No settings here: as in `cosine`, class variables in place of the parent's fields.
        decay: ClassVar[float] = 0.99  # type: ignore[misc]
        reset_below: ClassVar[float] = 0.0  # type: ignore[misc]

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        commitment: float = CodebookQuantizer.Config.commitment,
        estimator: str | Estimator = CodebookQuantizer.Config.estimator,
    ) -> None:
        super().__init__(
            codebook_size,
            dim,
            commitment,
            decay=self.Config.decay,
            reset_below=self.Config.reset_below,
            estimator=estimator,
        )
        self.codebook.requires_grad_(False).mul_(dim**-0.5)  # C: vectors of length about 1
        self.weight = nn.Parameter(torch.eye(dim))  # W
        self.initialized.fill_(True)  # by C itself, not by k-means

    @classmethod
    def single(cls, config: Any, dim: int) -> "SimVQ":
        return cls(config.codebook_size, dim, config.commitment, config.estimator)

    def vectors(self) -> Tensor:
        return self.codebook @ self.weight
