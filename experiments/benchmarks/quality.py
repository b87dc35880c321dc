"""Quality against seconds: a VQ-VAE of MNIST by its recipe, by the one before it, and as others
train it.

All have one network, K = 512 and a grid of 7×7. They take turns on one thread, and the clock is the
processor's time in training alone, so that other work on the machine disturbs all of them alike.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot
from torch import Tensor

from experiments.benchmarks.peers import pythae_training, usual_loop
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
COLOURS = {OURS: "#06c", BEFORE: "#d60", USUAL: "#777", PYTHAE: "#a4a"}


@dataclass
class Training:
    """A network in training, and how good it was after how many seconds."""

    name: str
    run: Callable[[], None]  # a turn: some steps
    reconstruct: Callable[[Tensor], Tensor]  # N,1,28,28 in [-1, 1]
    limit: float = math.inf  # seconds
    turns: float = math.inf
    seconds: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)  # seconds, dB

    def turn(self, images: Tensor) -> None:
        """Trains a turn, then measures the PSNR of reconstructed images (N, 1, 28, 28)."""
        started = time.process_time()
        self.run()
        self.seconds += time.process_time() - started
        self.turns -= 1
        with torch.inference_mode():
            mse = ((self.reconstruct(images).clamp(-1, 1) - images) / 2).square().mean()
        self.curve.append((self.seconds, -10 * math.log10(mse)))

    @property
    def is_over(self) -> bool:
        """Whether it has had all its turns or seconds."""
        return self.turns <= 0 or self.seconds >= self.limit

    def seconds_to(self, level: float, never: float) -> float:
        """Seconds until a level in dB is first reached; `never` if it is not."""
        return next((at for at, psnr in self.curve if psnr >= level), never)


def quality() -> Iterator[Row]:
    """Seconds to a PSNR: the recipe and the one before with three seeds, the peers with one."""
    seeds = [trainings(seed) for seed in range(SEEDS)]
    draw(seeds)
    for level, name, goal in GOALS:
        pairs = [(found[OURS], found[name]) for found in seeds if name in found]
        # Of a rival that never is there all that it had counts, which makes a bound from below.
        rivals = [rival.seconds_to(level, never=rival.seconds) for _, rival in pairs]
        owns = [own.seconds_to(level, never=math.inf) for own, _ in pairs]
        is_bound = any(rival.seconds_to(level, never=math.inf) == math.inf for _, rival in pairs)
        missed = ", which ends before it is there" if is_bound else ""
        yield spread(
            [rival / own for own, rival in zip(owns, rivals, strict=True)],
            f"VQ-VAE of MNIST, one thread, sooner at {level:g} dB",
            f"{name}{missed}; seeds: {len(pairs)}",
            at_least=goal,
            detail={f"{one.name}, s": one.seconds_to(level, one.seconds) for one in pairs[0]},
        )
    early = [psnr for found in seeds for _, psnr in found[OURS].curve[200 // STEPS - 1 :][:1]]
    yield spread(early, "… PSNR at step 200", "–", unit="dB", at_least=22.5)


def trainings(seed: int) -> dict[str, Training]:
    """Every training of a seed, done."""
    found = [ours(OURS, seed), ours(BEFORE, seed, *BEFORE_SETTINGS)]
    data, module = vqvae(experiment(seed))
    if seed == 0:
        train = data.splits["train"]
        x, labels = train.first(len(train)), train.labels
        for name, peer in (
            (USUAL, usual_loop(module.net, x, labels, STEPS, flip=False)),
            (PYTHAE, pythae_training(module.net, x, labels)),
        ):
            found.append(Training(name, peer.run, peer.reconstruct, limit=PEER_SECONDS))
    images = to_float(data.splits["val"].first(IMAGES))
    while active := [one for one in found if not one.is_over]:
        # Who has had least goes on, so that all of them see the same machine.
        min(active, key=lambda one: one.seconds).turn(images)
    return {one.name: one for one in found}


def experiment(seed: int, *settings: str) -> Experiment:
    """The recipe, or another by its settings."""
    runs = tempfile.mkdtemp(prefix="bench-")
    return load_experiment(RECIPE, [f"runs={runs}", f"seed={seed}", *settings])


def ours(name: str, seed: int, *settings: str) -> Training:
    """A recipe to its end as a bare loop: no Lightning, no logging."""
    recipe = experiment(seed, *settings)
    data, module = vqvae(recipe)
    net, steps = module.net, recipe.trainer.steps
    run = bare_loop(module, data, steps)

    def reconstruct(x: Tensor) -> Tensor:
        found: Tensor = net.eval()(x).reconstruction
        net.train()
        return found

    return Training(name, run, reconstruct, turns=steps // STEPS)


def draw(seeds: Sequence[dict[str, Training]]) -> None:
    """PSNR against seconds, a line per training, as an SVG."""
    mpl.use("svg")
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for found in seeds:
        for name, one in found.items():
            label = name if found is seeds[0] else None
            axes.plot(*zip(*one.curve, strict=True), color=COLOURS[name], label=label, linewidth=1)
    axes.set(xscale="log", ylim=(14, 28), xlabel="seconds of one thread in training", ylabel="dB")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(FIGURE, metadata={"Date": None})
