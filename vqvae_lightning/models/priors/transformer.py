"""Causal Transformer over code sequences: P(z) = ∏ P(z_t | z_<t, label), codes in raster order.

A pre-norm decoder (Vaswani et al. 2017, arXiv 1706.03762; Radford et al. 2019). The label is the
token that starts the sequence, so token t reads (label, z_0 … z_{t-1}) and predicts z_t. A text
stands before that token, which then is the same for all.

Training may begin with codes in random orders that give way to the raster (RAR: Yu et al. 2024,
arXiv 2411.00776), of which every token is told what it reads and what it predicts:

```
 reads:     start    z_σ(0)   z_σ(1)  …     share of random orders σ: 1 until anneal_from,
 predicts:  z_σ(0)   z_σ(1)   z_σ(2)  …     0 from anneal_to on, linear between
```
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError, documented, setting
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior
from vqvae_lightning.models.priors.blocks import (
    FIRST_ROOM,
    MLP,
    Block,
    Cache,
    Norm,
    initialize,
    norm_of,
)
from vqvae_lightning.models.priors.prior import Uniform, check_heads
from vqvae_lightning.models.priors.rotary import Rotation, cells_of, rotation_of
from vqvae_lightning.models.priors.text import TextPrefix


class CodeTransformer(AutoregressivePrior):
    """The prior whose network is a Transformer.

    With learned positions it reads a sequence, so only T matters to it, not the grid.
    """

    reads_texts = True
    shards = True
    cells: Tensor

    @documented
    @dataclass
    class Config:
        """The size of the network, and how it is made and trained."""

        layers: int = setting(4, "blocks", at_least=1, at_most=256)
        width: int = setting(128, "channels of the network", at_least=1)
        heads: int = setting(4, "attention heads", at_least=1)
        dropout: float = setting(0.1, "dropout probability", at_least=0, below=1)
        positions: Literal["learned", "rotary", "both"] = setting(
            "learned",
            "how it knows where codes lie: a vector per position, turns of queries and keys by"
            " their cells of the grid, or both",
        )
        norm: Norm = setting("layer", "what normalizes the channels: mean and scale, or scale")
        mlp: MLP = setting("gelu", "of a block; swiglu is gated, with as many weights")
        qk_norm: bool = setting(False, "normalize queries and keys")
        order: Literal["raster", "annealed"] = setting(
            "raster",
            "of codes in training: annealed begins with random orders. Everything else is raster",
        )
        anneal_from: float = setting(
            0.5, "share of the training with nothing but random orders", at_least=0, at_most=1
        )
        anneal_to: float = setting(
            0.75, "share of the training after which all is raster", at_least=0, at_most=1
        )

        def __post_init__(self) -> None:
            check_heads(self.width, self.heads)
            channels = self.width // self.heads
            if self.positions != "learned" and (channels % 2 or channels < 6):
                raise ConfigError(
                    f"model.network.positions: got {self.positions} with {channels} channels per"
                    " head, wanted an even number of at least 6: a pair for each axis"
                )
            for name in ("anneal_from", "anneal_to") if self.order == "raster" else ():
                if getattr(self, name) != getattr(type(self), name):
                    raise ConfigError(
                        f"model.network.{name}: got {getattr(self, name)}, but"
                        " model.network.order=raster anneals nothing; wanted order=annealed"
                    )
            if self.anneal_from > self.anneal_to:
                raise ConfigError(
                    f"model.network.anneal_from: got {self.anneal_from}, wanted at most"
                    f" model.network.anneal_to={self.anneal_to}"
                )

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
        learned, self.anneals = config.positions != "rotary", config.order == "annealed"
        self.rotary = config.positions != "learned"
        self.anneal_from, self.anneal_to = config.anneal_from, config.anneal_to
        # Of the code that a token predicts, and of the one that it reads where orders differ.
        self.position = nn.Parameter(torch.empty(self.length, width)) if learned else None
        self.read_position = (
            nn.Parameter(torch.empty(self.length, width)) if learned and self.anneals else None
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.heads,
                config.dropout,
                norm=config.norm,
                mlp=config.mlp,
                qk_norm=config.qk_norm,
            )
            for _ in range(config.layers)
        )
        self.norm = norm_of(config.norm, width)
        self.head = nn.Linear(width, self.codebook_size)
        self.dropout = config.dropout
        self.register_buffer("cells", cells_of(layout), persistent=False)
        positions = [p for p in (self.position, self.read_position) if p is not None]
        initialize(self, positions, config.layers)
        self.text = TextPrefix(texts, width) if texts else None

    @property
    def before(self) -> int:
        """L, tokens of a text."""
        return self.text.length if self.text else 0

    def start(self, labels: Tensor | None, n: int) -> Tensor:
        """All that stands before the first code: (N, L+1, width)."""
        if self.text is None:
            return super().start(labels, n)[:, None]
        prefix = self.text(self.kept(labels, n))  # N,L,width
        return torch.cat([prefix, self.start_embedding.weight.expand(n, 1, -1)], dim=1)

    def logits(self, codes: Tensor, labels: Tensor | None, order: Tensor | None = None) -> Tensor:
        """Logits (N, T, K) for codes (N, T): each sees the label and the codes before it only.

        Args:
            codes: in raster order, or in another.
            labels: their classes (N,).
            order: the positions that the codes have, (N, T); by default the raster's.
        """
        n, length = codes.shape
        x = torch.cat([self.start(labels, n), self.code_embedding(codes[:, :-1])], dim=1)
        places, rotation = self._places(length, order), self._rotation(length, order)
        if places is not None:
            x = x + places  # N,L+T,width
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x, rotation)
        logits: Tensor = self.head(self.norm(x[:, -length:]))
        return logits

    def _places(self, length: int, order: Tensor | None = None) -> Tensor | None:
        """What each token is told of its place, (L+T, width), or (N, L+T, width) in an order."""
        if self.position is None:
            return None
        places = self.position[:length] if order is None else self.position[order]
        if self.read_position is not None:
            read = self.read_position[: length - 1]
            if order is not None:
                read = self.read_position[order[:, :-1]]
            places = places + F.pad(read, (0, 0, 1, 0))
        return F.pad(places, (0, 0, self.before, 0))

    def _rotation(self, length: int, order: Tensor | None = None) -> Rotation | None:
        """How queries and keys of L+T tokens are turned, in an order of each sequence (N, T)."""
        if not self.rotary:
            return None
        cells = self.cells[:length] if order is None else self.cells[order][:, None]  # N,1,T,A
        weight = self.head.weight
        return rotation_of(cells, self.before, weight.shape[1] // self.heads, weight)

    def training_nll(
        self, codes: Tensor, labels: Tensor | None, uniform: Uniform, progress: float | None
    ) -> Tensor:
        if not self.anneals:
            return self.nll(codes, labels, uniform)
        if progress is None:
            raise ValueError(
                "model.network.order: got annealed, wanted a training that says how many steps it"
                " has"
            )
        share = random_share(progress, self.anneal_from, self.anneal_to)
        if share == 0:
            return self.nll(codes, labels, uniform)
        self.check_length(codes)
        drawn = uniform(codes.new_empty(len(codes), 1 + self.length))
        raster = torch.arange(self.length, device=codes.device)
        order = torch.where(drawn[:, :1] < share, drawn[:, 1:].argsort(1), raster)  # N,T
        codes = codes.gather(1, order)
        return self.nll_of(self.logits(codes, labels, order), codes)

    def new_cache(self, n: int) -> Cache:
        weight, longest = self.head.weight, self.before + self.length
        room = min(FIRST_ROOM, longest)
        shape = (n, self.heads, room, weight.shape[1] // self.heads)
        return Cache(
            keys=[weight.new_zeros(shape) for _ in self.blocks],
            values=[weight.new_zeros(shape) for _ in self.blocks],
            mask=weight.new_full((room,), -torch.inf),
            longest=longest,
            places=self._places(self.length),
            rotation=self._rotation(self.length),
        )

    def step(self, previous: Tensor | None, start: Tensor, cache: Cache) -> Tensor:
        # L+1 times N,width, or once
        read = start.unbind(1) if previous is None else (self.code_embedding(previous),)
        for x in read:
            cache.make_room()
            if cache.places is not None:
                x = x + cache.places[cache.filled]
            for i, block in enumerate(self.blocks):
                # nn.ModuleList does not say what it holds.
                x = block.step(x, cache, i)  # type: ignore[operator]
            cache.filled += 1
        logits: Tensor = self.head(self.norm(x))
        return logits


def random_share(progress: float, start: float, end: float) -> float:
    """The share of random orders after a share `progress` of the training.

    1 until `start`, 0 from `end` on, and linear between.
    """
    if progress < start:
        return 1.0
    return 0.0 if progress >= end else (end - progress) / (end - start)
