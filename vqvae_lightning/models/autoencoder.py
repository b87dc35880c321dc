"""Autoencoder = encoder + bottleneck + decoder + likelihood: AE, VAE and VQ-VAE are this with different bottlenecks."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqvae_lightning.config import AEConfig, AutoencoderConfig, LikelihoodConfig, VAEConfig, VQVAEConfig
from vqvae_lightning.models.bottlenecks import Bottleneck, Gaussian, Identity, Latent
from vqvae_lightning.models.likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from vqvae_lightning.models.networks import Decoder, Encoder, feature_grid
from vqvae_lightning.models.quantizers import EMAVectorQuantizer, VectorQuantizer

ImageShape = tuple[int, int, int]  # C, H, W


def _identity(config: AEConfig) -> Bottleneck:
    return Identity(config.latent_dim)


def _gaussian(config: VAEConfig) -> Bottleneck:
    return Gaussian(config.latent_dim)


def _vector_quantizer(config: VQVAEConfig) -> Bottleneck:
    quantizer = {"ema": EMAVectorQuantizer, "gradient": VectorQuantizer}[config.codebook]
    return quantizer(config.codebook_size, config.latent_dim, config.commitment, config.decay, config.restart_below)


BOTTLENECKS: dict[type[AutoencoderConfig], Callable[..., Bottleneck]] = {
    AEConfig: _identity,
    VAEConfig: _gaussian,
    VQVAEConfig: _vector_quantizer,
}


def build_likelihood(config: LikelihoodConfig) -> Likelihood:
    """The likelihood that `config` names."""
    if config.name == "bernoulli":
        return BernoulliLikelihood()
    return GaussianLikelihood(config.scale, config.learned)


@dataclass(frozen=True)
class Objective:
    """The terms of the loss for a batch of N images."""

    loss: Tensor  # ()   mean(distortion)/dims + beta · mean(rate)/dims + penalty
    distortion: Tensor  # N    −log p(x|z), nats
    reconstruction: Tensor  # N,C,H,W in [-1, 1]
    latent: Latent


class Autoencoder(nn.Module):
    """One autoencoder with a bottleneck in the middle, in channels_last.

    ```
    x N,C,H,W ──► Encoder ──► h ──► Bottleneck ──► z ──► Decoder ──► likelihood(x, ·) = distortion N
                                       └──► rate N, penalty, codes N,h,w
    ```
    """

    def __init__(self, image_shape: ImageShape, config: AutoencoderConfig) -> None:
        super().__init__()
        vector = config.latent == "vector"
        self.image_shape = image_shape
        self.grid = (1, 1) if vector else feature_grid(image_shape, config.network)
        self.bottleneck = BOTTLENECKS[type(config)](config)
        self.encoder = Encoder(image_shape, config.network, self.bottleneck.in_channels, vector)
        self.decoder = Decoder(image_shape, config.network, self.bottleneck.out_channels, vector)
        self.likelihood = build_likelihood(config.likelihood)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster than NCHW on CPUs and tensor cores

    @property
    def dims(self) -> int:
        """C · H · W, what nats per image are divided by."""
        return math.prod(self.image_shape)

    def encode(self, x: Tensor) -> Latent:
        """Latent of images x (N, C, H, W) in [-1, 1]. Raises ValueError on another shape."""
        if x.shape[1:] != self.image_shape:
            raise ValueError(f"images: got shape {tuple(x.shape)}, wanted (N, {', '.join(map(str, self.image_shape))})")
        return self.bottleneck(self.encoder(x.contiguous(memory_format=torch.channels_last)))

    def decode(self, z: Tensor) -> Tensor:
        """Mean image (N, C, H, W) in [-1, 1] of latents z (N, D, h, w)."""
        return self.likelihood.mean(self.decoder(z.to(next(self.parameters()).dtype))).float()

    def forward(self, x: Tensor, beta: float = 1.0) -> Objective:
        """The objective for images x (N, C, H, W) in [-1, 1]; every reduction to a scalar is here.

        With beta = 1 the loss of a VAE is −ELBO / dims.
        """
        latent = self.encode(x)
        decoded = self.decoder(latent.z)
        with torch.autocast(x.device.type, enabled=False):
            decoded = decoded.to(x.dtype)
            distortion = self.likelihood.nll(x, decoded)
            loss = (distortion + beta * latent.rate).mean() / self.dims + latent.penalty
        return Objective(loss, distortion, self.likelihood.mean(decoded), latent)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """n mean images (n, C, H, W) in [-1, 1] of latents from the bottleneck's own prior."""
        return self.decode(self.bottleneck.sample(n, self.grid, next(self.parameters()).device))
