"""What every prior over codes has in common: P(z | label) = ∏ P(z_t | z_<t, label), its likelihood
and its sampler.

```
 training, all positions in parallel:    codes N,T ──► logits N,T,K ──► nll N,T, log_prob N
 sampling, a position at a time:         label N ──► next_logits N,K ──► draw ──► code N ──► …
```
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.priors.sampling import check_prefix, check_sampling, draw, guide

# Logits that `log_prob` has at once: 256 MiB of float32, and a few times that for their softmax.
LARGEST_LOGITS = 2**26


class AutoregressivePrior(nn.Module, ABC):
    """p(codes | label) for codes (N, T) in 0 … K−1 and labels (N,) in 0 … classes−1, or p(codes)
    with classes = 0.

    A subclass says what the network is: `logits`, and the same a position at a time: `new_cache`
    and `step`. A member of `PRIORS` is built as `Member(layout, classes, config, label_dropout)`
    and owns a dataclass `Config`.
    """

    Config: ClassVar[type[Any]]

    def __init__(
        self, layout: CodeLayout, classes: int, width: int, label_dropout: float = 0.0
    ) -> None:
        """A prior over the codes of a layout.

        Args:
            layout: how codes lie on the grid and in a sequence.
            classes: how many labels there are; 0: p(codes) without labels.
            width: channels of the network.
            label_dropout: the share of labels that a training step forgets (Ho & Salimans 2022,
                arXiv 2207.12598). Above 0 the label `classes` means that there is none, and one
                network gives p(codes | label) and p(codes).
        """
        super().__init__()
        self.codebook_size, self.classes = layout.codebook_size, classes
        # (h, w·M): the grid on which positions are in raster order
        self.grid, self.length = layout.sequence_grid, layout.length
        self.label_dropout = label_dropout
        self.code_embedding = nn.Embedding(self.codebook_size, width)
        self.start_embedding = nn.Embedding(max(classes, 1) + (label_dropout > 0), width)

    @abstractmethod
    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """Logits (N, T, K) for codes (N, T): position t sees the label and the codes before t
        only.
        """

    @abstractmethod
    def new_cache(self, n: int) -> Any:
        """An empty cache for n sequences of full length; its `length` counts the positions it
        holds.
        """

    @abstractmethod
    def step(self, previous: Tensor | None, start: Tensor, cache: Any) -> Tensor:
        """Logits (N, K) at position cache.length, of the code before it (N,) and the label's
        embedding (N, width).
        """

    def compile_layers(self) -> None:
        """Compiles the pass over whole sequences; drawing, position by position, stays as it is."""
        # The compiled method takes the place of the method, in this instance only.
        self.logits = torch.compile(self.logits)  # type: ignore[method-assign]

    def start(self, labels: Tensor | None, n: int) -> Tensor:
        """The label's embedding, (N, width): all that is known before the first code.

        Raises ValueError without one.
        """
        if self.classes == 0:
            return self.start_embedding.weight.expand(n, -1)
        if labels is None:
            raise ValueError(
                f"labels: got none, wanted {n} labels: this prior is class-conditional"
            )
        if self.training and self.label_dropout:
            labels = labels.masked_fill(
                torch.rand(n, device=labels.device) < self.label_dropout, self.classes
            )
        embedded: Tensor = self.start_embedding(labels)
        return embedded

    def nll(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """−log p(z_t | z_<t, label) in nats per position, (N, T) for codes (N, T), in float32 or
        better.
        """
        if codes.shape[1:] != (self.length,):
            raise ValueError(f"codes: got shape {tuple(codes.shape)}, wanted (N, {self.length})")
        logits = self.logits(codes, labels)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        # By default a code of −100 would cost nothing, without an error.
        nll = F.cross_entropy(
            logits.flatten(0, 1), codes.flatten(), reduction="none", ignore_index=-(2**31)
        )
        return nll.view_as(codes)

    def log_prob(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """log p(codes | label) in nats, (N,) for codes (N, T).

        Many rows are taken some at a time: a batch of 500 on a grid of 32×32 with K = 512 would
        have 1 GiB of logits.
        """
        rows = max(1, LARGEST_LOGITS // (self.length * self.codebook_size))
        parts = codes.split(rows)
        of_parts = [None] * len(parts) if labels is None else labels.split(rows)
        found = [-self.nll(*part).sum(1) for part in zip(parts, of_parts, strict=True)]
        return torch.cat(found)

    def next_logits(
        self, previous: Tensor | None, labels: Tensor | None, n: int, cache: Any
    ) -> Tensor:
        """Logits (N, K) of the next code, given the code before it (N,), or None at the start.

        Raises ValueError once the cache holds a whole sequence.
        """
        if cache.length >= self.length:
            raise ValueError(f"cache: holds {cache.length} positions, which is a whole sequence")
        logits = self.step(previous, self.start(labels, n), cache)
        cache.length += 1
        return logits

    @torch.inference_mode()
    def generate(
        self,
        n: int,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """n code sequences (n, T) drawn from p(codes | label), position by position through the
        cache.

        Args:
            n: how many.
            labels: their classes (n,), or None for an unconditional prior.
            temperature: 0 takes the most likely code.
            top_k: keeps the k most likely codes.
            top_p: keeps the smallest set of codes whose probability reaches p (nucleus sampling,
                Holtzman et al. 2020).
            guidance: above 1 exaggerates what the label says, 1 changes nothing, 0 ignores the
                label; see `guide`.
            generator: the source of what is random.
            prefix: the first t codes (n, t), 0 <= t <= T. The rest is drawn from p(z_t … z_T−1 |
                prefix, label): exactly, because the model predicts every code from those before it.

        Raises:
            ValueError: for values out of range.
        """
        check_sampling(self.codebook_size, temperature, top_k, top_p, guidance)
        if prefix is None:
            prefix = torch.empty(n, 0, dtype=torch.int64, device=self.code_embedding.weight.device)
        check_prefix(prefix, n, self.length, self.codebook_size)
        if (
            self.classes
            and labels is not None
            and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes
        ):
            raise ValueError(
                f"labels: got {int(labels.min())} to {int(labels.max())}, wanted 0 to"
                f" {self.classes - 1}"
            )
        guided = guidance != 1
        if guided and not self.label_dropout:
            raise ValueError(
                f"guidance: got {guidance}, wanted 1: this prior was trained with"
                " model.label_dropout=0 and knows no p(codes) without a label"
            )
        if guided and labels is not None:
            # 2n: with the label, without
            labels = torch.cat([labels, torch.full_like(labels, self.classes)])
        rows = 2 * n if guided else n
        with evaluating(self):
            cache, codes, previous = self.new_cache(rows), [], None
            for t in range(self.length):
                # for a given code too: it fills the cache
                logits = self.next_logits(previous, labels, rows, cache)
                logits = guide(logits, guidance) if guided else logits
                given = t < prefix.shape[1]
                code = (
                    prefix[:, t]
                    if given
                    else draw(logits.float(), temperature, top_k, top_p, generator)
                )
                codes.append(code)
                previous = code.repeat(2) if guided else code
        return torch.stack(codes, dim=1)


def check_heads(width: int, heads: int) -> None:
    """Raises ConfigError unless the heads divide the width."""
    if width % heads:
        raise ConfigError(
            f"model.network.heads: {heads} heads do not divide model.network.width {width}"
        )
