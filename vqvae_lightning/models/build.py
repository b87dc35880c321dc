"""The tables of names, the settings of each kind of model, and how parts are built of them.

```
 kind ──► its config ──► trunk, bottleneck or quantizer, likelihood, network: {name: …, settings}
               └──► build_autoencoder, build_prior ──► a module of built parts
```

A new part is a class that owns a dataclass `Config`, and one line in a table; or it is such a class
in a user's own file (see `config.plugins`). A new kind of run is a config here, and a record in
`kinds.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, cast

from vqvae_lightning.config import (
    ConfigError,
    DataConfig,
    documented,
    member_of,
    name_of,
    part,
    setting,
)
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.bottlenecks import Bottleneck, Gaussian, Identity, NamedBottleneck
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.likelihoods import (
    BernoulliLikelihood,
    DiscretizedLogistic,
    GaussianLikelihood,
    Likelihood,
    LogisticMixture,
)
from vqvae_lightning.models.priors.coupling import Couplings
from vqvae_lightning.models.priors.flow import Flow, FlowNetwork
from vqvae_lightning.models.priors.masked import MaskedTransformer
from vqvae_lightning.models.priors.pixelcnn import PixelCNN
from vqvae_lightning.models.priors.pixelsnail import PixelSNAIL
from vqvae_lightning.models.priors.prior import Completes, PriorNetwork
from vqvae_lightning.models.priors.sampling import Sampling
from vqvae_lightning.models.priors.transformer import CodeTransformer
from vqvae_lightning.models.priors.velocity import CellTransformer, ResidualMLP
from vqvae_lightning.models.quantizers.codebooks import (
    CosineVectorQuantizer,
    EMAVectorQuantizer,
    SimVQ,
    VectorQuantizer,
)
from vqvae_lightning.models.quantizers.composed import ProductQuantizer, ProjectedQuantizer
from vqvae_lightning.models.quantizers.lookup_free import FSQ, LFQ
from vqvae_lightning.models.quantizers.quantizer import NamedQuantizer, Quantizer
from vqvae_lightning.models.trunks.conv import ConvTrunk
from vqvae_lightning.models.trunks.residual import ResidualTrunk
from vqvae_lightning.models.trunks.trunk import ImageShape, Trunk

# What `model.trunk.name` may be.
TRUNKS: dict[str, type[Trunk]] = {"conv": ConvTrunk, "residual": ResidualTrunk}

# What `model.quantizer.name` may be.
QUANTIZERS: dict[str, type[NamedQuantizer]] = {
    "ema": EMAVectorQuantizer,
    "gradient": VectorQuantizer,
    "cosine": CosineVectorQuantizer,
    "simvq": SimVQ,
    "fsq": FSQ,
    "lfq": LFQ,
}

# What `model.bottleneck.name` of an AE, and of a VAE, may be.
AE_BOTTLENECKS: dict[str, type[NamedBottleneck]] = {"identity": Identity}
VAE_BOTTLENECKS: dict[str, type[NamedBottleneck]] = {"gaussian": Gaussian}

# What `model.likelihood.name` may be.
LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "discretized_logistic": DiscretizedLogistic,
    "logistic_mixture": LogisticMixture,
    "bernoulli": BernoulliLikelihood,
}

# What `model.network.name` of a prior may be.
PRIORS: dict[str, type[PriorNetwork]] = {
    "transformer": CodeTransformer,
    "pixelcnn": PixelCNN,
    "pixelsnail": PixelSNAIL,
    "masked": MaskedTransformer,
}

# What `model.network.name` of a flow may be.
FLOWS: dict[str, type[FlowNetwork]] = {
    "mlp": ResidualMLP,
    "dit": CellTransformer,
    "coupling": Couplings,
}


@dataclass
class ModelConfig:
    """The questions that the settings of every kind answer."""

    # Of a model of stage 2: the setting that names the run of stage 1, which is also the name of
    # its record in run.json and in checkpoints.
    first_stage_at: ClassVar[str] = ""
    # … and what `network.name` may be.
    networks: ClassVar[dict[str, Any]] = {}

    @property
    def first_stage_run(self) -> str | None:
        """The run folder that a model of stage 2 learns from, if it is named."""
        found: str | None = getattr(self, self.first_stage_at, None)
        return found

    def learning_from(self, run: str | None) -> Self:
        """These settings, of a model of stage 2, with another run folder to learn from."""
        return replace(self, **{self.first_stage_at: run})

    @property
    def codebook_size(self) -> int:
        """K of a model that makes codes; 0 of others."""
        return 0

    @property
    def batch_terms(self) -> dict[str, float]:
        """Setting → weight of each term of the loss that needs the whole batch.

        Of a micro-batch such a term has another value, so it is refused with `trainer.accumulate`
        above 1.
        """
        return {}

    @property
    def shards(self) -> bool:
        """Whether its weights can lie in parts on several devices: `trainer.strategy=fsdp`."""
        return False

    def check_data(self, data: DataConfig) -> None:
        """Raises ConfigError for data that the model does not fit."""


@dataclass
class AutoencoderConfig(ModelConfig, ABC):
    """What AE, VAE and VQ-VAE have in common."""

    latent: Literal["vector", "grid"] = setting("vector", "z is one vector or a grid of vectors")
    latent_dim: int = setting(16, "D, channels of z", at_least=1)
    class_conditional: bool = setting(
        False, "give the decoder the label, p(x|z, label), so that z need not hold it"
    )
    trunk: Any = part("conv", TRUNKS, Trunk, "encoder and decoder")
    likelihood: Any = part(
        "gaussian", LIKELIHOODS, Likelihood, "p(x|z): the distribution of a pixel"
    )

    @abstractmethod
    def build_bottleneck(self) -> Bottleneck:
        """A new bottleneck of this kind."""

    def check_data(self, data: DataConfig) -> None:
        if data.sides:
            # Of own images this is known before their folder is read, which can take minutes.
            build_trunk(self, (data.channels or 3, *data.sides))
        wanted = member_of(self.likelihood, LIKELIHOODS).levels
        if wanted in (None, data.levels):
            return
        name = name_of(self.likelihood, LIKELIHOODS)
        got = f"got data.binarize={data.binarize}"
        if wanted == 2:
            raise ConfigError(
                f"model.likelihood.name: {name} needs binary pixels, {got}, wanted dynamic"
            )
        raise ConfigError(
            f"model.likelihood.name: {name} is of {wanted} grey levels, {got}, wanted none"
        )


@documented
@dataclass
class AEConfig(AutoencoderConfig):
    """Autoencoder: nothing but reconstruction."""

    bottleneck: Any = part("identity", AE_BOTTLENECKS, NamedBottleneck, "from h to z")

    def build_bottleneck(self) -> Bottleneck:
        return member_of(self.bottleneck, AE_BOTTLENECKS).build(self.bottleneck, self.latent_dim)


@documented
@dataclass
class VAEConfig(AutoencoderConfig):
    """Variational autoencoder."""

    beta: float = setting(
        1.0, "weight of KL(q(z|x) || p(z)) in the loss; 1: loss = -ELBO", at_least=0
    )
    kl_warmup_steps: int = setting(
        0, "steps in which beta rises from 0, in training only", at_least=0
    )
    free_bits: float = setting(
        0.0,
        "nats that each latent dimension is charged at least (as a mean over the batch), in"
        " training only",
        at_least=0,
    )
    importance_samples: int = setting(
        1,
        "draws of z per image in training; above 1: loss = -(importance-weighted bound) (IWAE)",
        at_least=1,
    )
    bottleneck: Any = part("gaussian", VAE_BOTTLENECKS, NamedBottleneck, "q(z|x) and p(z)")

    def __post_init__(self) -> None:
        given = {
            "beta": self.beta != 1,
            "free_bits": self.free_bits,
            "kl_warmup_steps": self.kl_warmup_steps,
        }
        others = [name for name, differs in given.items() if differs]
        if self.importance_samples > 1 and others:
            raise ConfigError(
                f"model.importance_samples: got {self.importance_samples} with"
                f" model.{others[0]}={getattr(self, others[0])}, but the importance-weighted bound"
                " has no KL term; wanted 1, or"
                f" model.{others[0]}={VAEConfig.__dataclass_fields__[others[0]].default}"
            )

    @property
    def batch_terms(self) -> dict[str, float]:
        return {"free_bits": self.free_bits}

    def build_bottleneck(self) -> Bottleneck:
        return member_of(self.bottleneck, VAE_BOTTLENECKS).build(self.bottleneck, self.latent_dim)


@documented
@dataclass
class VQVAEConfig(AutoencoderConfig):
    """Vector-quantized autoencoder."""

    latent: Literal["vector", "grid"] = setting("grid", "z is one vector or a grid of vectors")
    latent_dim: int = setting(64, "D, dimensions of a code vector", at_least=1)
    groups: int = setting(
        1, "codes side by side per grid cell, each of its share of z's channels", at_least=1
    )
    quantizer: NamedQuantizer.Config = part(
        "ema", QUANTIZERS, NamedQuantizer, "how a vector becomes a code"
    )

    @property
    def codebook_size(self) -> int:
        return self.quantizer.codebook_size

    @property
    def batch_terms(self) -> dict[str, float]:
        terms = self.quantizer.batch_terms
        return {f"quantizer.{name}": weight for name, weight in terms.items()}

    def build_bottleneck(self) -> Bottleneck:
        return build_quantizer(self.quantizer, self.latent_dim, self.groups)


@dataclass
class SecondStageConfig(ModelConfig, ABC):
    """What the models of a frozen first stage's latents have in common.

    A subclass adds the run of the first stage and, as `network`, the part that is trained.
    """

    class_conditional: bool = setting(True, "model p(z | label) instead of p(z), of codes or of z")
    label_dropout: float = setting(
        0.0,
        "share of labels that a training step forgets, so that p(z) is learned too: what guidance"
        " needs",
        at_least=0,
        below=1,
    )

    def __post_init__(self) -> None:
        if self.label_dropout and not self.class_conditional:
            raise ConfigError(
                f"model.label_dropout: got {self.label_dropout} with model.class_conditional=false,"
                " but then there is no label to forget; wanted 0"
            )

    @property
    @abstractmethod
    def sampling(self) -> type[Any]:
        """The settings of drawing that it has, as a dataclass."""

    @property
    @abstractmethod
    def completes(self) -> Completes:
        """What of given latents it keeps when it draws the rest."""

    @property
    def one_pass(self) -> bool:
        """Whether the density of a latent takes one pass through the network."""
        return True

    @property
    def reads_texts(self) -> bool:
        """Whether it is given the texts of labels in the place of labels."""
        return False


@documented
@dataclass
class PriorConfig(SecondStageConfig):
    """Model of the codes of a frozen tokenizer."""

    first_stage_at = "tokenizer"
    networks = PRIORS

    tokenizer: str | None = setting(
        None,
        "run folder of a finished VQ-VAE; empty: the newest one of this dataset",
        place="folder",
    )
    network: Any = part(
        "transformer", PRIORS, PriorNetwork, "the network that gives codes their probability"
    )
    condition: Literal["label", "text"] = setting(
        "label",
        "what the codes are given, with class_conditional: the label, or its text, character by"
        " character (network transformer; data whose labels have texts)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reads_texts and not self.class_conditional:
            raise ConfigError(
                "model.condition: got text with model.class_conditional=false, but then nothing is"
                " given; wanted label"
            )

    @property
    def reads_texts(self) -> bool:
        return self.condition == "text"

    @property
    def shards(self) -> bool:
        return member_of(self.network, PRIORS).shards

    @property
    def sampling(self) -> type[Sampling]:
        return member_of(self.network, PRIORS).sampling

    @property
    def completes(self) -> Completes:
        return member_of(self.network, PRIORS).completes


@documented
@dataclass
class FlowConfig(SecondStageConfig):
    """Flow over the continuous latents of a frozen AE or VAE."""

    first_stage_at = "first_stage"
    networks = FLOWS

    first_stage: str | None = setting(
        None,
        "run folder of a finished AE or VAE; empty: the newest one of this dataset",
        place="folder",
    )
    network: Any = part(
        "mlp",
        FLOWS,
        FlowNetwork,
        "the network of the flow: a velocity that it follows (mlp, dit), or one pass (coupling)",
    )

    @property
    def flow(self) -> type[Flow]:
        """The kind of flow."""
        return member_of(self.network, FLOWS).flow

    @property
    def sampling(self) -> type[Any]:
        return self.flow.sampling

    @property
    def completes(self) -> Completes:
        return self.flow.completes

    @property
    def one_pass(self) -> bool:
        return self.flow.one_pass


def build_autoencoder(
    config: AutoencoderConfig, image_shape: ImageShape, classes: int = 0
) -> Autoencoder:
    """The autoencoder of a kind's settings, for images (C, H, W) of so many classes.

    Parts draw their weights in this order, which therefore must not change: bottleneck, likelihood,
    encoder, decoder, and vectors of the labels where the decoder is given them.
    """
    if config.class_conditional and classes < 1:
        raise ConfigError(
            f"classes: got {classes}, wanted at least 1, or model.class_conditional=false"
        )
    trunk = build_trunk(config, image_shape)
    bottleneck, likelihood = config.build_bottleneck(), build_likelihood(config.likelihood)
    if bottleneck.out_channels != config.latent_dim:
        raise ConfigError(
            f"model.latent_dim: got {config.latent_dim}, but {type(bottleneck).__name__} makes z of"
            f" {bottleneck.out_channels} channels"
        )
    of_decoder = bottleneck.out_channels * (2 if config.class_conditional else 1)
    return Autoencoder(
        trunk.encoder(bottleneck.in_channels),
        bottleneck,
        trunk.decoder(of_decoder, likelihood.parts * image_shape[0]),
        likelihood,
        image_shape,
        trunk.grid,
        classes if config.class_conditional else 0,
    )


def build_trunk(config: AutoencoderConfig, image_shape: ImageShape) -> Trunk:
    """The trunk of a kind's settings; it makes an encoder and a decoder when it is asked to."""
    member: Any = member_of(config.trunk, TRUNKS)
    trunk: Trunk = member(config.trunk, image_shape, config.latent == "vector")
    return trunk


