"""Nats and bits: units of the ledger, what counting codes saves, and how much splits differ.

Histograms are counts (K,) or, with M codes per position, (M, K), int64 summed over a split: bits
per code are then means over the M. What is computed from histograms is float64 and in bits.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def bits(nats: Number) -> Number:
    """Nats as bits."""
    return nats / math.log(2)


def bits_per_dim(nats: Number, dims: int) -> Number:
    """Nats per image as bits for each of its C·H·W values."""
    return nats / (dims * math.log(2))


def code_rate(rate: Number, length: int) -> dict[str, Number]:
    """The rate of T = `length` codes, in nats per image, in the units people read.

    `loss` is in nats per code.
    """
    per_code = rate / length
    return {"loss": per_code, "rate": rate, "bits_per_code": bits(per_code)}


def entropy_ratio(bits_per_code: Number, code_entropy_bits: Number) -> dict[str, Number]:
    """What a prior's cross-entropy leaves of the entropy of the codes' histogram.

    1 is no better than counting. Without an entropy there is no ratio: a tokenizer may have
    collapsed to one code.
    """
    if code_entropy_bits > 0:
        return {"entropy_ratio": bits_per_code / code_entropy_bits}
    return {}


def saved_vs_uniform(bits_per_code: float, codebook_size: int) -> float:
    """Bits per code that a prior saves where all K codes are taken to be equally likely."""
    return math.log2(codebook_size) - bits_per_code


def smoothed(counts: Tensor) -> Tensor:
    """Shares (…, K) float64 of a histogram, add-one (Laplace) smoothed: (n_k + 1) / (n + K).

    A code that the histogram has never seen gets a share above 0, so that its cost in bits is
    finite.
    """
    return (counts.double() + 1) / (counts.sum(-1, keepdim=True) + counts.shape[-1])


def cross_entropy_bits(counts: Tensor, shares: Tensor) -> float:
    """Bits per code of a histogram (…, K) under the code lengths −log2 of `shares` (…, K).

    At least the histogram's entropy, with equality where `shares` are its own (Gibbs' inequality;
    Cover & Thomas 2006, theorem 5.4.3). Infinite for a code that occurs and has share 0.
    """
    share = counts.double() / counts.sum(-1, keepdim=True)
    nats: float = -torch.special.xlogy(share, shares.double()).sum(-1).mean().item()
    return nats / math.log(2)


def kl_bits(p: Tensor, q: Tensor) -> float:
    """KL(p ‖ q) of two distributions (…, K), in bits; never negative, infinite where q is 0 and p
    is not.
    """
    p, q = p.double(), q.double()
    divergence = (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1).mean()
    # Rounding may leave −1e-17. Python's max would also make 0 of NaN.
    nats: float = divergence.clamp_min(0).item()
    return nats / math.log(2)


def code_information(train: Tensor, held_out: Tensor, split: str) -> dict[str, float]:
    """Measures in bits of a tokenizer, from histograms (…, K) of its codes.

    Args:
        train: counts on the train split.
        held_out: counts on `split`.
        split: the name of the held-out split, which stands in the measures' names.

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
    """What a prior saves, in bits per code, by what it knows of the codes' order.

    Args:
        train: counts (…, K) of codes on the train split.
        held_out: counts (…, K) on the split that the prior was measured on.
        bits_per_code: what the held-out codes cost under the prior.

    - `saved_vs_uniform_bits`: log2 K − bits_per_code;
    - `saved_vs_unigram_bits`: unigram_bits_per_code − bits_per_code, what it learned beyond
      counting. A class-conditional prior is told the label: up to its entropy per image may be the
      label's.
    """
    unigram = cross_entropy_bits(held_out, smoothed(train))
    return {
        "unigram_bits_per_code": unigram,
        "saved_vs_uniform_bits": saved_vs_uniform(bits_per_code, held_out.shape[-1]),
        "saved_vs_unigram_bits": unigram - bits_per_code,
    }
