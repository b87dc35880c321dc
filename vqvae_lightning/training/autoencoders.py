"""AE, VAE and VQVAE: LightningModules that differ in their config, their bottleneck and their
metrics.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from vqvae_lightning.config import MelWindow, OptimizerConfig, section_config, to_dict
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.randomness import RowNoise, seed_torch
from vqvae_lightning.metrics.codebook import CodebookUsage, measured_counts
from vqvae_lightning.metrics.latents import ActiveUnits
from vqvae_lightning.metrics.reconstruction import ReconstructionMetrics
from vqvae_lightning.models.autoencoder import Objective
from vqvae_lightning.models.bottlenecks import Noise
from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.distributed import shared_random
from vqvae_lightning.models.settings import AEConfig, AutoencoderConfig, VAEConfig, VQVAEConfig
from vqvae_lightning.pictures import Grid
from vqvae_lightning.signals.build import signal_of
from vqvae_lightning.training.given import PlainBatch, as_batch, checked_shape, warn_of_range
from vqvae_lightning.training.image_model import ImageModel
from vqvae_lightning.training.optimization import (
    StepRecord,
    check_precision,
    clip_step,
    configure_optimizer,
    logs_now,
    own_step_seed,
    planned_steps,
)


class AutoencoderModule(ImageModel):
    """The step, the logging and the optimizer of all three autoencoders.

    Both configs may be given as dataclasses or as the plain mappings that a checkpoint holds.

    The steps take batches of a run, and those of a loader of one's own: images, or images and
    labels, uint8 or float in [-1, 1]. Only a class-conditional decoder looks at labels.
    """

    Config: ClassVar[type[AutoencoderConfig]]
    config: AutoencoderConfig
    # Parts of the network whose gradients are measured apart.
    gradient_parts: ClassVar[tuple[str, ...]] = ("encoder", "bottleneck", "decoder")

    def __init__(
        self,
        config: AutoencoderConfig | Mapping[str, Any],
        image_shape: Sequence[int],
        optimizer: OptimizerConfig | Mapping[str, Any] | None = None,
        sound: Sequence[int] | None = None,
        classes: int = 0,
    ) -> None:
        """An autoencoder with new weights.

        Args:
            config: settings of the model.
            image_shape: (C, H, W).
            optimizer: settings of the optimizer.
            sound: the window (see `MelWindow`) of recordings; None: it learns images.
            classes: how many labels there are, of a `class_conditional` decoder.

        Raises:
            ConfigError: for settings that do not fit.
        """
        super().__init__()
        self.signal = signal_of(None if sound is None else MelWindow(*sound))
        self.config = section_config(self.Config, config, "model")
        self.optimizer_config = section_config(OptimizerConfig, optimizer or {}, "optimizer")
        image_shape = checked_shape(image_shape)
        self.net = build_autoencoder(self.config, image_shape, classes)
        has_bits = self.net.likelihood.discrete and self.net.bottleneck.has_prior
        self.split_metrics = torch.nn.ModuleDict(
            {
                split: MetricCollection(
                    {
                        "reconstruction": ReconstructionMetrics(
                            self.net.dims, has_bits, self.signal.errors
                        ),
                        **self.extra_metrics(),
                    },
                    compute_groups=False,
                )
                for split in ("val", "test")
            }
        )
        self.step_record = StepRecord()
        self.save_hyperparameters(
            {
                "kind": self.kind,
                "config": to_dict(self.config),
                "image_shape": list(image_shape),
                "optimizer": to_dict(self.optimizer_config),
                **({} if sound is None else {"sound": list(sound)}),
                **({"classes": classes} if self.config.class_conditional else {}),
            }
        )

    def extra_metrics(self) -> dict[str, Metric]:
        """Metrics of a split beyond those that all autoencoders share."""
        return {}

    def update_extra_metrics(self, metrics: MetricCollection, objective: Objective) -> None:
        """Adds a batch to the metrics of `extra_metrics`."""

    def beta(self) -> float:
        """Weight of the rate in the loss of validation and test, the same at every step."""
        return 1.0

    def training_objective(self, x: Tensor, noise: Noise, label: Tensor | None = None) -> Objective:
        """The objective of a training step for images x (N, C, H, W) in [-1, 1] with labels."""
        objective: Objective = self.net(x, self.beta(), noise=noise, label=label)
        return objective

    def on_fit_start(self) -> None:
        check_precision(self.trainer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if isinstance(batch, Batch):
            # Every draw of this step is then a function of (seed, epoch, batch).
            seed_torch(batch.seed)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch = self._batch(batch, batch_idx)
        x = batch.x.to(self.dtype)  # float64 with trainer.precision=64-true
        objective = self.training_objective(x, batch.step_noise, batch.labels)
        if logs_now(self):
            values = {
                "loss": objective.loss.detach(),
                "distortion": objective.distortion.detach().mean(),
                "rate": objective.latent.rate.detach().mean(),
                **self.signal.errors.of_batch(x, objective.reconstruction.detach()),
                **objective.latent.logs,
            }
            self.log_dict({f"train/{name}": value for name, value in values.items()})
        self.step_record.append(batch, objective.loss)
        return objective.loss

    def _batch(self, batch: Any, index: int, loader: int = 0) -> Batch:
        """The batch of a step, with float images in [-1, 1]. Raises ValueError."""
        found = as_batch(batch, index, loader)
        if not isinstance(found, PlainBatch):
            return found
        first = index == 0
        if first and self.training:
            warn_of_range(found.x)
        # The values of later batches are not looked at: that would wait for a GPU at every step.
        found = found._replace(x=self._images(found.x, check_values=first))
        labels = self._labels(len(found.x), found.labels, first) if self.net.classes else None
        return found if labels is None else found._replace(labels=labels)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        batch = self.step_record.first
        # before the codebook learns from the step
        parts = {name: getattr(self.net, name) for name in self.gradient_parts}
        clip_step(self, self.net, self.optimizer_config, self.step_record, parts)
        # The codebook draws where it is initialized and where codes are reset.
        if isinstance(batch, PlainBatch):
            with shared_random(own_step_seed(self.trainer.global_step), self.device):
                self.net.bottleneck.update()
        else:
            seed_torch(batch.seed)
            self.net.bottleneck.update()
        if logs_now(self):
            diagnostics = self.net.bottleneck.diagnostics()
            self.log_dict({f"train/{name}": value.float() for name, value in diagnostics.items()})

    # The figures of a split are over the images of all its loaders.

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluation_step("val", self._batch(batch, batch_idx, dataloader_idx))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluation_step("test", self._batch(batch, batch_idx, dataloader_idx))

    def _evaluation_step(self, split: str, batch: Batch) -> None:
        x = batch.x.to(self.dtype)
        noise = batch.row_noise("latent").normal
        objective: Objective = self.net(x, self.beta(), noise=noise, label=batch.labels)
        # nn.ModuleDict does not say what it holds.
        metrics: MetricCollection = self.split_metrics[split]  # type: ignore[assignment]
        metrics["reconstruction"].update(x, objective)
        self.update_extra_metrics(metrics, objective)

    def on_validation_epoch_end(self) -> None:
        self._log_split("val")

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def _log_split(self, split: str) -> None:
        # nn.ModuleDict does not say what it holds.
        metrics: MetricCollection = self.split_metrics[split]  # type: ignore[assignment]
        self.log_dict(
            {f"{split}/{name}": value.float() for name, value in metrics.compute().items()}
        )
        metrics.reset()

    def configure_optimizers(self) -> Any:
        return configure_optimizer(self.net, self.optimizer_config, planned_steps(self.trainer))

    @torch.no_grad()
    def pictures(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Grid]:
        """Named grids to show, for reference images x (N, C, H, W) in [-1, 1] with labels (N,)."""
        columns = min(16, x.shape[0])
        x = x.to(self.dtype)[: x.shape[0] // columns * columns]
        label = None if labels is None else labels[: len(x)]
        noise = RowNoise(0, "pictures", torch.arange(len(x))).normal
        reconstructions = self.net(x, noise=noise, label=label).reconstruction
        rows = zip(x.split(columns), reconstructions.split(columns), strict=True)
        return {
            "reconstructions": Grid(
                torch.cat([images for row in rows for images in row]),
                columns,
                caption="A row of originals, a row of their reconstructions, and so on",
                is_pairs=True,
            ),
            "samples": Grid(
                self.net.sample(x.shape[0]), columns, caption="Decoded from latents that were drawn"
            ),
        }

    def code_counts(self, split: str) -> Tensor | None:
        """None: an AE and a VAE have no codes."""
        return None


class AE(AutoencoderModule):
    """Autoencoder: reconstructs, but has no p(z) to draw from."""

    kind = "ae"
    Config = AEConfig


class VAE(AutoencoderModule):
    """Variational autoencoder (Kingma & Welling 2014; β: Higgins et al. 2017); with β = 1 its loss
    is −ELBO/dims.

    Warm-up of β, free bits and importance weighting change the training loss only. val/loss is
    always (distortion + β rate)/dims. Runs with and without them can therefore be compared, and so
    can the validations of one run before and after its warm-up.
    """

    kind = "vae"
    Config = VAEConfig
    config: VAEConfig

    def beta(self) -> float:
        return self.config.beta

    def training_objective(self, x: Tensor, noise: Noise, label: Tensor | None = None) -> Objective:
        config = self.config
        if config.importance_samples > 1:
            return self.net.importance_weighted(x, config.importance_samples, noise, label)
        beta = warmed_up(config.beta, self.trainer.global_step, config.kl_warmup_steps)
        if config.kl_warmup_steps and logs_now(self):
            self.log("train/beta", beta)
        objective: Objective = self.net(x, beta, config.free_bits, noise, label)
        return objective

    def extra_metrics(self) -> dict[str, Metric]:
        units = self.config.latent_dim * self.net.grid[0] * self.net.grid[1]
        return {"active_units": ActiveUnits(units)}

    def update_extra_metrics(self, metrics: MetricCollection, objective: Objective) -> None:
        metrics["active_units"].update(objective.latent.mean)


class VQVAE(AutoencoderModule):
    """Vector-quantized autoencoder (van den Oord et al. 2017): the tokenizer of a `CodePrior`."""

    kind = "vqvae"
    Config = VQVAEConfig

    def extra_metrics(self) -> dict[str, Metric]:
        layout = self.net.layout
        assert layout is not None
        return {"codebook": CodebookUsage(layout.codebook_size, layout.num_codebooks)}

    def update_extra_metrics(self, metrics: MetricCollection, objective: Objective) -> None:
        metrics["codebook"].update(objective.latent.codes)

    def code_counts(self, split: str) -> Tensor | None:
        """How often each code occurred in the split that was measured last, (M, K)."""
        return measured_counts(self.split_metrics[split])


def warmed_up(beta: float, step: int, warmup_steps: int) -> float:
    """β after `step` optimizer steps: linear from 0 at the first to `beta` at step `warmup_steps`
    and after.
    """
    return beta * min(1.0, step / warmup_steps) if warmup_steps else beta