def build_likelihood(config: Any) -> Likelihood:
    """The likelihood whose settings these are."""
    member: Any = member_of(config, LIKELIHOODS)
    likelihood: Likelihood = member(config)
    return likelihood


def build_quantizer(config: NamedQuantizer.Config, latent_dim: int, groups: int = 1) -> Quantizer:
    """The quantizer whose settings these are, for z of `latent_dim` channels.

    With several `groups` it is a product of them. It is projected to the space where codes are
    looked up, if that has not `latent_dim` channels.
    """
    member = member_of(config, QUANTIZERS)
    dim = max(1, latent_dim // groups)
    parts = [member.build(config, dim) for _ in range(groups)]
    quantizer = ProductQuantizer(parts) if groups > 1 else parts[0]
    if quantizer.in_channels == latent_dim:
        return quantizer
    return ProjectedQuantizer(quantizer, latent_dim)


def build_prior(
    config: PriorConfig, layout: CodeLayout, classes: int, texts: Sequence[str] = ()
) -> PriorNetwork:
    """The prior over the codes of a layout.

    Args:
        config: its settings.
        layout: how codes lie on the grid and in a sequence.
        classes: how many labels the data have.
        texts: what each label says, where the prior reads it.

    Raises:
        ConfigError: it is to read texts, and there are none or its network reads none.
    """
    member: Any = member_of(config.network, PRIORS)
    labels = classes if config.class_conditional else 0
    settings = (layout, labels, config.network, config.label_dropout)
    if not config.reads_texts:
        return cast(PriorNetwork, member(*settings))
    if not member.reads_texts:
        able = " or ".join(name for name, other in PRIORS.items() if other.reads_texts)
        name = name_of(config.network, PRIORS)
        raise ConfigError(
            f"model.condition: got text with model.network.name={name}, which reads none; wanted"
            f" {able}"
        )
    if len(texts) != classes or not any(texts):
        raise ConfigError(
            "model.condition: got text, but the labels of the data have none; wanted recordings"
            " whose labels say what is spoken"
        )
    return cast(PriorNetwork, member(*settings, texts))


def build_flow(config: FlowConfig, shape: tuple[int, int, int], classes: int) -> Flow:
    """The flow over latents (D, h, w); `classes` are those of the data."""
    labels = classes if config.class_conditional else 0
    member = member_of(config.network, FLOWS)
    return member.build(config.network, shape, labels, config.label_dropout)
