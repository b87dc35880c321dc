"""A flow of one pass: couplings, which bend half of a latent's numbers as the others say.

Real NVP (Dinh et al. 2017, arXiv 1605.08803) with the splines of neural spline flows (Durkan et al.
2019, arXiv 1906.04032):

```
 u N,M ──┬─ kept ──────────────────┬──► next coupling ──► … ──► x₀ N,M
         │    └─► MLP + label      │                            log |dx₀/du| = Σ of all couplings
         └─ moved ─► scale, shift, spline ─┘
```

The numbers that coupling 2i moves are those whose index has bit i set, and coupling 2i + 1 moves
the others. So couplings of every two numbers that differ in an early bit see each other.

Letters: N latents of D·h·w = M numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import documented, setting
from vqvae_lightning.models.bottlenecks import Noise, at_least_float32, fresh_noise
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.priors.flow import Flow, FlowNetwork
from vqvae_lightning.models.priors.prior import Uniform
from vqvae_lightning.models.priors.sampling import check_forgotten, settings_of
from vqvae_lightning.models.priors.splines import bend, parameters_of, unbend

LARGEST_LOG_SCALE = 3.0  # of a coupling


@dataclass(frozen=True)
class CouplingSampling:
    """How a flow of one pass draws latents.

    `config.commands.Drawing` has these settings, with their meaning, for the command line.
    """

    temperature: float = 1.0  # standard deviation of the noise; 0 draws what N(0, I) has most of
    guidance: float = 1.0  # 0 ignores the label; there is no density to exaggerate in one pass

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The settings by name. Raises ValueError for one that does not exist or fit."""
        found = settings_of(cls, given, "this flow")
        if not found.temperature >= 0:
            raise ValueError(f"temperature: got {found.temperature}, wanted at least 0")
        if found.guidance not in (0, 1):
            raise ValueError(
                f"guidance: got {found.guidance:g}, but a coupling flow has no velocity to lead;"
                " wanted 1, or 0 to ignore the label"
            )
        return found


