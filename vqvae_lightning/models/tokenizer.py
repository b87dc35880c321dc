"""A frozen VQ-VAE: images to codes and back, for a prior to be trained on."""

import torch
from torch import Tensor

from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.first_stage import FirstStage


class Tokenizer(FirstStage):
    """Images (N, C, H, W) in [-1, 1] ⇄ codes (N, T) in the order of `CodeLayout`.

    Raises ValueError for an autoencoder without codes.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        layout = autoencoder.layout
        if layout is None:
            raise ValueError(
                f"tokenizer: {type(autoencoder.bottleneck).__name__} has no codebook, wanted a"
                " quantizer"
            )
        super().__init__(autoencoder)
        self.layout = layout
        self.record_shape = (layout.length,)

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

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes (N, T) int64 of images (N, C, H, W) in [-1, 1]."""
        codes = self._net.encode(x).codes
        assert codes is not None
        return self.layout.flatten(codes)

    def latents(self, x: Tensor) -> Tensor:
        return self.encode(x)

    def known(self, cells: Tensor) -> Tensor:
        return self.layout.positions(cells)

    @torch.no_grad()
    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of codes (N, T), and of labels (N,) with classes.

        Raises ValueError for a code outside 0 … K−1.
        """
        codes = self.layout.unflatten(latents)
        return self._net.decode(self._net.bottleneck.codes_to_latents(codes), label)
