"""Blocks of a Transformer over codes: pre-norm attention, then an MLP, with parts to choose.

```
 x ──┬─ norm ─► q, k, v ─► (norm) ─► (turn) ─► attention ─┬─ norm ─► GELU or SwiGLU ─┐
     └───────────────────────────────────────────────── + ┴────────────────────────── + ──► x
```
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.models.priors.prior import PriorNetwork
from vqvae_lightning.models.priors.rotary import Rotation

Norm = Literal["layer", "rms"]
MLP = Literal["gelu", "swiglu"]

EPS = 1e-5  # of every norm: torch has another one for each dtype
FIRST_ROOM = 16  # tokens of a new cache


@dataclass
class Cache:
    """Keys and values of the tokens seen so far, for every block.

    Attention reads all that there is room for, and masks what no token has filled. Over a whole
    sequence that is faster than to skip it, for then each head's part lies apart in memory. So the
    room starts small, and doubles as tokens come.
    """

    keys: list[Tensor]  # per block N,heads,C,width/heads: room for C tokens, finite everywhere
    values: list[Tensor]
    mask: Tensor  # C: 0 for the tokens that there are, −inf for the others
    longest: int  # L+T, with L tokens of a text
    places: Tensor | None = None  # L+T,width: what each token is told of its place
    rotation: Rotation | None = None  # of L+T tokens
    length: int = 0  # codes
    filled: int = 0  # tokens

    def make_room(self) -> None:
        """Lets blocks fill one more token, and attend to it. `filled` counts it when all have."""
        if self.filled == len(self.mask):
            more = min(self.filled, self.longest - self.filled)
            for kept in (self.keys, self.values):
                for block, x in enumerate(kept):
                    # Any finite number will do for what is masked: a copy takes one pass.
                    kept[block] = torch.cat([x, x[:, :, :more]], dim=2)
            self.mask = F.pad(self.mask, (0, more), value=-torch.inf)
        self.mask[self.filled] = 0


class HeadNorm(nn.RMSNorm):
    """RMS norm of the channels of a head, of 16 bits under autocast, too."""

    def forward(self, x: Tensor) -> Tensor:
        # torch warns of 16-bit values with a 32-bit weight.
        return F.rms_norm(x, self.normalized_shape, None, self.eps) * self.weight


class Block(nn.Module):
    """x + attention, then x + MLP, shape (N, t, width) kept."""

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        causal: bool = True,
        norm: Norm = "layer",
        mlp: MLP = "gelu",
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.norm1, self.norm2 = norm_of(norm, width), norm_of(norm, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gated = mlp == "swiglu"
        hidden = gated_width(width) if self.gated else 4 * width
        self.up = nn.Linear(width, 2 * hidden if self.gated else hidden)
        self.down = nn.Linear(hidden, width)
        of_head = width // heads
        self.norm_q = HeadNorm(of_head, EPS) if qk_norm else nn.Identity()
        self.norm_k = HeadNorm(of_head, EPS) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        n, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # N,heads,t,width/heads each
        q, k = self._compared(q, k, rotation)
        rate = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, dropout_p=rate)
        attended = attended.transpose(1, 2).reshape(n, t, width)
        x = x + F.dropout(self.out(attended), self.dropout, self.training)
        return x + F.dropout(self._mlp(x), self.dropout, self.training)

    def step(self, x: Tensor, cache: Cache, block: int) -> Tensor:
        """`forward` of the one token after those in the cache, (N, width), which attends to all
        before it.

        Without dropout. On a CPU a product per head costs less here than attention meant for many
        queries.
        """
        n, width = x.shape
        token = cache.filled
        # N,heads,d each
        q, k, v = self.qkv(self.norm1(x)).view(n, 3, self.heads, width // self.heads).unbind(1)
        q, k = self._compared(q, k, cache.rotation and cache.rotation.at(token))
        keys, values = cache.keys[block], cache.values[block]  # N,heads,C,d
        keys[:, :, token], values[:, :, token] = k, v
        keys, values = keys.flatten(0, 1), values.flatten(0, 1)  # N·heads,C,d: views
        q = q.reshape(n * self.heads, 1, -1)
        # N·heads,1,C
        scores = torch.baddbmm(cache.mask, q, keys.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
        x = x + self.out(torch.bmm(scores.softmax(-1), values).view(n, width))
        return x + self._mlp(x)

    def _compared(self, q: Tensor, k: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        """Queries and keys as they are compared."""
        q, k = self.norm_q(q), self.norm_k(k)
        return (q, k) if rotation is None else (rotation.queries(q), rotation.keys(k))

    def _mlp(self, x: Tensor) -> Tensor:
        hidden = self.up(self.norm2(x))
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.gelu(hidden)
        change: Tensor = self.down(hidden)
        return change


def norm_of(kind: Norm, width: int) -> nn.Module:
    """A layer norm, or an RMS norm (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    return nn.RMSNorm(width, EPS) if kind == "rms" else nn.LayerNorm(width, EPS)


def gated_width(width: int) -> int:
    """Hidden channels of a SwiGLU (Shazeer 2020, arXiv 2002.05202) with as many weights as a GELU
    of 4·width: 8/3·width, to a multiple of 8, at most a share 1/width off.
    """
    return 8 * max(1, round(width / 3))


def initialize(network: PriorNetwork, positions: Sequence[Tensor], layers: int) -> None:
    """Draws the weights of a network whose `blocks` are that many of `Block`, as GPT-2 does."""
    for parameter in (network.code_embedding.weight, network.start_embedding.weight, *positions):
        nn.init.normal_(parameter, std=0.02)
    for name, parameter in network.named_parameters():
        if name.startswith("blocks") and name.endswith("weight") and parameter.dim() == 2:
            # GPT-2's scaling: the residual stream keeps its variance whatever the depth
            ends_branch = name.split(".")[-2] in ("out", "down")
            scale = (2 * layers) ** -0.5 if ends_branch else 1.0
            nn.init.normal_(parameter, std=0.02 * scale)
