"""What every flow over continuous latents offers: log p(z | label), and latents that are drawn.

A flow is an invertible map between latents and noise x₀ ~ N(0, I), given the label:

```
 z N,D,h,w ──► u = (z − mean)/std ──► x₀ ──► log p(z) = log N(x₀; 0, I) + log |dx₀/dz|
 x₀        ──► u ──► z                       what is drawn
```

`matching.py` has the one that follows a learned velocity, `coupling.py` the one of a single pass.

Letters: N latents of D·h·w = M numbers.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqvae_lightning.config import setting
from vqvae_lightning.models.bottlenecks import Noise, fresh_noise
from vqvae_lightning.models.priors.prior import Completes, Uniform

# Below it a channel counts as one that never varies, and is not made larger.
SMALLEST_STD = 1e-6


class Flow(nn.Module, ABC):
    """p(z | label) of latents z (N, D, h, w) and labels (N,) in 0 … classes−1, or p(z) with
    classes = 0.
    """

    # The settings of `generate`: a frozen dataclass with `of`, which reads and checks them.
    sampling: ClassVar[type[Any]]
    completes: ClassVar[Completes]
    # Whether a density takes one pass through the network, and not hundreds.
    one_pass: ClassVar[bool]

    mean: Tensor  # D,1,1
    std: Tensor  # D,1,1
    fitted: Tensor  # ()  bool: whether mean and std are those of latents

    def __init__(
        self, shape: tuple[int, int, int], classes: int = 0, label_dropout: float = 0.0
    ) -> None:
        """What all flows have; a subclass adds its network.

        Args:
            shape: (D, h, w) of a latent.
            classes: how many labels there are; 0: p(z) without labels.
            label_dropout: the share of labels that a training step forgets (Ho & Salimans 2022,
                arXiv 2207.12598). Above 0 the label `classes` means that there is none.
        """
        super().__init__()
        self.shape, self.classes, self.label_dropout = shape, classes, label_dropout
        self.size = math.prod(shape)
        # Rows of an embedding of labels.
        self.labels = max(classes, 1) + (label_dropout > 0)
        self.register_buffer("mean", torch.zeros(shape[0], 1, 1))
        self.register_buffer("std", torch.ones(shape[0], 1, 1))
        self.register_buffer("fitted", torch.tensor(False))

    @property
    def is_exact(self) -> bool:
        """Whether `log_prob` is a value, and not an unbiased estimate of one."""
        return True

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Passes through the network for a latent, with the usual settings."""

    @abstractmethod
    def loss(self, z: Tensor, labels: Tensor | None, noise: Noise, uniform: Uniform) -> Tensor:
        """What training makes small, (N,).

        Args:
            z: latents (N, D, h, w).
            labels: their classes (N,), None of an unconditional flow.
            noise: the source of normal numbers.
            uniform: the source of uniform ones: it is asked once, for a tensor (N, k) of which the
                last column says which labels a training forgets.
        """

    @abstractmethod
    def log_prob(
        self, z: Tensor, labels: Tensor | None = None, noise: Noise = fresh_noise
    ) -> Tensor:
        """log p(z | label) in nats, (N,) float64.

        Args:
            z: latents (N, D, h, w).
            labels: their classes (N,), None of an unconditional flow.
            noise: the source of what is random in an estimate.
        """

    def log_prob_error(self, z: Tensor, labels: Tensor | None, noise: Noise) -> Tensor:
        """How far from log p(z) a `log_prob` of the same arguments may be, in nats, (N,) float64.

        It is 0 unless something is approximated. The chance of an estimate is not in it.
        """
        return z.new_zeros(len(z), dtype=torch.float64)

    @abstractmethod
    def to_noise(self, z: Tensor, labels: Tensor | None, settings: Any) -> Tensor:
        """x₀ (N, D, h, w), the noise that belongs to z (N, D, h, w)."""

    @abstractmethod
    def from_noise(
        self,
        noise: Tensor,
        labels: Tensor | None,
        settings: Any,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """z (N, D, h, w) of x₀ (N, D, h, w).

        Args:
            noise: x₀.
            labels: classes (N,), None of an unconditional flow.
            settings: of the type that `sampling` is.
            known: latents and mask, (N, D, h, w) each, of a flow that completes.

        Raises:
            ValueError: for guidance of a flow that has forgotten no labels.
        """

    @abstractmethod
    def compile_layers(self) -> None:
        """Compiles what a training step runs through."""

    def fit_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Takes over mean and standard deviation of each channel of the latents, (D,) each."""
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(std.clamp_min(SMALLEST_STD).view_as(self.std))
        self.fitted.fill_(True)

    @torch.inference_mode()
    def generate(
        self,
        n: int,
        labels: Tensor | None = None,
        known: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
        **sampling: Any,
    ) -> Tensor:
        """n latents z (n, D, h, w).

        Args:
            n: how many.
            labels: their classes (n,), None of an unconditional flow.
            known: latents (n, D, h, w) and a mask (n, D, h, w), True where they are given, of a
                flow that completes. These stay as they are.
            generator: the source of the noise.
            sampling: see the class that `sampling` is.

        Raises:
            ValueError: for values out of range.
        """
        settings = self.sampling.of(sampling)
        noise = torch.randn(
            n, *self.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        if known is None:
            return self.from_noise(noise, labels, settings)
        z, mask = known
        if self.completes == "nothing":
            raise ValueError(
                f"known: got latents, but a {type(self).__name__} draws all numbers of a latent at"
                " once; wanted none"
            )
        if z.shape != noise.shape or mask.shape != noise.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"known: got latents {tuple(z.shape)} and a mask of {mask.dtype}"
                f" {tuple(mask.shape)}, wanted latents and torch.bool of shape"
                f" {tuple(noise.shape)}"
            )
        return self.from_noise(noise, labels, settings, (z.to(noise), mask.to(noise.device)))

    def normalized(self, z: Tensor) -> Tensor:
        """u (N, D, h, w) of z (N, D, h, w)."""
        return (z - self.mean) / self.std

    def denormalized(self, u: Tensor) -> Tensor:
        """z (N, D, h, w) of u (N, D, h, w)."""
        return u * self.std + self.mean

    def rows_of(self, labels: Tensor | None, n: int) -> Tensor:
        """Rows (n,) of an embedding of labels. Raises ValueError for missing ones."""
        if self.classes == 0:
            return torch.zeros(n, dtype=torch.int64, device=self.mean.device)
        if labels is None:
            raise ValueError(f"labels: got none, wanted {n} labels: this flow is class-conditional")
        return labels.to(self.mean.device)

    def rows_in_training(self, labels: Tensor | None, forgotten: Tensor) -> Tensor:
        """Rows (N,) of an embedding of labels, of which a training forgets a share.

        It does those with a number (N,) of `forgotten` below `label_dropout`.
        """
        rows = self.rows_of(labels, len(forgotten))
        if self.label_dropout and self.training:
            rows = rows.masked_fill(forgotten < self.label_dropout, self.classes)
        return rows


class FlowNetwork(nn.Module, ABC):
    """The network of a flow, which `model.network.name` chooses. A member of `FLOWS`."""

    @dataclass
    class Config:
        """The settings of a network; those of a member are a subclass of these."""

        width: int = setting(128, "channels of the network", at_least=1)

    flow: ClassVar[type[Flow]]  # the kind of flow that it is the network of

    @classmethod
    @abstractmethod
    def build(
        cls, config: Any, shape: tuple[int, int, int], classes: int, label_dropout: float
    ) -> Flow:
        """A flow with such a network.

        Args:
            config: the settings of the network.
            shape: (D, h, w) of a latent.
            classes: how many labels there are; 0: p(z) without labels.
            label_dropout: the share of labels that a training step forgets.
        """
