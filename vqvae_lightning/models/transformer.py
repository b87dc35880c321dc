"""Causal Transformer over code sequences: P(z) = ∏ P(z_t | z_<t, label), codes in raster order.

A pre-norm decoder (Vaswani et al. 2017, arXiv 1706.03762; Radford et al. 2019) with learned positions. The label is
the token that starts the sequence, so position t reads (label, z_0 … z_{t-1}) and predicts z_t.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import PriorConfig


@dataclass
class Cache:
    """Keys and values of the positions seen so far, for every block."""

    keys: list[Tensor]  # per block N,heads,T,width/heads
    values: list[Tensor]
    length: int = 0


class Block(nn.Module):
    """x + attention, then x + MLP, shape (N, t, width) kept; with a cache, of one position, (N, width)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cache: Cache | None = None, block: int = 0) -> Tensor:
        if cache is not None:
            return self.step(x, cache, block)
        n, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # N,heads,t,width/heads each
        rate = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
        attended = attended.transpose(1, 2).reshape(n, t, width)
        x = x + F.dropout(self.out(attended), self.dropout, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm2(x)))), self.dropout, self.training)

    def step(self, x: Tensor, cache: Cache, block: int) -> Tensor:
        """`forward` of the one position after those in the cache, (N, width), which attends to all before it.

        Without dropout. On a CPU a product per head costs less here than attention meant for many queries.
        """
        n, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, 3, self.heads, width // self.heads).unbind(1)  # N,heads,d each
        end = cache.length + 1
        keys, values = cache.keys[block], cache.values[block]  # N,heads,T,d
        keys[:, :, cache.length], values[:, :, cache.length] = k, v
        keys, values = keys.flatten(0, 1)[:, :end], values.flatten(0, 1)[:, :end]  # N·heads,t,d: views
        q = q.reshape(n * self.heads, 1, -1) * q.shape[-1] ** -0.5
        scores = torch.bmm(q, keys.transpose(1, 2))  # N·heads,1,t
        x = x + self.out(torch.bmm(scores.softmax(-1), values).view(n, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class CodeTransformer(nn.Module):
    """p(codes | label) for codes (N, T) in 0 … K−1 and labels (N,) in 0 … classes−1, or p(codes) with classes = 0."""

    def __init__(self, codebook_size: int, length: int, classes: int, config: PriorConfig) -> None:
        super().__init__()
        self.codebook_size, self.length, self.classes = codebook_size, length, classes
        width, self.heads = config.width, config.heads
        self.code_embedding = nn.Embedding(codebook_size, width)
        self.start_embedding = nn.Embedding(max(classes, 1), width)
        self.position = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, codebook_size)
        self.dropout = config.dropout
        for parameter in (self.code_embedding.weight, self.start_embedding.weight, self.position):
            nn.init.normal_(parameter, std=0.02)
        for name, parameter in self.named_parameters():
            if name.startswith("blocks") and name.endswith("weight") and parameter.dim() == 2:
                # GPT-2's scaling: the residual stream keeps its variance whatever the depth
                scale = (2 * config.layers) ** -0.5 if name.split(".")[-2] in ("out", "down") else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def start(self, labels: Tensor | None, n: int) -> Tensor:
        """The token before the first code, (N, 1, width). Raises ValueError if labels are missing."""
        if self.classes == 0:
            return self.start_embedding.weight.expand(n, 1, -1)
        if labels is None:
            raise ValueError(f"labels: got none, wanted {n} labels: this prior is class-conditional")
        return self.start_embedding(labels)[:, None]

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """Logits (N, T, K) for codes (N, T): position t sees the label and the codes before t only."""
        before = self.code_embedding(codes[:, :-1])  # N,T-1,width
        x = torch.cat([self.start(labels, codes.shape[0]), before], dim=1)  # N,T,width
        x = F.dropout(x + self.position[: x.shape[1]], self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def nll(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """−log p(codes | label) in nats per position, (N, T) for codes (N, T), in float32 or better."""
        if codes.shape[1:] != (self.length,):
            raise ValueError(f"codes: got shape {tuple(codes.shape)}, wanted (N, {self.length})")
        logits = self.logits(codes, labels)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes)

    def new_cache(self, n: int) -> Cache:
        """An empty cache for n sequences of full length."""
        weight = self.head.weight
        shape = (n, self.heads, self.length, weight.shape[1] // self.heads)
        return Cache(
            keys=[weight.new_empty(shape) for _ in self.blocks],
            values=[weight.new_empty(shape) for _ in self.blocks],
        )

    def next_logits(self, previous: Tensor | None, labels: Tensor | None, n: int, cache: Cache) -> Tensor:
        """Logits (N, K) of the next code, given the code before it (N,), or None at the start.

        Raises ValueError once the cache holds a whole sequence.
        """
        if cache.length >= self.length:
            raise ValueError(f"cache: holds {cache.length} positions, which is a whole sequence")
        x = self.start(labels, n)[:, 0] if previous is None else self.code_embedding(previous)  # N,width
        x = x + self.position[cache.length]
        for i, block in enumerate(self.blocks):
            x = block(x, cache, i)
        cache.length += 1
        return self.head(self.norm(x))

    @torch.inference_mode()
    def generate(
        self,
        n: int,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """n code sequences (n, T) drawn from p(codes | label), position by position through the cache.

        `temperature` 0 takes the most likely code. `top_k` keeps the k most likely codes, `top_p` the smallest set
        whose probability reaches p (nucleus sampling, Holtzman et al. 2020). With `prefix` (n, t), 0 <= t <= T, the
        first t codes are those given and the rest is drawn from p(z_t … z_T−1 | prefix, label): exactly, for the
        model predicts every code from those before it. Raises ValueError for values out of range.
        """
        check_sampling(self.codebook_size, temperature, top_k, top_p)
        if prefix is None:
            prefix = torch.empty(n, 0, dtype=torch.int64, device=self.head.weight.device)
        check_prefix(prefix, n, self.length, self.codebook_size)
        if self.classes and labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ValueError(f"labels: got {int(labels.min())} to {int(labels.max())}, wanted 0 to {self.classes - 1}")
        was_training = self.training
        self.eval()
        cache, codes, previous = self.new_cache(n), [], None
        for t in range(self.length):
            logits = self.next_logits(previous, labels, n, cache)  # for a given code too: it fills the cache
            given = t < prefix.shape[1]
            previous = prefix[:, t] if given else draw(logits.float(), temperature, top_k, top_p, generator)
            codes.append(previous)
        self.train(was_training)
        return torch.stack(codes, dim=1)


def check_sampling(codebook_size: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raises ValueError unless 0 <= temperature, 1 <= top_k <= K and 0 < top_p <= 1."""
    if not temperature >= 0:
        raise ValueError(f"temperature: got {temperature}, wanted at least 0")
    if top_k is not None and not 1 <= top_k <= codebook_size:
        raise ValueError(f"top_k: got {top_k}, wanted 1 to {codebook_size}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: got {top_p}, wanted above 0, at most 1")


def check_prefix(prefix: Tensor, n: int, length: int, codebook_size: int) -> None:
    """Raises ValueError unless prefix is int64 (n, t) with t <= T and codes in 0 … K−1."""
    if prefix.dim() != 2 or prefix.shape[0] != n or prefix.shape[1] > length or prefix.dtype != torch.int64:
        raise ValueError(
            f"prefix: got {prefix.dtype} of shape {tuple(prefix.shape)}, wanted torch.int64 of shape ({n}, t), "
            f"t at most {length}"
        )
    if prefix.numel() and not 0 <= int(prefix.min()) <= int(prefix.max()) < codebook_size:
        raise ValueError(
            f"prefix: got codes {int(prefix.min())} to {int(prefix.max())}, wanted 0 to {codebook_size - 1}"
        )


def draw(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One code (N,) from each row of logits (N, K), where its cumulative probability passes a uniform draw.

    A code of probability 0 is never drawn: nothing passes there. In float64, so that the last code is reached.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k is not None or top_p is not None:  # to sort costs more than all the rest
        logits = keep_likeliest(logits, top_k, top_p)
    cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)  # N,K
    uniform = torch.rand(len(logits), 1, generator=generator, device=logits.device, dtype=torch.float64)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]


def keep_likeliest(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits (N, K) with −inf for all but the k likeliest codes, and all but the fewest that hold probability p."""
    order = logits.argsort(dim=-1, descending=True, stable=True)  # ties: the lower index first, exactly k are kept
    ranked = logits.gather(-1, order)
    if top_k is not None:
        ranked[:, top_k:] = -torch.inf
    if top_p is not None:
        probability = ranked.softmax(-1)
        ranked = ranked.masked_fill(probability.cumsum(-1) - probability >= top_p, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, ranked)
