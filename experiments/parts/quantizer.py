from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae_lightning.config import setting
from vqvae_lightning.models.quantizers.nearest import nearest_code
from vqvae_lightning.models.quantizers.quantizer import NamedQuantizer, Quantized


class RandomCodebook(NamedQuantizer):
    """The nearest of K fixed random vectors."""

    codebook: Tensor  # K,D

    @dataclass
    class Config(NamedQuantizer.Config):
        codebook_size: int = setting(512, "K, number of codes", at_least=1)

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__(codebook_size, dim)
        self.register_buffer("codebook", torch.randn(codebook_size, dim))

    @classmethod
    def build(cls, config: Any, dim: int) -> "RandomCodebook":
        return cls(config.codebook_size, dim)

    def quantize(self, z_e: Tensor) -> Quantized:
        rows = z_e.detach().flatten(0, 2)  # N·h·w,D
        codes = nearest_code(rows, self.codebook).view(z_e.shape[:3])  # N,h,w
        z_q = self.decode(codes)  # N,h,w,D
        return Quantized(self.estimate(z_e, z_q), codes, F.mse_loss(z_e, z_q), {})

    def decode(self, codes: Tensor) -> Tensor:
        return self.codebook[codes]
