"""CodeDataModule: the codes of a frozen tokenizer, computed once and stored with the tokenizer's
fingerprint.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.latents import LatentDataModule
from vqvae_lightning.data.shards import Column
from vqvae_lightning.models.tokenizer import Tokenizer

BLOCK = 10_000  # sequences that are counted together


class CodeDataModule(LatentDataModule):
    """Codes (N, T) int32 of the train, validation and test images under one tokenizer.

    They are stored in the smallest unsigned type that holds them.
    """

    what = "codes"
    first_stage: Tokenizer

    def __init__(self, images: ImageDataModule, tokenizer: Tokenizer, folder: Path) -> None:
        """The codes of images, which are kept in a folder `codes` inside of `folder`."""
        super().__init__(images, tokenizer, folder)

    def column(self) -> Column:
        size = self.first_stage.codebook_size
        return Column(self.first_stage.record_shape, np.min_scalar_type(size - 1))

    def limit(self) -> int:
        return self.first_stage.codebook_size

    def code_counts(self, split: str) -> Tensor:
        """How often each code occurs in a split, (M, K) int64."""
        layout, rows = self.first_stage.layout, self.splits[split]
        counts = torch.zeros(layout.num_codebooks, layout.codebook_size, dtype=torch.int64)
        for index in torch.arange(len(rows)).split(BLOCK):
            counts += layout.histogram(rows.take(index))
        return counts
