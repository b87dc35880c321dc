"""The kinds of run: one record each, which is all that names, tables and pages know of a kind.

What a run can be asked is what its record and its module offer, never what its kind is called: a
new kind is a module and a record here.
"""

from dataclasses import dataclass
from typing import Literal

import pytorch_lightning as pl

from vqvae_lightning.models.build import MODEL_CONFIGS
from vqvae_lightning.training.autoencoders import AE, VAE, VQVAE
from vqvae_lightning.training.prior import CodePrior


@dataclass(frozen=True)
class Kind:
    """One kind of run."""

    name: str  # in settings, run.json and checkpoints
    title: str  # in tables, pages and pictures
    config: type  # of the settings under `model`
    module: type[pl.LightningModule]
    stage: Literal[
        1, 2
    ]  # 1: learns from images; 2: learns p(z) over the latents of a run of stage 1
    has_density: bool  # whether there is a p(z) that its rate is charged against
    has_codes: bool  # whether it makes discrete codes, which a run of stage 2 can learn
    artifact: str  # type of its checkpoint among W&B's artifacts
    mark: Literal["circle", "square", "diamond"]  # of its points in the page's figures
    colours: tuple[str, str]  # of its rows and curves, on light and on dark paper
    required: tuple[str, ...]  # test metrics without which a run cannot stand in the ledger
    note: str  # how to read its row


# In the order of the story they tell, stage 2 after stage 1.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "ae",
            "AE",
            MODEL_CONFIGS["ae"],
            AE,
            stage=1,
            has_density=False,
            has_codes=False,
            artifact="model",
            mark="circle",
            colours=("#b84a00", "#f0924c"),
            required=("distortion",),
            note="AE: no rate and no likelihood. An AE has no p(z), so nothing can be charged.",
        ),
        Kind(
            "vae",
            "VAE",
            MODEL_CONFIGS["vae"],
            VAE,
            stage=1,
            has_density=True,
            has_codes=False,
            artifact="model",
            mark="circle",
            colours=("#0067a5", "#6bb4ec"),
            required=("distortion", "rate"),
            note="",
        ),
        Kind(
            "vqvae",
            "VQ-VAE",
            MODEL_CONFIGS["vqvae"],
            VQVAE,
            stage=1,
            has_density=True,
            has_codes=True,
            artifact="tokenizer",
            mark="square",
            colours=("#007355", "#41c49c"),
            required=("distortion", "rate", "psnr", "perplexity", "codes_used"),
            note="VQ-VAE: the rate is T log K, what T codes cost when all K are taken to be equally"
            " likely.",
        ),
        Kind(
            "prior",
            "prior",
            MODEL_CONFIGS["prior"],
            CodePrior,
            stage=2,
            has_density=True,
            has_codes=True,
            artifact="prior",
            mark="diamond",
            colours=("#a13f83", "#e28fc6"),
            required=("rate", "bits_per_code"),
            note="Prior: the distortion is its tokenizer's; the sum is that of the two stages"
            " together. Saved: log2 K − the prior's bits per code. Histogram: what codes cost if"
            " only counted, not ordered.",
        ),
    )
}
