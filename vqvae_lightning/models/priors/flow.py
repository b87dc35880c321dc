"""A flow over continuous latents: noise moves along a learned velocity until it is a latent.

Conditional flow matching with straight paths (Lipman et al. 2023, arXiv 2210.02747; Liu et al.
2023, arXiv 2209.03003). With u = (z − mean)/std and noise x₀ ~ N(0, I):

```
 x_t = (1 − t) x₀ + t u     the network learns E[u − x₀ | x_t] = v(x_t, t)
 sample:   x₀ ──► dx/dt = v ──► u ──► z                       t from 0 to 1
 density:  z ──► u ──► dx/dt = v ──► x₀                       t from 1 to 0
           log p(z) = log N(x₀; 0, I) − ∫ trace(dv/dx) dt − Σ log std
```

Letters: N latents of D·h·w = M numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

from vqvae_lightning.models.bottlenecks import Noise, at_least_float32
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.priors.ode import EVALUATIONS, Solver, integrate, log_volume
from vqvae_lightning.models.priors.sampling import (
    check_forgotten,
    check_guidance,
    guide,
    settings_of,
)
from vqvae_lightning.models.priors.velocity import Condition, VelocityNetwork

# Numbers of a latent up to which the trace is exact. Of more, it is estimated with one probe.
LARGEST_EXACT = 64
# Steps of the solver that measures log p(z): of 16 numbers with σ = 0.1 within 0.03 nats.
DENSITY_STEPS = 64
# Below it a channel counts as one that never varies, and is not made larger.
SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class FlowSampling:
    """How a flow draws latents.

    `config.commands.Drawing` has these settings, with their meaning, for the command line.
    """

    steps: int = 8  # of the solver, of two evaluations of the network each
    solver: Solver = "heun"
    guidance: float = 1.0  # above 1 exaggerates what the label says, 0 ignores it

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The settings by name. Raises ValueError for one that does not exist or fit."""
        found = settings_of(cls, given, "a flow")
        if found.steps < 1:
            raise ValueError(f"steps: got {found.steps}, wanted at least 1")
        if found.solver not in get_args(Solver):
            wanted = ", ".join(get_args(Solver))
            raise ValueError(f"solver: got {found.solver!r}, wanted one of {wanted}")
        check_guidance(found.guidance)
        return found

    @property
    def evaluations(self) -> int:
        """How often the network is asked for one latent."""
        return EVALUATIONS * self.steps * (1 if self.guidance in (0, 1) else 2)


