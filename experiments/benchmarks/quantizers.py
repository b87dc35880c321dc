"""The quantizer alone, with all that a training step asks of it, against lucidrains' and the matrix
product.
"""

from collections.abc import Iterator
from functools import partial

import torch
from vector_quantize_pytorch import VectorQuantize

from experiments.benchmarks.timing import Row, as_glibc_comes, cost, faster, interleave
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer, VectorQuantizer

SAME_ALLOCATOR = "vector-quantize-pytorch that keeps freed memory too"
SIZES = {  # N, K, D → how many times faster than the peer, how many times the product z·eᵀ
    (8192, 512, 64): (8.0, 2.0),
    (8192, 8192, 64): (6.0, 1.3),
    (8192, 1024, 256): (6.0, 1.3),
}


def quantizers() -> Iterator[Row]:
    """Forward in training with everything that the step costs: statistics, moving averages,
    resets.
    """
    for (n, k, d), (times_faster, times_gemm) in SIZES.items():
        h = features(n, d)
        rows = h.detach().movedim(1, -1).reshape(n, d)
        codebook, product = torch.randn(k, d), torch.empty(n, k)
        ours = EMAVectorQuantizer(k, d, commitment=0.25, decay=0.99, reset_below=0.1)
        # straight-through, as ours: the rotation trick would cost the peer more
        peer = VectorQuantize(
            d, codebook_size=k, decay=0.99, commitment_weight=0.25, rotation_trick=False
        )

        def step(ours: EMAVectorQuantizer = ours, h: torch.Tensor = h) -> None:
            ours(h)
            ours.update()

        # N,T,D: as the peer likes it
        peers_h = h.detach().flatten(2).movedim(1, -1).contiguous().requires_grad_()
        times = interleave(
            {
                "ours": step,
                "vector-quantize-pytorch": as_glibc_comes(partial(peer, peers_h)),
                SAME_ALLOCATOR: partial(peer, peers_h),
                "GEMM": partial(torch.mm, rows, codebook.T, out=product),
            },
            rounds=21,
            seconds=25,
        )
        work = f"EMA quantizer, N={n}, K={k}, D={d}"
        yield faster(times, work, "vector-quantize-pytorch", times_faster)
        yield faster(times, work, SAME_ALLOCATOR)
        yield cost(times, work, "GEMM", times_gemm, label="the GEMM alone")


def gradient_quantizer() -> Iterator[Row]:
    """Forward and one backward of the codebook that learns by gradient."""
    n, k, d = next(iter(SIZES))
    h, ours = features(n, d), VectorQuantizer(k, d, commitment=0.25, decay=0.99, reset_below=0.1)
    peer = VectorQuantize(
        d,
        codebook_size=k,
        commitment_weight=0.25,
        rotation_trick=False,
        learnable_codebook=True,
        ema_update=False,
    )
    peers_h = h.detach().flatten(2).movedim(1, -1).contiguous().requires_grad_()  # N,T,D

    def step() -> None:
        latent = ours(h)
        (latent.penalty + latent.z.mean()).backward()
        ours.update()

    def peers_step() -> None:
        z, _, penalty = peer(peers_h)
        (penalty.sum() + z.mean()).backward()

    times = interleave(
        {
            "ours": step,
            "vector-quantize-pytorch": as_glibc_comes(peers_step),
            SAME_ALLOCATOR: peers_step,
        }
    )
    work = f"gradient quantizer, forward and backward, N={n}, K={k}, D={d}"
    yield faster(times, work, "vector-quantize-pytorch", 3)
    yield faster(times, work, SAME_ALLOCATOR)


def features(n: int, d: int) -> torch.Tensor:
    """Encoder output of n positions, (n/64, d, 8, 8) in channels_last, as an encoder gives it."""
    h = torch.randn(n // 64, d, 8, 8).contiguous(memory_format=torch.channels_last)
    return h.requires_grad_()
