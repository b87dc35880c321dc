import math
from dataclasses import dataclass

from torch import Tensor

from vqvae_lightning.config import setting
from vqvae_lightning.models.likelihoods import Likelihood


class Laplace(Likelihood):
    """Laplace(x; decoded, scale) per pixel, a density."""

    levels = None

    @dataclass
    class Config:
        scale: float = setting(0.3, "scale, in units of the pixel range [-1, 1]", above=0)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.scale = config.scale

    def nll(self, x: Tensor, decoded: Tensor) -> Tensor:
        error = (x - decoded).abs() / self.scale  # N,C,H,W
        return (error + math.log(2 * self.scale)).flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        return decoded.clamp(-1, 1)
