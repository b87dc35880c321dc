"""How a codebook is used over a whole split."""

import math

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vqvae_lightning.models.layout import histogram


class CodebookUsage(Metric):
    """Entropy, perplexity and number of codes used, from counts summed over a whole split.

    With M codes per position, each of the M has its own histogram: entropy and codes used are means
    over the M, and perplexity is exp of that entropy, at most K.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, codebook_size: int, num_codebooks: int = 1) -> None:
        super().__init__()
        counts = torch.zeros(num_codebooks, codebook_size, dtype=torch.int64)  # M,K
        self.add_state("counts", counts, dist_reduce_fx="sum")
        # Those of the last `compute`, over all ranks: `reset` leaves them.
        self.measured: Tensor | None = None

    def update(self, codes: Tensor) -> None:
        """Adds codes (…, M), or of any shape with M = 1, or sequences of them (N, T)."""
        num_codebooks, codebook_size = self.counts.shape
        self.counts += histogram(codes, codebook_size, num_codebooks)

    def compute(self) -> dict[str, Tensor]:
        self.measured = self.counts.clone()
        entropy = code_entropy(self.counts)
        return {
            "perplexity": entropy.exp(),
            "codes_used": (self.counts > 0).sum(1).double().mean(),
            "code_entropy_bits": entropy / math.log(2),
        }


def measured_counts(metrics: nn.Module) -> Tensor | None:
    """The counts (M, K) that a collection's `codebook` computed last; None before that."""
    # A collection does not say what it holds.
    usage: CodebookUsage = metrics["codebook"]  # type: ignore[index]
    return usage.measured


def code_entropy(counts: Tensor) -> Tensor:
    """Entropy of a code in nats, (), of counts (…, K): a mean over histograms, at most log K."""
    share = counts.double() / counts.sum(-1, keepdim=True)  # …,K
    nats: Tensor = -torch.special.xlogy(share, share).sum(-1).mean()
    return nats
