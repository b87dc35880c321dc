"""Every setting of an experiment, once: name, type, default, range and meaning.

YAML files say only what differs.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

DatasetName = Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]


class ConfigError(ValueError):
    """One line: what is wrong, where, what was found and what is wanted."""


def setting(
    default: Any, meaning: str, *, at_least: float | None = None, above: float | None = None,
    at_most: float | None = None, below: float | None = None, place: str | None = None,
) -> Any:  # fmt: skip
    """A field with its meaning (and unit) and the range that is checked before anything runs.

    `place` marks the name of a "folder" (one that is no file), of a "file" or run folder, or of a
    file with an ending (".png"): see `places`.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    return field(default=default, metadata={"meaning": meaning, "place": place, **limits})


@dataclass
class DataConfig:
    """Where images come from and how they are cut into batches."""

    name: DatasetName = setting("mnist", "dataset")
    root: str = setting("data", "folder that holds the datasets", place="folder")
    download: bool = setting(True, "fetch what is missing; false: fail instead")
    batch_size: int = setting(
        128, "images per optimizer step, over all devices and accumulated passes", at_least=1
    )
    eval_batch_size: int = setting(500, "images per batch of validation and test", at_least=1)
    validation_size: int = setting(
        5000, "training images held out for validation, stratified by label", at_least=1
    )
    flip: bool = setting(False, "mirror half of the training images, drawn anew every epoch")
    binarize: Literal["none", "static", "dynamic"] = setting(
        "none",
        "pixels become 0 or 1 with their grey value as probability: once (static) or at every use"
        " (dynamic)",
    )


@dataclass
class NetworkConfig:
    """The trunk that all three autoencoders share."""

    hidden: int = setting(128, "channels of the trunk", at_least=2)
    residual_hidden: int = setting(32, "channels inside a residual block", at_least=1)
    residual_blocks: int = setting(
        2, "residual blocks in encoder and in decoder", at_least=0, at_most=256
    )
    downsamples: int = setting(2, "halvings of the image's sides", at_least=1, at_most=6)


@dataclass
class LikelihoodConfig:
    """p(x|z)."""

    name: Literal["gaussian", "discretized_logistic", "bernoulli"] = setting(
        "gaussian",
        "distribution of a pixel: a density, probabilities of the 256 levels (gives bits_per_dim),"
        " or of 0 and 1 (needs data.binarize)",
    )
    scale: float = setting(
        0.4,
        "standard deviation of gaussian, scale of discretized_logistic, in units of the pixel range"
        " [-1, 1]; where it starts, if learned",
        above=0,
    )
    learned: bool = setting(False, "learn the scale")
    bounded: bool = setting(
        False,
        "of gaussian: its mean is clamped to [-1, 1] in training too, so that black can be black",
    )
    per_pixel: bool = setting(
        False,
        "of discretized_logistic: the decoder says every pixel's scale beside its mean; needs"
        " learned",
    )

    def __post_init__(self) -> None:
        if self.bounded and self.name != "gaussian":
            raise ConfigError(
                f"model.likelihood.bounded: got true with {self.name}, whose mean is bounded as"
                " it is"
            )
        if self.per_pixel and not (self.name == "discretized_logistic" and self.learned):
            raise ConfigError(
                f"model.likelihood.per_pixel: got true with name={self.name}"
                f" learned={self.learned}, wanted name=discretized_logistic learned=true"
            )


@dataclass
class AutoencoderConfig:
    """What AE, VAE and VQ-VAE have in common."""

    latent: Literal["vector", "grid"] = setting("vector", "z is one vector or a grid of vectors")
    latent_dim: int = setting(16, "D, channels of z", at_least=1)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)


@dataclass
class AEConfig(AutoencoderConfig):
    """Autoencoder: nothing but reconstruction."""


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


