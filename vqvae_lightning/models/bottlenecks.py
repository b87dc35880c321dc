"""What stands between encoder and decoder, and what it charges for the information it lets
through.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vqvae_lightning.models.distributed import all_reduce_sum, rank_and_world
from vqvae_lightning.models.layout import CodeLayout

# x (N, ...) → standard normal noise of its shape, dtype and device. `data.loader` has the two that
# a run uses: one does not depend on how a training batch was cut, the other not on how an
# evaluation was.
Noise = Callable[[Tensor], Tensor]


def fresh_noise(x: Tensor) -> Tensor:
    """Standard normal noise like x (N, ...) from torch's global random state."""
    # not randn_like: it fills in memory order, and the noise of an image would depend on its layout
    return torch.randn(x.shape, dtype=x.dtype, device=x.device)


class NonFiniteError(ArithmeticError):
    """One line: a step or a batch of which something is not finite, and where that shows first."""


@dataclass(frozen=True)
class Latent:
    """What a bottleneck makes of the encoder's output for a batch of N images."""

    z: Tensor  # N,D,h,w  what the decoder sees
    mean: Tensor  # N,D,h,w  E[z|x], the representation: the same as z unless z is random
    rate: Tensor  # N        nats charged per image, against the prior that `sample` draws from
    penalty: Tensor  # ()       training-only term of the loss, already averaged
    codes: Tensor | None = None  # N,h,w or N,h,w,M  int64 indices, for quantizers only
    logs: dict[str, Tensor] = field(default_factory=dict)  # () each: named values to log
    # N,D,h,w  the rate by latent dimension, where it is a sum over them
    rate_per_dim: Tensor | None = None


class Bottleneck(nn.Module, ABC):
    """Maps h (N, in_channels, h, w) to a `Latent`; the only part in which AE, VAE and VQ-VAE
    differ.

    ```
    h N,c_in,h,w ──► forward ──► Latent(z N,D,h,w; rate N; penalty; codes)
    n, grid      ──► sample  ──► z n,D,h,w          from the prior that the rate is charged against
    h N, k       ──► rsample ──► z k,N,D,h,w; log p(z) − log q(z|x) k,N
    ```
    """

    in_channels: int
    out_channels: int
    codebook_size: int | None = None  # K, for quantizers
    num_codebooks: int = 1  # M, codes per grid cell, for quantizers
    # False where the rate is a convention and no likelihood follows from it
    has_prior: bool = True
    # True where z is drawn from q(z|x), so that more draws tighten a bound on log p(x)
    random: bool = False

    @abstractmethod
    def forward(self, h: Tensor, noise: Noise = fresh_noise) -> Latent:
        """Latent of h (N, in_channels, h, w); what is random in it comes from `noise`."""

    @abstractmethod
    def sample(self, n: int, grid: tuple[int, int], device: torch.device) -> Tensor:
        """n latents z (n, D, h, w) drawn from p(z)."""

    def rsample(self, h: Tensor, k: int, noise: Noise = fresh_noise) -> tuple[Tensor, Tensor]:
        """k reparametrized samples z ~ q(z|x), and log p(z) − log q(z|x) of each.

        Each sample asks `noise` once, so k samples are the same in one call or in several.

        Args:
            h: encoder outputs (N, in_channels, h, w).
            k: samples per image.
            noise: the source of what is random.

        Returns:
            z (k, N, D, h, w), and the log ratio in nats, (k, N).

        Raises:
            ValueError: where there is no p(z).
        """
        raise ValueError(f"rsample: {type(self).__name__} has no p(z), so there is no likelihood")

    def log_posterior(self, h: Tensor, z: Tensor) -> Tensor:
        """log q(z|x) in nats, (N,), of z (N, D, h, w) drawn for h (N, in_channels, h, w).

        Raises ValueError where z is not random, or its density is not known.
        """
        raise ValueError(f"log_posterior: {type(self).__name__} has no density q(z|x)")

    def codes_to_latents(self, codes: Tensor) -> Tensor:
        """z (N, D, h, w) of codes (N, *layout(grid).shape).

        Raises ValueError for a code outside 0 … K−1, or where there are none.
        """
        raise ValueError(f"codes: {type(self).__name__} has no codebook, wanted a quantizer")

    def layout(self, grid: tuple[int, int]) -> CodeLayout | None:
        """How codes lie on a latent grid (h, w); None without codes."""
        return None

    def update(self) -> None:
        """Take over what the forward passes of one optimizer step have seen.

        Called once per optimizer step.
        """

    def diagnostics(self) -> dict[str, Tensor]:
        """Named measures of the state, () each, to log.

        Asked for after `update`, and only at steps that log.
        """
        return {}


