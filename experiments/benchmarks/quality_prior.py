"""Bits per code against seconds: the prior of MNIST by its recipe, and by the one before it.

Both learn the codes of one tokenizer, the recipe's, on one thread in turns. Their networks have as
many weights.
"""

from collections.abc import Iterator
from math import log
from pathlib import Path
from typing import cast

import torch

from experiments.benchmarks.priors import prior_loop
from experiments.benchmarks.quality import BEFORE, OURS, experiment
from experiments.benchmarks.racing import Training, draw, race, sooner_row
from experiments.benchmarks.timing import Row
from experiments.benchmarks.training import STEPS, bare_loop, vqvae
from vqvae_lightning.data.loader import TrainLoader
from vqvae_lightning.data.rows import MemoryRows
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.models.settings import PriorConfig
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.training.prior import CodePrior

RECIPE = Path(__file__).parents[1] / "mnist/prior.yaml"
FIGURE = Path(__file__).parent / "quality_prior.svg"
BEFORE_SETTINGS = (  # the recipe of 2026-11-26
    "data.batch_size=64",
    "model.network.positions=learned",
    "model.network.mlp=gelu",
    "model.network.qk_norm=false",
    "optimizer.name=adamw",
    "optimizer.lr=2e-3",
    "optimizer.warmup_steps=100",
    "trainer.steps=2000",
)
SEEDS = 3
TURN = 50  # steps
IMAGES = 1000  # of validation
GOALS = [(4.0, 2.0), (3.6, 2.0)]  # bits per code, and how many times sooner the recipe is there


def quality_prior() -> Iterator[Row]:
    """Seconds to so many bits per code; a training ends at the fewest."""
    seeds = [trainings(seed) for seed in range(SEEDS)]
    draw(seeds, FIGURE, "bits per code", (3, 7), sign=-1)
    for bits, goal in GOALS:
        work = f"prior of MNIST, one thread, sooner at {bits:g} bits per code"
        yield sooner_row(seeds, OURS, BEFORE, -bits, work, goal)


def trainings(seed: int) -> dict[str, Training]:
    """Both trainings of a seed, done."""
    tokenizer, splits = tokenized(seed)
    return race(
        [
            ours(name, tokenizer, splits, seed, *settings)
            for name, settings in ((OURS, ()), (BEFORE, BEFORE_SETTINGS))
        ]
    )


def tokenized(seed: int) -> tuple[Tokenizer, dict[str, MemoryRows]]:
    """The recipe's tokenizer, trained here, and the codes (N, T) of each split."""
    recipe = experiment(seed)
    data, module = vqvae(recipe)
    run = bare_loop(module, data, recipe.trainer.steps)
    for _ in range(recipe.trainer.steps // STEPS):
        run()
    tokenizer = Tokenizer(module.net)
    splits = {}
    for name in ("train", "val"):
        found = [tokenizer.encode(x.x) for x in data.batches(name, torch.device("cpu"))]
        codes = tokenizer.layout.flatten(torch.cat(found))
        splits[name] = MemoryRows(codes.int(), data.splits[name].labels)
    return tokenizer, splits


def ours(
    name: str, tokenizer: Tokenizer, splits: dict[str, MemoryRows], seed: int, *settings: str
) -> Training:
    """A recipe to its end: no Lightning, no logging."""
    recipe = load_experiment(RECIPE, [f"seed={seed}", *settings])
    torch.manual_seed(seed)
    classes = int(splits["train"].labels.max()) + 1
    module = CodePrior(cast(PriorConfig, recipe.model), tokenizer, classes, recipe.optimizer)
    loader = TrainLoader(splits["train"], recipe.data.batch_size, seed, rank=0, world=1)
    run = prior_loop(module, loader, recipe.trainer.steps, TURN)
    codes, labels = splits["val"].first(IMAGES).long(), splits["val"].labels[:IMAGES]

    @torch.inference_mode()
    def level() -> float:
        nats = module.net.eval().nll(codes, labels).mean()
        return -nats.item() / log(2)

    last = -min(bits for bits, _ in GOALS)
    return Training(name, run, level, turns=recipe.trainer.steps // TURN, enough=last)
