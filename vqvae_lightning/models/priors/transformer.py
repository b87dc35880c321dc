"""Causal Transformer over code sequences: P(z) = ∏ P(z_t | z_<t, label), codes in raster order.

A pre-norm decoder (Vaswani et al. 2017, arXiv 1706.03762; Radford et al. 2019) with learned
positions. The label is the token that starts the sequence, so position t reads (label, z_0 …
z_{t-1}) and predicts z_t. A text stands before that token, which then is the same for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import documented, setting
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior
from vqvae_lightning.models.priors.prior import PriorNetwork, check_heads
from vqvae_lightning.models.priors.text import TextPrefix


@dataclass
class Cache:
    """Keys and values of the positions seen so far, for every block."""

    keys: list[Tensor]  # per block N,heads,L+T,width/heads, with L positions of a text
    values: list[Tensor]
    length: int = 0  # codes
    filled: int = 0  # positions


class Block(nn.Module):
    """x + attention, then x + MLP, shape (N, t, width) kept."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # N,heads,t,width/heads each
        rate = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, dropout_p=rate)
        attended = attended.transpose(1, 2).reshape(n, t, width)
        x = x + F.dropout(self.out(attended), self.dropout, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm2(x)))), self.dropout, self.training)

    def step(self, x: Tensor, cache: Cache, block: int) -> Tensor:
        """`forward` of the one position after those in the cache, (N, width), which attends to all
        before it.

        Without dropout. On a CPU a product per head costs less here than attention meant for many
        queries.
        """
        n, width = x.shape
        # N,heads,d each
        q, k, v = self.qkv(self.norm1(x)).view(n, 3, self.heads, width // self.heads).unbind(1)
        end = cache.filled + 1
        keys, values = cache.keys[block], cache.values[block]  # N,heads,L+T,d
        keys[:, :, cache.filled], values[:, :, cache.filled] = k, v
        # N·heads,t,d: views
        keys, values = keys.flatten(0, 1)[:, :end], values.flatten(0, 1)[:, :end]
        q = q.reshape(n * self.heads, 1, -1) * q.shape[-1] ** -0.5
        scores = torch.bmm(q, keys.transpose(1, 2))  # N·heads,1,t
        x = x + self.out(torch.bmm(scores.softmax(-1), values).view(n, width))
        change: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + change


def initialize(network: PriorNetwork, position: Tensor, layers: int) -> None:
    """Draws the weights of a network whose `blocks` are that many of `Block`, as GPT-2 does."""
    for parameter in (network.code_embedding.weight, network.start_embedding.weight, position):
        nn.init.normal_(parameter, std=0.02)
    for name, parameter in network.named_parameters():
        if name.startswith("blocks") and name.endswith("weight") and parameter.dim() == 2:
            # GPT-2's scaling: the residual stream keeps its variance whatever the depth
            ends_branch = name.split(".")[-2] in ("out", "down")
            scale = (2 * layers) ** -0.5 if ends_branch else 1.0
            nn.init.normal_(parameter, std=0.02 * scale)


class CodeTransformer(AutoregressivePrior):
    """The prior whose network is a Transformer.

    It reads a sequence, so only T matters to it, not the grid.
    """

    reads_texts = True

    @documented
    @dataclass
    class Config:
        """The size of the network."""

        layers: int = setting(4, "blocks", at_least=1, at_most=256)
        width: int = setting(128, "channels of the network", at_least=1)
        heads: int = setting(4, "attention heads", at_least=1)
        dropout: float = setting(0.1, "dropout probability", at_least=0, below=1)

        def __post_init__(self) -> None:
            check_heads(self.width, self.heads)

    def __init__(
        self,
        layout: CodeLayout,
        classes: int,
        config: Config,
        label_dropout: float = 0.0,
        texts: Sequence[str] = (),
    ) -> None:
        """See `PriorNetwork`; `texts`, one for each label, are read in the place of labels."""
        super().__init__(layout, classes, config.width, label_dropout)
        width, self.heads = config.width, config.heads
        if texts:
            self.start_embedding = nn.Embedding(1, width)
        self.position = nn.Parameter(torch.empty(self.length, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.codebook_size)
        self.dropout = config.dropout
        initialize(self, self.position, config.layers)
        self.text = TextPrefix(texts, width) if texts else None

    def start(self, labels: Tensor | None, n: int) -> Tensor:
        """All that stands before the first code, with positions: (N, L+1, width)."""
        if self.text is None:
            return (super().start(labels, n) + self.position[0])[:, None]
        first = self.start_embedding.weight + self.position[0]
        prefix = self.text(self.kept(labels, n))  # N,L,width
        return torch.cat([prefix, first.expand(n, 1, -1)], dim=1)

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        n, length = codes.shape
        before = self.code_embedding(codes[:, :-1]) + self.position[1:length]  # N,T-1,width
        x = torch.cat([self.start(labels, n), before], dim=1)  # N,L+T,width
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x[:, -length:]))
        return logits

    def new_cache(self, n: int) -> Cache:
        weight = self.head.weight
        length = self.length + (self.text.length if self.text else 0)
        shape = (n, self.heads, length, weight.shape[1] // self.heads)
        return Cache(
            keys=[weight.new_empty(shape) for _ in self.blocks],
            values=[weight.new_empty(shape) for _ in self.blocks],
        )

    def step(self, previous: Tensor | None, start: Tensor, cache: Cache) -> Tensor:
        if previous is None:
            read = start.unbind(1)  # L+1 times N,width
        else:
            read = (self.code_embedding(previous) + self.position[cache.length],)
        for x in read:
            for i, block in enumerate(self.blocks):
                # nn.ModuleList does not say what it holds.
                x = block.step(x, cache, i)  # type: ignore[operator]
            cache.filled += 1
        logits: Tensor = self.head(self.norm(x))
        return logits
