"""A frozen autoencoder: images to latents and back, for a prior to be trained on.

```
 images ──► encode ──► a record of each image, which is stored
                           └──► codes N,T of a Tokenizer, h N,c,h,w of FrozenLatents
 what a prior draws ──► decode ──► images
```
"""

import copy
import hashlib
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vqvae_lightning.models.autoencoder import Autoencoder, LogPrior, Objective
from vqvae_lightning.models.bottlenecks import Noise, fresh_noise


class FirstStage(ABC):
    """A frozen autoencoder, as a model of stage 2 sees it.

    Frozen by construction: it is no `nn.Module`, so no `.train()`, optimizer or state dict of a
    module that holds it can reach its weights, and its methods record no gradient.
    """

    record_shape: tuple[int, ...]  # of what `encode` makes of an image

    def __init__(self, autoencoder: Autoencoder) -> None:
        self._net = autoencoder.eval().requires_grad_(False)
        self.image_shape = autoencoder.image_shape
        self.cells = autoencoder.grid  # (h, w)
        self.dims = autoencoder.dims
        self.classes = autoencoder.classes  # that the decoder knows; 0: it is given no label
        # Whether distortion + rate is a bound in bits per dimension.
        self.likelihood = autoencoder.likelihood
        self.discrete = self.likelihood.discrete
        self.fingerprint = fingerprint(autoencoder)

    def to(self, device: torch.device) -> "FirstStage":
        self._net.to(device)
        return self

    def copied_net(self) -> Autoencoder:
        """A copy of the autoencoder: what is done to it does not reach the first stage."""
        return copy.deepcopy(self._net)

    @torch.no_grad()
    def distortion(
        self, x: Tensor, noise: Noise = fresh_noise, label: Tensor | None = None
    ) -> Tensor:
        """−log p(x|z) in nats per image (N,) of images x (N, C, H, W) in [-1, 1], with z of their
        own, which is drawn with `noise` if it is random; with classes −log p(x|z,label).
        """
        objective: Objective = self._net(x, noise=noise, label=label)
        return objective.distortion

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The records (N, *record_shape) of images (N, C, H, W) in [-1, 1]."""

    @abstractmethod
    def latents(self, x: Tensor) -> Tensor:
        """What a prior models of images (N, C, H, W): codes, or E[z|x]."""

    @abstractmethod
    def known(self, cells: Tensor) -> Tensor:
        """The mask of `latents` (N, ...) that belongs to grid cells (N, h, w) bool."""

    @abstractmethod
    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of latents; with classes of labels (N,), too.

        Raises ValueError where labels are needed and there are none.
        """

    def drawn_labels(self, n: int) -> Tensor | None:
        """Labels (n,) from torch's random state, each equally likely; None without classes."""
        return self._net.drawn_labels(n)


class FrozenLatents(FirstStage):
    """A frozen AE or VAE: images (N, C, H, W) in [-1, 1] ⇄ z (N, D, h, w).

    Its record of an image is h (in_channels, h, w), what the bottleneck reads: z of an AE, mean and
    log variance of a VAE. A prior can so draw another z ~ q(z|x) whenever it sees an image.

    Raises ValueError for an autoencoder that has codes.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        if autoencoder.layout is not None:
            raise ValueError(
                f"first stage: {type(autoencoder.bottleneck).__name__} has a codebook, wanted a"
                " continuous latent"
            )
        super().__init__(autoencoder)
        bottleneck = autoencoder.bottleneck
        self.record_shape = (bottleneck.in_channels, *self.cells)
        self.shape = (bottleneck.out_channels, *self.cells)  # of z: D,h,w
        self.random = bottleneck.random

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """h (N, in_channels, h, w), float32."""
        # The encoder works in channels_last, and a file in the order of the indices.
        return self._net.features(x).float().contiguous()

    @torch.no_grad()
    def draw(self, h: Tensor, noise: Noise) -> Tensor:
        """z (N, D, h, w) of records h: of an AE the one there is, of a VAE one from q(z|x)."""
        return self._net.bottleneck.forward(h, noise).z

    @torch.no_grad()
    def log_posterior(self, h: Tensor, z: Tensor) -> Tensor:
        """log q(z|x) in nats, (N,), of z (N, D, h, w) that were drawn for records h."""
        return self._net.bottleneck.log_posterior(h, z)

    @torch.no_grad()
    def log_weights(self, x: Tensor, k: int, noise: Noise, log_prior: LogPrior) -> Tensor:
        """The log weights (k, N) of k draws of z for images x (N, C, H, W), under another p(z).

        See `Autoencoder.log_weights`. Raises ValueError for an AE, which has no density q(z|x).
        """
        return self._net.log_weights(x, k, noise, log_prior)

    @torch.no_grad()
    def latents(self, x: Tensor) -> Tensor:
        return self._net.encode(x).mean

    def known(self, cells: Tensor) -> Tensor:
        return cells[:, None].expand(-1, *self.shape)

    @torch.no_grad()
    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        return self._net.decode(latents, label)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
