"""A frozen VQ-VAE: images to codes and back, for a prior to be trained on."""

import hashlib
import math

import torch
from torch import Tensor, nn

from vqvae_lightning.models.autoencoder import Autoencoder


class Tokenizer:
    """Images (N, C, H, W) in [-1, 1] ⇄ codes (N, T), raster order: position r·w + c is row r,
    column c of the grid.

    With M codes per place they stand next to each other: position (r·w + c)·M + m (see
    `Quantizer`).

    Frozen by construction: it is no `nn.Module`, so no `.train()`, optimizer or state dict of a
    module that holds it can reach its weights, and its methods run in inference mode.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        if autoencoder.bottleneck.codebook_size is None:
            raise ValueError(
                f"tokenizer: {type(autoencoder.bottleneck).__name__} has no codebook, wanted a"
                " quantizer"
            )
        self._net = autoencoder.eval().requires_grad_(False)
        self.codebook_size = autoencoder.bottleneck.codebook_size
        self.grid = autoencoder.bottleneck.code_shape(autoencoder.grid)  # (h, w) or (h, w, M)
        self.maps = autoencoder.bottleneck.maps  # M
        self.image_shape = autoencoder.image_shape
        self.dims = autoencoder.dims
        self.discrete = (
            autoencoder.likelihood.discrete
        )  # whether distortion + rate is a bound in bits per dimension
        self.fingerprint = fingerprint(autoencoder)

    @property
    def length(self) -> int:
        """T, codes per image."""
        return math.prod(self.grid)

    def to(self, device: torch.device) -> "Tokenizer":
        self._net.to(device)
        return self

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Tensor:
        """Codes (N, T) int64 of images (N, C, H, W) in [-1, 1]."""
        codes = self._net.encode(x).codes
        assert codes is not None
        return codes.flatten(1)

    @torch.inference_mode()
    def distortion(self, x: Tensor) -> Tensor:
        """−log p(x|z) in nats per image (N,) of images x (N, C, H, W) in [-1, 1], with z of their
        own codes.
        """
        return self._net(x).distortion

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of codes (N, T).

        Raises ValueError for a code outside 0 … K−1.
        """
        return self._net.decode(self._net.bottleneck.lookup(codes.unflatten(1, self.grid)))


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
