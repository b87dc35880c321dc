"""The same questions on a GPU: first whether it computes right, then how fast.

Without one, all of it at toy size.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.timing import Row, spread
from vqvae_lightning.config import OptimizerConfig
from vqvae_lightning.data.images import to_float
from vqvae_lightning.device import own_device
from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.transformer import CodeTransformer
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer
from vqvae_lightning.models.quantizers.nearest import nearest_code
from vqvae_lightning.models.settings import VQVAEConfig
from vqvae_lightning.models.trunks.conv import ConvTrunk
from vqvae_lightning.training.optimization import configure_optimizer

K, GRID, CLASSES = 512, (8, 8), 10
LAYOUT = CodeLayout(GRID, K)
T = GRID[0] * GRID[1]
IMAGE_FLOP = 260e6  # of a training step of the Sonnet network
PEAK = 790e12  # FLOP/s that an H200 was seen to reach in bf16 on large products of random matrices


@dataclass(frozen=True)
class Size:
    """How much work there is."""

    batch: int
    images: int  # of the data on the device
    sequences: int  # drawn at once
    training_sequences: int
    rounds: int
    steps: int  # of a round
    trunk: ConvTrunk.Config


def size() -> Size:
    if own_device().type == "cuda":
        return Size(4096, 50_000, 4096, 1024, 10, 20, ConvTrunk.Config())
    return Size(8, 64, 4, 4, 2, 2, ConvTrunk.Config(hidden=8, residual_hidden=4, residual_blocks=1))


def gpu_correctness() -> Iterator[Row]:
    """Quantizer, moving averages and cache in float32, and under bf16 autocast, against float64 on
    the CPU.
    """
    device = own_device()
    torch.manual_seed(0)
    rows, codebook = torch.randn(8192, 64) + 100, torch.randn(K, 64) + 100
    distances = torch.cdist(rows.double(), codebook.double())
    codes = nearest_code(rows.to(device), codebook.to(device)).cpu()
    excess = distances.gather(1, codes[:, None])[:, 0] / distances.min(1).values - 1
    yield _error(
        "nearest code, offset 100, float32", "float64: largest excess distance", excess.max(), 1e-4
    )

    h = torch.randn(64, 16, 8, 8)
    for precision in (torch.float32, torch.bfloat16):
        slow, fast = ema(h.double()), ema(h.to(device), precision)
        yield _error(
            f"EMA codebook after 3 steps, {precision}",
            "float64 on the CPU",
            (slow - fast).abs().max(),
            1e-4,
        )

    config = CodeTransformer.Config(layers=4, width=128, heads=4, dropout=0.0)
    prior = CodeTransformer(LAYOUT, CLASSES, config).eval().to(device)
    codes, labels = (
        torch.randint(K, (8, T), device=device),
        torch.arange(8, device=device) % CLASSES,
    )
    for precision, most in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16),
        ):
            cached = torch.stack(list(_steps(prior, codes, labels)), 1).double().cpu()
        with torch.inference_mode():
            exact = _float64_logits(prior, config, codes, labels)
        yield _error(
            f"cached logits, {precision}",
            "float64 without a cache",
            (cached - exact).abs().max(),
            most,
        )


def ema(h: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """The codebook after three training steps on h from a fixed start, in float64 on the CPU."""
    module = EMAVectorQuantizer(K, h.shape[1], 0.25, 0.99, reset_below=0.0).to(h.device)
    module.codebook.copy_(torch.randn(K, h.shape[1], generator=torch.Generator().manual_seed(1)))
    module.sums.copy_(module.codebook)
    module.initialized.fill_(True)
    module.to(h.dtype)
    for _ in range(3):
        with torch.autocast(h.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            module(h)
        module.update()
    return module.codebook.double().cpu()


def _steps(prior: CodeTransformer, codes: Tensor, labels: Tensor) -> Iterator[Tensor]:
    cache, previous = prior.new_cache(len(codes)), None
    for t in range(prior.length):
        yield prior.next_logits(previous, labels, len(codes), cache)
        previous = codes[:, t]


def _float64_logits(
    prior: CodeTransformer, config: CodeTransformer.Config, codes: Tensor, labels: Tensor
) -> Tensor:
    exact = CodeTransformer(LAYOUT, CLASSES, config).eval().double()
    exact.load_state_dict(prior.state_dict())
    return exact.logits(codes.cpu(), labels.cpu())


def _error(work: str, against: str, error: Tensor, most: float) -> Row:
    value = float(error)
    return Row(work, against, value, value, value, unit="error", at_most=most)


def gpu_speed() -> Iterator[Row]:
    """VQ-VAE training in bf16 with what helps, one at a time; prior training; sampling."""
    torch.set_float32_matmul_precision("high")
    yield vqvae_training(compiled=False)
    rates, busy = measure(prior_step(), size().training_sequences * T)
    yield spread(
        rates, "prior training, bf16", "tokens/s", unit="tokens/s", detail={"GPU busy": busy}
    )
    prior = CodeTransformer(LAYOUT, CLASSES, CodeTransformer.Config()).eval().to(own_device())
    labels = torch.arange(size().sequences, device=own_device()) % CLASSES
    rates, busy = measure(lambda: prior.generate(len(labels), labels), len(labels), steps=1)
    yield spread(
        rates,
        f"prior sampling, T={T}, batch {len(labels)}",
        "images/s",
        unit="images/s",
        at_least=10_000,
        detail={"GPU busy": busy},
    )
    yield vqvae_training(compiled=True)  # last: without a compiler it fails


def vqvae_training(compiled: bool) -> Row:
    rates, busy = measure(vqvae_step(compiled), size().batch)
    return spread(
        rates,
        f"VQ-VAE training, bf16, {'compiled' if compiled else 'eager'}, batch {size().batch}",
        "images/s",
        unit="images/s",
        at_least=100_000 if compiled else None,
        detail={"share of bf16 peak": max(rates) * IMAGE_FLOP / PEAK, "GPU busy": busy},
    )


def vqvae_step(compiled: bool) -> Callable[[], Any]:
    """One training step on images that live on the device, as uint8."""
    device = own_device()
    net = build_autoencoder(VQVAEConfig(trunk=size().trunk), (3, 32, 32)).to(device).train()
    optimizer = configure_optimizer(net, OptimizerConfig(), 10**6)["optimizer"]
    images = torch.randint(256, (size().images, 3, 32, 32), dtype=torch.uint8, device=device)
    if compiled:  # the networks: the quantizer's lists and its k-means start are no graph
        net.encoder.compile()
        net.decoder.compile()

    def step() -> None:
        x = to_float(images[torch.randint(len(images), (size().batch,), device=device)])
        with torch.autocast(device.type, torch.bfloat16):
            loss = net(x).loss
        optimizer.zero_grad()
        loss.backward()
        net.bottleneck.update()
        optimizer.step()

    return step


def prior_step() -> Callable[[], Any]:
    """One training step of the prior on random codes."""
    device = own_device()
    net = CodeTransformer(LAYOUT, CLASSES, CodeTransformer.Config(dropout=0.0)).to(device).train()
    optimizer = configure_optimizer(net, OptimizerConfig(), 10**6)["optimizer"]
    codes = torch.randint(K, (size().training_sequences, T), device=device)
    labels = torch.arange(len(codes), device=device) % CLASSES

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = net.nll(codes, labels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(
    step: Callable[[], Any], items: int, steps: int | None = None
) -> tuple[list[float], float]:
    """Items per second of each round, and the share of time in which a kernel ran (0 without a
    GPU).
    """
    steps = steps or size().steps
    for _ in range(3):
        step()
    rates = []
    for _ in range(size().rounds):
        _wait()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        _wait()
        rates.append(steps * items / (time.perf_counter() - started))
    return rates, busy_share(step)


def busy_share(step: Callable[[], Any]) -> float:
    """Time in kernels over the time that three steps take under the profiler."""
    if own_device().type != "cuda":
        return 0.0
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        started = time.perf_counter()
        for _ in range(3):
            step()
        _wait()
        seconds = time.perf_counter() - started
    # An operation counts the time of its kernels, too: those alone are of the device's type.
    kernels = (event for event in profile.events() if event.device_type.name == "CUDA")
    busy: float = sum(event.device_time_total for event in kernels)
    return busy / 1e6 / seconds


def _wait() -> None:
    if own_device().type == "cuda":
        torch.cuda.synchronize()