class NamedBottleneck(Bottleneck):
    """A bottleneck that `model.bottleneck.name` of an AE or a VAE can choose.

    It owns a dataclass `Config`. Its `out_channels` are `model.latent_dim`.
    """

    @classmethod
    @abstractmethod
    def build(cls, config: Any, latent_dim: int) -> Bottleneck:
        """A bottleneck by its settings, to z of `latent_dim` channels."""


class Identity(NamedBottleneck):
    """The AE's bottleneck: z = h.

    Its rate is 0 by convention: an AE has no p(z), so nothing can be charged.
    """

    has_prior = False

    @dataclass
    class Config:
        """No settings: nothing is changed."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.in_channels = self.out_channels = latent_dim

    @classmethod
    def build(cls, config: Config, latent_dim: int) -> "Identity":
        return cls(latent_dim)

    def forward(self, h: Tensor, noise: Noise = fresh_noise) -> Latent:
        h = at_least_float32(h)
        return Latent(z=h, mean=h, rate=h.new_zeros(h.shape[0]), penalty=h.new_zeros(()))

    def sample(self, n: int, grid: tuple[int, int], device: torch.device) -> Tensor:
        """z ~ N(0, I): nothing in the AE's loss makes its latents look like this, and the pictures
        show it.
        """
        return torch.randn(n, self.out_channels, *grid, device=device, dtype=torch.float32)


class Gaussian(NamedBottleneck):
    """The VAE's bottleneck: q(z|x) = N(μ, σ²I), z = μ + σε (Kingma & Welling 2014, arXiv 1312.6114,
    §2.4 and app. B).

    h holds μ and log σ² as 2D channels. The rate is KL(q(z|x) ‖ N(0, I)) in closed form, in nats,
    summed over the latent of each image. z is a sample in evaluation too, so that distortion + rate
    is an unbiased −ELBO there.
    """

    random = True

    @dataclass
    class Config:
        """No settings: the encoder says mean and variance."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = 2 * latent_dim, latent_dim

    @classmethod
    def build(cls, config: Config, latent_dim: int) -> "Gaussian":
        return cls(latent_dim)

    def forward(self, h: Tensor, noise: Noise = fresh_noise) -> Latent:
        mean, log_variance = at_least_float32(h).chunk(2, dim=1)  # N,D,h,w each
        z = mean + torch.exp(0.5 * log_variance) * noise(mean)
        rate_per_dim = kl_elements(mean, log_variance)  # N,D,h,w
        rate = rate_per_dim.flatten(1).sum(1)  # N
        return Latent(
            z=z,
            mean=mean,
            rate=rate,
            penalty=mean.new_zeros(()),
            logs={"kl": rate.detach().mean()},
            rate_per_dim=rate_per_dim,
        )

    def rsample(self, h: Tensor, k: int, noise: Noise = fresh_noise) -> tuple[Tensor, Tensor]:
        mean, log_variance = at_least_float32(h).chunk(2, dim=1)  # N,D,h,w each
        drawn = torch.stack([noise(mean) for _ in range(k)])  # k,N,D,h,w
        z = mean + torch.exp(0.5 * log_variance) * drawn
        # log N(z; 0, I) − log N(z; μ, σ²I): the two constants cancel
        log_ratio = 0.5 * (drawn.square() - z.square() + log_variance).flatten(2).sum(2)  # k,N
        return z, log_ratio

    def log_posterior(self, h: Tensor, z: Tensor) -> Tensor:
        mean, log_variance = at_least_float32(h).chunk(2, dim=1)  # N,D,h,w each
        error = (z - mean).square() * torch.exp(-log_variance)
        return -0.5 * (error + log_variance + math.log(2 * math.pi)).flatten(1).sum(1)

    def sample(self, n: int, grid: tuple[int, int], device: torch.device) -> Tensor:
        return torch.randn(n, self.out_channels, *grid, device=device, dtype=torch.float32)


def kl_elements(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) in nats, element by element."""
    # expm1, and its difference first: near a collapsed posterior exp(l) − 1 − l would cancel to
    # less than 0
    return 0.5 * (mean.square() + (torch.expm1(log_variance) - log_variance))


def rate_with_free_bits(rate_per_dim: Tensor, free_bits: float) -> Tensor:
    """Σ_d max(free_bits, E[rate_d]) in nats per image, (), of rates (N, D, h, w).

    The means are over the batch of all ranks, so a dimension below its free bits has no gradient on
    any of them (Kingma et al. 2016, arXiv 1606.04934, app. C.8, one group per latent dimension).
    The value is this rank's part: the mean of it over ranks is the sum above.
    """
    mean = rate_per_dim.mean(0)  # D,h,w
    whole = all_reduce_sum(mean.detach().clone()) / rank_and_world()[1]
    return torch.where(whole > free_bits, mean, free_bits).sum()


def at_least_float32(x: Tensor) -> Tensor:
    """x as float32, or float64 if it is that: rates are sums over many small terms."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
