"""What others do, on the same network: pythae's trainer, and the loop of countless notebooks."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pythae.data.datasets import BaseDataset as PythaeDataset
from pythae.models import VQVAE as PythaeVQVAE
from pythae.models import VQVAEConfig as PythaeConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vqvae_lightning.data.images import to_float
from vqvae_lightning.models.autoencoder import Autoencoder

BATCH = 128


@dataclass(frozen=True)
class Peer:
    """A training of a peer: some steps of it, and what its network makes of images."""

    run: Callable[[], None]
    reconstruct: Callable[[Tensor], Tensor]  # N,C,H,W in [-1, 1], in and out


class SingleImages(Dataset[tuple[Tensor, int]]):
    """The usual Dataset: one image at a time, scaled and flipped by itself."""

    def __init__(self, images: Tensor, labels: Tensor, flip: bool) -> None:
        self.images, self.labels, self.flip = images, labels, flip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        x = self.images[i].float() / 127.5 - 1
        if self.flip and torch.rand(()) < 0.5:
            x = x.flip(-1)
        return x, int(self.labels[i])


class OneHotEMA(nn.Module):
    """The EMA quantizer of the widespread notebooks: full distances, one-hot products, a perplexity
    at every step.
    """

    def __init__(self, k: int, d: int, decay: float = 0.99, commitment: float = 0.25) -> None:
        super().__init__()
        self.k, self.decay, self.commitment = k, decay, commitment
        self.embedding = nn.Embedding(k, d)
        self.embedding.weight.requires_grad_(False)
        self.counts: Tensor
        self.sums: Tensor
        self.register_buffer("counts", torch.zeros(k))
        self.register_buffer("sums", torch.randn(k, d))

    def nearest(self, h: Tensor) -> Tensor:
        """The nearest codes' vectors, of h (N, D, h, w); nothing is learned."""
        flat = h.movedim(1, -1)  # N,h,w,D
        codes = torch.cdist(flat.flatten(0, 2), self.embedding.weight).argmin(1)
        found: Tensor = self.embedding(codes).view_as(flat).movedim(-1, 1)
        return found

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs = h.permute(0, 2, 3, 1).contiguous()  # N,h,w,D
        flat = inputs.view(-1, inputs.shape[-1])
        e = self.embedding.weight
        distances = flat.pow(2).sum(1, keepdim=True) + e.pow(2).sum(1) - 2 * flat @ e.T  # M,K
        codes = distances.argmin(1)[:, None]
        one_hot = torch.zeros(len(flat), self.k).scatter_(1, codes, 1)
        quantized = (one_hot @ e).view_as(inputs)
        with torch.no_grad():
            self.counts.mul_(self.decay).add_(one_hot.sum(0), alpha=1 - self.decay)
            n = self.counts.sum()
            self.counts.copy_((self.counts + 1e-5) / (n + self.k * 1e-5) * n)
            self.sums.mul_(self.decay).add_(one_hot.T @ flat.detach(), alpha=1 - self.decay)
            e.copy_(self.sums / self.counts[:, None])
        loss = self.commitment * F.mse_loss(quantized, inputs)
        share = one_hot.mean(0)
        perplexity = torch.exp(-(share * torch.log(share + 1e-10)).sum())
        return (
            (inputs + (quantized - inputs).detach()).permute(0, 3, 1, 2).contiguous(),
            loss,
            perplexity,
        )


def nchw(module: nn.Module) -> nn.Module:
    """A copy of a module with weights in PyTorch's default layout."""
    copied = copy.deepcopy(module)
    # torch's annotations want a dtype or a device beside a memory format.
    copied.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return copied


def usual_loop(
    net: Autoencoder, images: Tensor, labels: Tensor, steps: int, flip: bool = True
) -> Peer:
    """`steps` steps of the usual loop on copies of a net's encoder and decoder."""
    encoder, decoder = nchw(net.encoder), nchw(net.decoder)
    assert net.bottleneck.codebook_size
    quantizer = OneHotEMA(net.bottleneck.codebook_size, net.bottleneck.in_channels)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    # no workers: theirs would fetch ahead while the other variants are timed; data have rows of
    # their own
    loader = DataLoader(SingleImages(images, labels, flip=flip), BATCH, shuffle=True)

    def endless() -> Iterator[Tensor]:
        while True:
            for x, _ in loader:
                yield x

    batches, losses, perplexities = endless(), [], []

    def run() -> None:
        for _ in range(steps):
            x = next(batches)
            optimizer.zero_grad()
            z, vq_loss, perplexity = quantizer(encoder(x))
            loss = F.mse_loss(decoder(z), x) + vq_loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            perplexities.append(perplexity.item())

    def reconstruct(x: Tensor) -> Tensor:
        decoded: Tensor = decoder(quantizer.nearest(encoder(x)))
        return decoded

    return Peer(run, reconstruct)


# pythae has no types: its classes are Any to mypy.
class _Encoder(BaseEncoder):  # type: ignore[misc]
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> ModelOutput:
        return ModelOutput(embedding=self.module(x))


# pythae has no types, as above.
class _Decoder(BaseDecoder):  # type: ignore[misc]
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.module(z))


def pythae_training(net: Autoencoder, images: Tensor, labels: Tensor, **settings: Any) -> Peer:
    """An epoch of pythae's own model and trainer, with a net's encoder and decoder.

    Images are scaled beforehand, as pythae wants them, and not flipped: it has no place for that.
    `settings` are those of its trainer that are not to be its defaults.
    """
    config = PythaeConfig(
        input_dim=net.image_shape,
        latent_dim=net.bottleneck.in_channels,
        num_embeddings=net.bottleneck.codebook_size,
        use_ema=True,
    )
    model = PythaeVQVAE(config, _Encoder(nchw(net.encoder)), _Decoder(nchw(net.decoder)))
    training = BaseTrainerConfig(output_dir=tempfile.mkdtemp(), no_cuda=True, **settings)
    trainer = BaseTrainer(model, PythaeDataset(to_float(images), labels), training_config=training)
    trainer.prepare_training()
    trainer.callback_handler.callbacks.clear()  # its progress bar writes to the terminal

    def run() -> None:
        trainer.train_step(epoch=1)

    def reconstruct(x: Tensor) -> Tensor:
        found: Tensor = model.eval()(PythaeDataset(x, torch.zeros(len(x)))[:]).recon_x
        return found

    return Peer(run, reconstruct)
