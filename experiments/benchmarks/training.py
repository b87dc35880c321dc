"""Training through the product's own Trainer, with all it logs, against loops on the same
modules.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from experiments.benchmarks.timing import LEAST_ROUNDS, Row, Times, cost, faster, interleave, spread
from vqvae_lightning.config import Experiment
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import Batch, TrainLoader
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.models.quantizers.codebook import CodebookQuantizer
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.training.autoencoders import VQVAE
from vqvae_lightning.training.build import build
from vqvae_lightning.training.optimization import clip_gradients, configure_optimizer
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.trainer import build_trainer, silence_known_warnings

STEPS = 10  # of a turn; metrics are logged once in it
ROUNDS = 12
FLOP_PER_IMAGE = 260e6  # of a training step of the Sonnet network
SIDE = 2048  # of the matrices whose product gives the machine's rate


class Finished(Exception):
    """Every round is done."""


class Turns(Callback):
    """Stops the clock after every STEPS steps of a Trainer and gives the other variants their
    turns.
    """

    def __init__(
        self,
        others: Mapping[str, Callable[[], Any]],
        rounds: int = ROUNDS,
        steps: int = STEPS,
        seconds: float = 150,
    ) -> None:
        self.others, self.rounds, self.steps = others, rounds, steps
        self.end = time.perf_counter() + seconds  # on a busy machine fewer rounds, but LEAST_ROUNDS
        self.times: Times = {name: [] for name in ("ours", *others)}
        self.seen = -steps  # the first turn warms up
        self.started = 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        self.seen += 1
        if self.seen % self.steps:
            return
        now = time.perf_counter()
        if self.seen:
            self.times["ours"].append((now - self.started) / self.steps)
        for name, run in self.others.items():
            started = time.perf_counter()
            run()
            if self.seen:
                self.times[name].append((time.perf_counter() - started) / self.steps)
        done = self.seen // self.steps
        if done == self.rounds or (done >= LEAST_ROUNDS and time.perf_counter() > self.end):
            raise Finished
        self.started = time.perf_counter()


def fit(
    experiment: Experiment,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    turns: Callback,
) -> None:
    """`trainer.fit` with everything that `vqvae train` gives it, until the turns are over."""
    silence_known_warnings()
    trainer = build_trainer(experiment, devices=1, run=Run.create(experiment))
    # Lightning sets it outside of Trainer's own class.
    trainer.callbacks.append(turns)  # type: ignore[attr-defined]
    with contextlib.suppress(Finished):
        trainer.fit(module, datamodule=data)


def experiment_of(file: str, *words: str, steps: int = 100_000) -> Experiment:
    """A shipped experiment, in a folder of its own, that logs once a turn; the turns end it before
    `steps`. Its optimizer is AdamW, as that of those it is compared with.
    """
    runs = tempfile.mkdtemp(prefix="bench-")
    return load_experiment(
        Path(__file__).parents[1] / file,
        [
            f"runs={runs}",
            "optimizer.name=adamw",
            f"trainer.log_every={STEPS}",
            f"trainer.steps={steps}",
            "trainer.validate_every=100000",
            *words,
        ],
    )


def vqvae(experiment: Experiment) -> tuple[ImageDataModule, VQVAE]:
    """Images, in memory, and the module of an experiment."""
    data, module = build(experiment)
    assert isinstance(data, ImageDataModule)
    assert isinstance(module, VQVAE)
    data.setup()
    return data, module


def training() -> Iterator[Row]:
    """A training step of a VQ-VAE with the Sonnet network on CIFAR-10, batch 128."""
    from experiments.benchmarks.peers import BATCH, pythae_training, usual_loop

    experiment = experiment_of("cifar10/vqvae.yaml", f"data.batch_size={BATCH}")
    data, module = vqvae(experiment)
    bare_data, bare = vqvae(experiment)
    train = data.splits["train"]
    x, labels = train.first(len(train)), train.labels
    rows = slice(STEPS * BATCH)  # of a turn of pythae, whose turns are whole epochs
    pythae = {"per_device_train_batch_size": BATCH, "learning_rate": 1e-3, "num_epochs": 1}
    matrix = torch.randn(SIDE, SIDE)
    product = torch.empty(SIDE, SIDE)
    turns = Turns(
        {
            "bare loop": bare_loop(bare, bare_data),
            "pythae": pythae_training(module.net, x[rows], labels[rows], **pythae).run,
            "usual loop": usual_loop(module.net, x, labels, STEPS).run,
            "GEMM": lambda: [torch.mm(matrix, matrix, out=product) for _ in range(STEPS)],
        }
    )
    fit(experiment, module, data, turns)
    work = "VQ-VAE training step, CIFAR-10, batch 128"
    yield faster(
        turns.times, work, "bare loop", 0.97, "a bare loop on the same modules, channels_last"
    )
    yield faster(turns.times, work, "pythae", 1.3, "pythae's trainer on the same network")
    yield faster(
        turns.times, work, "usual loop", 1.3, "NCHW loop, one-hot EMA, Dataset of single images"
    )
    rates = [
        BATCH * FLOP_PER_IMAGE / ours / (2 * SIDE**3 / gemm)
        for ours, gemm in zip(turns.times["ours"], turns.times["GEMM"], strict=True)
    ]
    seconds = sorted(turns.times["ours"])[len(rates) // 2]
    yield spread(
        rates, work, f"the rate of a float32 GEMM of {SIDE}³, at 260 MFLOP an image", at_least=0.65,
        detail={"images/s": BATCH / seconds},
    )  # fmt: skip


def bare_loop(module: VQVAE, data: ImageDataModule, planned: int = 100_000) -> Callable[[], None]:
    """STEPS of the `planned` steps of the same recipe on a module's network: no Lightning, no
    logging.
    """
    net, scheduled = (
        module.net.train(),
        configure_optimizer(module.net, module.optimizer_config, planned),
    )
    optimizer, schedule = scheduled["optimizer"], scheduled["lr_scheduler"]["scheduler"]
    batches = endless(data.train_dataloader())

    def run() -> None:
        for _ in range(STEPS):
            loss = net(data.scale(next(batches), augment=True).x).loss
            optimizer.zero_grad()
            loss.backward()
            clip_gradients(net, module.optimizer_config.clip)
            net.bottleneck.update()
            optimizer.step()
            schedule.step()

    return run


def endless(loader: TrainLoader) -> Iterator[Batch]:
    """Training batches without end."""
    for epoch in range(10**9):
        loader.sampler.set_epoch(epoch)
        yield from loader


def validation() -> Iterator[Row]:
    """Validation of 2,000 CIFAR-10 images with all metrics, through Lightning."""
    data, module = vqvae(experiment_of("cifar10/vqvae.yaml"))
    silence_known_warnings()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_val_batches=4,
        enable_model_summary=False,
    )
    images = [
        batch.x
        for batch, _ in zip(data.batches("val", torch.device("cpu")), range(4), strict=False)
    ]
    quantizer = module.net.bottleneck
    assert isinstance(quantizer, CodebookQuantizer)
    quantizer.initialized.fill_(True)

    @torch.inference_mode()
    def forward() -> None:
        module.eval()
        for x in images:
            module.net(x)

    # a Trainer verifies the files once, not each time: the method is replaced on purpose
    data.prepare_data = lambda: None  # type: ignore[method-assign]
    ours = lambda: trainer.validate(module, datamodule=data, verbose=False)  # noqa: E731
    times = interleave({"ours": ours, "forward": forward}, rounds=11)
    yield cost(
        times,
        "validation with all its metrics, CIFAR-10",
        "forward",
        1.15,
        "its forward passes alone",
    )


def extraction() -> Iterator[Row]:
    """Codes of 2,000 CIFAR-10 images, from the bytes in memory to the codes in memory."""
    data, module = vqvae(experiment_of("cifar10/vqvae.yaml"))
    tokenizer, cpu = Tokenizer(module.net), torch.device("cpu")
    images = [batch.x for batch, _ in zip(data.batches("val", cpu), range(4), strict=False)]

    def ours() -> list[Tensor]:
        batches = zip(data.batches("val", cpu), range(4), strict=False)
        return [tokenizer.encode(batch.x).cpu().int() for batch, _ in batches]

    @torch.inference_mode()
    def forward() -> None:
        for x in images:
            module.net.encoder(x.contiguous(memory_format=torch.channels_last))

    times = interleave({"ours": ours, "encoder": forward}, rounds=15)
    yield cost(times, "code extraction, CIFAR-10", "encoder", 1.1, "the encoder's forward alone")
