"""Autoencoder = encoder + bottleneck + decoder + likelihood, which it receives built.

AE, VAE and VQ-VAE are this with different bottlenecks. What is computed here is the objective.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vqvae_lightning.models.bottlenecks import (
    Bottleneck,
    Latent,
    Noise,
    fresh_noise,
    rate_with_free_bits,
)
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.likelihoods import Likelihood
from vqvae_lightning.models.trunks.trunk import ImageShape

# log p(z) in nats, (M,), of latents z (M, D, h, w).
LogPrior = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """The terms of the loss for a batch of N images."""

    loss: Tensor  # ()   mean(distortion)/dims + beta · mean(rate)/dims, and in training + penalty
    distortion: Tensor  # N    −log p(x|z), nats
    reconstruction: Tensor  # N,C,H,W in [-1, 1]
    latent: Latent


class Autoencoder(nn.Module):
    """One autoencoder with a bottleneck in the middle, in channels_last.

    ```
    x N,C,H,W ──► Encoder ──► h ──► Bottleneck ──► z ──► Decoder ──► likelihood(x, ·) = distortion N
                                       └──► rate N, penalty, codes N,h,w or N,h,w,M
    ```

    With `classes` the decoder is given the label of an image: beside z, at each grid cell, a
    learned vector of its class. What the label says need then not be in z: the codes carry what is
    said, and not who says it (van den Oord et al. 2017, §4.3). The distortion is −log p(x|z,label).
    """

    def __init__(
        self,
        encoder: nn.Module,
        bottleneck: Bottleneck,
        decoder: nn.Module,
        likelihood: Likelihood,
        image_shape: ImageShape,
        grid: tuple[int, int],
        classes: int = 0,
    ) -> None:
        """Puts built parts together; `models.build.build_autoencoder` builds them of settings.

        Args:
            encoder: images x (N, C, H, W) in [-1, 1] → h (N, bottleneck.in_channels, h, w).
            bottleneck: h → `Latent`.
            decoder: z (N, bottleneck.out_channels, h, w) → (N, P·C, H, W), P = likelihood.parts;
                with classes the vector of the label follows z, of as many channels.
            likelihood: p(x|z), given what the decoder says.
            image_shape: (C, H, W).
            grid: (h, w) of the latent; (1, 1) where z is one vector.
            classes: how many labels the decoder knows, 0 of one that is given none.
        """
        super().__init__()
        self.image_shape, self.grid = image_shape, grid
        self.bottleneck = bottleneck
        self.encoder, self.decoder = encoder, decoder
        self.likelihood = likelihood
        self.classes = classes
        vectors = nn.Embedding(classes, bottleneck.out_channels) if classes else None
        self.label_vectors = vectors
        # Faster than NCHW on CPUs and tensor cores. torch's annotations want a dtype or a device
        # beside a memory format.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def layout(self) -> CodeLayout | None:
        """How an image's codes lie on the grid; None without codes."""
        return self.bottleneck.layout(self.grid)

    @property
    def dims(self) -> int:
        """C · H · W, what nats per image are divided by."""
        return math.prod(self.image_shape)

    def encode(self, x: Tensor, noise: Noise = fresh_noise) -> Latent:
        """Latent of images x (N, C, H, W) in [-1, 1]. Raises ValueError on another shape."""
        latent: Latent = self.bottleneck(self.features(x), noise)
        return latent

    def features(self, x: Tensor) -> Tensor:
        """h (N, bottleneck.in_channels, h, w), what the bottleneck reads.

        Raises ValueError on another shape.
        """
        if x.shape[1:] != self.image_shape:
            raise ValueError(
                f"images: got shape {tuple(x.shape)}, wanted (N,"
                f" {', '.join(map(str, self.image_shape))})"
            )
        h: Tensor = self.encoder(x.contiguous(memory_format=torch.channels_last))
        return h

    def compile_layers(self) -> None:
        """Compiles what is nothing but layers.

        The bottleneck, which keeps what it saw of a step, stays as it is.
        """
        self.encoder.compile()
        self.decoder.compile()

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Mean image (N, C, H, W) in [-1, 1] of latents z (N, D, h, w).

        A decoder with classes needs the label (N,), and raises ValueError without; others do not
        look at it.
        """
        decoded = self._decoded(z.to(next(self.parameters()).dtype), label)
        return self.likelihood.mean(decoded).float()

    def _decoded(self, z: Tensor, label: Tensor | None) -> Tensor:
        """What the decoder says of z (N, D, h, w), (N, P·C, H, W)."""
        if self.label_vectors is not None:
            count = 0 if label is None else len(label)
            if label is None or count != len(z):
                raise ValueError(
                    f"label: got {count} for {len(z)} images, but this decoder is given the label,"
                    " wanted one for each"
                )
            vectors = self.label_vectors(label)[:, :, None, None]  # N,D,1,1
            z = torch.cat([z, vectors.expand_as(z).to(z.dtype)], dim=1)  # N,2D,h,w
        decoded: Tensor = self.decoder(z)
        return decoded

    def forward(
        self,
        x: Tensor,
        beta: float = 1.0,
        free_bits: float = 0.0,
        noise: Noise = fresh_noise,
        label: Tensor | None = None,
    ) -> Objective:
        """The objective for images x (N, C, H, W) in [-1, 1], and of classes their labels (N,);
        every reduction to a scalar is here.

        The penalty belongs to training: it may grow while images get better, and a checkpoint
        chosen with it would be an early one. With beta = 1 the loss of a VAE is −ELBO / dims. With
        `free_bits`, its latent dimensions are charged this many nats at least: the loss exceeds the
        ledger by what they are charged beyond their rate.
        """
        latent = self.encode(x, noise)
        decoded = self._decoded(latent.z, label)
        with torch.autocast(x.device.type, enabled=False):
            decoded = decoded.to(x.dtype)
            distortion = self.likelihood.nll(x, decoded)
            charged = latent.rate  # N
            if free_bits:
                if latent.rate_per_dim is None:
                    name = type(self.bottleneck).__name__
                    raise ValueError(f"model.free_bits: {name} has no rate_per_dim, wanted 0")
                charged = rate_with_free_bits(latent.rate_per_dim, free_bits)  # ()
            loss = (distortion + beta * charged).mean() / self.dims
            if self.training:
                loss = loss + latent.penalty
        return Objective(loss, distortion, self.likelihood.mean(decoded), latent)

    def log_weights(
        self, x: Tensor, k: int, noise: Noise = fresh_noise, log_prior: LogPrior | None = None
    ) -> Tensor:
        """log p(x|z_i) + log p(z_i) − log q(z_i|x) in nats, (k, N), for images x (N, C, H, W) and k
        draws z_i ~ q(z|x).

        The mean of exp of them over draws has the mean p(x), so that log of it bounds log p(x) from
        below, the closer the more draws (Burda et al. 2016, arXiv 1509.00519, eq. 8); a quantizer's
        are all the same. k is what fits into memory: draws may be made in several calls.

        Args:
            x: images.
            k: draws per image.
            noise: the source of the draws.
            log_prior: another p(z) than the bottleneck's own. Its k · N latents are draw by draw.

        Returns:
            The log weights, float64 with a `log_prior`.

        Raises:
            ValueError: for an AE, which has no p(z) and no density q(z|x).
        """
        h = self.features(x)
        log_weights, z, _, distortion = self._weigh(x, h, k, noise)
        if log_prior is None:
            return log_weights
        log_q = torch.stack([self.bottleneck.log_posterior(h, one) for one in z])  # k,N
        log_p: Tensor = log_prior(z.flatten(0, 1)).unflatten(0, (k, -1))
        return log_p - log_q - distortion

    def importance_weighted(
        self, x: Tensor, k: int, noise: Noise = fresh_noise, label: Tensor | None = None
    ) -> Objective:
        """The objective whose loss is −log of the mean weight of k draws, / dims (Burda et al.
        2016, eq. 8), for a VAE.

        Distortion, reconstruction and latent are those of the first draw. Raises ValueError for an
        AE.
        """
        h = self.features(x)
        log_weights, z, decoded, distortion = self._weigh(x, h, k, noise, label)
        loss = -(log_weights.logsumexp(0) - math.log(k)).mean() / self.dims
        with torch.no_grad():
            latent = replace(self.bottleneck(h, noise), z=z[0])
        return Objective(loss, distortion[0], self.likelihood.mean(decoded[0]), latent)

    def _weigh(
        self, x: Tensor, h: Tensor, k: int, noise: Noise, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log weights (k, N), z (k, N, D, h, w), decoded (k, N, C, H, W) and distortion (k, N) of k
        draws.
        """
        z, log_ratio = self.bottleneck.rsample(h, k, noise)
        repeated = None if label is None or self.label_vectors is None else label.repeat(k)
        decoded = self._decoded(z.flatten(0, 1), repeated)  # k·N,C,H,W
        with torch.autocast(x.device.type, enabled=False):
            decoded = decoded.to(x.dtype)
            # k,N
            distortion = self.likelihood.nll(x.repeat(k, 1, 1, 1), decoded).unflatten(0, (k, -1))
        return log_ratio - distortion, z, decoded.unflatten(0, (k, -1)), distortion

    @torch.no_grad()
    def sample(self, n: int, label: Tensor | None = None) -> Tensor:
        """n mean images (n, C, H, W) in [-1, 1] of latents from the bottleneck's own prior.

        Without labels (n,), those of a decoder with classes are drawn.
        """
        device = next(self.parameters()).device
        z = self.bottleneck.sample(n, self.grid, device)
        return self.decode(z, self.drawn_labels(n) if label is None else label)

    def drawn_labels(self, n: int) -> Tensor | None:
        """Labels (n,) from torch's random state, each equally likely; None without classes."""
        if not self.classes:
            return None
        return torch.randint(self.classes, (n,), device=next(self.parameters()).device)
