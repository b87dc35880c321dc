"""What modules of stage 2 have in common: a frozen first stage, labels, and samples."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from vqvae_lightning.config import ConfigError, OptimizerConfig, section_config, to_dict
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.randomness import seed_torch
from vqvae_lightning.models.first_stage import FirstStage
from vqvae_lightning.models.settings import SecondStageConfig
from vqvae_lightning.pictures import Grid
from vqvae_lightning.training.given import checked_labels
from vqvae_lightning.training.image_model import checked_count
from vqvae_lightning.training.optimization import (
    StepRecord,
    check_precision,
    clip_step,
    configure_optimizer,
    planned_steps,
)


class SecondStage(pl.LightningModule, ABC):
    """A model of the latents of a frozen first stage.

    The first stage is no part of the module: it is neither trained nor saved with it. `description`
    is its record, which every checkpoint holds, so that no other one decodes what was learned.

    A subclass builds `net`, and `split_metrics` by `metrics_of_splits`.
    """

    kind: ClassVar[str]
    Config: ClassVar[type[SecondStageConfig]]
    net: nn.Module
    split_metrics: nn.ModuleDict

    def __init__(
        self,
        config: SecondStageConfig | Mapping[str, Any],
        first_stage: FirstStage | None,
        description: Mapping[str, Any],
        classes: int = 0,
        optimizer: OptimizerConfig | Mapping[str, Any] | None = None,
    ) -> None:
        """The settings, checked.

        Args:
            config: settings of the model, as a dataclass or as a plain mapping.
            first_stage: what it learns the latents of, or None to `attach` it later.
            description: the record of that.
            classes: how many labels there are.
            optimizer: settings of the optimizer, as a dataclass or as a plain mapping.

        Raises:
            ConfigError: for settings that do not fit.
        """
        super().__init__()
        self.config = section_config(self.Config, config, "model")
        self.optimizer_config = section_config(OptimizerConfig, optimizer or {}, "optimizer")
        if self.config.class_conditional and classes < 1:
            raise ConfigError(
                f"classes: got {classes}, wanted at least 1, or model.class_conditional=false"
            )
        self.first_stage, self.description = first_stage, dict(description)
        self.classes = classes
        self.step_record = StepRecord()
        self.save_hyperparameters(
            {
                "kind": self.kind,
                "config": to_dict(self.config),
                self.config.first_stage_at: self.description,
                "classes": classes,
                "optimizer": to_dict(self.optimizer_config),
            }
        )

    def attach(self, first_stage: FirstStage) -> "SecondStage":
        """Gives the module the first stage that it decodes with.

        Raises ValueError unless it is the one whose latents it learned.
        """
        described, name = self.description, self.config.first_stage_at
        if first_stage.fingerprint != described["fingerprint"]:
            raise ValueError(
                f"{name}: got fingerprint {first_stage.fingerprint[:16]}, but this model was"
                f" trained on the latents of {described['fingerprint'][:16]} ({described['run']})"
            )
        self._check_shape(first_stage)
        self.first_stage = first_stage
        return self

    @abstractmethod
    def _check_shape(self, first_stage: FirstStage) -> None:
        """Raises ValueError unless the latents of a first stage are as its record says."""

    def _attached(self) -> FirstStage:
        """The first stage, on the module's device. Raises ValueError without one."""
        if self.first_stage is None:
            name = self.config.first_stage_at
            raise ValueError(
                f"{name}: this model has none to decode with; call attach({name}) first"
            )
        return self.first_stage.to(self.device)

    def on_fit_start(self) -> None:
        check_precision(self.trainer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if isinstance(batch, Batch):
            # What is drawn from torch's global state in this step is then a function of the batch.
            seed_torch(self._step_seed(batch))

    @abstractmethod
    def _step_seed(self, batch: Batch) -> int:
        """The seed of torch's global random state in the step of a batch."""

    def on_validation_epoch_end(self) -> None:
        self._log_split("val")

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def metrics_of(self, split: str) -> MetricCollection:
        """The metrics of a split, over the batches since they were last logged."""
        found = self.split_metrics[split]
        assert isinstance(found, MetricCollection)  # nn.ModuleDict does not say what it holds
        return found

    def _log_split(self, split: str) -> None:
        metrics = self.metrics_of(split)
        self.log_dict(
            {
                f"{split}/{name}": torch.as_tensor(value).float()
                for name, value in self._figures(metrics).items()
            }
        )
        metrics.reset()

    @abstractmethod
    def _figures(self, metrics: MetricCollection) -> Mapping[str, Tensor | float]:
        """The figures of a split by name, of its metrics."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        clip_step(self, self.net, self.optimizer_config, self.step_record)

    def configure_optimizers(self) -> Any:
        return configure_optimizer(self.net, self.optimizer_config, planned_steps(self.trainer))

    def labels_of(self, batch: Batch) -> Tensor | None:
        """The labels (N,) of a batch, None of an unconditional model."""
        return batch.labels if self.config.class_conditional else None

    def labels_for(self, n: int, label: Any) -> Tensor | None:
        """The classes (n,) of n images, None of a model without them. Raises ValueError.

        `label` is one class for all, one for each, or None: they are drawn, each equally likely.
        """
        if not self.config.class_conditional:
            if label is not None:
                raise ValueError(f"label: got {label}, but this model is not class-conditional")
            return None
        if label is None:
            return torch.randint(self.classes, (n,), device=self.device)
        return self.checked_labels(n, label)

    def checked_labels(self, n: int, label: Any, check_values: bool = True) -> Tensor:
        """The classes (n,) int64 of one label for all n, or one for each. Raises ValueError."""
        return checked_labels(label, n, self.classes, self.device, check_values)

    @torch.no_grad()
    def sample(
        self, n: int = 16, label: Any = None, decoded_as: Any = None, **sampling: Any
    ) -> Tensor:
        """n images (n, C, H, W) in [-1, 1], decoded by the first stage.

        Args:
            n: how many.
            label: the class of all, or of each (n,), of a class-conditional model. By default
                classes are drawn, each equally likely.
            decoded_as: the label of all, or of each (n,), that a class-conditional decoder is
                given. By default that of the sample, where the two have as many classes: they are
                then of one sort. Else it is drawn.
            sampling: settings of the family, such as guidance, and `known` and `generator`: see
                `generate` of `net`.

        Raises:
            ValueError: for values out of range, and without a first stage.
        """
        n = checked_count(n)
        first_stage = self._attached()
        labels = self.labels_for(n, label)
        decoded_as = self._decoded_as(n, labels, decoded_as)
        return first_stage.decode(self.generated(n, labels, sampling), decoded_as)

    def _decoded_as(self, n: int, labels: Tensor | None, given: Any) -> Tensor | None:
        """The labels (n,) for the decoder of samples of classes `labels`, None if it has none."""
        first_stage = self._attached()
        if given is not None:
            if not first_stage.classes:
                raise ValueError(
                    "decoded_as: got one, but the decoder is given no label; wanted none"
                )
            return checked_labels(given, n, first_stage.classes, self.device, name="decoded_as")
        if labels is not None and first_stage.classes == self.classes:
            return labels
        return first_stage.drawn_labels(n)

    @abstractmethod
    def generated(self, n: int, labels: Tensor | None, sampling: dict[str, Any]) -> Tensor:
        """n latents of labels (n,), as the first stage decodes them."""

    def pictures(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Grid]:
        """Named grids to show: samples, a row per class (of the first ten). x and its labels are
        not used: a prior sees no images.
        """
        rows, columns = max(1, min(self.classes, 10)), 10
        of_rows = torch.arange(rows).repeat_interleave(columns)
        shown = of_rows if self.config.class_conditional else None
        drawn = "a row per class" if shown is not None else "unconditional"
        caption = f"Decoded from latents that the prior drew, {drawn}"
        return {"samples": Grid(self.sample(len(of_rows), shown), columns, shown, caption)}


def metrics_of_splits(make: Callable[[], Mapping[str, Metric]]) -> nn.ModuleDict:
    """The `split_metrics` of a module: those that `make` makes, for each split."""
    return nn.ModuleDict(
        {split: MetricCollection(dict(make()), compute_groups=False) for split in ("val", "test")}
    )
