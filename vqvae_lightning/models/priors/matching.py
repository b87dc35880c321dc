"""A flow that follows a learned velocity: noise moves along it until it is a latent.

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
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import setting
from vqvae_lightning.models.bottlenecks import Noise, at_least_float32, fresh_noise
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.priors.flow import Flow, FlowNetwork
from vqvae_lightning.models.priors.ode import EVALUATIONS, Solver, integrate, log_volume
from vqvae_lightning.models.priors.prior import Uniform
from vqvae_lightning.models.priors.sampling import (
    check_forgotten,
    check_guidance,
    guide,
    settings_of,
)

# Numbers of a latent up to which the trace is exact. Of more, it is estimated with one probe.
LARGEST_EXACT = 64
# Steps of the solver that measures log p(z): of 16 numbers with σ = 0.1 within 0.03 nats.
DENSITY_STEPS = 64
FREQUENCIES = 32  # of the sines and cosines that tell a network the time
HIGHEST = 32.0  # periods of the fastest of them from noise to data


@dataclass(frozen=True)
class MatchedSampling:
    """How a flow draws latents.

    `config.commands.Drawing` has these settings, with their meaning, for the command line.
    """

    steps: int = 8  # of the solver, of two evaluations of the network each
    solver: Solver = "heun"
    guidance: float = 1.0  # above 1 exaggerates what the label says, 0 ignores it

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The settings by name. Raises ValueError for one that does not exist or fit."""
        found = settings_of(cls, given, "this flow")
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


