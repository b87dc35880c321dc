"""CodeDataModule: the codes of a frozen tokenizer, computed once and stored with the tokenizer's
fingerprint.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from filelock import FileLock
from torch import Tensor

from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import EvalLoader, TrainLoader
from vqvae_lightning.data.sources import Dataset
from vqvae_lightning.device import own_device
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.storage import check_writable
from vqvae_lightning.verified import Layout, StoredError, read_arrays, write_arrays

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")


class CodeDataModule(pl.LightningDataModule):
    """Codes (N, T) of the train, validation and test images under one tokenizer.

    ```
    images ──► tokenizer (frozen) ──► codes N,T int32 ──► <dataset>-<fingerprint>.npz ──► Batch
    ```

    With `data.flip`, the training codes are those of the images and of their mirror images.
    """

    def __init__(self, images: ImageDataModule, tokenizer: Tokenizer, folder: Path) -> None:
        super().__init__()
        self.images, self.tokenizer = images, tokenizer
        key = f"{images.config.name}-v{images.config.validation_size}-s{images.seed}"
        key += ("-flip" if images.config.flip else "") + f"-{images.config.binarize}"
        self.path = folder / f"{key}-{tokenizer.fingerprint[:16]}.npz"
        self.of = f"{key} {tokenizer.fingerprint}"
        # name → codes int32 N,T and labels int64 N
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def dataset(self) -> Dataset:
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
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")):
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

    def _read_or_compute(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The codes, which another process may have stored by now. The caller holds the lock."""
        try:
            return self._read()
        except StoredError as error:
            why = f"{error}; computing them anew" if self.path.exists() else "computing them"
            level = logging.WARNING if self.path.exists() else logging.INFO
            log.log(level, "codes: %s with tokenizer %s", why, self.tokenizer.fingerprint[:16])
        splits = self._extract()
        limits = {"codes": self.tokenizer.codebook_size, "labels": self.dataset.classes}
        arrays = {
            f"{split}_{what}": values.numpy().astype(np.min_scalar_type(limits[what] - 1))
            for split, pair in splits.items()
            for what, values in zip(limits, pair, strict=True)
        }
        write_arrays(self.path, self.of, arrays)
        return splits

    def _extract(self) -> dict[str, tuple[Tensor, Tensor]]:
        self.images.setup()
        device, splits = own_device(), {}
        self.tokenizer.to(device)
        for split in SPLITS:
            parts, labels = [], []
            for mirrored in (
                (False, True) if split == "train" and self.images.config.flip else (False,)
            ):
                for batch in self.images.batches(split, device):
                    x = batch.x.flip(-1) if mirrored else batch.x
                    parts.append(self.tokenizer.encode(x).cpu().int())
                    labels.append(batch.labels)
            splits[split] = torch.cat(parts), torch.cat(labels)
        self.tokenizer.to(torch.device("cpu"))
        return splits

    def _read(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The stored codes, verified. Raises StoredError."""
        arrays = read_arrays(self.path, self.of, self._layout())
        for name, array in arrays.items():
            limit = self.tokenizer.codebook_size if name.endswith("codes") else self.dataset.classes
            if array.max() >= limit:
                raise StoredError(
                    f"{self.path} holds {array.max()} in {name}, wanted 0 to {limit - 1}"
                )
        return {
            split: (
                torch.from_numpy(arrays[f"{split}_codes"].astype(np.int32)),
                torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64)),
            )
            for split in SPLITS
        }

    def _layout(self) -> Layout:
        """Codes (N, T) and labels (N,) of each split, in the smallest unsigned type that holds
        them.
        """
        dataset, config = self.dataset, self.images.config
        train = (dataset.train_size - config.validation_size) * (2 if config.flip else 1)
        code, label = (
            np.min_scalar_type(n - 1) for n in (self.tokenizer.codebook_size, dataset.classes)
        )
        layout: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        for split, rows in zip(
            SPLITS, (train, config.validation_size, dataset.test_size), strict=True
        ):
            layout |= {
                f"{split}_codes": ((rows, self.tokenizer.length), code),
                f"{split}_labels": ((rows,), label),
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
        return self.images.train_loader(*self.splits["train"], *self._rank_and_world())

    def val_dataloader(self) -> EvalLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> EvalLoader:
        config = self.images.config
        return EvalLoader(
            *self.splits[split], config.eval_batch_size, self.images.seed, *self._rank_and_world()
        )

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def references(self, split: str, n: int) -> Tensor:
        """The first n code sequences of a split, (n, T)."""
        return self.splits[split][0][:n]

    def code_counts(self, split: str) -> Tensor:
        """How often each code occurs in a split, (M, K) int64."""
        return self.tokenizer.layout.histogram(self.splits[split][0])