class CouplingFlow(Flow):
    """A flow whose density and draws are exact, and take one pass each through `Couplings`."""

    sampling = CouplingSampling
    completes = "nothing"
    one_pass = True

    def __init__(
        self,
        network: "Couplings",
        shape: tuple[int, int, int],
        width: int,
        classes: int = 0,
        label_dropout: float = 0.0,
    ) -> None:
        """A flow through couplings.

        Args:
            network: u ⇄ x₀, given a condition.
            shape: (D, h, w) of a latent.
            width: size of the condition.
            classes: see `Flow`.
            label_dropout: see `Flow`.
        """
        super().__init__(shape, classes, label_dropout)
        self.network, self.condition = network, nn.Embedding(self.labels, width)
        nn.init.normal_(self.condition.weight, std=0.02)

    @property
    def evaluations(self) -> int:
        return 1

    def compile_layers(self) -> None:
        """Compiles the pass from latents to noise, of training and of densities."""
        # The compiled method takes the place of the method, in this instance only.
        self.nats = torch.compile(self.nats)  # type: ignore[method-assign]

    def nats(self, z: Tensor, rows: Tensor) -> Tensor:
        """−log p(z | label), (N,), of z (N, D, h, w), given rows (N,) of the embedding."""
        u = at_least_float32(self.normalized(z)).flatten(1)
        noise, change = self.network(u, self.condition(rows))
        normal = 0.5 * (noise.square() + math.log(2 * math.pi)).sum(1)
        nats: Tensor = normal - change + self.std.log().expand(self.shape).sum()
        return nats

    def loss(self, z: Tensor, labels: Tensor | None, noise: Noise, uniform: Uniform) -> Tensor:
        """−log p(z | label) / M, (N,). Nothing but the labels that are forgotten is random."""
        rows = self.rows_in_training(labels, uniform(z.new_empty(len(z), 1))[:, -1])
        return self.nats(z, rows) / self.size

    @torch.no_grad()
    def log_prob(
        self, z: Tensor, labels: Tensor | None = None, noise: Noise = fresh_noise
    ) -> Tensor:
        """log p(z | label) in nats, (N,) float64; exactly, in the precision of the network."""
        plain = torch.autocast(z.device.type, enabled=False)
        with evaluating(self), plain:
            return -self.nats(z, self.rows_of(labels, len(z))).double()

    @torch.inference_mode()
    def to_noise(self, z: Tensor, labels: Tensor | None, settings: CouplingSampling) -> Tensor:
        with evaluating(self):
            u, condition = self.normalized(z).flatten(1), self._condition(labels, len(z), settings)
            noise: Tensor = self.network(u, condition)[0]
            return noise.view_as(z)

    @torch.inference_mode()
    def from_noise(
        self,
        noise: Tensor,
        labels: Tensor | None,
        settings: CouplingSampling,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        assert known is None  # it does not complete
        with evaluating(self):
            x0 = (settings.temperature * noise).flatten(1)
            u = self.network.inverse(x0, self._condition(labels, len(noise), settings))
            return self.denormalized(u.view_as(noise))

    def _condition(self, labels: Tensor | None, n: int, settings: CouplingSampling) -> Tensor:
        """The condition (n, width) of labels (n,), or of none at a guidance of 0."""
        check_forgotten(settings.guidance, self.label_dropout, "this flow", "p(z)")
        rows = self.rows_of(labels, n)
        found: Tensor = self.condition(
            rows if settings.guidance else torch.full_like(rows, self.classes)
        )
        return found


class Couplings(FlowNetwork):
    """u (N, M) ⇄ x₀ (N, M), given a condition (N, width): for vectors."""

    @documented
    @dataclass
    class Config(FlowNetwork.Config):
        """The size of the network."""

        layers: int = setting(
            8, "couplings; two together move all numbers", at_least=2, at_most=256
        )
        blocks: int = setting(
            1, "residual blocks of the network of each coupling", at_least=1, at_most=256
        )
        bins: int = setting(8, "bins of a spline", at_least=2, at_most=256)

    flow = CouplingFlow

    def __init__(self, shape: tuple[int, int, int], config: Config) -> None:
        super().__init__()
        moved = halves(math.prod(shape), config.layers)
        self.couplings = nn.ModuleList(
            Coupling(math.prod(shape), indices, config) for indices in moved
        )

    @classmethod
    def build(
        cls, config: Any, shape: tuple[int, int, int], classes: int, label_dropout: float
    ) -> CouplingFlow:
        return CouplingFlow(cls(shape, config), shape, config.width, classes, label_dropout)

    def forward(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x₀ (N, M) of u (N, M), and log |dx₀/du|, (N,)."""
        change = u.new_zeros(len(u))
        for coupling in self.couplings:
            u, more = coupling(u, condition)
            change = change + more
        return u, change

    def inverse(self, noise: Tensor, condition: Tensor) -> Tensor:
        """u (N, M) of x₀ (N, M)."""
        for coupling in reversed(list(self.couplings)):
            noise = coupling.inverse(noise, condition)  # type: ignore[operator]
        return noise


def halves(size: int, count: int) -> list[list[int]]:
    """The indices below `size` that each of `count` couplings moves: see the head of this file."""
    bits = max(1, (size - 1).bit_length())
    found = [
        [index for index in range(size) if (index >> (i // 2) % bits) % 2 != i % 2]
        for i in range(count)
    ]
    # A latent of a single number has only one half.
    return [indices for indices in found if indices]


class Coupling(nn.Module):
    """Scales, shifts and bends some of M numbers, as the others and a condition say.

    It is the identity at the beginning.
    """

    moved: Tensor  # m  int64: the indices of what is moved
    kept: Tensor  # M  float: 1 where a number is kept, and 0 where it is moved

    def __init__(self, size: int, moved: list[int], config: Couplings.Config) -> None:
        super().__init__()
        width = config.width
        kept = [float(index not in moved) for index in range(size)]
        # They follow from the settings.
        self.register_buffer("moved", torch.tensor(moved), persistent=False)
        self.register_buffer("kept", torch.tensor(kept), persistent=False)
        self.into = nn.Linear(size, width)
        self.ups = nn.ModuleList(nn.Linear(width, width) for _ in range(config.blocks))
        self.downs = nn.ModuleList(nn.Linear(width, width) for _ in range(config.blocks))
        self.out = nn.Linear(width, len(moved) * (2 + parameters_of(config.bins)))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """All numbers (N, M) after it, and the logarithm of the change of a volume, (N,)."""
        log_scale, shift, spline = self._told(u, condition)
        bent, log_slope = bend(u[:, self.moved] * log_scale.exp() + shift, spline)
        return self._with(u, bent), (log_scale + log_slope).sum(1)

    def inverse(self, u: Tensor, condition: Tensor) -> Tensor:
        """The numbers (N, M) before it."""
        log_scale, shift, spline = self._told(u, condition)
        return self._with(u, (unbend(u[:, self.moved], spline) - shift) * (-log_scale).exp())

    def _told(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log scale (N, m), shift (N, m) and spline (N, m, 3K − 1), which what is moved does not
        change.
        """
        h = self.into(u * self.kept) + condition  # N,width
        for up, down in zip(self.ups, self.downs, strict=True):
            h = h + down(F.silu(up(F.silu(h))))
        found = at_least_float32(self.out(F.silu(h))).unflatten(1, (len(self.moved), -1))
        log_scale, shift, spline = found.split([1, 1, found.shape[2] - 2], dim=2)
        bounded = LARGEST_LOG_SCALE * (log_scale / LARGEST_LOG_SCALE).tanh()
        return bounded[..., 0], shift[..., 0], spline

    def _with(self, u: Tensor, moved: Tensor) -> Tensor:
        """u (N, M) with other numbers (N, m) in the place of those that are moved."""
        return u.index_copy(1, self.moved, moved)
