"""What every prior over codes offers: nats for codes that are given, and codes that are drawn.

```
 codes N,T ──► nll N,T, the training loss ──► rate N: nats, exact or an upper bound
 known codes, label ──► generate ──► codes N,T, of which the known ones are as they were
```
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.priors.sampling import Sampling, check_forgotten

# Logits that `rate` has at once: 256 MiB of float32, and a few times that for their softmax.
LARGEST_LOGITS = 2**26

# What `generate` keeps of latents that are given: any of them, those that come first, or none.
Completes = Literal["any", "beginning", "nothing"]

# Uniform numbers in [0, 1) of the shape (N, ...) of a tensor, on its device.
Uniform = Callable[[Tensor], Tensor]


def fresh_uniform(x: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) of the shape of x from torch's global random state."""
    return torch.rand(x.shape, device=x.device, dtype=torch.float32)


class Known(NamedTuple):
    """Codes of a sequence that are given. The others are to be drawn."""

    codes: Tensor  # N,T  int64; any number where the mask is False
    mask: Tensor  # N,T  bool: True where the code is known

    @classmethod
    def beginning(cls, codes: Tensor, length: int) -> "Known":
        """The first codes (N, t) of sequences of `length`."""
        rest = (0, length - codes.shape[1])
        return cls(F.pad(codes, rest), F.pad(torch.ones_like(codes, dtype=torch.bool), rest))


