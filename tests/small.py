"""A small model of each kind, and a small training: settings as a command line has them."""

from typing import Any

from vqvae_lightning import kinds
from vqvae_lightning.config import merge_overrides
from vqvae_lightning.experiment import load_experiment

NETWORK = [
    "model.trunk.hidden=8",
    "model.trunk.residual_hidden=4",
    "model.trunk.residual_blocks=1",
]
KINDS = {
    "ae": [*NETWORK, "model.latent_dim=4"],
    "vae": [*NETWORK, "model.latent_dim=4"],
    "vqvae": [*NETWORK, "model.quantizer.codebook_size=16", "model.latent_dim=8"],
    "ae_flow": ["model.network.layers=1", "model.network.width=16"],
    "vae_flow": ["model.network.layers=1", "model.network.width=16"],
    "prior": ["model.network.layers=1", "model.network.width=16", "model.network.heads=2"],
}
# Batches and a validation split that a few hundred images fill.
DATA = ["data.batch_size=20", "data.eval_batch_size=30", "data.validation_size=40"]
TRAINER = [
    "trainer.accelerator=cpu",
    "trainer.steps=6",
    "trainer.validate_every=3",
    "trainer.log_every=1",
]


def compared() -> list[str]:
    """The kinds whose runs are compared: all but vocoders, which learn nothing but recordings."""
    return [name for name, kind in kinds.KINDS.items() if kind.stage != 3]


def model_config(kind: str, *more: str) -> Any:
    """The config of the small model of `kind`; `more` are settings on top."""
    return load_experiment(None, [f"kind={kind}", *merge_overrides(KINDS[kind], more)]).model
