"""The graphs of a model that are exported, with the names, types and shapes of their tensors.

```
images uint8 N,C,H,W ──► encoder ──► codes int64 N,h,w or N,h,w,M;  z float32 N,D,h,w of AE and VAE
codes, or z          ──► decoder ──► images uint8 N,C,H,W
codes N,T; position (); labels N ──► step ──► logits float32 N,K        a prior, whose codes are N,T
```

Pixels are uint8 on both sides, as image files have them: no scale can be mistaken. N is any number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from vqvae_lightning.data.images import to_float, to_uint8
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior
from vqvae_lightning.training.stages import Generates, HasLatents

BATCH = "batch"  # stands in a shape for the number of images, any number


@dataclass(frozen=True)
class Port:
    """An input or an output of a graph."""

    name: str
    dtype: str  # uint8, int64 or float32
    shape: tuple[int | str, ...]  # BATCH is any number
    meaning: str
    below: int | None = None  # of codes, positions and labels: they are in 0 … below − 1


@dataclass(frozen=True)
class Graph:
    """A module to be exported, with its inputs and its output."""

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    output: Port


class ImageEncoder(nn.Module):
    """Images uint8 (N, C, H, W) → codes int64 (N, *shape), or the mean of q(z|x), float32
    (N, D, h, w).

    With `sequences` the codes are (N, T).
    """

    def __init__(self, net: Autoencoder, sequences: bool = False) -> None:
        super().__init__()
        self.net, self.sequences = net, sequences

    def forward(self, images: Tensor) -> Tensor:
        latent = self.net.encode(to_float(images), noise=torch.zeros_like)
        if latent.codes is None:
            return latent.mean
        return latent.codes.flatten(1) if self.sequences else latent.codes

    def shaken_codes(self, images: Tensor, noise: float, generator: torch.Generator) -> Tensor:
        """Codes of features that are moved by `noise` times their own size, at random.

        A code that changes by the rounding of another build was next to another code already.
        """
        h: Tensor = self.net.encoder(to_float(images))
        moved = torch.randn(h.shape, generator=generator) * noise * h.square().mean().sqrt()
        codes: Tensor = self.net.bottleneck(h + moved).codes
        return codes.flatten(1) if self.sequences else codes


class ImageDecoder(nn.Module):
    """The output of an `ImageEncoder` → the mean image, uint8 (N, C, H, W)."""

    def __init__(self, net: Autoencoder, sequences: bool = False) -> None:
        super().__init__()
        self.net, self.sequences = net, sequences

    def forward(self, latents: Tensor) -> Tensor:
        layout = self.net.layout
        if layout is not None:
            codes = layout.unflatten(latents) if self.sequences else latents
            latents = self.net.bottleneck.codes_to_latents(codes)
        return to_uint8(self.net.decode(latents))


class PriorStep(nn.Module):
    """Logits float32 (N, K) of the code at `position`, int64 (), of codes (N, T) and labels (N,).

    The codes at this position and after it do not change the logits.
    """

    def __init__(self, net: AutoregressivePrior) -> None:
        super().__init__()
        self.net = net

    def forward(self, codes: Tensor, position: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = self.net.logits(codes, labels)  # N,T,K
        return logits.index_select(1, position.reshape(1))[:, 0].float()


def autoencoder_graphs(net: Autoencoder, sequences: bool = False) -> list[Graph]:
    """Encoder and decoder of an autoencoder in evaluation mode."""
    images = Port("images", "uint8", (BATCH, *net.image_shape), "pixels, 0 to 255")
    if layout := net.layout:
        shape = (layout.length,) if sequences else layout.shape
        latents = _whole("codes", (BATCH, *shape), "codes", layout.codebook_size)
    else:
        shape = (net.bottleneck.out_channels, *net.grid)
        latents = Port("z", "float32", (BATCH, *shape), "the latent; of a VAE the mean of q(z|x)")
    return [
        Graph("encoder", ImageEncoder(net, sequences).eval(), (images,), latents),
        Graph("decoder", ImageDecoder(net, sequences).eval(), (latents,), images),
    ]


def step_graph(net: AutoregressivePrior) -> Graph:
    """The step of a prior in evaluation mode: logits of one code, given those before it."""
    size, before = net.codebook_size, "codes, of which those from `position` on are not used"
    inputs = [
        _whole("codes", (BATCH, net.length), before, size),
        _whole("position", (), "the position of the next code", net.length),
    ]
    if net.classes:
        forgotten = f", or {net.classes} for no label" if net.label_dropout else ""
        labels = net.classes + (1 if forgotten else 0)
        inputs.append(_whole("labels", (BATCH,), f"classes{forgotten}", labels))
    logits = Port("logits", "float32", (BATCH, size), "unnormalized log-probabilities of the code")
    return Graph("step", PriorStep(net).eval(), tuple(inputs), logits)


def _whole(name: str, shape: tuple[int | str, ...], meaning: str, below: int) -> Port:
    """A port of whole numbers in 0 … below − 1."""
    return Port(name, "int64", shape, f"{meaning}: 0 to {below - 1}", below)


def graphs_of(module: pl.LightningModule, stage: int) -> list[Graph]:
    """The graphs of a run's module, on the CPU; those of a prior decode with its tokenizer."""
    if stage == 1:
        return autoencoder_graphs(cast(HasLatents, module).net)
    tokenizer = cast(Generates, module).first_stage
    net = cast(AutoregressivePrior, module.net)
    return [*autoencoder_graphs(tokenizer.copied_net(), sequences=True), step_graph(net)]


def example(graph: Graph, batch: int) -> Mapping[str, Tensor]:
    """Inputs of zeros for a batch."""
    return {
        port.name: torch.zeros(sized(port.shape, batch), dtype=getattr(torch, port.dtype))
        for port in graph.inputs
    }


def sized(shape: Sequence[int | str], batch: int) -> list[int]:
    """The shape of a port's tensor for a batch."""
    return [batch if isinstance(side, str) else side for side in shape]
