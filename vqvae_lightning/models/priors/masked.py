"""Masked prior: a bidirectional Transformer that predicts any codes from any others.

Its loss is the bound of absorbing-state diffusion (MDLM: Sahoo et al. 2024, arXiv 2406.07524,
section 3), which is that of an any-order autoregressive model (Hoogeboom et al. 2022, arXiv
2110.02037; Ou et al. 2024, arXiv 2406.03736). With σ a uniformly random order of the T positions:

```
 −log P(z) ≤ E_σ [−Σ_i log p(z_σ(i) | z_σ(1) … z_σ(i−1))] = E_n,m [T/n · Σ_t∈m −log p(z_t | rest)]
             n uniform in 1 … T, and m a uniformly random set of n masked positions
```

P(z) = E_σ [∏_i p(z_σ(i) | z_σ(<i))] is what `generate` draws from with steps=T and order=random.
MDLM masks each position with probability t and weighs by 1/t, for its log-linear schedule. Here
that time is integrated out given the number n of masked positions, which leaves T/n: the same
bound with less variance, and no t near 0.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import documented, setting
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.blocks import Block, initialize
from vqvae_lightning.models.priors.prior import (
    Known,
    PriorNetwork,
    Uniform,
    check_heads,
    fresh_uniform,
)
from vqvae_lightning.models.priors.sampling import guide
from vqvae_lightning.models.priors.unmasking import (
    CONFIDENCE_NOISE,
    MaskedSampling,
    first,
    halton_order,
    left,
    ranks,
)


class MaskedTransformer(PriorNetwork):
    """The prior that is told some codes and predicts the others, all at once.

    The code K is the mask: `logits` predicts a code from all that are not K.
    """

    sampling = MaskedSampling
    completes = "any"
    shards = True
    halton: Tensor

    @documented
    @dataclass
    class Config:
        """The size of the network."""

        layers: int = setting(4, "blocks", at_least=1, at_most=256)
        width: int = setting(128, "channels of the network", at_least=1)
        heads: int = setting(4, "attention heads", at_least=1)
        dropout: float = setting(0.1, "dropout probability", at_least=0, below=1)
        bound_draws: int = setting(
            4, "draws of masked positions per image, for the bound in an evaluation", at_least=1
        )

        def __post_init__(self) -> None:
            check_heads(self.width, self.heads)

    def __init__(
        self, layout: CodeLayout, classes: int, config: Config, label_dropout: float = 0.0
    ) -> None:
        tokens = layout.codebook_size + 1
        super().__init__(layout, classes, config.width, label_dropout, tokens)
        self.bound_draws: int = config.bound_draws
        self.position = nn.Parameter(torch.empty(self.length, config.width))
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.dropout, causal=False)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, self.codebook_size)
        self.dropout = config.dropout
        self.register_buffer("halton", halton_order(layout), persistent=False)
        initialize(self, [self.position], config.layers)

    @property
    def evaluations(self) -> int:
        return min(MaskedSampling().steps, self.length)

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """Logits (N, T, K) for codes (N, T) in 0 … K, where K is a masked position."""
        start = self.start(labels, len(codes))[:, None]  # N,1,width
        x = self.code_embedding(codes) + self.position + start  # N,T,width
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def masked_nll(
        self, codes: Tensor, labels: Tensor | None, time: Tensor, order: Tensor
    ) -> Tensor:
        """T/n · −log p(z_t | codes that are not masked) at n masked positions, else 0; (N, T).

        Args:
            codes: the codes (N, T).
            labels: their classes (N,).
            time: in [0, 1), (N,): n is the whole part of 1 + T·time.
            order: numbers (N, T), of which the n smallest are masked.
        """
        self.check_length(codes)
        count = 1 + (time * self.length).long().clamp_max(self.length - 1)  # N
        masked = first(-order, torch.ones_like(codes, dtype=torch.bool), count)
        logits = self.logits(codes.masked_fill(masked, self.codebook_size), labels)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        nll = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        weights = masked * (self.length / count.to(nll.dtype))[:, None]  # N,T
        return nll.view_as(codes) * weights

    def nll(self, codes: Tensor, labels: Tensor | None, uniform: Uniform = fresh_uniform) -> Tensor:
        """Nats per position, (N, T) for codes (N, T): of one draw of masked positions per image.

        Its sum over T is an unbiased estimate of the bound, and its mean the mean cross-entropy of
        a masked code.
        """
        self.check_length(codes)
        drawn = uniform(codes.new_empty(len(codes), 1 + self.length))
        return self.masked_nll(codes, labels, drawn[:, 0], drawn[:, 1:])

    def rate(
        self, codes: Tensor, labels: Tensor | None, uniform: Uniform = fresh_uniform
    ) -> Tensor:
        """An upper bound on −log p(codes | label) in nats, (N,): a mean over `bound_draws` draws.

        Times of an image are 1/draws apart, so that its draws differ in how much they mask. More
        draws make it less noisy, but no tighter.
        """
        self.check_length(codes)
        drawn = uniform(codes.new_empty(len(codes), 1 + self.bound_draws * self.length))
        order = drawn[:, 1:].unflatten(1, (self.bound_draws, self.length))
        found: list[Tensor] = []
        start = 0
        for part, of_part in self.parts(codes, labels):
            rows = slice(start, start := start + len(part))
            nats = [
                self.masked_nll(
                    part, of_part, (drawn[rows, 0] + s / self.bound_draws) % 1, order[rows, s]
                ).sum(1)
                for s in range(self.bound_draws)
            ]
            found.append(torch.stack(nats).mean(0))
        return torch.cat(found)

    def fill(
        self,
        known: Known,
        labels: Tensor | None,
        sampling: MaskedSampling,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Codes (n, T) in at most `steps` passes, each for all images.

        A step predicts all masked codes, each from the known ones only, and keeps some of them: in
        the `halton` order, in a `random` one, or those that were drawn with the most `confidence`
        (Chang et al. 2022, arXiv 2202.04200).
        """
        codes = torch.where(known.mask, known.codes, self.codebook_size)
        unknown = (~known.mask).sum(1)
        steps = min(sampling.steps, int(unknown.amax()) if len(unknown) else 0)
        fixed = -ranks(self.halton).double().expand(codes.shape)
        if sampling.order == "random":
            fixed = torch.rand(
                codes.shape, generator=generator, device=codes.device, dtype=torch.float32
            )
        for step in range(1, steps + 1):
            masked = codes == self.codebook_size
            count = masked.sum(1) - left(unknown, step, steps)
            logits = self._guided(codes, labels, sampling.guidance)
            if sampling.order == "confidence":
                drawn = sampling.draw(logits[masked], generator)
                noise = CONFIDENCE_NOISE * (1 - step / steps)
                certain = confidence(logits[masked], drawn, noise, generator)
                priority = torch.zeros_like(logits[..., 0]).masked_scatter(masked, certain)
                kept = first(priority, masked, count)
                codes = torch.where(kept, codes.masked_scatter(masked, drawn), codes)
            else:
                kept = first(fixed, masked, count)
                codes = codes.masked_scatter(kept, sampling.draw(logits[kept], generator))
        return codes

    def _guided(self, codes: Tensor, labels: Tensor | None, guidance: float) -> Tensor:
        """Logits (n, T, K), float32, of labels (n,), or of 2n labels with guidance."""
        if guidance == 1:
            return self.logits(codes, labels).float()
        return guide(self.logits(codes.repeat(2, 1), labels), guidance).float()


def confidence(
    logits: Tensor, drawn: Tensor, noise: float, generator: torch.Generator | None
) -> Tensor:
    """log p of the codes drawn (m,) from logits (m, K), with `noise` times Gumbel noise; (m,)."""
    likelihood = logits.log_softmax(-1).gather(-1, drawn[:, None])[:, 0]
    uniform = torch.rand(drawn.shape, generator=generator, device=drawn.device, dtype=torch.float32)
    tiny = torch.finfo(uniform.dtype).tiny
    return likelihood - noise * (-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()
