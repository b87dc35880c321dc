"""ImageDataModule: the images of a dataset as uint8 in memory, scaled on the device."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from vqvae_lightning.config import DataConfig
from vqvae_lightning.data.loader import Batch, EvalLoader, TrainLoader, derive_seed, eval_seed
from vqvae_lightning.data.sources import DATASETS, Dataset, holds, load, prepare


class ImageDataModule(pl.LightningDataModule):
    """Train, validation and test images of one dataset.

    ```
    data/<name>/ ──► uint8 N,C,H,W in memory ──► Batch (one gather) ──► device
                 ──► flip, binarize, float [-1, 1]
    ```

    Validation is a stratified part of the training set, drawn from the seed; the test set is never
    touched in training. Raises ValueError, before anything is fetched, for a batch or a validation
    split that the training set cannot fill.
    """

    def __init__(self, config: DataConfig, seed: int, accumulate: int = 1) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        size = self.dataset.train_size
        if config.validation_size >= size:
            raise ValueError(
                f"data.validation_size: got {config.validation_size}, wanted 1 to {size - 1}"
            )
        if config.batch_size > size - config.validation_size:
            raise ValueError(
                f"data.batch_size: got {config.batch_size}, but there are only"
                f" {size - config.validation_size} training images"
            )
        self.accumulate = accumulate
        # name → images uint8 N,C,H,W and labels N
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def dataset(self) -> Dataset:
        return DATASETS[self.config.name]

    def prepare_data(self) -> None:
        """Fetches what is missing, unless the images are in memory already.

        Safe in every process at once; raises DataError if it cannot be had.
        """
        if self.splits:
            return
        prepare(self.config.name, Path(self.config.root), self.config.download)

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        root = Path(self.config.root)
        images, labels = load(self.config.name, root, "train")
        held_out = stratified_split(
            labels, self.config.validation_size, derive_seed(self.seed, "validation")
        )
        self._held_out = torch.from_numpy(held_out)
        train, test = ~held_out, load(self.config.name, root, "test")
        for name, (x, y) in {
            "train": (images[train], labels[train]),
            "val": (images[held_out], labels[held_out]),
            "test": test,
        }.items():
            pixels, targets = torch.from_numpy(x), torch.from_numpy(y)
            if self.config.binarize == "static":
                generator = torch.Generator().manual_seed(derive_seed("static binarization", name))
                pixels = 255 * (torch.rand(pixels.shape, generator=generator) * 255 < pixels).to(
                    torch.uint8
                )
            self.splits[name] = (pixels, targets)

    def published(self, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) uint8 and labels (N,) of a split as it was published, in its order.

        The published train split holds the images that validation takes from it.
        """
        if split == "test":
            return self.splits["test"]
        parts = []
        for train, val in zip(self.splits["train"], self.splits["val"], strict=True):
            whole = train.new_empty(len(self._held_out), *train.shape[1:])
            whole[~self._held_out], whole[self._held_out] = train, val
            parts.append(whole)
        return parts[0], parts[1]

    def train_dataloader(self) -> TrainLoader:
        return self.train_loader(*self.splits["train"], *self._rank_and_world())

    def train_loader(self, x: Tensor, labels: Tensor, rank: int, world: int) -> TrainLoader:
        """Shuffled batches of x (N, ...), images or their codes, and labels (N,)."""
        return TrainLoader(
            x, labels, self.config.batch_size, self.seed, rank, world, self.accumulate
        )

    def val_dataloader(self) -> EvalLoader:
        return self.eval_loader("val", *self._rank_and_world())

    def test_dataloader(self) -> EvalLoader:
        return self.eval_loader("test", *self._rank_and_world())

    def eval_loader(self, split: str, rank: int = 0, world: int = 1) -> EvalLoader:
        """Every image of a split once, in order."""
        return EvalLoader(*self.splits[split], self.config.eval_batch_size, self.seed, rank, world)

    def batches(self, split: str, device: torch.device) -> Iterator[Batch]:
        """Every image of a split once, in order, not augmented.

        Batches are on `device` and float (N, C, H, W) in [-1, 1].
        """
        self.setup()
        for batch in self.eval_loader(split):
            yield self.scale(batch._replace(x=batch.x.to(device)))

    def references(self, split: str, n: int) -> Tensor:
        """The first n images of a split as an evaluation sees them.

        They are float32 (n, C, H, W) in [-1, 1].
        """
        x, labels = self.splits[split]
        return self.scale(
            Batch(x[:n], labels[:n], torch.arange(len(x))[:n], eval_seed(self.seed))
        ).x

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments in training, then scales to float [-1, 1], on the device."""
        return self.scale(batch, augment=self.trainer is not None and self.trainer.training)

    def scale(self, batch: Batch, augment: bool = False) -> Batch:
        """The batch with images float32 (N, C, H, W) in [-1, 1].

        With `augment`, in training, random numbers are functions of batch.seed and of a row's
        position in the step; otherwise each row has its own, see `RowNoise`.
        """
        x = batch.x
        generator = torch.Generator(x.device).manual_seed(derive_seed(batch.seed, "pixels"))

        def uniform(like: Tensor) -> Tensor:
            shape = like.shape[1:]
            return batch.own(
                lambda rows: torch.rand(rows, *shape, generator=generator, device=x.device)
            )

        if augment and self.config.flip:
            n = x.shape[0]
            mirrored = uniform(x[:, :1, 0, 0])[:, 0] < 0.5  # N
            # one gather from both: `where` on broadcast bytes takes five times as long on a CPU
            x = torch.cat([x, x.flip(-1)]).index_select(
                0, torch.arange(n, device=x.device) + n * mirrored
            )
        if self.config.binarize == "dynamic":
            drawn = uniform(x) if augment else batch.row_noise("pixels").uniform(x)
            x = 255 * (drawn * 255 < x)
        return batch._replace(x=to_float(x))

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def data_of(recorded: DataConfig, root: str | None) -> DataConfig:
    """Where the images of a run are: in `root`, or else where the run says, or else in `data`.

    A run may be somebody else's, so the folder that it names is only read, and only if all files
    are there. `root` and `data` are fetched into.
    """
    if root is None and holds(recorded.name, Path(recorded.root)):
        return replace(recorded, download=False)
    return replace(recorded, root=root or DataConfig().root)


def to_float(x: Tensor) -> Tensor:
    """uint8 0 … 255 → float32 in [-1, 1]."""
    return x.to(torch.float32, copy=True).div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Float in [-1, 1] → uint8 0 … 255, the exact inverse of `to_float` on its values."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def stratified_split(labels: np.ndarray[Any, Any], size: int, seed: int) -> np.ndarray[Any, Any]:
    """Mask (N,) bool of `size` rows that hold each label in its share (to a row, for labels of like
    size).
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    # Each row's rank within its label as a fraction: the `size` lowest take the same share of every
    # label.
    fraction = np.empty(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        fraction[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    mask = np.zeros(len(labels), dtype=bool)
    mask[order[np.argsort(fraction[order], kind="stable")[:size]]] = True
    return mask
