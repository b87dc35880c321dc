"""The kinds of run: one record each, which is all that names, tables and pages know of a kind.

What a run can be asked is what its record and its module offer, never what its kind is called: a
new kind is a config, a module and a record here. A record names the two classes and imports each
when it is asked for, so that a mistyped command line is answered without torch and Lightning.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from vqvae_lightning.models.settings import ModelConfig

# What the runs of a stage are called together.
STAGES = {1: "Autoencoders", 2: "Priors", 3: "Vocoders"}


@dataclass(frozen=True)
class Note:
    """A sentence on how to read the rows of a kind."""

    text: str
    # A setting of the model and its usual value; the note is for runs that have another.
    unless: tuple[str, object] | None = None

    def is_for(self, model: Mapping[str, object]) -> bool:
        """Whether a run with these settings of the model needs it."""
        if self.unless is None:
            return True
        setting, usual = self.unless
        return model.get(setting, usual) != usual


@dataclass(frozen=True)
class Kind:
    """One kind of run."""

    name: str  # in settings, run.json and checkpoints
    title: str  # in tables, pages and pictures
    config_at: str  # "package.module:Class" of the settings under `model`
    module_at: str  # … and of the LightningModule
    # 1: it learns from images. 2: it learns p(z) over the latents of a run of stage 1. 3: it learns
    # what windows sound like, and makes sounds of what runs of the others make.
    stage: Literal[1, 2, 3]
    # Whether it has a rate, charged against a p(z). A learned p(z) of an AE's z gives none: without
    # a q(z|x) there are no nats to be counted.
    has_density: bool
    has_codes: bool  # whether it makes discrete codes, which a run of stage 2 can learn
    artifact: str  # type of its checkpoint among W&B's artifacts
    mark: Literal["circle", "square", "diamond"]  # of its points in the page's figures
    colours: tuple[str, str]  # of its rows and curves, on light and on dark paper
    required: tuple[str, ...]  # test metrics without which a run cannot stand in the ledger
    notes: tuple[Note, ...]  # how to read its rows
    # Empty where there is no such thing, and then on no page.
    price: str = ""  # what it pays for a z: a clause of the page's sentence on rates
    samples: str = ""  # what its usual samples are drawn from, and whether they can be good

    @property
    def config(self) -> "type[ModelConfig]":
        """The class of the settings under `model`."""
        return cast("type[ModelConfig]", resolve_name(self.config_at))

    @property
    def module(self) -> "type[pl.LightningModule]":
        """The LightningModule that is trained."""
        return cast("type[pl.LightningModule]", resolve_name(self.module_at))

    @property
    def is_tokenizer(self) -> bool:
        """Whether it makes codes of images, which a run of stage 2 can learn."""
        return self.stage == 1 and self.has_codes

    @property
    def is_vocoder(self) -> bool:
        """Whether it makes sounds of what runs of other kinds make, and nothing of its own."""
        return self.stage == 3

    def learns(self, other: "Kind") -> bool:
        """Whether a run of this kind, of stage 2, learns the latents of runs of the other."""
        alike = (self.has_codes, self.has_density) == (other.has_codes, other.has_density)
        return self.stage == 2 and other.stage == 1 and alike


# In the order of the story they tell, stage 2 after stage 1.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "ae",
            "AE",
            "vqvae_lightning.models.settings:AEConfig",
            "vqvae_lightning.training.autoencoders:AE",
            stage=1,
            has_density=False,
            has_codes=False,
            artifact="model",
            mark="circle",
            colours=("#b84a00", "#f0924c"),
            required=("distortion",),
            notes=(
                Note(
                    "AE: no rate and no likelihood. An AE has no p(z), so nothing can be charged."
                ),
            ),
            price="an AE pays nothing, because it has no p(z) to charge against",
            samples="normal: z ~ N(0, I). Nothing in its loss made its latents look like that: an"
            " AE reconstructs, but it cannot generate.",
        ),
        Kind(
            "vae",
            "VAE",
            "vqvae_lightning.models.settings:VAEConfig",
            "vqvae_lightning.training.autoencoders:VAE",
            stage=1,
            has_density=True,
            has_codes=False,
            artifact="model",
            mark="circle",
            colours=("#0067a5", "#6bb4ec"),
            required=("distortion", "rate"),
            notes=(
                Note(
                    "VAE: the sum is −ELBO, with the KL term unweighted whatever beta it was"
                    " trained with.",
                    unless=("beta", 1.0),
                ),
            ),
            price="a VAE pays KL(q(z|x)\u00a0‖\u00a0N(0,\u00a0I))",
            samples="normal: z ~ N(0, I). The KL term pulled q(z|x) towards N(0, I), so the decoder"
            " has been trained on such z.",
        ),
        Kind(
            "vqvae",
            "VQ-VAE",
            "vqvae_lightning.models.settings:VQVAEConfig",
            "vqvae_lightning.training.autoencoders:VQVAE",
            stage=1,
            has_density=True,
            has_codes=True,
            artifact="tokenizer",
            mark="square",
            colours=("#007355", "#41c49c"),
            required=("distortion", "rate", "perplexity", "codes_used"),
            notes=(
                Note(
                    "VQ-VAE: the rate is T log K, what T codes cost when all K are taken to be"
                    " equally likely."
                ),
            ),
            price="a VQ-VAE pays log\u00a0K for each of its T codes",
            samples="uniform: codes drawn uniformly. Every code is one that the decoder knows, but"
            " not next to those: it cannot generate by itself.",
        ),
        Kind(
            "prior",
            "prior",
            "vqvae_lightning.models.settings:PriorConfig",
            "vqvae_lightning.training.prior:CodePrior",
            stage=2,
            has_density=True,
            has_codes=True,
            artifact="prior",
            mark="diamond",
            colours=("#a13f83", "#e28fc6"),
            required=("rate", "bits_per_code"),
            notes=(
                Note(
                    "Prior: the distortion is its tokenizer's; the sum is that of the two stages"
                    " together."
                ),
                Note(
                    "Saved: log2 K − the prior's bits per code. Histogram: what codes cost if only"
                    " counted, not ordered."
                ),
            ),
            price="a prior pays −log p(codes) in place of T\u00a0log\u00a0K, and the dashed part is"
            " what it saved",
            samples="codes drawn from the learned p(codes), decoded by its tokenizer. As far as it"
            " has learned which codes go together, it can. (A row per class if it is"
            " class-conditional.)",
        ),
        Kind(
            "ae_flow",
            "AE + flow",
            "vqvae_lightning.models.settings:FlowConfig",
            "vqvae_lightning.training.flow:AEFlow",
            stage=2,
            has_density=False,
            has_codes=False,
            artifact="prior",
            mark="diamond",
            colours=("#7d5a00", "#d9b44a"),
            required=("latent_nats",),
            notes=(
                Note(
                    "AE + flow: the distortion is its AE's, and there is no rate. The density of z"
                    " charges no image: an AE says z to infinitely many digits."
                ),
            ),
            price="a flow over an AE's z pays nothing either, because an AE has no q(z|x)",
            samples="z from the learned flow, decoded by its AE. As far as it has learned where"
            " the latents of images are, it can. (A row per class if it is class-conditional.)",
        ),
        Kind(
            "vae_flow",
            "VAE + flow",
            "vqvae_lightning.models.settings:FlowConfig",
            "vqvae_lightning.training.flow:VAEFlow",
            stage=2,
            has_density=True,
            has_codes=False,
            artifact="prior",
            mark="diamond",
            colours=("#3d4fb0", "#98a4f0"),
            required=("rate", "latent_nats"),
            notes=(
                Note(
                    "VAE + flow: the distortion is its VAE's, the rate E[log q(z|x) − log p(z)]"
                    " with the flow's p(z). Their sum is a bound on −log p(x), as −ELBO is."
                ),
            ),
            price="a flow over a VAE's z pays E[log\u00a0q(z|x)\u00a0−\u00a0log\u00a0p(z)] in place"
            " of the KL against N(0,\u00a0I)",
            samples="z from the learned flow, decoded by its VAE. As far as it has learned where"
            " the latents of images are, it can. (A row per class if it is class-conditional.)",
        ),
        Kind(
            "vocoder",
            "vocoder",
            "vqvae_lightning.signals.vocoder:VocoderConfig",
            "vqvae_lightning.training.vocoder:Vocoder",
            stage=3,
            has_density=False,
            has_codes=False,
            artifact="vocoder",
            mark="circle",
            colours=("#5a5a5a", "#b0b0b0"),
            required=("loss", "log_spectral_distance"),
            notes=(),
        ),
    )
}


def kind_names(offers: Callable[[Kind], bool]) -> list[str]:
    """The names of the kinds that offer something, for a message that says what was wanted."""
    return [kind.name for kind in KINDS.values() if offers(kind)]