class Flow(nn.Module):
    """p(z | label) of latents z (N, D, h, w) and labels (N,) in 0 … classes−1, or p(z) with
    classes = 0.
    """

    mean: Tensor  # D,1,1
    std: Tensor  # D,1,1
    fitted: Tensor  # ()  bool: whether mean and std are those of latents

    def __init__(
        self,
        network: VelocityNetwork,
        shape: tuple[int, int, int],
        width: int,
        classes: int = 0,
        label_dropout: float = 0.0,
        density_steps: int = DENSITY_STEPS,
    ) -> None:
        """A flow that follows a network.

        Args:
            network: the velocity, given a condition.
            shape: (D, h, w) of a latent.
            width: size of the condition.
            classes: how many labels there are; 0: p(z) without labels.
            label_dropout: the share of labels that a training step forgets (Ho & Salimans 2022,
                arXiv 2207.12598). Above 0 the label `classes` means that there is none.
            density_steps: steps of the solver in `log_prob`.
        """
        super().__init__()
        self.network, self.shape, self.classes = network, shape, classes
        self.label_dropout, self.density_steps = label_dropout, density_steps
        self.size = math.prod(shape)
        self.condition = Condition(max(classes, 1) + (label_dropout > 0), width)
        self.register_buffer("mean", torch.zeros(shape[0], 1, 1))
        self.register_buffer("std", torch.ones(shape[0], 1, 1))
        self.register_buffer("fitted", torch.tensor(False))

    @property
    def is_exact(self) -> bool:
        """Whether the trace of a density is exact, and not an estimate."""
        return self.size <= LARGEST_EXACT

    @property
    def evaluations(self) -> int:
        """Passes through the network for a latent, with the usual settings."""
        return FlowSampling().evaluations

    def fit_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Takes over mean and standard deviation of each channel of the latents, (D,) each."""
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(std.clamp_min(SMALLEST_STD).view_as(self.std))
        self.fitted.fill_(True)

    def compile_layers(self) -> None:
        """Compiles the step of training and of sampling; a density follows the plain network."""
        # The compiled method takes the place of the method, in this instance only.
        self.velocity = torch.compile(self.velocity)  # type: ignore[method-assign]

    def velocity(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """v (N, D, h, w) of x (N, D, h, w) at times (N,), given labels (N,) of the embedding."""
        v: Tensor = self.network(x, self.condition(time, labels))
        return v

    def loss(
        self, z: Tensor, labels: Tensor | None, noise: Tensor, time: Tensor, forgotten: Tensor
    ) -> Tensor:
        """|v(x_t, t) − (u − x₀)|² / M, (N,), whose mean flow matching makes small.

        Args:
            z: latents (N, D, h, w).
            labels: their classes (N,), None of an unconditional flow.
            noise: x₀ (N, D, h, w).
            time: t (N,) in [0, 1].
            forgotten: numbers (N,) in [0, 1); a label below label_dropout is not seen.
        """
        u, t = (z - self.mean) / self.std, time.view(-1, 1, 1, 1)
        known = self._labels(labels, len(z))
        if self.label_dropout:
            known = known.masked_fill(forgotten < self.label_dropout, self.classes)
        v = self.velocity((1 - t) * noise + t * u, time, known)
        return (at_least_float32(v) - (u - noise)).square().flatten(1).mean(1)

    def log_prob(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        probe: Tensor | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """log p(z | label) in nats, (N,) float64, by the probability flow.

        The state is kept in float64, and the network asked in its own precision.

        Args:
            z: latents (N, D, h, w).
            labels: their classes (N,), None of an unconditional flow.
            probe: signs ±1 (N, D, h, w) for an estimate of the trace; None: exactly.
            steps: of the solver; None: `density_steps`.
        """
        known = self._labels(labels, len(z))
        signs = None if probe is None else probe.flatten(1).to(self.mean.dtype)
        # Derivatives know no inference tensors: copies are none.
        plain = torch.autocast(z.device.type, enabled=False)
        with evaluating(self), torch.inference_mode(False), torch.no_grad(), plain:
            z, known = z.clone(), known.clone()
            std = self.std.double().expand(self.shape)
            u = (z.double() - self.mean.double()) / std

            def velocity(x: Tensor, time: float) -> Tensor:
                grid = x.view(-1, *self.shape)
                condition = self.condition(x.new_full((len(x),), time), known)
                v: Tensor = self.network(grid, condition)
                return v.flatten(1)

            noise, change = log_volume(
                velocity, u.flatten(1), steps or self.density_steps, self.mean.dtype, signs
            )
            normal = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(1)
            return normal + change - std.log().sum()

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
            known: latents (n, D, h, w) and a mask (n, D, h, w), True where they are given. These
                stay as they are. The rest follows the velocity beside them, which is not quite a
                draw from p(rest | known): the noise is not conditioned on them.
            generator: the source of the noise.
            sampling: see `FlowSampling`.

        Raises:
            ValueError: for values out of range.
        """
        settings = FlowSampling.of(sampling)
        noise = torch.randn(
            n, *self.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        if known is None:
            return self.flow(noise, labels, 0.0, 1.0, settings)
        z, mask = known
        if z.shape != noise.shape or mask.shape != noise.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"known: got latents {tuple(z.shape)} and a mask of {mask.dtype}"
                f" {tuple(mask.shape)}, wanted latents and torch.bool of shape"
                f" {tuple(noise.shape)}"
            )
        return self.flow(noise, labels, 0.0, 1.0, settings, (z.to(noise), mask.to(noise.device)))

    @torch.inference_mode()
    def to_noise(self, z: Tensor, labels: Tensor | None, settings: FlowSampling) -> Tensor:
        """x₀ (N, D, h, w), the noise from which the flow leads to z (N, D, h, w)."""
        return self.flow((z - self.mean) / self.std, labels, 1.0, 0.0, settings)

    def flow(
        self,
        x: Tensor,
        labels: Tensor | None,
        start: float,
        end: float,
        settings: FlowSampling,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Where x (N, D, h, w) is at time `end`: noise at 0, at 1 z in its own units.

        Args:
            x: the state at the start.
            labels: classes (N,), None of an unconditional flow.
            start: 0 or 1.
            end: 1 or 0.
            settings: steps, solver and guidance.
            known: latents and mask, (N, D, h, w) each, which move on straight lines.

        Raises:
            ValueError: for guidance of a flow that has forgotten no labels.
        """
        check_forgotten(settings.guidance, self.label_dropout, "this flow", "p(z)")
        given = self._labels(labels, len(x))
        straight = None if known is None else (known[0] - self.mean) / self.std - x

        def field(state: Tensor, time: float) -> Tensor:
            at, times = state.view_as(x), state.new_full((len(x),), time)
            v = self._guided(at, times, given, settings.guidance)
            if known is not None and straight is not None:
                v = torch.where(known[1], straight, v)
            return v.flatten(1)

        with evaluating(self):
            moved = integrate(field, x.flatten(1), start, end, settings.steps, settings.solver)
        moved = moved.view_as(x)
        if end == 0:
            return moved
        z = moved * self.std + self.mean
        return z if known is None else torch.where(known[1], known[0], z)

    def _guided(self, x: Tensor, time: Tensor, labels: Tensor, guidance: float) -> Tensor:
        """v with guidance, see `guide`; one pass for a guidance of 0 or 1."""
        nothing = torch.full_like(labels, self.classes)
        if guidance in (0, 1):
            return self.velocity(x, time, labels if guidance else nothing)
        both = torch.cat([labels, nothing])
        return guide(self.velocity(x.repeat(2, 1, 1, 1), time.repeat(2), both), guidance)

    def _labels(self, labels: Tensor | None, n: int) -> Tensor:
        """Positions (n,) in the embedding of labels. Raises ValueError for missing ones."""
        if self.classes == 0:
            return torch.zeros(n, dtype=torch.int64, device=self.mean.device)
        if labels is None:
            raise ValueError(f"labels: got none, wanted {n} labels: this flow is class-conditional")
        return labels.to(self.mean.device)


def signs(noise: Noise, z: Tensor) -> Tensor:
    """A probe for `log_prob`: ±1 of the shape of z (N, D, h, w)."""
    return torch.where(noise(z) < 0, -1.0, 1.0)
