"""Test images of given classes, to be shown."""

import torch
from torch import Tensor

from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import Batch


def examples(data: ImageDataModule, classes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Test images (N, C, H, W) in [-1, 1] of the given classes (N,), and their labels (N,).

    Classes count modulo how many there are. Images are drawn by the seed, each once as long as
    there are enough of its class.
    """
    test = data.splits["test"]
    labels = test.labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    # A class of own images may have none among them.
    by_class = [order[labels[order] == label] for label in labels.unique()]
    wanted = [int(label) % len(by_class) for label in classes]
    rows = torch.stack(
        [by_class[c][wanted[:i].count(c) % len(by_class[c])] for i, c in enumerate(wanted)]
    )
    return data.scale(Batch(test.take(rows), labels[rows], rows, seed)).x, labels[rows]
