"""Finished runs that were never trained: what an evaluation needs, in a second."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_data
import torch

from vqvae_lightning.config import last_words, load_experiment
from vqvae_lightning.data import sources
from vqvae_lightning.storage import write_checkpoint
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.train import build

SMALL_NET = ["model.network.hidden=8", "model.network.residual_hidden=4", "model.network.residual_blocks=1"]
SMALL_KIND = {
    "ae": [*SMALL_NET, "model.latent_dim=4"],
    "vae": [*SMALL_NET, "model.latent_dim=4"],
    "vqvae": [*SMALL_NET, "model.codebook_size=16", "model.latent_dim=8"],
    "prior": ["model.layers=1", "model.width=16", "model.heads=2"],
}


@contextmanager
def workplace(root: Path) -> Iterator[None]:
    """Generated data under root/data in place of MNIST, on one thread; put back afterwards."""
    before, threads = dict(sources.DATASETS), torch.get_num_threads()
    fake_data.install(root / "data")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    sources.DATASETS.update(before)


def make_run(root: Path, kind: str, change: Callable[[Any, Path], None], *more: str) -> Run:
    """A run root/runs/kind whose module `change`(module, root) has had its hands on; `more` are settings."""
    settings = [f"data.root={root / 'data'}", f"runs={root / 'runs'}", "data.batch_size=20", "data.eval_batch_size=30",
                "data.validation_size=40", *SMALL_KIND[kind], f"name={kind}"]  # fmt: skip
    if kind == "prior":
        settings.append(f"model.tokenizer={root / 'runs' / 'vqvae'}")
    file = Path(__file__).parents[1] / "experiments" / "mnist" / f"{kind}.yaml"
    experiment = load_experiment(file, last_words(settings, more))
    module: Any = build(experiment)[1]
    change(module, root)
    run = Run.create(experiment)
    run.best.parent.mkdir()
    write_checkpoint(run.best, {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)})
    run.write(status="finished", finished=run.info["created"])
    return run
