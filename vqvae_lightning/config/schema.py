"""Settings of an experiment that belong to no part of a model: name, type, default, range, meaning.

The settings of a model's parts stand beside their classes in `models`. YAML files say only what
differs from the defaults.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

STORES = "stores"  # the folder in `data.root` of own images
# Forward passes of one optimizer step. A codebook keeps what it saw in so many, and no more.
MOST_PASSES = 256


def _datasets() -> Collection[str]:
    """The names of the datasets; imported when one is read, for that table lies above settings."""
    from vqvae_lightning.data.sources import DATASETS

    return DATASETS


def _kinds() -> Collection[str]:
    """The names of the kinds of run; imported when one is read, as above."""
    from vqvae_lightning.kinds import KINDS

    return KINDS


DatasetName = Annotated[str, _datasets]
KindName = Annotated[str, _kinds]


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
class OwnImagesConfig:
    """Own images, in the place of a dataset."""

    path: str | None = setting(
        None,
        "folder of own images, or an .npy, .npz or .parquet file; empty: the dataset",
        place="file",
    )
    size: int | list[int] | None = setting(
        None,
        "pixels of an own image, a number or [height, width]: the shorter side is resized to it,"
        " and the middle cut out; empty: the size that all images have",
    )
    channels: int | None = setting(
        None, "of an own image: 1 (grey) or 3 (colours); empty: 3, of an array its own"
    )


@dataclass
class DataConfig(OwnImagesConfig):
    """Where images come from and how they are cut into batches."""

    name: DatasetName = setting("mnist", "dataset, where there is no path")
    test_fraction: float = setting(
        0.1, "share of own images held out for test, if the path has no test split of its own",
        above=0, below=1,
    )  # fmt: skip
    fingerprint: str | None = setting(
        None, "SHA-256 of the own images, which a run records; empty: those that are there"
    )
    root: str = setting("data", "folder that holds the datasets", place="folder")
    download: bool = setting(True, "fetch what is missing; false: fail instead")
    batch_size: int = setting(
        128, "images per optimizer step, over all devices and accumulated micro-batches", at_least=1
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

    def __post_init__(self) -> None:
        for name in ("size", "channels", "fingerprint"):
            if self.path is None and getattr(self, name) is not None:
                got = getattr(self, name)
                raise ConfigError(f"data.{name}: got {got} without data.path, of own images only")
        sides = [] if self.size is None else self.size
        sides = [sides, sides] if isinstance(sides, int) else sides
        if self.size is not None and not (len(sides) == 2 and all(0 < n <= 4096 for n in sides)):
            raise ConfigError(
                f"data.size: got {self.size}, wanted 1 to 4096 pixels, such as 64 or [48, 64]"
            )
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"data.channels: got {self.channels}, wanted 1 or 3")
        if self.fingerprint is not None and not re.fullmatch("[0-9a-f]{64}", self.fingerprint):
            raise ConfigError(
                "data.fingerprint: wanted a SHA-256 of 64 digits, as a run records it"
            )

    @property
    def levels(self) -> int:
        """How many values a pixel can have."""
        return 256 if self.binarize == "none" else 2

    @property
    def dataset(self) -> str:
        """The name of the images: a dataset's, or own ones' with the first digits of their hash."""
        if self.path is None:
            return self.name
        stem = re.sub("[^a-z0-9]+", "-", Path(self.path).stem.lower()).strip("-")[:40]
        return f"{stem or 'own'}-{(self.fingerprint or '')[:8]}"

    @property
    def described(self) -> str:
        """The name of the images, of own ones with the share for test."""
        share = f" with data.test_fraction={self.test_fraction}" if self.path else ""
        return self.dataset + share

    @property
    def folder(self) -> str:
        """The folder in `root` that holds them."""
        return self.name if self.path is None else f"{STORES}/{(self.fingerprint or '')[:16]}"

    @property
    def identity(self) -> tuple[str, str]:
        """What two settings of the same images and splits have in common, wherever these lie."""
        if self.path is None:
            return self.name, self.binarize
        return f"{self.fingerprint} {self.test_fraction}", self.binarize

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width of an own image, if they are set."""
        if self.size is None:
            return None
        height, width = [self.size] * 2 if isinstance(self.size, int) else self.size
        return height, width


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
    """One run. `model` is the dataclass that belongs to `kind`: see `models.build`."""

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
