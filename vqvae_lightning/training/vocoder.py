"""Vocoder: the LightningModule that learns waveforms of the windows of recordings."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from vqvae_lightning.config import MelWindow, OptimizerConfig, section_config, to_dict
from vqvae_lightning.data.heard import HeardBatch
from vqvae_lightning.metrics.latents import Mean
from vqvae_lightning.pictures import Grid
from vqvae_lightning.signals.sound import last_recorded, log_spectral_distance
from vqvae_lightning.signals.spectral_loss import magnitude_losses, spectral_losses
from vqvae_lightning.signals.vocoder import VocoderConfig, VocoderNet
from vqvae_lightning.training.optimization import (
    StepRecord,
    check_precision,
    clip_step,
    configure_optimizer,
    logs_now,
    planned_steps,
)
from vqvae_lightning.training.second_stage import metrics_of_splits


class Vocoder(pl.LightningModule):
    """A network that is trained by the spectra of what it makes of windows, and draws nothing."""

    kind = "vocoder"

    def __init__(
        self,
        config: VocoderConfig | Mapping[str, Any],
        sound: Sequence[int],
        optimizer: OptimizerConfig | Mapping[str, Any] | None = None,
    ) -> None:
        """A vocoder with new weights.

        Args:
            config: settings of the model.
            sound: the window (see `MelWindow`) of the recordings.
            optimizer: settings of the optimizer.

        Raises:
            ConfigError: for settings that do not fit.
        """
        super().__init__()
        self.config = section_config(VocoderConfig, config, "model")
        self.optimizer_config = section_config(OptimizerConfig, optimizer or {}, "optimizer")
        self.net = VocoderNet(self.config, MelWindow(*sound))
        names = (
            "loss",
            "magnitude",
            "convergence",
            "log_magnitude",
            "mel",
            "log_spectral_distance",
        )
        self.split_metrics = metrics_of_splits(lambda: {name: Mean() for name in names})
        self.step_record = StepRecord()
        self.save_hyperparameters(
            {
                "kind": self.kind,
                "config": to_dict(self.config),
                "sound": list(sound),
                "optimizer": to_dict(self.optimizer_config),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Waveforms (N, S) of windows x (N, 1, bands, frames) in [-1, 1]."""
        waveforms: Tensor = self.net(x)
        return waveforms

    def on_fit_start(self) -> None:
        check_precision(self.trainer)

    def _losses(self, heard: HeardBatch) -> tuple[Mapping[str, Tensor], Tensor]:
        """The loss and its parts by name, (N,) each, and the waveforms (N, S) that were found."""
        x, mel = heard.batch.x.to(self.dtype), self.net.mel
        of_bins, phases = self.net.spectra(x)
        with torch.autocast(x.device.type, enabled=False):
            # Magnitudes must not make up for phases that are wrong: they learn from bins alone.
            found = mel.overlapped(torch.polar(of_bins.detach(), phases))
            wanted = mel.at_loudest(heard.waveforms.to(found.dtype))
            magnitude = magnitude_losses(mel.spectra(wanted).abs(), of_bins)
            parts = {"magnitude": magnitude, **spectral_losses(mel, x, wanted, found)}
            return {"loss": torch.stack([*parts.values()]).sum(0), **parts}, found

    def training_step(self, heard: HeardBatch, batch_idx: int) -> Tensor:
        values, _ = self._losses(heard)
        loss = values["loss"].mean()
        if logs_now(self):
            self.log_dict({f"train/{name}": part.detach().mean() for name, part in values.items()})
        self.step_record.append(heard.batch, loss)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        clip_step(self, self.net, self.optimizer_config, self.step_record)

    def validation_step(self, heard: HeardBatch, batch_idx: int) -> None:
        self._evaluation_step("val", heard)

    def test_step(self, heard: HeardBatch, batch_idx: int) -> None:
        self._evaluation_step("test", heard)

    def _evaluation_step(self, split: str, heard: HeardBatch) -> None:
        values, found = self._losses(heard)
        x, mel = heard.batch.x, self.net.mel
        again = mel.windows(found, mel.hop * last_recorded(x)[:, 0]).to(x.device)
        values = {**values, "log_spectral_distance": log_spectral_distance(x, again)}
        for name, metric in self._metrics(split).items():
            metric.update(values[name])

    def _metrics(self, split: str) -> MetricCollection:
        found = self.split_metrics[split]
        assert isinstance(found, MetricCollection)  # nn.ModuleDict does not say what it holds
        return found

    def on_validation_epoch_end(self) -> None:
        self._log_split("val")

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def _log_split(self, split: str) -> None:
        metrics = self._metrics(split)
        found = metrics.compute()
        self.log_dict({f"{split}/{name}": value.float() for name, value in found.items()})
        metrics.reset()

    def configure_optimizers(self) -> Any:
        return configure_optimizer(self.net, self.optimizer_config, planned_steps(self.trainer))

    def pictures(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Grid]:
        """One grid: the windows x (N, 1, bands, frames) in [-1, 1] that are heard beside it."""
        caption = "Windows of recordings, which are heard through the vocoder"
        return {"vocoded": Grid(x, min(16, len(x)), caption=caption)}

    def code_counts(self, split: str) -> Tensor | None:
        """None: it has no codes."""
        return None
