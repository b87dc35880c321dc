"""Quality against seconds: a VQ-VAE of MNIST by its recipe, by the one before it, and as others
train it.

All have one network, K = 512 and a grid of 7×7, and take turns on one thread.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from experiments.benchmarks.peers import pythae_training, usual_loop
from experiments.benchmarks.racing import Training, draw, race, sooner_row
from experiments.benchmarks.timing import Row, spread
from experiments.benchmarks.training import STEPS, bare_loop, vqvae
from vqvae_lightning.config import Experiment
from vqvae_lightning.data.images import to_float
from vqvae_lightning.experiment import load_experiment

RECIPE = Path(__file__).parents[1] / "mnist/vqvae.yaml"
FIGURE = Path(__file__).parent / "quality.svg"
SEEDS = 3
PEER_SECONDS = 300.0  # that a peer is given, with one seed
IMAGES = 1000  # of validation
OURS, BEFORE, USUAL, PYTHAE = "recipe", "AdamW", "usual loop", "pythae's trainer"
BEFORE_SETTINGS = (  # the recipe of 2026-11-26
    "optimizer.name=adamw",
    "optimizer.lr=2e-3",
    "optimizer.warmup_steps=100",
    "data.batch_size=128",
    "trainer.steps=2400",
    "model.quantizer.decay=0.99",
)
# dB, against whom, and how many times sooner the recipe has to be there.
GOALS = [(25.0, BEFORE, 2.5), (26.0, BEFORE, 2.5), (23.5, USUAL, 10.0), (23.5, PYTHAE, 10.0)]


def quality() -> Iterator[Row]:
    """Seconds to a PSNR: the recipe and the one before with three seeds, the peers with one."""
    seeds = [trainings(seed) for seed in range(SEEDS)]
    draw(seeds, FIGURE, "dB", (14, 28))
    for level, name, goal in GOALS:
        work = f"VQ-VAE of MNIST, one thread, sooner at {level:g} dB"
        yield sooner_row(seeds, OURS, name, level, work, goal)
    early = [level for found in seeds for _, level in found[OURS].curve[200 // STEPS - 1 :][:1]]
    yield spread(early, "… PSNR at step 200", "–", unit="dB", at_least=22.5)


def trainings(seed: int) -> dict[str, Training]:
    """Every training of a seed, done."""
    data, module = vqvae(experiment(seed))
    images = to_float(data.splits["val"].first(IMAGES))
    found = [ours(OURS, images, seed), ours(BEFORE, images, seed, *BEFORE_SETTINGS)]
    if seed == 0:
        train = data.splits["train"]
        x, labels = train.first(len(train)), train.labels
        for name, peer in (
            (USUAL, usual_loop(module.net, x, labels, STEPS, flip=False)),
            (PYTHAE, pythae_training(module.net, x, labels)),
        ):
            level = partial(psnr, peer.reconstruct, images)
            found.append(Training(name, peer.run, level, limit=PEER_SECONDS))
    return race(found)


def experiment(seed: int, *settings: str) -> Experiment:
    """The recipe, or another by its settings."""
    runs = tempfile.mkdtemp(prefix="bench-")
    return load_experiment(RECIPE, [f"runs={runs}", f"seed={seed}", *settings])


def ours(name: str, images: Tensor, seed: int, *settings: str) -> Training:
    """A recipe to its end as a bare loop: no Lightning, no logging."""
    recipe = experiment(seed, *settings)
    data, module = vqvae(recipe)
    net, steps = module.net, recipe.trainer.steps
    run = bare_loop(module, data, steps)

    def reconstruct(x: Tensor) -> Tensor:
        found: Tensor = net.eval()(x).reconstruction
        net.train()
        return found

    return Training(name, run, partial(psnr, reconstruct, images), turns=steps // STEPS)


@torch.inference_mode()
def psnr(reconstruct: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """The PSNR of reconstructed images (N, 1, 28, 28) in [-1, 1]."""
    mse = ((reconstruct(images).clamp(-1, 1) - images) / 2).square().mean()
    return -10 * math.log10(mse)
