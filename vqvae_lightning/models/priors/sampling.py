"""One code from logits: temperature, top-k, top-p and classifier-free guidance, the same for every
prior.
"""

import torch
from torch import Tensor


def check_sampling(
    codebook_size: int, temperature: float, top_k: int | None, top_p: float | None, guidance: float
) -> None:
    """Raises ValueError unless 0 <= temperature, 1 <= top_k <= K, 0 < top_p <= 1 and 0 <= guidance
    <= 1000.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature: got {temperature}, wanted at least 0")
    if top_k is not None and not 1 <= top_k <= codebook_size:
        raise ValueError(f"top_k: got {top_k}, wanted 1 to {codebook_size}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: got {top_p}, wanted above 0, at most 1")
    # far beyond what makes sense, far below what makes a logit infinite
    if not 0 <= guidance <= 1000:
        raise ValueError(f"guidance: got {guidance}, wanted 0 to 1000")


def check_prefix(prefix: Tensor, n: int, length: int, codebook_size: int) -> None:
    """Raises ValueError unless prefix is int64 (n, t) with t <= T and codes in 0 … K−1."""
    if (
        prefix.dim() != 2
        or prefix.shape[0] != n
        or prefix.shape[1] > length
        or prefix.dtype != torch.int64
    ):
        raise ValueError(
            f"prefix: got {prefix.dtype} of shape {tuple(prefix.shape)}, wanted torch.int64 of"
            f" shape ({n}, t), t at most {length}"
        )
    if prefix.numel() and not 0 <= int(prefix.min()) <= int(prefix.max()) < codebook_size:
        raise ValueError(
            f"prefix: got codes {int(prefix.min())} to {int(prefix.max())}, wanted 0 to"
            f" {codebook_size - 1}"
        )


def guide(logits: Tensor, guidance: float) -> Tensor:
    """Logits (N, K) of log p(z) + guidance · (log p(z | label) − log p(z)), up to a constant per
    row.

    Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, whose w is guidance − 1).
    `logits` (2N, K) are those with the label, then those without it.
    """
    conditional, unconditional = logits.chunk(2)  # N,K each
    return unconditional + guidance * (conditional - unconditional)


def draw(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One code (N,) from each row of logits (N, K), where its cumulative probability passes a
    uniform draw.

    A code of probability 0 is never drawn: nothing passes there. In float64, so that the last code
    is reached.
    """
    if temperature < torch.finfo(logits.dtype).tiny:  # 0, or what a division takes for it
        return logits.argmax(-1)
    # none above 0, so that none becomes infinite
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is not None or top_p is not None:  # to sort costs more than all the rest
        logits = keep_likeliest(logits, top_k, top_p)
    cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)  # N,K
    uniform = torch.rand(
        len(logits), 1, generator=generator, device=logits.device, dtype=torch.float64
    )
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]


def keep_likeliest(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits (N, K) with −inf for all but the k likeliest codes, and all but the fewest that hold
    probability p.
    """
    # ties: the lower index first, exactly k are kept
    order = logits.argsort(dim=-1, descending=True, stable=True)
    ranked = logits.gather(-1, order)
    if top_k is not None:
        ranked[:, top_k:] = -torch.inf
    if top_p is not None:
        probability = ranked.softmax(-1)
        ranked = ranked.masked_fill(probability.cumsum(-1) - probability >= top_p, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, ranked)
