"""One code from logits: temperature, top-k, top-p and classifier-free guidance, the same for every
prior; and what the settings of all families have in common.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar, cast, get_type_hints

import torch
from torch import Tensor

from vqvae_lightning.config.values import read

Settings = TypeVar("Settings")
# Far beyond what makes sense, far below what makes a logit infinite.
LARGEST_GUIDANCE = 1000


def settings_of(cls: type[Settings], given: Mapping[str, Any], whose: str) -> Settings:
    """The sampling settings of a family, a dataclass, by name.

    Raises ValueError for one that the family, called `whose`, does not have, and for a value of
    another type.
    """
    names = [field.name for field in fields(cast(Any, cls))]
    types = get_type_hints(cls)
    for name, value in given.items():
        if name not in names:
            raise ValueError(f"{name}: got {value}, but {whose} has {', '.join(names)}")
    return cls(**{name: read(value, types[name], name) for name, value in given.items()})


def check_guidance(guidance: float) -> None:
    """Raises ValueError unless guidance is 0 to LARGEST_GUIDANCE."""
    if not 0 <= guidance <= LARGEST_GUIDANCE:
        raise ValueError(f"guidance: got {guidance:g}, wanted 0 to {LARGEST_GUIDANCE}")


def check_forgotten(guidance: float, label_dropout: float, whose: str, density: str) -> None:
    """Raises ValueError for guidance of a model, called `whose`, that has forgotten no labels, and
    so does not know the `density` that guidance leads away from.
    """
    if guidance != 1 and not label_dropout:
        raise ValueError(
            f"guidance: got {guidance}, wanted 1: {whose} was trained with model.label_dropout=0"
            f" and knows no {density} without a label"
        )


@dataclass(frozen=True)
class Sampling:
    """How a prior draws a code from logits. A family that has further settings has a subclass.

    `config.commands.Drawing` has those of all families, with their meaning, for the command line.
    """

    temperature: float = 1.0  # 0 takes the most likely code
    top_k: int | None = None  # keeps the k most likely codes
    # keeps the smallest set of codes whose probability reaches p (Holtzman et al. 2020)
    top_p: float | None = None
    guidance: float = 1.0  # above 1 exaggerates what the label says, 0 ignores it; see `guide`

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The settings of a family by name.

        Raises ValueError for one that it does not have, and for a value of another type.
        """
        return settings_of(cls, given, "this prior")

    def check(self, codebook_size: int) -> None:
        """Raises ValueError unless 0 <= temperature, 1 <= top_k <= K, 0 < top_p <= 1 and 0 <=
        guidance <= 1000.
        """
        if not self.temperature >= 0:
            raise ValueError(f"temperature: got {self.temperature}, wanted at least 0")
        if self.top_k is not None and not 1 <= self.top_k <= codebook_size:
            raise ValueError(f"top_k: got {self.top_k}, wanted 1 to {codebook_size}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: got {self.top_p}, wanted above 0, at most 1")
        check_guidance(self.guidance)

    def draw(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """One code (N,) from each row of logits (N, K)."""
        return draw(logits, self.temperature, self.top_k, self.top_p, generator)


def guide(both: Tensor, guidance: float) -> Tensor:
    """Logits or velocities (N, …) led by the label: without it + guidance · (with it − without it).

    Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, whose w is guidance − 1). Of
    logits that is log p(z) + guidance · (log p(z | label) − log p(z)), up to a constant per row.
    `both` (2N, …) are those with the label, then those without it.
    """
    conditional, unconditional = both.chunk(2)  # N,… each
    return unconditional + guidance * (conditional - unconditional)


def draw(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One code (N,) from each row of logits (N, K), where its cumulative probability passes a
    uniform draw.

    A code of probability 0 is never drawn: nothing passes there. In float64, so that the last code
    is reached.
    """
    if temperature < torch.finfo(logits.dtype).tiny:  # 0, or what a division takes for it
        return logits.argmax(-1)
    # none above 0, so that none becomes infinite
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is not None or top_p is not None:  # to sort costs more than all the rest
        logits = keep_likeliest(logits, top_k, top_p)
    cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)  # N,K
    uniform = torch.rand(
        len(logits), 1, generator=generator, device=logits.device, dtype=torch.float64
    )
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]


def keep_likeliest(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits (N, K) with −inf for all but the k likeliest codes, and all but the fewest that hold
    probability p.
    """
    # ties: the lower index first, exactly k are kept
    order = logits.argsort(dim=-1, descending=True, stable=True)
    ranked = logits.gather(-1, order)
    if top_k is not None:
        ranked[:, top_k:] = -torch.inf
    if top_p is not None:
        probability = ranked.softmax(-1)
        ranked = ranked.masked_fill(probability.cumsum(-1) - probability >= top_p, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, ranked)
