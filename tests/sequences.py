"""Short sequences of codes, all of them, and what a sampler of them should draw."""

import itertools

import torch


def some_codes(model, n=3):
    return torch.randint(model.codebook_size, (n, model.length))


def some_labels(model, n=3):
    return torch.arange(n) % model.classes if model.classes else None


def all_sequences(k, length):
    return torch.tensor(list(itertools.product(range(k), repeat=length)))


def with_label(model, label, n):
    return torch.full((n,), label) if model.classes else None


def chi_square_p(observed, expected):
    """P(a larger statistic) of Pearson's test, with the cells of expectation below 5 merged into
    one.
    """
    small = expected < 5
    observed, expected = (
        torch.cat([x[~small], x[small].sum()[None]]) for x in (observed, expected)
    )
    kept = expected > 0
    statistic = ((observed - expected).square()[kept] / expected[kept]).sum()
    return torch.special.gammaincc((kept.sum() - 1) / 2, statistic / 2)


def filtered(logits, temperature=1.0, top_k=None, top_p=None):
    """What a sampler with these settings should draw from, row by row and code by code."""
    result = torch.zeros_like(logits)
    for row, out in zip(logits, result, strict=True):
        p = (row / temperature).softmax(-1)
        order = sorted(range(len(p)), key=lambda i: (-p[i].item(), i))
        if top_k is not None:
            order = order[:top_k]
        if top_p is not None:
            mass = p[order] / p[order].sum()
            order = [code for i, code in enumerate(order) if mass[:i].sum() < top_p]
        out[order] = p[order] / p[order].sum()
    return result


def counts(codes, k):
    """How often each of `all_sequences` is among codes (N, T)."""
    length = codes.shape[1]
    place = (codes * k ** torch.arange(length - 1, -1, -1)).sum(1)
    return torch.bincount(place, minlength=k**length).double()
