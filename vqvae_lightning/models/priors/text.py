"""A text before the codes: characters that a prior reads in the place of a label.

```
labels N ──► table of texts ──► characters N,L ──► embedding + position ──► N,L,width
```

Every text takes L positions, as many as the longest that is known; what is left of them is padding,
a character of its own. No text at all is nothing but padding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError, visible


class TextPrefix(nn.Module):
    """The texts of labels as vectors.

    Label n means the n-th text, and the number after the last label no text.
    """

    table: Tensor  # classes+1,L int64: 0 is padding, c+1 character c

    def __init__(self, texts: Sequence[str], width: int) -> None:
        """`texts` are those of the labels, at least one of which says something."""
        super().__init__()
        self.characters = "".join(sorted(set("".join(texts))))
        self.length = max(map(len, texts))  # L
        self.embedding = nn.Embedding(len(self.characters) + 1, width)
        self.position = nn.Parameter(torch.empty(self.length, width))
        rows = [self._numbers(text) for text in [*texts, ""]]
        # What the checkpoint says of the texts, so it is not saved again.
        self.register_buffer("table", torch.tensor(rows), persistent=False)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def _numbers(self, text: str) -> list[int]:
        numbers = [self.characters.index(character) + 1 for character in text]
        return numbers + [0] * (self.length - len(text))

    def forward(self, labels: Tensor) -> Tensor:
        """Vectors (N, L, width) of labels (N,)."""
        vectors: Tensor = self.embedding(self.table[labels]) + self.position
        return vectors

    def check(self, text: str) -> None:
        """Raises ConfigError for a text that cannot be read."""
        if not text:
            raise ConfigError("text: got an empty one, wanted something to say")
        if unknown := sorted(set(text) - set(self.characters)):
            raise ConfigError(
                f"text: got '{visible(text)[:60]}', but this prior has never read"
                f" '{visible(unknown[0])}'; it knows '{self.characters}'"
            )
        if len(text) > self.length:
            raise ConfigError(
                f"text: got {len(text)} characters, wanted at most the {self.length} of the longest"
                " text that this prior has read"
            )

    @contextmanager
    def reading(self, text: str) -> Iterator[None]:
        """Every label means this text until the block ends. Raises as `check`."""
        self.check(text)
        known = self.table
        row = torch.tensor(self._numbers(text), device=known.device)
        self.table = torch.cat([row.expand(len(known) - 1, -1), known[-1:]])
        try:
            yield
        finally:
            self.table = known
