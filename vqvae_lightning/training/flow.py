"""AEFlow and VAEFlow: a flow over a frozen autoencoder's continuous latents."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import MetricCollection

from vqvae_lightning.config import OptimizerConfig
from vqvae_lightning.data.latents import LatentDataModule
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.randomness import RowNoise, derive_seed
from vqvae_lightning.metrics.latents import Mean, Moments
from vqvae_lightning.models.build import build_flow
from vqvae_lightning.models.first_stage import FirstStage, FrozenLatents
from vqvae_lightning.models.priors.flow import Flow
from vqvae_lightning.models.settings import FlowConfig
from vqvae_lightning.training.optimization import logs_now
from vqvae_lightning.training.record import LatentsRecord
from vqvae_lightning.training.second_stage import SecondStage, metrics_of_splits

BLOCK = 5_000  # latents that are measured together
CHECKED = 100  # rows of a split of whose density the error is measured
# Of an evaluation: what they are the mean of.
METRICS = ("loss", "latent_nats", "density_error", "rate")


class LatentFlow(SecondStage):
    """Trains p(z | label) on latents z (N, D, h, w) of a frozen AE or VAE.

    The loss is that of the kind of flow, see `Flow.loss`. A test, and a validation that is not
    part of a training, measure log p(z) too: `latent_nats`, per number of z. Of a VAE follows
    the rate E_q[log q(z|x) − log p(z)], which replaces the KL against N(0, I).

    A step takes batches of records h (N, c, h, w), see `FrozenLatents`. Another z ~ q(z|x) is drawn
    whenever an image is seen.
    """

    Config: ClassVar[type[FlowConfig]] = FlowConfig
    net: Flow

    def __init__(
        self,
        config: FlowConfig | Mapping[str, Any],
        first_stage: FrozenLatents | Mapping[str, Any],
        classes: int = 0,
        optimizer: OptimizerConfig | Mapping[str, Any] | None = None,
    ) -> None:
        """A flow over the latents of a first stage.

        Args:
            config: settings of the model, as a dataclass or as a plain mapping.
            first_stage: the frozen AE or VAE; or what describes it in plain values (fingerprint,
                shape, dims, run).
            classes: how many labels there are.
            optimizer: settings of the optimizer, as a dataclass or as a plain mapping.

        Raises:
            ConfigError: for settings that do not fit.
        """
        known = first_stage if isinstance(first_stage, FrozenLatents) else None
        described = LatentsRecord.of(known).as_dict() if known else first_stage
        super().__init__(config, known, cast(Mapping[str, Any], described), classes, optimizer)
        channels, height, width = self.description["shape"]
        self.net = build_flow(cast(FlowConfig, self.config), (channels, height, width), classes)
        self.split_metrics = metrics_of_splits(lambda: {name: Mean() for name in METRICS})

    def _check_shape(self, first_stage: FirstStage) -> None:
        shape = list(getattr(first_stage, "shape", ()))
        if shape != list(self.description["shape"]):
            raise ValueError(
                f"first_stage: got z of shape {shape}, but this flow says"
                f" {self.description['shape']} of its own"
            )

    @property
    def latents(self) -> FrozenLatents:
        """The first stage, on the module's device. Raises ValueError without one."""
        return cast(FrozenLatents, self._attached())

    def on_fit_start(self) -> None:
        """Takes over mean and standard deviation of the training latents, unless it has them.

        Raises ValueError for a training without a `LatentDataModule`.
        """
        super().on_fit_start()
        if not self.net.fitted:
            data = getattr(self.trainer, "datamodule", None)
            if not isinstance(data, LatentDataModule):
                raise ValueError(
                    "datamodule: a flow is normalized by its training latents, wanted a"
                    f" LatentDataModule, got {type(data).__name__}"
                )
            moments = Moments(self.net.shape[0])
            for z in self._all_latents(data):
                moments.update(z)
            self.net.fit_statistics(*moments.compute())

    def _all_latents(self, data: LatentDataModule) -> Iterator[Tensor]:
        """z (n, D, h, w) of all training images on the CPU, one draw of each."""
        first_stage, rows = self.latents, data.splits["train"]
        first_stage.to(torch.device("cpu"))
        generator = torch.Generator().manual_seed(derive_seed(data.images.seed, "moments"))
        for index in torch.arange(len(rows)).split(BLOCK):
            yield first_stage.draw(
                rows.take(index), lambda x: torch.randn(x.shape, generator=generator)
            )

    def _step_seed(self, batch: Batch) -> int:
        # Every draw of this step is then a function of (seed, epoch, batch).
        return batch.seed

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch = self._checked(batch)
        loss = step_loss(self.net, self.latents, batch, self.labels_of(batch))
        self.step_record.append(batch, loss)
        if logs_now(self):
            self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluation_step("val", self._checked(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluation_step("test", self._checked(batch))

    def _checked(self, batch: Any) -> Batch:
        """The batch of a step. Raises ValueError unless it is one of records h."""
        shape = self.latents.record_shape
        if not isinstance(batch, Batch) or tuple(batch.x.shape[1:]) != shape:
            got = type(batch).__name__
            if isinstance(batch, Batch):
                got = f"one of shape {tuple(batch.x.shape)}"
            raise ValueError(
                f"batch: got {got}, wanted a Batch of a LatentDataModule, of stored latents"
                f" (N, {', '.join(map(str, shape))})"
            )
        return batch

    def _evaluation_step(self, split: str, batch: Batch) -> None:
        metrics, labels = self.metrics_of(split), self.labels_of(batch)
        # The z of the first stage's own evaluation, so that its distortion belongs to them.
        z = self.latents.draw(batch.x, batch.row_noise("latent").normal).to(self.dtype)
        noise = batch.row_noise("flow")
        metrics["loss"].update(self.net.loss(z, labels, noise.normal, noise.uniform))
        measured = self._measured()
        if "latent_nats" in measured:
            nats = -self.net.log_prob(z, labels, batch.row_noise("probe").normal)
            metrics["latent_nats"].update(nats / self.net.size)
            metrics["density_error"].update(self._density_error(z, batch))
        if "rate" in measured:
            metrics["rate"].update(self.latents.log_posterior(batch.x, z).double() + nats)

    def _measured(self) -> list[str]:
        """The metrics of this evaluation: no density while training, and no rate of an AE."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            return ["loss"]
        return [name for name in METRICS if name != "rate" or self.latents.random]

    def _density_error(self, z: Tensor, batch: Batch) -> Tensor:
        """How far from log p(z) the measured one may be, for the first CHECKED rows of a split."""
        checked = batch.rows < CHECKED
        first = batch._replace(labels=batch.labels[checked], rows=batch.rows[checked])
        if not checked.any():
            return z.new_zeros(0)
        noise = first.row_noise("probe").normal
        return self.net.log_prob_error(z[checked], self.labels_of(first), noise)

    def _figures(self, metrics: MetricCollection) -> Mapping[str, Tensor | float]:
        values = {name: metrics[name].compute() for name in self._measured()}
        if len(values) > 1 and not self.net.is_exact:
            values["trace_probes"] = 1.0
        return values

    def forward(self, z: Tensor, label: Any = None) -> Tensor:
        """log p(z | label) in nats, (N,) float64, of latents z (N, D, h, w).

        Of more than 64 numbers, `mlp` and `dit` give an unbiased estimate.

        Args:
            z: latents, as `encode` of the autoencoder makes them.
            label: the class of all, or of each (N,), of a class-conditional flow.

        Raises:
            ValueError: for another shape, and for a class-conditional flow without labels.
        """
        if tuple(z.shape[1:]) != self.net.shape or not z.is_floating_point():
            raise ValueError(
                f"latents: got {z.dtype} of shape {tuple(z.shape)}, wanted floats"
                f" (N, {', '.join(map(str, self.net.shape))})"
            )
        if self.config.class_conditional and label is None:
            raise ValueError("label: got none, but this flow is class-conditional")
        noise = RowNoise(derive_seed(0, "flow"), "probe", torch.arange(len(z)))
        z = z.to(self.net.mean)
        return self.net.log_prob(z, self.labels_for(len(z), label), noise.normal)

    def generated(self, n: int, labels: Tensor | None, sampling: dict[str, Any]) -> Tensor:
        return self.net.generate(n, labels, **sampling)

    @torch.no_grad()
    def between(
        self, left: Tensor, right: Tensor, label: Any, count: int, **sampling: Any
    ) -> Tensor:
        """Images (N, count, C, H, W) between pairs of images (N, C, H, W), with both ends.

        The flow leads both latents back to noise. Noise on the arc between the two is as likely as
        they are, and leads to latents between them.

        Args:
            left: the first images, in [-1, 1].
            right: the last ones.
            label: the class of each pair, (N,), of a class-conditional flow.
            count: how many images, with both ends.
            sampling: settings of the flow, such as guidance.
        """
        first_stage, settings = self.latents, self.net.sampling.of(sampling)
        labels = self.labels_for(len(left), label)
        ends = [self.net.to_noise(first_stage.latents(x), labels, settings) for x in (left, right)]
        weights = torch.linspace(0, 1, count, device=left.device)
        noise = arc(ends[0].flatten(1), ends[1].flatten(1), weights)  # N,count,M
        repeated = None if labels is None else labels.repeat_interleave(count)
        z = self.net.from_noise(noise.reshape(-1, *self.net.shape), repeated, settings)
        images: Tensor = first_stage.decode(z).unflatten(0, (len(left), count))
        return images

    def code_counts(self, split: str) -> Tensor | None:
        """None: a continuous latent has no codes."""
        return None


class AEFlow(LatentFlow):
    """A flow over the z of an AE."""

    kind = "ae_flow"


class VAEFlow(LatentFlow):
    """A flow over the z of a VAE, in place of its N(0, I)."""

    kind = "vae_flow"


def step_loss(net: Flow, first_stage: FrozenLatents, batch: Batch, labels: Tensor | None) -> Tensor:
    """The loss () of a training step on records h (N, c, h, w), see `FrozenLatents`.

    Uniform numbers, as times and forgotten labels, are spread evenly over the rows of the step, in
    a random order (see `Batch.step_uniform`). This lowers the variance of a step's loss.
    """
    z = first_stage.draw(batch.x, batch.step_noise).to(net.mean.dtype)
    # A seed of their own: the noise is of the batch's, and would be made of the same random bits.
    apart = batch._replace(seed=derive_seed(batch.seed, "flow"))
    return net.loss(z, labels, batch.step_noise, apart.step_uniform).mean()


def arc(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Points (N, W, M) on the arc from rows a to rows b, (N, M) each, at weights (W,) in [0, 1]:
    spherical interpolation (Shoemake 1985).
    """
    cosine = torch.cosine_similarity(a, b, dim=1).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = cosine.acos()[:, None]  # N,1
    first = ((1 - weights) * angle).sin() / angle.sin()  # N,W
    second = (weights * angle).sin() / angle.sin()
    return first[:, :, None] * a[:, None] + second[:, :, None] * b[:, None]
