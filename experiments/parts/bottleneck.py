import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae_lightning.config import setting
from vqvae_lightning.models.bottlenecks import Latent, NamedBottleneck, Noise, fresh_noise


class FixedWidth(NamedBottleneck):
    """q(z|x) = N(h, s²I) of one s, charged against p(z) = N(0, I); of a VAE."""

    @dataclass
    class Config:
        scale: float = setting(0.5, "s, standard deviation of q(z|x)", above=0)

    def __init__(self, scale: float, latent_dim: int) -> None:
        super().__init__()
        self.in_channels = self.out_channels = latent_dim
        self.scale = scale

    @classmethod
    def build(cls, config: Config, latent_dim: int) -> "FixedWidth":
        return cls(config.scale, latent_dim)

    def forward(self, h: Tensor, noise: Noise = fresh_noise) -> Latent:
        kl = 0.5 * (h.square() + self.scale**2 - 1) - math.log(self.scale)  # N,D,h,w
        z, rate = h + self.scale * noise(h), kl.flatten(1).sum(1)
        return Latent(z=z, mean=h, rate=rate, penalty=h.new_zeros(()), rate_per_dim=kl)

    def sample(self, n: int, grid: tuple[int, int], device: torch.device) -> Tensor:
        return torch.randn(n, self.out_channels, *grid, device=device)