class PriorNetwork(nn.Module, ABC):
    """p(codes | label) for codes (N, T) in 0 … K−1 and labels (N,) in 0 … classes−1, or p(codes)
    with classes = 0.

    A member of `PRIORS` is built as `Member(layout, classes, config, label_dropout)` and owns a
    dataclass `Config`.
    """

    Config: ClassVar[type[Any]]
    # The settings of `generate` that this family has.
    sampling: ClassVar[type[Sampling]] = Sampling
    completes: ClassVar[Completes] = "beginning"
    # Whether it can be built with `texts`, which it reads in the place of labels.
    reads_texts: ClassVar[bool] = False
    # Whether its layers are `blocks`, of which `training.sharding` leaves each device a part.
    shards: ClassVar[bool] = False
    # Of a rate that is an upper bound on −log p: how many draws per image it is a mean of.
    bound_draws: int | None = None

    def __init__(
        self,
        layout: CodeLayout,
        classes: int,
        width: int,
        label_dropout: float = 0.0,
        tokens: int | None = None,
    ) -> None:
        """A prior over the codes of a layout.

        Args:
            layout: how codes lie on the grid and in a sequence.
            classes: how many labels there are; 0: p(codes) without labels.
            width: channels of the network.
            label_dropout: the share of labels that a training step forgets (Ho & Salimans 2022,
                arXiv 2207.12598). Above 0 the label `classes` means that there is none, and one
                network gives p(codes | label) and p(codes).
            tokens: how many different codes the network reads; by default K.
        """
        super().__init__()
        self.codebook_size, self.classes = layout.codebook_size, classes
        # (h, w·M): the grid on which positions are in raster order
        self.grid, self.length = layout.sequence_grid, layout.length
        self.label_dropout = label_dropout
        self.code_embedding = nn.Embedding(tokens or self.codebook_size, width)
        self.start_embedding = nn.Embedding(max(classes, 1) + (label_dropout > 0), width)

    @abstractmethod
    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """Logits (N, T, K) of each code, given what the network may see of codes (N, T)."""

    @abstractmethod
    def nll(self, codes: Tensor, labels: Tensor | None, uniform: Uniform = fresh_uniform) -> Tensor:
        """Nats per position, (N, T) for codes (N, T), whose sum over T is the rate in expectation.

        Args:
            codes: the codes (N, T).
            labels: their classes (N,), None of an unconditional prior.
            uniform: the source of what is random, if anything is.

        Returns:
            float32 or better.
        """

    def training_nll(
        self, codes: Tensor, labels: Tensor | None, uniform: Uniform, progress: float | None
    ) -> Tensor:
        """What a training step makes smaller, (N, T): `nll`, or what leads there.

        Args:
            codes: the codes (N, T).
            labels: their classes (N,), None of an unconditional prior.
            uniform: the source of what is random, if anything is.
            progress: the share of the training that is done, in [0, 1]; None if it has no end.

        Raises:
            ValueError: without a progress, where it is needed.
        """
        return self.nll(codes, labels, uniform)

    @abstractmethod
    def rate(
        self, codes: Tensor, labels: Tensor | None, uniform: Uniform = fresh_uniform
    ) -> Tensor:
        """−log p(codes | label) in nats, (N,) for codes (N, T), or with `bound_draws` an unbiased
        estimate of an upper bound on it.
        """

    @abstractmethod
    def fill(
        self,
        known: Known,
        labels: Tensor | None,
        sampling: Any,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Codes (n, T) with the unknown ones drawn, of a network in evaluation mode.

        With a guidance other than 1 there are 2n labels: the classes, then `classes` for no label.
        `sampling` is checked, and of the type that the network names.
        """

    @property
    def evaluations(self) -> int:
        """Passes through the network for an image, with the usual settings."""
        return self.length

    def compile_layers(self) -> None:
        """Compiles the pass over whole sequences; drawing position by position stays as it is."""
        # The compiled method takes the place of the method, in this instance only.
        self.logits = torch.compile(self.logits)  # type: ignore[method-assign]

    def start(self, labels: Tensor | None, n: int) -> Tensor:
        """The label's embedding, (N, width): all that is known before the first code.

        Raises ValueError without one.
        """
        if self.classes == 0:
            return self.start_embedding.weight.expand(n, -1)
        embedded: Tensor = self.start_embedding(self.kept(labels, n))
        return embedded

    def kept(self, labels: Tensor | None, n: int) -> Tensor:
        """Labels (n,), of which a training step forgets its share. Raises ValueError for None."""
        if labels is None:
            raise ValueError(
                f"labels: got none, wanted {n} labels: this prior is class-conditional"
            )
        if self.training and self.label_dropout:
            labels = labels.masked_fill(
                torch.rand(n, device=labels.device) < self.label_dropout, self.classes
            )
        return labels

    def check_length(self, codes: Tensor) -> None:
        """Raises ValueError unless codes are (N, T)."""
        if codes.shape[1:] != (self.length,):
            raise ValueError(f"codes: got shape {tuple(codes.shape)}, wanted (N, {self.length})")

    def parts(self, codes: Tensor, labels: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
        """Rows of codes (N, T) and labels (N,), as many at a time as `rate` may take.

        A batch of 500 on a grid of 32×32 with K = 512 would have 1 GiB of logits.
        """
        rows = max(1, LARGEST_LOGITS // (self.length * self.codebook_size))
        of_codes = codes.split(rows)
        of_labels = [None] * len(of_codes) if labels is None else labels.split(rows)
        return list(zip(of_codes, of_labels, strict=True))

    @torch.inference_mode()
    def generate(
        self,
        n: int,
        labels: Tensor | None = None,
        known: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
        **sampling: Any,
    ) -> Tensor:
        """n code sequences (n, T) drawn from p(codes | label).

        Args:
            n: how many.
            labels: their classes (n,), or None for an unconditional prior.
            known: codes (n, T) and a mask (n, T) that is True where they are given: see `Known`.
                They stay as they are, and the rest is drawn given them.
            generator: the source of what is random.
            sampling: settings of the family, see `sampling`.

        Raises:
            ValueError: for values out of range, a setting that this prior has no use for, and a
                mask that it cannot complete.
        """
        settings = self.sampling.of(sampling)
        settings.check(self.codebook_size)
        given = self._known(known, n)
        self._check_labels(labels)
        check_forgotten(settings.guidance, self.label_dropout, "this prior", "p(codes)")
        if settings.guidance != 1 and labels is not None:
            # 2n: with the label, without
            labels = torch.cat([labels, torch.full_like(labels, self.classes)])
        if n == 0:
            return given.codes
        with evaluating(self):
            return self.fill(given, labels, settings, generator)

    def _known(self, known: tuple[Tensor, Tensor] | None, n: int) -> Known:
        """Checked known codes; without any, a mask of False."""
        device, shape = self.code_embedding.weight.device, (n, self.length)
        if known is None:
            codes = torch.zeros(shape, dtype=torch.int64, device=device)
            return Known(codes, torch.zeros_like(codes, dtype=torch.bool))
        codes, mask = known
        for name, found, dtype in (("codes", codes, torch.int64), ("mask", mask, torch.bool)):
            if found.shape != shape or found.dtype != dtype:
                raise ValueError(
                    f"known: got a {name} of {found.dtype} and shape {tuple(found.shape)}, wanted"
                    f" {dtype} and shape {shape}"
                )
        seen = codes[mask]
        if seen.numel() and not 0 <= int(seen.min()) <= int(seen.max()) < self.codebook_size:
            raise ValueError(
                f"known: got codes {int(seen.min())} to {int(seen.max())}, wanted 0 to"
                f" {self.codebook_size - 1}"
            )
        return Known(codes.to(device), mask.to(device))

    def _check_labels(self, labels: Tensor | None) -> None:
        if self.classes == 0 or labels is None or not labels.numel():
            return
        if not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ValueError(
                f"labels: got {int(labels.min())} to {int(labels.max())}, wanted 0 to"
                f" {self.classes - 1}"
            )


def check_heads(width: int, heads: int) -> None:
    """Raises ConfigError unless the heads divide the width."""
    if width % heads:
        raise ConfigError(
            f"model.network.heads: {heads} heads do not divide model.network.width {width}"
        )