@dataclass
class VQVAEConfig(AutoencoderConfig):
    """Vector-quantized autoencoder."""

    latent: Literal["vector", "grid"] = setting("grid", "z is one vector or a grid of vectors")
    latent_dim: int = setting(64, "D, dimensions of a code vector", at_least=1)
    codebook_size: int = setting(512, "K, number of codes", at_least=1, at_most=2**20)
    codebook: str = setting(
        "ema",
        "codes follow a moving average of their data (ema) or a gradient (gradient; by angle:"
        " cosine), are a learned map of fixed vectors (simvq), or are rounded numbers (fsq) or"
        " signs (lfq)",
    )
    estimator: Literal["straight_through", "rotation"] = setting(
        "straight_through", "how the decoder's gradient passes the choice of a code"
    )
    lookup_dim: int | None = setting(
        None,
        "dimensions that codes are looked up in, between two projections; empty: those of z",
        at_least=1,
    )
    groups: int = setting(
        1, "codes side by side per place, each of its share of z's channels", at_least=1
    )
    residual_levels: int = setting(
        1, "codes one after another per place, each of what is left over", at_least=1
    )
    levels: list[int] = field(
        default_factory=lambda: [8, 8, 8],
        metadata={"meaning": "levels of each of fsq's channels; their product is K"},
    )
    entropy: float = setting(0.1, "weight of lfq's entropy terms", at_least=0)
    commitment: float = setting(0.25, "beta, weight of ||z_e - sg[e]||^2", at_least=0)
    decay: float = setting(
        0.99,
        "factor per step of the moving averages of codes and of their use",
        at_least=0,
        below=1,
    )
    restart_below: float = setting(
        0.1,
        "a code used less than this share of 1/K moves onto an encoder output; 0: never",
        at_least=0,
        below=1,
    )


@dataclass
class PriorConfig:
    """Autoregressive model over the codes of a frozen tokenizer."""

    tokenizer: str | None = setting(
        None,
        "run folder of a finished VQ-VAE; empty: the newest one of this dataset",
        place="folder",
    )
    architecture: Literal["transformer", "pixelcnn", "pixelsnail"] = setting(
        "transformer", "network"
    )
    class_conditional: bool = setting(True, "model p(codes | label) instead of p(codes)")
    label_dropout: float = setting(
        0.0,
        "share of labels that a training step forgets, so that the prior learns p(codes) too: what"
        " guidance needs",
        at_least=0,
        below=1,
    )
    layers: int = setting(
        4, "blocks of transformer and pixelsnail, gated layers of pixelcnn", at_least=1, at_most=256
    )
    width: int = setting(128, "channels of the network", at_least=1)
    heads: int = setting(4, "attention heads, of transformer and pixelsnail", at_least=1)
    kernel: int = setting(
        5, "side of the square that a convolution's mask is cut from; odd", at_least=3
    )
    dropout: float = setting(0.1, "dropout probability", at_least=0, below=1)

    def __post_init__(self) -> None:
        without = {"transformer": "kernel", "pixelcnn": "heads"}.get(self.architecture)
        if without:
            default = PriorConfig.__dataclass_fields__[without].default
            if getattr(self, without) != default:
                raise ConfigError(
                    f"model.{without}: got {getattr(self, without)}, but a {self.architecture} has"
                    f" none; wanted the default, {default}"
                )
        if self.architecture != "pixelcnn" and self.width % self.heads:
            raise ConfigError(
                f"model.heads: {self.heads} heads do not divide model.width {self.width}"
            )
        if self.kernel % 2 == 0:
            raise ConfigError(f"model.kernel: got {self.kernel}, wanted an odd number")
        if self.label_dropout and not self.class_conditional:
            raise ConfigError(
                f"model.label_dropout: got {self.label_dropout} with model.class_conditional=false,"
                " but then there is no label to forget; wanted 0"
            )


