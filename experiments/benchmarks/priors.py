"""The Transformer over codes: training against a bare loop, sampling against no cache and against
Hugging Face's.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from experiments.benchmarks.timing import Row, faster, interleave
from experiments.benchmarks.training import STEPS, Turns, endless, experiment_of, fit
from vqvae_lightning.data.loader import TrainLoader
from vqvae_lightning.data.rows import MemoryRows
from vqvae_lightning.device import own_device
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.masked import MaskedTransformer
from vqvae_lightning.models.priors.sampling import draw
from vqvae_lightning.models.priors.transformer import CodeTransformer
from vqvae_lightning.models.settings import PriorConfig
from vqvae_lightning.training.optimization import clip_gradients, configure_optimizer
from vqvae_lightning.training.prior import CodePrior

K, CLASSES = 512, 10
SIZE: dict[str, Any] = {"layers": 4, "width": 128, "heads": 4}
GPT2 = "GPT-2 of the same size, Hugging Face's generate with its cache"


class RandomCodes(pl.LightningDataModule):
    """Codes without a tokenizer: what a prior costs does not depend on what they say."""

    def __init__(self, batch_size: int, length: int, rows: int = 20_000) -> None:
        super().__init__()
        self.batch_size = batch_size
        codes, labels = (
            torch.randint(K, (rows, length), dtype=torch.int32),
            torch.randint(CLASSES, (rows,)),
        )
        self.rows = MemoryRows(codes, labels)

    def train_dataloader(self) -> TrainLoader:
        world = self.trainer.world_size if self.trainer else 1
        rank = self.trainer.global_rank if self.trainer else 0
        return TrainLoader(self.rows, self.batch_size, 0, rank, world)


def new_prior(length: int) -> CodePrior:
    """The prior of the shipped CIFAR-10 experiment, for `length` codes."""
    tokenizer = {
        "codebook_size": K,
        "grid": [1, length],
        "fingerprint": "none",
        "run": "none",
        "dims": 3072,
    }
    network = CodeTransformer.Config(**SIZE, dropout=0.0)
    return CodePrior(PriorConfig(network=network), tokenizer, CLASSES)


def prior_training() -> Iterator[Row]:
    """Steps of 64 sequences of 64 codes."""
    experiment = experiment_of("cifar10/prior.yaml")
    module, bare = new_prior(64), new_prior(64)
    turns = Turns(
        {"bare loop": prior_loop(bare, RandomCodes(64, 64).train_dataloader())}, rounds=16
    )
    fit(experiment, module, RandomCodes(64, 64), turns)
    yield faster(
        turns.times,
        "prior training step, T=64, batch 64",
        "bare loop",
        0.97,
        "a bare loop on the same module",
    )


def prior_loop(
    module: CodePrior, loader: TrainLoader, planned: int = 100_000, steps: int = STEPS
) -> Callable[[], None]:
    """Trains `steps` steps at each call, by a schedule of `planned`: no Lightning, no logging."""
    net, scheduled = module.net, configure_optimizer(module.net, module.optimizer_config, planned)
    optimizer, schedule = scheduled["optimizer"], scheduled["lr_scheduler"]["scheduler"]
    batches = endless(loader)

    def run() -> None:
        net.train()
        for _ in range(steps):
            batch = next(batches)
            loss = net.nll(batch.x.long(), batch.labels).mean()
            optimizer.zero_grad()
            loss.backward()
            clip_gradients(net, module.optimizer_config.clip)
            optimizer.step()
            schedule.step()

    return run


def sampling() -> Iterator[Row]:
    """Sequences drawn whole: 4 layers of 128, K = 512."""
    for length, batch in ((49, 1), (49, 64), (49, 512), (64, 1), (64, 64), (64, 512), (1024, 8)):
        layout, config = CodeLayout((1, length), K), CodeTransformer.Config(**SIZE)
        prior = CodeTransformer(layout, CLASSES, config).eval()
        labels = torch.arange(batch) % CLASSES
        variants: dict[str, Callable[[], Any]] = {
            "ours": partial(prior.generate, len(labels), labels),
            "GPT-2": partial(hugging_face(length), labels),
        }
        if length == 64:
            variants["no cache"] = partial(without_cache, prior, labels)
            variants["products"] = partial(products_alone, prior, batch)
        times = interleave(variants, rounds=9, seconds=12)
        work = f"prior sampling, T={length}, batch {batch}"
        rate = {"images/s": batch / sorted(times["ours"])[len(times["ours"]) // 2]}
        row = faster(times, work, "GPT-2", 4, GPT2)
        row.detail.update(rate)
        yield row
        if length == 64:
            yield faster(times, work, "no cache", 5, "the same Transformer without a cache")
            goal = 0.5 if batch == 512 else None
            yield faster(times, work, "products", goal, "the products of its linear layers alone")


def gpu_sampling() -> Iterator[Row]:
    """64 images of 64 codes on a GPU: by a masked prior, by the Transformer, by Hugging Face's."""
    layout, device = CodeLayout((8, 8), K), own_device()
    labels = torch.arange(64 if device.type == "cuda" else 4, device=device) % CLASSES
    networks = {
        "masked": MaskedTransformer(layout, CLASSES, MaskedTransformer.Config(**SIZE)),
        "Transformer": CodeTransformer(layout, CLASSES, CodeTransformer.Config(**SIZE)),
    }
    draws: dict[str, Callable[[Tensor], Tensor]] = {
        name: partial(net.eval().to(device).generate, len(labels)) for name, net in networks.items()
    }
    draws["GPT-2"] = hugging_face(layout.length, device.type)
    variants = {name: partial(finished, drawn, labels) for name, drawn in draws.items()}
    times = interleave(variants, rounds=10)
    masked, coded = ({**times, "ours": times[name]} for name in networks)
    size = f"T={layout.length}, batch {len(labels)}"
    work = f"masked prior, 8 passes, {size}"
    yield faster(masked, work, "Transformer", 5, "the Transformer of the same size, code by code")
    yield faster(masked, work, "GPT-2", 10, GPT2)
    yield faster(coded, f"prior sampling, {size}", "GPT-2", 4, GPT2)


