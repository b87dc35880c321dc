"""Information theory measured on the codes of whole splits: what counting them saves, and how much
splits differ.

Histograms are counts (K,) or, with M codes per grid cell, (M, K), int64 summed over a split: bits
per code are then means over the M. Everything here is in float64 and in bits.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vqvae_lightning.config import EvaluateOptions
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.codebook import codes_picture, usage_picture
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.quantizers.quantizer import histogram
from vqvae_lightning.pictures import write_picture


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


def code_counts(net: Autoencoder, images: ImageDataModule, split: str) -> Tensor:
    """How often a tokenizer uses each code on a whole split, unaugmented; (M, K) int64 on the CPU.

    `CodeDataModule.code_counts` counts stored codes.
    """
    maps, codebook_size = net.bottleneck.maps, int(net.bottleneck.codebook_size or 0)
    counts = torch.zeros(maps, codebook_size, dtype=torch.int64)
    for _, codes in encoded(net, images, split):
        counts += histogram(codes, codebook_size, maps)
    return counts


@torch.inference_mode()
def encoded(
    net: Autoencoder, images: ImageDataModule, split: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images x (N, C, H, W) in [-1, 1] of a whole split and their codes, on the CPU."""
    device = own_device()
    net = net.eval().to(device)
    for batch in images.batches(split, device):
        codes = net.encode(batch.x).codes
        assert codes is not None, type(net.bottleneck)
        yield batch.x.cpu(), codes.cpu()


class Codes(Evaluator):
    """How a tokenizer uses its codes, in bits, and two pictures of it: codes.png and usage.png."""

    def refuses(self, subject: Subject, options: EvaluateOptions) -> str | None:
        return None if subject.kind.is_tokenizer else "it makes no codes"

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        net, images, split = subject.net, subject.images, options.split
        train, held_out = (code_counts(net, images, name) for name in ("train", split))
        folder, pairs = subject.run.images, encoded(net, images, split)
        write_picture(folder / "codes.png", codes_picture(net, held_out, pairs))
        write_picture(folder / "usage.png", usage_picture(held_out, split))
        return code_information(train, held_out, split)


class PriorSavings(Evaluator):
    """What the order of the codes is worth to a prior, in bits per code."""

    def refuses(self, subject: Subject, options: EvaluateOptions) -> str | None:
        return None if subject.kind.stage == 2 else "it is no prior"

    def measure(
        self, subject: Subject, options: EvaluateOptions, known: Mapping[str, float]
    ) -> Mapping[str, float]:
        train, held_out = (subject.codes.code_counts(name) for name in ("train", options.split))
        return prior_savings(train, held_out, known["bits_per_code"])
