"""CodeDataModule: the codes of a frozen tokenizer, computed once and stored with the tokenizer's
fingerprint.
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from filelock import FileLock
from torch import Tensor

from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.imageset import ImageSet
from vqvae_lightning.data.loader import EvalLoader, TrainLoader
from vqvae_lightning.data.rows import FileRows, Rows
from vqvae_lightning.data.shards import Column, StoreWriter, description_path, read_store
from vqvae_lightning.device import own_device
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.storage import check_writable
from vqvae_lightning.verified import StoredError

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")
BLOCK = 10_000  # sequences that are counted together


class CodeDataModule(pl.LightningDataModule):
    """Codes (N, T) of the train, validation and test images under one tokenizer.

    ```
    images ──► tokenizer (frozen) ──► codes N,T ──► <dataset>-<fingerprint>.train_codes-00000.bin, …
           a batch at a time                    ──► Batch, read by position
    ```

    With `data.flip`, the training codes are those of the images and of their mirror images.
    """

    def __init__(self, images: ImageDataModule, tokenizer: Tokenizer, folder: Path) -> None:
        super().__init__()
        self.images, self.tokenizer, self.folder = images, tokenizer, folder
        config = images.config
        key = f"{config.dataset}-v{images.sizes['val']}-s{images.seed}"
        key += ("-flip" if config.flip else "") + f"-{config.binarize}"
        self.stem = f"{key}-{tokenizer.fingerprint[:16]}."
        self.of = f"{key} {config.fingerprint or 'published'} {tokenizer.fingerprint}"
        self.path = description_path(folder, self.stem)
        self.splits: dict[str, Rows] = {}  # codes int32 (T,) of each split

    @property
    def dataset(self) -> ImageSet:
        return self.images.dataset

    def prepare_data(self) -> None:
        """Reads the codes, or computes them unless they are stored as they must be. Safe in every
        process at once.

        Raises ValueError if they must be computed and cannot be stored.
        """
        if self.splits:
            return
        self.images.prepare_data()
        try:
            self.splits = self._read()
        except StoredError as error:
            self._check_place(str(error))
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{self.stem}lock"):
                self.splits = self._read_or_compute()

    def _check_place(self, wrong: str) -> None:
        """Raises ValueError if no file can be made at `path`, or if it would lie outside of the
        run's folder.
        """
        reason = f"codes: {wrong}" if self.path.exists() else "codes"
        check_writable(self.path, reason)
        if self.path.parent.is_symlink():
            raise ValueError(
                f"{reason}: {self.path.parent} is a link, and nothing is written through one"
            )

    def _read_or_compute(self) -> dict[str, Rows]:
        """The codes, which another process may have stored by now. The caller holds the lock."""
        try:
            return self._read()
        except StoredError as error:
            why = f"{error}; computing them anew" if self.path.exists() else "computing them"
            level = logging.WARNING if self.path.exists() else logging.INFO
            log.log(level, "codes: %s with tokenizer %s", why, self.tokenizer.fingerprint[:16])
        count = sum(self.images.sizes.values())
        print(f"codes     of {count:,} images, computed once", file=sys.stderr, flush=True)
        columns = {name: column for name, (_, column) in self._layout().items()}
        writer = StoreWriter(self.folder, columns, self.stem)
        for split in SPLITS:
            for codes, labels in self._encoded(split):
                writer.append(f"{split}_codes", codes.numpy())
                writer.append(f"{split}_labels", labels.numpy())
        writer.finish(self.of)
        return self._read()

    def _encoded(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Codes int32 (n, T) and labels (n,) of a split, a batch at a time, on the CPU."""
        self.images.setup()
        device = own_device()
        self.tokenizer.to(device)
        with_mirrored = split == "train" and self.images.config.flip
        for mirrored in (False, True) if with_mirrored else (False,):
            for batch in self.images.batches(split, device):
                x = batch.x.flip(-1) if mirrored else batch.x
                yield self.tokenizer.encode(x).cpu().int(), batch.labels
        self.tokenizer.to(torch.device("cpu"))

    def _read(self) -> dict[str, Rows]:
        """The stored codes, verified. Raises StoredError."""
        of = {"codes": self.tokenizer.codebook_size, "labels": self.dataset.classes}
        limits = {f"{split}_{what}": limit for split in SPLITS for what, limit in of.items()}
        arrays = read_store(self.folder, self.of, self._layout(), self.stem, limits)
        rows: dict[str, Rows] = {}
        for split in SPLITS:
            labels = torch.cat([part.long() for part in arrays[f"{split}_labels"].blocks()])
            rows[split] = FileRows(arrays[f"{split}_codes"], labels)
        return rows

    def _layout(self) -> dict[str, tuple[int, Column]]:
        """Codes (N, T) and labels (N,) of each split, in the smallest unsigned type that holds
        them.
        """
        code, label = (
            np.min_scalar_type(n - 1) for n in (self.tokenizer.codebook_size, self.dataset.classes)
        )
        layout: dict[str, tuple[int, Column]] = {}
        for split, images in self.images.sizes.items():
            rows = images * (2 if split == "train" and self.images.config.flip else 1)
            layout |= {
                f"{split}_codes": (rows, Column((self.tokenizer.length,), code)),
                f"{split}_labels": (rows, Column((), label)),
            }
        return layout

    def setup(self, stage: str | None = None) -> None:
        """Reads the stored codes unless `prepare_data` did.

        Raises ValueError if they are not what they must be.
        """
        try:
            self.splits = self.splits or self._read()
        except StoredError as error:
            raise ValueError(f"codes: {error}; prepare_data computes them") from error

    def train_dataloader(self) -> TrainLoader:
        return self.images.train_loader(self.splits["train"], *self._rank_and_world())

    def val_dataloader(self) -> EvalLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> EvalLoader:
        config = self.images.config
        return EvalLoader(
            self.splits[split], config.eval_batch_size, self.images.seed, *self._rank_and_world()
        )

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def references(self, split: str, n: int) -> Tensor:
        """The first n code sequences of a split, (n, T)."""
        return self.splits[split].first(n)

    def code_counts(self, split: str) -> Tensor:
        """How often each code occurs in a split, (M, K) int64."""
        layout, rows = self.tokenizer.layout, self.splits[split]
        counts = torch.zeros(layout.num_codebooks, layout.codebook_size, dtype=torch.int64)
        for index in torch.arange(len(rows)).split(BLOCK):
            counts += layout.histogram(rows.take(index))
        return counts
