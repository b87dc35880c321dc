"""Information theory measured on the codes of whole splits: what counting them saves, and how much
splits differ.

Histograms are counts (K,) or, with M codes per cell, (M, K), int64 summed over a split: bits per
code are then means over the M. Everything here is in float64 and in bits.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.models.distributed import own_device


def smoothed(counts: Tensor) -> Tensor:
    """Shares (…, K) float64 of a histogram, add-one (Laplace) smoothed: (n_k + 1) / (n + K).

    A code that the histogram has never seen gets a share above 0, so that its cost in bits is
    finite.
    """
    return (counts.double() + 1) / (counts.sum(-1, keepdim=True) + counts.shape[-1])


def cross_entropy_bits(counts: Tensor, shares: Tensor) -> float:
    """Bits per code that the codes of a histogram (…, K) cost under the code lengths −log2 of
    `shares` (…, K).

    At least the histogram's entropy, with equality where `shares` are its own (Gibbs' inequality;
    Cover & Thomas 2006, theorem 5.4.3). Infinite for a code that occurs and has share 0.
    """
    share = counts.double() / counts.sum(-1, keepdim=True)
    return -torch.special.xlogy(share, shares.double()).sum(-1).mean().item() / math.log(2)


def kl_bits(p: Tensor, q: Tensor) -> float:
    """KL(p ‖ q) of two distributions (…, K), in bits; never negative, infinite where q is 0 and p
    is not.
    """
    p, q = p.double(), q.double()
    divergence = (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1).mean()
    # Rounding may leave −1e-17. Python's max would also make 0 of NaN.
    return divergence.clamp_min(0).item() / math.log(2)


def code_information(train: Tensor, held_out: Tensor, split: str) -> dict[str, float]:
    """Measures of a tokenizer from the histograms (…, K) of its codes on the train split and on
    `split`, in bits.

    - `unigram_bits_per_code`: cost of a held-out code under the smoothed train histogram, the best
      that a prior can do that knows how often codes occur and nothing of their order;
    - `code_kl_train_<split>_bits` and `code_kl_<split>_train_bits`: KL between the smoothed
      histograms of train and held-out codes: how far the tokenizer's use of its codes drifts
      between splits. Smoothing pulls both towards the uniform distribution, the smaller split more;
      both are therefore above 0 for equal distributions too.
    """
    p, q = smoothed(train), smoothed(held_out)
    return {
        "unigram_bits_per_code": cross_entropy_bits(held_out, p),
        f"code_kl_train_{split}_bits": kl_bits(p, q),
        f"code_kl_{split}_train_bits": kl_bits(q, p),
    }


def prior_savings(train: Tensor, held_out: Tensor, bits_per_code: float) -> dict[str, float]:
    """What a prior's order is worth, in bits per code, given its cost on the held-out codes.

    - `saved_vs_uniform_bits`: log2 K − bits_per_code;
    - `saved_vs_unigram_bits`: unigram_bits_per_code − bits_per_code, what it learned beyond
      counting. A class-conditional prior is told the label: up to its entropy per image may be the
      label's.
    """
    unigram = cross_entropy_bits(held_out, smoothed(train))
    return {
        "unigram_bits_per_code": unigram,
        "saved_vs_uniform_bits": math.log2(held_out.shape[-1]) - bits_per_code,
        "saved_vs_unigram_bits": unigram - bits_per_code,
    }


def code_counts(module: Any, data: Any, split: str) -> Tensor:
    """How often each code occurs in a whole split, (M, K) int64 on the CPU.

    Of a prior (`data` is a CodeDataModule) the stored codes are counted; with `data.flip`, its
    train codes are also those of mirrored images. With a tokenizer (`data` is an ImageDataModule)
    the split is encoded, unaugmented.
    """
    if module.kind == "prior":
        return data.code_counts(split)
    layout = module.net.layout
    counts = torch.zeros(layout.num_codebooks, layout.codebook_size, dtype=torch.int64)
    for _, codes in encoded(module, data, split):
        counts += layout.histogram(codes)
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