def finished(draws: Callable[[Tensor], Tensor], labels: Tensor) -> Tensor:
    """What it draws for the labels, on the CPU: all kernels are done."""
    return draws(labels).cpu()


def hugging_face(length: int, device: str = "cpu") -> Callable[[Tensor], Tensor]:
    """`generate` of a GPT-2 as large as the prior, whose first token is the label."""
    config = GPT2Config(
        vocab_size=K + CLASSES,
        n_positions=length + 1,
        n_embd=SIZE["width"],
        n_layer=SIZE["layers"],
        n_head=SIZE["heads"],
        bos_token_id=None,
        eos_token_id=None,
    )
    model: Any = GPT2LMHeadModel(config)  # transformers has no types for eval
    model.to(device).eval()

    @torch.inference_mode()
    def generate(labels: Tensor) -> Tensor:
        start = K + labels[:, None]
        codes: Tensor = model.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            top_k=0,
            max_new_tokens=length,
            min_new_tokens=length,
            use_cache=True,
            pad_token_id=0,
        )
        return codes

    return generate


@torch.inference_mode()
def products_alone(prior: CodeTransformer, batch: int) -> None:
    """What sampling cannot do without: each linear layer at each position."""
    layers = [layer for layer in prior.modules() if isinstance(layer, nn.Linear)]
    inputs = [torch.zeros(batch, layer.in_features) for layer in layers]
    for _ in range(prior.length):
        for layer, x in zip(layers, inputs, strict=True):
            layer(x)


@torch.inference_mode()
def without_cache(prior: CodeTransformer, labels: Tensor) -> Tensor:
    """Sampling as nanoGPT does: everything before is computed again at each position."""
    # the last column is a place, and is not read
    codes = torch.zeros(len(labels), 1, dtype=torch.int64)
    for _ in range(prior.length):
        codes[:, -1] = draw(prior.logits(codes, labels)[:, -1], 1.0, None, None, None)
        codes = torch.cat([codes, codes.new_zeros(len(labels), 1)], dim=1)
    return codes[:, :-1]
