"""Settings of an experiment that belong to no part of a model: name, type, default, range, meaning.

The settings of a model's parts stand beside their classes in `models`. YAML files say only what
differs from the defaults.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vqvae_lightning.config.data import DataConfig
from vqvae_lightning.config.setting import ConfigError, setting

# Forward passes of one optimizer step. A codebook keeps what it saw in so many, and no more.
MOST_PASSES = 256


def _kinds() -> Collection[str]:
    """The names of the kinds of run; imported when one is read, for that table lies above."""
    from vqvae_lightning.kinds import KINDS

    return KINDS


KindName = Annotated[str, _kinds]


@dataclass
class OptimizerConfig:
    """AdamW or Muon."""

    name: Literal["adamw", "muon"] = setting(
        "adamw",
        "muon moves weights of layers by an orthogonal matrix, and the rest as adamw does",
    )
    momentum: float = setting(
        0.9, "of muon: factor per step of the averaged gradient", at_least=0, below=1
    )
    lr: float = setting(1e-3, "peak learning rate", above=0)
    weight_decay: float = setting(
        0.0, "decoupled decay of the weights of convolutions and linear layers", at_least=0
    )
    warmup_steps: int = setting(100, "steps of linear warm-up", at_least=0)
    schedule: Literal["constant", "cosine"] = setting(
        "cosine", "after warm-up; cosine ends at 0 at the last step"
    )
    clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", at_least=0)

    def __post_init__(self) -> None:
        if self.name == "adamw" and self.momentum != type(self).momentum:
            raise ConfigError(
                f"optimizer.momentum: got {self.momentum}, but optimizer.name=adamw has none;"
                " wanted optimizer.name=muon"
            )


@dataclass
class TrainerConfig:
    """How long, how often, on what."""

    steps: int = setting(1000, "optimizer steps", at_least=1)
    validate_every: int = setting(250, "optimizer steps between validations", at_least=1)
    log_every: int = setting(25, "optimizer steps between logged training metrics", at_least=1)
    accumulate: int = setting(
        1, "forward passes per optimizer step", at_least=1, at_most=MOST_PASSES
    )
    ema_decay: float = setting(
        0.0,
        "factor per step of the moving average of the weights, which are validated, tested and kept"
        " as the best; 0: no average",
        at_least=0,
        below=1,
    )
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "device type")
    devices: int | Literal["auto"] = setting(
        "auto", "devices per machine: a number, or auto for all of them", at_least=1
    )
    nodes: int = setting(1, "machines", at_least=1)
    strategy: Literal["ddp", "fsdp"] = setting(
        "ddp",
        "what several devices share: ddp the batch; fsdp also the weights, their gradients and the"
        " optimizer's state, of a Transformer prior (network transformer or masked)",
    )
    timeout: int = setting(
        1800, "seconds that processes wait for each other before the run ends", at_least=1
    )
    precision: Literal["32-true", "bf16-mixed", "64-true"] = setting(
        "32-true", "arithmetic of the networks"
    )
    compile: bool = setting(
        False, "compile the layers by torch.compile: half a minute first, then fewer passes"
    )
    deterministic: bool = setting(
        False, "the same bits from the same seed on a GPU too, where sums then take longer"
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

    project: str | None = setting(None, "W&B project; empty: WANDB_PROJECT, or vqvae_lightning")
    group: str | None = setting(None, "W&B group; empty: WANDB_RUN_GROUP, or the dataset's name")
    tags: list[str] = field(
        default_factory=list,
        metadata={"meaning": "W&B tags beside dataset and kind; none: WANDB_TAGS"},
    )
    system: bool = setting(
        False, "send W&B the load of the machine, console output and this package's code"
    )

    def __post_init__(self) -> None:
        if self.project is not None:
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
    """One run. `model` is the dataclass that belongs to `kind`: see `models.settings`."""

    kind: KindName = setting("vqvae", "what is trained")
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
