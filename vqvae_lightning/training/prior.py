"""CodePrior: an autoregressive model of a frozen tokenizer's codes, the p(z) that gives a VQ-VAE
its samples.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from vqvae_lightning.config import OptimizerConfig, section_config, to_dict
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.randomness import seed_torch
from vqvae_lightning.metrics.codebook import CodebookUsage
from vqvae_lightning.metrics.information import code_rate, entropy_ratio
from vqvae_lightning.metrics.latents import Mean
from vqvae_lightning.models.build import PriorConfig, build_prior
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.pictures import Grid
from vqvae_lightning.training.optimization import StepRecord, clip_step, configure_adamw, logs_now


class CodePrior(pl.LightningModule):
    """Trains P(codes | label) on codes (N, T); its rate replaces the T log K of the uniform prior
    in the ledger.

    `tokenizer` describes the first stage in plain values (fingerprint, codebook_size, grid, dims,
    run). Every checkpoint holds it, so a prior is never decoded by a tokenizer other than its own.
    """

    kind: ClassVar[str] = "prior"
    Config: ClassVar[type[PriorConfig]] = PriorConfig

    def __init__(
        self,
        config: PriorConfig | Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        classes: int,
        optimizer: OptimizerConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = section_config(self.Config, config, "model")
        self.optimizer_config = section_config(OptimizerConfig, optimizer or {}, "optimizer")
        self.description = dict(tokenizer)
        layout = CodeLayout.of_shape(tokenizer["grid"], tokenizer["codebook_size"])
        self.net = build_prior(self.config, layout, classes)
        self.split_metrics = torch.nn.ModuleDict(
            {
                split: MetricCollection(
                    {
                        "rate": Mean(),
                        "codebook": CodebookUsage(layout.codebook_size, layout.num_codebooks),
                    },
                    compute_groups=False,
                )
                for split in ("val", "test")
            }
        )
        self.tokenizer: Tokenizer | None = None  # for pictures only; see `attach`
        self.classes = classes
        self.step_record = StepRecord()
        self.save_hyperparameters(
            {
                "kind": self.kind,
                "config": to_dict(self.config),
                "tokenizer": self.description,
                "classes": classes,
                "optimizer": to_dict(self.optimizer_config),
            }
        )

    def attach(self, tokenizer: Tokenizer) -> "CodePrior":
        """Gives the prior the tokenizer it decodes with.

        Raises ValueError unless it is the one it was trained on.
        """
        if tokenizer.fingerprint != self.description["fingerprint"]:
            raise ValueError(
                f"tokenizer: got fingerprint {tokenizer.fingerprint[:16]}, but this prior was"
                f" trained on the codes of {self.description['fingerprint'][:16]}"
                f" ({self.description['run']})"
            )
        self.tokenizer = tokenizer
        return self

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # dropout: a function of (seed, epoch, batch, micro-batch, rank)
        seed_torch(batch.seed + batch.part)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        nll = self.net.nll(batch.x.long(), self._labels(batch))  # N,T
        loss = nll.mean()
        self.step_record.append(batch, loss)
        if logs_now(self):
            rate = nll.detach().sum(1).mean()
            self.log_dict({f"train/{k}": v for k, v in code_rate(rate, self.net.length).items()})
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        clip_step(self, self.net, self.optimizer_config, self.step_record)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step("test", batch)

    def _evaluation_step(self, split: str, batch: Batch) -> None:
        # nn.ModuleDict does not say what it holds.
        metrics: MetricCollection = self.split_metrics[split]  # type: ignore[assignment]
        metrics["rate"].update(-self.net.log_prob(batch.x.long(), self._labels(batch)))
        metrics["codebook"].update(batch.x)

    def on_validation_epoch_end(self) -> None:
        self._log_split("val")

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def _log_split(self, split: str) -> None:
        # nn.ModuleDict does not say what it holds.
        metrics: MetricCollection = self.split_metrics[split]  # type: ignore[assignment]
        values = metrics.compute()
        values = {**values, **code_rate(values["rate"], self.net.length)}
        values |= entropy_ratio(values["bits_per_code"], values["code_entropy_bits"])
        self.log_dict(
            {f"{split}/{name}": torch.as_tensor(value).float() for name, value in values.items()}
        )
        metrics.reset()

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch.labels if self.config.class_conditional else None

    def configure_optimizers(self) -> Any:
        return configure_adamw(self.net, self.optimizer_config, self.trainer.max_steps)

    @torch.no_grad()
    def sample(self, labels: Tensor, **sampling: Any) -> Tensor:
        """Images (N, C, H, W) in [-1, 1], one for each label (N,). `sampling` goes to
        `AutoregressivePrior.generate`.

        An unconditional prior uses only the number of labels. Raises ValueError without
        `attach`.
        """
        if self.tokenizer is None:
            raise ValueError(
                "tokenizer: this prior has none to decode with; call attach(tokenizer) first"
            )
        labels = labels.to(self.device)
        codes = self.net.generate(
            len(labels), labels if self.config.class_conditional else None, **sampling
        )
        return self.tokenizer.to(self.device).decode(codes)

    def pictures(self, x: Tensor) -> dict[str, Grid]:
        """Named grids to show: samples, a row per class (of the first ten). x is not used: a prior
        sees no images.
        """
        columns = 10
        labels = torch.arange(min(self.classes, 10)).repeat_interleave(columns)
        shown = labels if self.config.class_conditional else None
        return {"samples": Grid(self.sample(labels), columns, shown)}
