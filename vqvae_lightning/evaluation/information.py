"""How often each code occurs in a whole split."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.models.distributed import own_device
from vqvae_lightning.models.quantizers.quantizer import histogram


def code_counts(module: Any, data: Any, split: str) -> Tensor:
    """How often each code occurs in a whole split, (M, K) int64 on the CPU.

    Of a prior (`data` is a CodeDataModule) the stored codes are counted; with `data.flip`, its
    train codes are also those of mirrored images. With a tokenizer (`data` is an ImageDataModule)
    the split is encoded, unaugmented.
    """
    if module.kind == "prior":
        return data.code_counts(split)
    maps, codebook_size = module.net.bottleneck.maps, module.net.bottleneck.codebook_size
    counts = torch.zeros(maps, codebook_size, dtype=torch.int64)
    for _, codes in encoded(module, data, split):
        counts += histogram(codes, codebook_size, maps)
    return counts


@torch.inference_mode()
def encoded(module: Any, data: ImageDataModule, split: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The images x (N, C, H, W) in [-1, 1] of a whole split and their codes under a tokenizer, on
    the CPU.
    """
    device = own_device()
    net = module.net.eval().to(device)
    for batch in data.batches(split, device):
        yield batch.x.cpu(), net.encode(batch.x).codes.cpu()