class FlowMatching(Flow):
    """A flow along the velocity that a `VelocityNetwork` gives.

    Latents that are known move on straight lines, and the others follow the velocity beside them.
    That is not quite a draw from p(rest | known): the noise is not conditioned on them.
    """

    sampling = MatchedSampling
    completes = "any"
    one_pass = False

    def __init__(
        self,
        network: "VelocityNetwork",
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
            classes: see `Flow`.
            label_dropout: see `Flow`.
            density_steps: steps of the solver in `log_prob`.
        """
        super().__init__(shape, classes, label_dropout)
        self.network, self.density_steps = network, density_steps
        self.condition = Condition(self.labels, width)

    @property
    def is_exact(self) -> bool:
        """Whether the trace of a density is exact, and not an estimate."""
        return self.size <= LARGEST_EXACT

    @property
    def evaluations(self) -> int:
        return MatchedSampling().evaluations

    def compile_layers(self) -> None:
        """Compiles the step of training and of sampling; a density follows the plain network."""
        # The compiled method takes the place of the method, in this instance only.
        self.velocity = torch.compile(self.velocity)  # type: ignore[method-assign]

    def velocity(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """v (N, D, h, w) of x (N, D, h, w) at times (N,), given labels (N,) of the embedding."""
        v: Tensor = self.network(x, self.condition(time, labels))
        return v

    def loss(self, z: Tensor, labels: Tensor | None, noise: Noise, uniform: Uniform) -> Tensor:
        """|v(x_t, t) − (u − x₀)|² / M, (N,), whose mean flow matching makes small."""
        time, forgotten = uniform(z.new_empty(len(z), 2)).to(z).unbind(1)
        x0, u, t = noise(z), self.normalized(z), time.view(-1, 1, 1, 1)
        rows = self.rows_in_training(labels, forgotten)
        v = self.velocity((1 - t) * x0 + t * u, time, rows)
        return (at_least_float32(v) - (u - x0)).square().flatten(1).mean(1)

    def log_prob(
        self, z: Tensor, labels: Tensor | None = None, noise: Noise = fresh_noise
    ) -> Tensor:
        """log p(z | label) in nats, (N,) float64, by the probability flow.

        The state is kept in float64, and the network asked in its own precision. The trace of more
        than 64 numbers is estimated with one probe of signs, those of `noise`.
        """
        probe = None if self.is_exact else signs(noise, z)
        return self.log_prob_along(z, labels, probe, self.density_steps)

    def log_prob_error(self, z: Tensor, labels: Tensor | None, noise: Noise) -> Tensor:
        """By how much `log_prob` differs with half the steps."""
        probe = None if self.is_exact else signs(noise, z)
        steps = self.density_steps
        whole, half = (
            self.log_prob_along(z, labels, probe, n) for n in (steps, max(1, steps // 2))
        )
        return (whole - half).abs()

    def log_prob_along(
        self, z: Tensor, labels: Tensor | None, probe: Tensor | None, steps: int
    ) -> Tensor:
        """log p(z | label) in nats, (N,) float64.

        Args:
            z: latents (N, D, h, w).
            labels: their classes (N,), None of an unconditional flow.
            probe: signs ±1 (N, D, h, w) for an estimate of the trace; None: exactly.
            steps: of the solver.
        """
        rows = self.rows_of(labels, len(z))
        along = None if probe is None else probe.flatten(1).to(self.mean.dtype)
        # Derivatives know no inference tensors: copies are none.
        plain = torch.autocast(z.device.type, enabled=False)
        with evaluating(self), torch.inference_mode(False), torch.no_grad(), plain:
            z, rows = z.clone(), rows.clone()
            std = self.std.double().expand(self.shape)
            u = (z.double() - self.mean.double()) / std

            def velocity(x: Tensor, time: float) -> Tensor:
                grid = x.view(-1, *self.shape)
                condition = self.condition(x.new_full((len(x),), time), rows)
                v: Tensor = self.network(grid, condition)
                return v.flatten(1)

            noise, change = log_volume(velocity, u.flatten(1), steps, self.mean.dtype, along)
            normal = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(1)
            return normal + change - std.log().sum()

    @torch.inference_mode()
    def to_noise(self, z: Tensor, labels: Tensor | None, settings: MatchedSampling) -> Tensor:
        return self._follow(self.normalized(z), labels, 1.0, 0.0, settings)

    @torch.inference_mode()
    def from_noise(
        self,
        noise: Tensor,
        labels: Tensor | None,
        settings: MatchedSampling,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        if known is None:
            return self.denormalized(self._follow(noise, labels, 0.0, 1.0, settings))
        z, mask = known
        straight = (self.normalized(z) - noise, mask)
        moved = self._follow(noise, labels, 0.0, 1.0, settings, straight)
        return torch.where(mask, z, self.denormalized(moved))

    def _follow(
        self,
        x: Tensor,
        labels: Tensor | None,
        start: float,
        end: float,
        settings: MatchedSampling,
        straight: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Where x (N, D, h, w) is at time `end`: noise at 0, u at 1.

        `straight` are another velocity and the mask, (N, D, h, w) each, of where it holds.
        """
        check_forgotten(settings.guidance, self.label_dropout, "this flow", "p(z)")
        rows = self.rows_of(labels, len(x))

        def field(state: Tensor, time: float) -> Tensor:
            at, times = state.view_as(x), state.new_full((len(x),), time)
            v = self._guided(at, times, rows, settings.guidance)
            if straight is not None:
                v = torch.where(straight[1], straight[0], v)
            return v.flatten(1)

        with evaluating(self):
            moved = integrate(field, x.flatten(1), start, end, settings.steps, settings.solver)
        return moved.view_as(x)

    def _guided(self, x: Tensor, time: Tensor, labels: Tensor, guidance: float) -> Tensor:
        """v with guidance, see `guide`; one pass for a guidance of 0 or 1."""
        nothing = torch.full_like(labels, self.classes)
        if guidance in (0, 1):
            return self.velocity(x, time, labels if guidance else nothing)
        both = torch.cat([labels, nothing])
        return guide(self.velocity(x.repeat(2, 1, 1, 1), time.repeat(2), both), guidance)


class VelocityNetwork(FlowNetwork):
    """v (N, D, h, w) of x (N, D, h, w), given a condition (N, width) of time and label.

    A member of `FLOWS` is built as `Member(shape, config)` with shape (D, h, w), and owns a
    dataclass `Config`, a subclass of the one here.
    """

    @dataclass
    class Config(FlowNetwork.Config):
        """The settings that all of them have."""

        density_steps: int = setting(
            DENSITY_STEPS,
            "steps of the solver that measures log p(z)",
            at_least=1,
            at_most=10_000,
        )

    flow = FlowMatching

    @classmethod
    def build(
        cls, config: Any, shape: tuple[int, int, int], classes: int, label_dropout: float
    ) -> FlowMatching:
        member: Any = cls  # its constructor is its own
        width, steps = config.width, config.density_steps
        return FlowMatching(member(shape, config), shape, width, classes, label_dropout, steps)

    @abstractmethod
    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The velocity (N, D, h, w) at x (N, D, h, w), given a condition (N, width)."""


class Condition(nn.Module):
    """Time t (N,) in [0, 1] and label (N,) as a vector (N, width)."""

    frequencies: Tensor

    def __init__(self, labels: int, width: int) -> None:
        super().__init__()
        exponents = torch.linspace(0, 1, FREQUENCIES)
        frequencies = 0.5 * math.pi * (4 * HIGHEST) ** exponents
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.label = nn.Embedding(labels, width)
        self.into, self.out = nn.Linear(2 * FREQUENCIES, width), nn.Linear(width, width)
        nn.init.normal_(self.label.weight, std=0.02)

    def forward(self, time: Tensor, label: Tensor) -> Tensor:
        angles = time[:, None] * self.frequencies  # N,F
        features = torch.cat([angles.sin(), angles.cos()], dim=1)  # N,2F
        told: Tensor = self.out(F.silu(self.into(features))) + self.label(label)
        return F.silu(told)


def signs(noise: Noise, z: Tensor) -> Tensor:
    """A probe of the trace: ±1 of the shape of z (N, D, h, w)."""
    return torch.where(noise(z) < 0, -1.0, 1.0)