@dataclass
class OptimizerConfig:
    """AdamW."""

    lr: float = setting(1e-3, "peak learning rate", above=0)
    weight_decay: float = setting(
        0.0, "decoupled decay of the weights of convolutions and linear layers", at_least=0
    )
    warmup_steps: int = setting(100, "steps of linear warm-up", at_least=0)
    schedule: Literal["constant", "cosine"] = setting(
        "cosine", "after warm-up; cosine ends at 0 at the last step"
    )
    clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", at_least=0)


@dataclass
class TrainerConfig:
    """How long, how often, on what."""

    steps: int = setting(1000, "optimizer steps", at_least=1)
    validate_every: int = setting(250, "optimizer steps between validations", at_least=1)
    log_every: int = setting(25, "optimizer steps between logged training metrics", at_least=1)
    accumulate: int = setting(1, "forward passes per optimizer step", at_least=1)
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "device type")
    devices: int | Literal["auto"] = setting(
        "auto", "devices per machine: a number, or auto for all of them", at_least=1
    )
    nodes: int = setting(1, "machines", at_least=1)
    precision: Literal["32-true", "bf16-mixed", "64-true"] = setting(
        "32-true", "arithmetic of the networks"
    )
    compile: bool = setting(
        False, "compile the layers by torch.compile: half a minute first, then fewer passes"
    )


def check_project(name: str, key: str) -> None:
    """Raises ConfigError for a name that W&B refuses: wandb/sdk/wandb_settings.py (0.31),
    Settings.validate_project.
    """
    wrong = sorted(
        {character for character in name if character in "/\\#?%:" or not character.isprintable()}
    )
    if wrong or not 1 <= len(name.strip()) <= len(name) <= 128:
        got = f"{name[:150]!r}" + (f" ({len(name)} characters)" if len(name) > 128 else "")
        raise ConfigError(
            f"{key}: got {got}, wanted 1 to 128 characters without / \\ # ? % : (W&B's limits)"
        )


@dataclass
class TrackingConfig:
    """W&B. Offline unless WANDB_MODE=online is set; there is no setting for keys, on purpose."""

    project: str = setting("vqvae_lightning", "W&B project")
    group: str | None = setting(None, "W&B group; empty: the dataset's name")
    tags: list[str] = field(
        default_factory=list, metadata={"meaning": "W&B tags beside dataset and kind"}
    )

    def __post_init__(self) -> None:
        check_project(self.project, "tracking.project")
        # W&B's server refuses longer names of groups; its client does not look at them.
        if self.group is not None and len(self.group) > 128:
            raise ConfigError(
                f"tracking.group: got {len(self.group)} characters, wanted at most 128, W&B's limit"
            )
        # wandb/sdk/wandb_settings.py (0.31), Settings.validate_run_tags
        for length in (len(tag) for tag in self.tags):
            if not 1 <= length <= 64:
                raise ConfigError(
                    f"tracking.tags: got a tag of {length} characters, wanted 1 to 64 (W&B's limit)"
                )


@dataclass
class Experiment:
    """One run. `model` is the dataclass that belongs to `kind`."""

    kind: Literal["ae", "vae", "vqvae", "prior"] = setting("vqvae", "what is trained")
    model: Any = field(default=None, metadata={"meaning": "settings of the model"})
    name: str | None = setting(None, "name of the run folder; empty: dataset, kind, seed and time")
    runs: str = setting("runs", "folder that holds the runs", place="folder")
    seed: int = setting(0, "seed of everything random", at_least=0, at_most=2**32 - 1)
    resume: str | None = setting(
        None,
        "run folder to continue; auto: the run `name`, or the newest unfinished one with these"
        " settings, if any",
        place="folder",
    )
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


MODEL_CONFIGS: dict[str, type] = {
    "ae": AEConfig,
    "vae": VAEConfig,
    "vqvae": VQVAEConfig,
    "prior": PriorConfig,
}


def plain(config: Any) -> dict[str, Any]:
    """Nested dicts of plain values, fit for YAML, JSON and checkpoints."""
    return dataclasses.asdict(config)
