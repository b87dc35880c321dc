"""What a program of one's own asks of an autoencoder: images to latents or codes, and back.

```
images ──► encode ──► z N,D,h,w, or codes N,h,w or N,h,w,M ──► decode ──► images
images ──► latents ──► Latent(z, rate, codes, …)      n ──► sample ──► images
```
"""

import copy
from numbers import Integral
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.bottlenecks import Latent
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.training.given import (
    as_batch,
    checked_labels,
    codes_of,
    images_of,
    tensor_of,
)


class ImageModel(pl.LightningModule):
    """The calls that AE, VAE and VQ-VAE have in common.

    Images are given as uint8 0 … 255 or as floats in [-1, 1], numpy or torch, (N, C, H, W), on any
    device. Images returned are floats (N, C, H, W) in [-1, 1] on the model's device;
    `data.images.to_uint8` makes bytes of them. Gradients pass through every call but `sample`.
    Another shape, dtype or range is a ValueError of one line.
    """

    kind: ClassVar[str]
    net: Autoencoder

    def forward(self, images: Any, label: Any = None) -> Tensor:
        """Reconstructions (N, C, H, W) in [-1, 1]: the images decoded from their E[z|x].

        A class-conditional decoder needs their labels: one for all, or (N,).
        """
        mean = self.latents(images).mean
        return self.net.decode(mean, self._labels(len(mean), label))

    def latents(self, images: Any) -> Latent:
        """All that the bottleneck makes of images, with z (N, D, h, w) of a quantizer, too.

        z of a VAE is drawn anew. In training mode a codebook learns from what it sees; call
        `eval()` first where it is not to.
        """
        return self.net.encode(self._images(images))

    def encode(self, images: Any) -> Tensor:
        """Codes of images where there are codes, and otherwise E[z|x].

        Codes are int64 (N, h, w), or (N, h, w, M) with M per position. E[z|x] is (N, D, h, w): the
        z of an AE, and the mean of a VAE's q(z|x), not a draw from it.
        """
        with evaluating(self.net):
            latent = self.latents(images)
        return latent.mean if latent.codes is None else latent.codes

    def decode(self, latents: Any, label: Any = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of what `encode` returned.

        Whole numbers are codes, as a grid or as sequences (N, T). Floats are z (N, D, h, w).
        A class-conditional decoder needs labels, as in `forward`.
        Raises ValueError for codes outside 0 … K−1, too.
        """
        given, net = tensor_of(latents, "latents"), self.net
        device = next(net.parameters()).device
        if net.layout is not None and not given.is_floating_point():
            z = net.bottleneck.codes_to_latents(codes_of(given, net.layout, device))
        else:
            shape = (net.bottleneck.out_channels, *net.grid)
            if not given.is_floating_point() or tuple(given.shape[1:]) != shape:
                raise ValueError(
                    f"latents: got {given.dtype} of shape {tuple(given.shape)}, wanted floats"
                    f" (N, {', '.join(map(str, shape))})"
                )
            z = given.to(device)
        with evaluating(net):
            return net.decode(z, self._labels(len(z), label))

    @torch.no_grad()
    def sample(self, n: int = 16, label: Any = None) -> Tensor:
        """n images (n, C, H, W) in [-1, 1] of latents from the p(z) that the rate is charged
        against.

        A VAE's is N(0, I). A VQ-VAE's has all codes equally likely: its samples show what a
        `CodePrior` is for. A class-conditional decoder is given `label`, one for all or (n,), or
        labels that are drawn. Raises ValueError for an AE, which has no p(z).
        """
        n = checked_count(n)
        if not self.net.bottleneck.has_prior:
            raise ValueError(
                f"sample: a model of kind {self.kind} has no p(z) to draw from; net.sample({n})"
                " decodes z ~ N(0, I), which nothing in its loss made its latents look like"
            )
        with evaluating(self.net):
            return self.net.sample(n, self._labels(n, label))

    def tokenizer(self) -> Tokenizer:
        """A frozen copy of the model, whose codes a `CodePrior` can learn.

        Raises ValueError where there are no codes.
        """
        return Tokenizer(copy.deepcopy(self.net))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """What `encode` returns, of a batch x or (x, labels) of `Trainer.predict`."""
        return self.encode(as_batch(batch, batch_idx).x)

    def _labels(self, n: int, label: Any, check_values: bool = True) -> Tensor | None:
        """The labels (n,) for the decoder, None where none are given. Raises ValueError."""
        if label is None:
            return None
        if not self.net.classes:
            raise ValueError(
                "label: got one, but this decoder is given none; wanted none, or a model with"
                " class_conditional=true"
            )
        device = next(self.net.parameters()).device
        return checked_labels(label, n, self.net.classes, device, check_values)

    def _images(self, images: Any, check_values: bool = True) -> Tensor:
        like = next(self.net.parameters())
        return images_of(images, self.net.image_shape, like, check_values)


def checked_count(n: object) -> int:
    """How many samples to draw. Raises ValueError unless it is a whole number of at least 1."""
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n: got {n!r}, wanted a number of samples of at least 1")
    return int(n)
