"""What the autoregressive priors have in common: P(z | label) = ∏ P(z_t | z_<t, label), its exact
likelihood and its sampler.

```
 training, all positions in parallel:    codes N,T ──► logits N,T,K ──► nll N,T, rate N
 sampling, a position at a time:         label N ──► next_logits N,K ──► draw ──► code N ──► …
```
"""

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae_lightning.models.priors.prior import Known, PriorNetwork, Uniform, fresh_uniform
from vqvae_lightning.models.priors.sampling import Sampling, guide


class AutoregressivePrior(PriorNetwork):
    """A prior that predicts each code from those before it.

    A subclass says what the network is: `logits`, and the same a position at a time: `new_cache`
    and `step`. Its `rate` is exact. What it completes is a beginning, exactly too.
    """

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
        """Logits (N, K) at position cache.length, of the code before it (N,) and of what `start`
        gives.
        """

    def nll(self, codes: Tensor, labels: Tensor | None, uniform: Uniform = fresh_uniform) -> Tensor:
        """−log p(z_t | z_<t, label) in nats per position, (N, T) for codes (N, T), in float32 or
        better. Nothing is drawn.
        """
        self.check_length(codes)
        return self.nll_of(self.logits(codes, labels), codes)

    def nll_of(self, logits: Tensor, codes: Tensor) -> Tensor:
        """Nats (N, T) of codes (N, T) by their logits (N, T, K), in float32 or better."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        # By default a code of −100 would cost nothing, without an error.
        nll = F.cross_entropy(
            logits.flatten(0, 1), codes.flatten(), reduction="none", ignore_index=-(2**31)
        )
        return nll.view_as(codes)

    def rate(
        self, codes: Tensor, labels: Tensor | None, uniform: Uniform = fresh_uniform
    ) -> Tensor:
        """−log p(codes | label) in nats, (N,) for codes (N, T). Nothing is drawn."""
        return torch.cat([self.nll(*part).sum(1) for part in self.parts(codes, labels)])

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

    def fill(
        self,
        known: Known,
        labels: Tensor | None,
        sampling: Sampling,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Codes (n, T) drawn position by position through the cache.

        The rest is drawn from p(z_t … z_T−1 | z_<t, label): exactly, because the model predicts
        every code from those before it. Raises ValueError unless the known codes come first.
        """
        if (known.mask[:, 1:] & ~known.mask[:, :-1]).any():
            raise ValueError(
                "known: got a code behind an unknown one, wanted a beginning: this prior draws"
                " position by position; model.network.name=masked completes any mask"
            )
        n, guided = len(known.mask), sampling.guidance != 1
        rows = 2 * n if guided else n
        cache, codes, previous = self.new_cache(rows), [], None
        all_known, any_known = known.mask.all(0).tolist(), known.mask.any(0).tolist()
        for t in range(self.length):
            # for a known code too: it fills the cache
            logits = self.next_logits(previous, labels, rows, cache)
            code = known.codes[:, t]
            if not all_known[t]:
                logits = guide(logits, sampling.guidance) if guided else logits
                drawn = sampling.draw(logits.float(), generator)
                code = torch.where(known.mask[:, t], code, drawn) if any_known[t] else drawn
            codes.append(code)
            previous = code.repeat(2) if guided else code
        return torch.stack(codes, dim=1)
