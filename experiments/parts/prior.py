from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from vqvae_lightning.config import setting
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior


class Bigram(AutoregressivePrior):
    """P(code | the code before it, label): two tables that are added."""

    @dataclass
    class Config:
        width: int = setting(8, "channels of an embedding", at_least=1)

    def __init__(
        self, layout: CodeLayout, classes: int, config: Config, label_dropout: float
    ) -> None:
        super().__init__(layout, classes, config.width, label_dropout)
        self.head = nn.Linear(config.width, layout.codebook_size)

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        start = self.start(labels, len(codes))[:, None]  # N,1,width
        before = self.code_embedding(codes[:, :-1]) + start  # N,T−1,width
        logits: Tensor = self.head(torch.cat([start, before], 1))  # N,T,K
        return logits

    def new_cache(self, n: int) -> Any:
        return SimpleNamespace(length=0)

    def step(self, previous: Tensor | None, start: Tensor, cache: Any) -> Tensor:
        seen = start if previous is None else self.code_embedding(previous) + start
        logits: Tensor = self.head(seen)  # N,K
        return logits
