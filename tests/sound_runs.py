"""Tiny runs of the recipes of fsdd, on generated recordings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fake_sounds
import pytest
import small
from extending.walked import SMALL

from vqvae_lightning import cli
from vqvae_lightning.config import merge_overrides
from vqvae_lightning.signals.mel import LogMel
from vqvae_lightning.training.runs import Run

ROOT = Path(__file__).parents[1] / "experiments" / "fsdd"
CODES = [
    *small.NETWORK,
    "model.latent_dim=8",
    "model.quantizer.codebook_size=16",
    "model.groups=2",
]
NETWORK = {  # by recipe
    **{kind: [*small.NETWORK, "model.latent_dim=4"] for kind in ("ae", "vae")},
    "vqvae": CODES,
    "vqvae_speaker": CODES,
    "prior": small.KINDS["prior"],
    "vocoder": ["model.width=8", "model.hidden=8", "model.blocks=1"],
}


@contextmanager
def workplace(root: Path) -> Iterator[None]:
    """Generated recordings in root/data, and a Griffin-Lim that takes no time."""
    with fake_sounds.installed(root / "data"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(LogMel, "iterations", 1)
        yield


def train(root: Path, recipe: str, name: str, *settings: str) -> Run:
    """The run root/runs/name of a recipe; a prior learns the codes of the run `vqvae`."""
    words = [*SMALL, *NETWORK[recipe], f"data.root={root / 'data'}", f"runs={root / 'runs'}"]
    words += [f"model.tokenizer={root / 'runs' / 'vqvae'}"] if recipe == "prior" else []
    given = merge_overrides(words, [f"name={name}", *settings])
    cli.main(["train", str(ROOT / f"{recipe}.yaml"), *given])
    return Run.open(root / "runs" / name)
