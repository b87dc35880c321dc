"""The settings of each kind of model.

```
 ModelConfig
   ├── AutoencoderConfig     AEConfig, VAEConfig, VQVAEConfig
   └── SecondStageConfig     PriorConfig of codes, FlowConfig of continuous latents
```

A new kind of run is a config here, and a record in `kinds.py`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from vqvae_lightning.config import (
    ConfigError,
    DataConfig,
    documented,
    member_of,
    name_of,
    part,
    setting,
)
from vqvae_lightning.models.bottlenecks import Bottleneck, NamedBottleneck
from vqvae_lightning.models.likelihoods import Likelihood
from vqvae_lightning.models.parts import (
    AE_BOTTLENECKS,
    FLOWS,
    LIKELIHOODS,
    PRIORS,
    QUANTIZERS,
    TRUNKS,
    VAE_BOTTLENECKS,
    build_quantizer,
    build_trunk,
)
from vqvae_lightning.models.priors.flow import Flow, FlowNetwork
from vqvae_lightning.models.priors.prior import Completes, PriorNetwork
from vqvae_lightning.models.priors.sampling import Sampling
from vqvae_lightning.models.quantizers.quantizer import NamedQuantizer
from vqvae_lightning.models.trunks.trunk import ImageShape, Trunk


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

    def build_trunk(self, image_shape: ImageShape) -> Trunk:
        """A new trunk for images (C, H, W)."""
        return build_trunk(self.trunk, image_shape, self.latent == "vector")

    @abstractmethod
    def build_bottleneck(self) -> Bottleneck:
        """A new bottleneck of this kind."""

    def check_data(self, data: DataConfig) -> None:
        if data.sides:
            # Of own images this is known before their folder is read, which can take minutes.
            self.build_trunk((data.channels or 3, *data.sides))
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
