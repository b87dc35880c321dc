"""CodePrior: a model of a frozen tokenizer's codes, the p(z) that gives a VQ-VAE its samples."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from vqvae_lightning.config import ConfigError, OptimizerConfig, visible
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.randomness import RowNoise, eval_seed
from vqvae_lightning.metrics.codebook import CodebookUsage, measured_counts
from vqvae_lightning.metrics.information import code_rate, entropy_ratio
from vqvae_lightning.metrics.latents import Mean
from vqvae_lightning.models.build import build_prior
from vqvae_lightning.models.first_stage import FirstStage
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.prior import Known, PriorNetwork
from vqvae_lightning.models.priors.text import TextPrefix
from vqvae_lightning.models.quantizers.quantizer import check_codes
from vqvae_lightning.models.settings import PriorConfig
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.training.given import PlainBatch, as_batch, codes_of, images_of, tensor_of
from vqvae_lightning.training.optimization import logs_now, progress
from vqvae_lightning.training.record import TokenizerRecord
from vqvae_lightning.training.second_stage import SecondStage, metrics_of_splits
from vqvae_lightning.training.sharding import shard


class CodePrior(SecondStage):
    """Trains P(codes | label) on codes (N, T); its rate replaces the T log K of the uniform prior
    in the ledger.

    The steps take batches of a run, and those of a loader of one's own: codes, or (codes, labels),
    as a grid or as sequences; with a tokenizer also images, which it encodes.
    """

    kind = "prior"
    Config: ClassVar[type[PriorConfig]] = PriorConfig
    net: PriorNetwork

    def __init__(
        self,
        config: PriorConfig | Mapping[str, Any],
        tokenizer: Tokenizer | Mapping[str, Any],
        classes: int = 0,
        optimizer: OptimizerConfig | Mapping[str, Any] | None = None,
        texts: Sequence[str] = (),
    ) -> None:
        """A prior over the codes of a tokenizer.

        Args:
            config: settings of the model, as a dataclass or as a plain mapping.
            tokenizer: the first stage, such as `vqvae.tokenizer()`; or what describes it in plain
                values (fingerprint, codebook_size, grid, dims, run). Every checkpoint holds that
                description, so a prior is never decoded by a tokenizer other than its own.
            classes: how many labels there are.
            optimizer: settings of the optimizer, as a dataclass or as a plain mapping.
            texts: what each label says, of a prior with condition=text.

        Raises:
            ConfigError: for settings that do not fit.
        """
        known = tokenizer if isinstance(tokenizer, Tokenizer) else None
        described = TokenizerRecord.of(known).as_dict() if known else tokenizer
        super().__init__(config, known, cast(Mapping[str, Any], described), classes, optimizer)
        grid, codebook_size = self.description["grid"], self.description["codebook_size"]
        self.layout = layout = CodeLayout.of_shape(grid, codebook_size)
        config = cast(PriorConfig, self.config)
        self.texts = tuple(texts) if config.reads_texts else ()
        if self.texts:
            self.save_hyperparameters({"texts": list(self.texts)})
        self.net = build_prior(config, layout, classes, self.texts)
        self.split_metrics = metrics_of_splits(
            lambda: {
                "rate": Mean(),
                "codebook": CodebookUsage(layout.codebook_size, layout.num_codebooks),
            }
        )

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The frozen VQ-VAE; None until one is attached."""
        return cast(Tokenizer | None, self.first_stage)

    def _check_shape(self, first_stage: FirstStage) -> None:
        tokenizer = cast(Tokenizer, first_stage)
        found = [tokenizer.codebook_size, *tokenizer.grid]
        described = [self.description["codebook_size"], *self.description["grid"]]
        if found != described:
            raise ValueError(
                f"tokenizer: got K and grid {found}, but this prior says {described} of its own"
            )

    def configure_model(self) -> None:
        # Only a strategy that shards, such as `ShardedStrategy`, has a mesh of devices.
        if self.device_mesh is not None:
            shard(self.net, self.device_mesh["data_parallel"])

    def _step_seed(self, batch: Batch) -> int:
        # dropout: a function of (seed, epoch, batch, micro-batch, rank)
        return batch.seed + batch.part

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch = self._batch(batch, batch_idx)
        nll = self.net.training_nll(
            batch.x.long(), self.labels_of(batch), batch.step_uniform, progress(self.trainer)
        )  # N,T
        loss = nll.mean()
        self.step_record.append(batch, loss)
        if logs_now(self):
            rate = nll.detach().sum(1).mean()
            self.log_dict({f"train/{k}": v for k, v in code_rate(rate, self.net.length).items()})
        return loss

    # The figures of a split are over the codes of all its loaders.

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluation_step("val", self._batch(batch, batch_idx, dataloader_idx))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluation_step("test", self._batch(batch, batch_idx, dataloader_idx))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """What `forward` returns, of a batch of `Trainer.predict`."""
        batch = self._batch(batch, batch_idx, dataloader_idx)
        return -self._rate(batch)

    def _batch(self, batch: Any, index: int, loader: int = 0) -> Batch:
        """The batch of a step, with codes (N, T) and int64 labels (N,). Raises ValueError."""
        found = as_batch(batch, index, loader)
        if not isinstance(found, PlainBatch):
            return found
        # The values of later batches are not looked at: that would wait for a GPU at every step.
        first, labels = index == 0, found.labels
        codes = self._codes(found.x, check_values=first)
        if self.config.class_conditional:
            if not labels.numel():
                raise ValueError(
                    "labels: got a batch without them, wanted (codes, labels): this prior is"
                    " class-conditional"
                )
            labels = self.checked_labels(len(codes), labels, check_values=first)
        return found._replace(x=codes, labels=labels)

    def _evaluation_step(self, split: str, batch: Batch) -> None:
        metrics = self.metrics_of(split)
        metrics["rate"].update(self._rate(batch))
        metrics["codebook"].update(batch.x)

    def _rate(self, batch: Batch) -> Tensor:
        """Nats of each image of an evaluation, (N,), the same however images are dealt."""
        uniform = batch.row_noise("masks").uniform
        return self.net.rate(batch.x.long(), self.labels_of(batch), uniform)

    def _figures(self, metrics: MetricCollection) -> Mapping[str, Tensor | float]:
        values = metrics.compute()
        values = {**values, **code_rate(values["rate"], self.net.length)}
        values |= entropy_ratio(values["bits_per_code"], values["code_entropy_bits"])
        if self.net.bound_draws:
            values["bound_draws"] = self.net.bound_draws
        return values

    def _codes(self, given: Any, check_values: bool = True) -> Tensor:
        """Codes (N, T) of codes, or of images that the tokenizer encodes. Raises ValueError."""
        x, tokenizer = tensor_of(given, "codes"), self.tokenizer
        pixels = x.is_floating_point() or x.dtype == torch.uint8
        if tokenizer is not None and pixels and x.shape[1:] == tokenizer.image_shape:
            like = next(self.net.parameters())
            images = images_of(x, tokenizer.image_shape, like, check_values)
            return tokenizer.to(self.device).encode(images.float())
        codes = codes_of(x, self.layout, self.device)
        if check_values:
            check_codes(codes, self.layout.codebook_size)
        return self.layout.flatten(codes)

    def _known(self, given: Any) -> Known:
        """Known codes of grids (N, h, w), (N, h, w, M) or sequences (N, T). Raises ValueError."""
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise ValueError(f"known: got {type(given).__name__}, wanted a pair (codes, mask)")
        codes, mask = given
        found = self.layout.flatten(codes_of(codes, self.layout, self.device))
        flags = tensor_of(mask, "mask")
        if flags.dtype != torch.bool:
            raise ValueError(f"known: got a mask of {flags.dtype}, wanted torch.bool")
        return Known(found, self.layout.flatten(flags.to(self.device)))

    def forward(self, codes: Any, label: Any = None) -> Tensor:
        """log p(codes | label) in nats, (N,); of a masked prior an estimate of a lower bound on it.

        Args:
            codes: whole numbers (N, h, w), (N, h, w, M) or (N, T); or images (N, C, H, W), uint8 or
                float in [-1, 1], of a prior that has its tokenizer.
            label: the class of all, or of each (N,), of a class-conditional prior.

        Raises:
            ValueError: for another shape or dtype, codes outside 0 … K−1, or a class-conditional
                prior without labels.
        """
        if self.config.class_conditional and label is None:
            raise ValueError("label: got none, but this prior is class-conditional")
        found = self._codes(codes)
        noise = RowNoise(eval_seed(0), "masks", torch.arange(len(found)))
        return -self.net.rate(found, self.labels_for(len(found), label), noise.uniform)

    def generated(self, n: int, labels: Tensor | None, sampling: dict[str, Any]) -> Tensor:
        """n sequences of codes (n, T); codes and mask of `known` may be grids or sequences."""
        if sampling.get("known") is not None:
            sampling = {**sampling, "known": self._known(sampling["known"])}
        return self.net.generate(n, labels, **sampling)

    def say(self, text: str, n: int = 1, **sampling: Any) -> Tensor:
        """n images (n, C, H, W) in [-1, 1] of codes drawn given a text.

        Args:
            text: what is said, after its speaker if the prior knows speakers: `george: four`.
            n: how many.
            sampling: as of `sample`.

        Raises:
            ConfigError: for a text that cannot be read, and of a prior that reads none. For one
                that no label means, where the decoder is given the label.
        """
        prefix = self.check_text(text)
        if text in self.texts:
            label = self.texts.index(text)
        elif self._attached().classes == self.classes and sampling.get("decoded_as") is None:
            raise ConfigError(
                f"text: got '{visible(text)[:60]}', but the decoder is given the label of a known"
                " text; wanted one of those, or decoded_as"
            )
        else:
            label = 0  # which it is does not matter: each means the text below
        with prefix.reading(text):
            return self.sample(n, label, **sampling)

    def check_text(self, text: str) -> TextPrefix:
        """What reads a text before the codes. Raises ConfigError for one that cannot be read."""
        prefix = getattr(self.net, "text", None)
        if not isinstance(prefix, TextPrefix):
            raise ConfigError("text: this prior reads none; wanted one with model.condition=text")
        prefix.check(text)
        return prefix

    def code_counts(self, split: str) -> Tensor | None:
        """How often each code occurred in the split that was measured last, (M, K)."""
        return measured_counts(self.split_metrics[split])
