"""A frozen VQ-VAE: images to codes and back, for a prior to be trained on."""

import copy
import hashlib

import torch
from torch import Tensor, nn

from vqvae_lightning.models.autoencoder import Autoencoder, Objective


class Tokenizer:
    """Images (N, C, H, W) in [-1, 1] ⇄ codes (N, T) in the order of `CodeLayout`.

    Frozen by construction: it is no `nn.Module`, so no `.train()`, optimizer or state dict of a
    module that holds it can reach its weights, and its methods record no gradient.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        layout = autoencoder.layout
        if layout is None:
            raise ValueError(
                f"tokenizer: {type(autoencoder.bottleneck).__name__} has no codebook, wanted a"
                " quantizer"
            )
        self._net = autoencoder.eval().requires_grad_(False)
        self.layout = layout
        self.image_shape = autoencoder.image_shape
        self.dims = autoencoder.dims
        # Whether distortion + rate is a bound in bits per dimension.
        self.discrete = autoencoder.likelihood.discrete
        self.fingerprint = fingerprint(autoencoder)

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.layout.codebook_size

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of an image's codes: (h, w) or (h, w, M)."""
        return self.layout.shape

    @property
    def length(self) -> int:
        """T, codes per image."""
        return self.layout.length

    def to(self, device: torch.device) -> "Tokenizer":
        self._net.to(device)
        return self

    def copied_net(self) -> Autoencoder:
        """A copy of the autoencoder: what is done to it does not reach the tokenizer."""
        return copy.deepcopy(self._net)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes (N, T) int64 of images (N, C, H, W) in [-1, 1]."""
        codes = self._net.encode(x).codes
        assert codes is not None
        return self.layout.flatten(codes)

    @torch.no_grad()
    def distortion(self, x: Tensor) -> Tensor:
        """−log p(x|z) in nats per image (N,) of images x (N, C, H, W) in [-1, 1], with z of their
        own codes.
        """
        objective: Objective = self._net(x)
        return objective.distortion

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of codes (N, T).

        Raises ValueError for a code outside 0 … K−1.
        """
        latents = self._net.bottleneck.codes_to_latents(self.layout.unflatten(codes))
        return self._net.decode(latents)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
