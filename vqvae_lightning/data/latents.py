"""LatentDataModule: what a frozen first stage makes of images, computed once and stored with its
fingerprint.
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from filelock import FileLock
from torch import Tensor

from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.imageset import ImageSet
from vqvae_lightning.data.loader import Batch, EvalLoader, TrainLoader
from vqvae_lightning.data.rows import FileRows, Rows
from vqvae_lightning.data.shards import Column, StoreWriter, description_path, read_store
from vqvae_lightning.device import own_device
from vqvae_lightning.models.distributed import told_apart
from vqvae_lightning.models.first_stage import FirstStage
from vqvae_lightning.signals.signal import Signal
from vqvae_lightning.storage import check_writable
from vqvae_lightning.verified import StoredError

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")


class LatentDataModule(pl.LightningDataModule):
    """Latents of the train, validation and test images under one frozen first stage.

    ```
    images ──► first stage ──► h N,c,h,w ──► <dataset>-<fingerprint>.train_latents-00000.bin, …
           a batch at a time             ──► Batch, read by position
    ```

    h is float32: what the bottleneck reads, see `FrozenLatents`. With `data.flip`, the training
    latents are those of the images and of their mirror images.

    With `data.binarize=dynamic` the first stage encodes a training image anew at every step, so
    that every epoch sees it binarized otherwise. What is stored of the training split is then of
    one binarization; statistics are made of it.
    """

    what: ClassVar[str] = "latents"  # in messages and in names of files and folders

    def __init__(self, images: ImageDataModule, first_stage: FirstStage, folder: Path) -> None:
        """The latents of images, which are kept in a folder `what` inside of `folder`."""
        super().__init__()
        self.images, self.first_stage, self.folder = images, first_stage, folder / self.what
        config = images.config
        key = f"{config.dataset}-v{images.sizes['val']}-s{images.seed}"
        key += ("-flip" if config.flip else "") + f"-{config.binarize}"
        key += f"-{config.label}" if config.label else ""
        self.stem = f"{key}-{first_stage.fingerprint[:16]}."
        self.of = f"{key} {config.fingerprint or 'published'} {first_stage.fingerprint}"
        self.path = description_path(self.folder, self.stem)
        self.splits: dict[str, Rows] = {}  # the records of each split

    @property
    def dataset(self) -> ImageSet:
        return self.images.dataset

    @property
    def signal(self) -> Signal:
        return self.images.signal

    def column(self) -> Column:
        """What is stored of an image."""
        return Column(self.first_stage.record_shape, np.dtype(np.float32))

    def limit(self) -> int | None:
        """The number below which all stored numbers must lie, if there is one."""
        return None

    def prepare_data(self) -> None:
        """Reads the latents, or computes them unless they are stored as they must be. Safe in every
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

    def open_stored(self) -> bool:
        """Opens what is stored if it is as it must be, and says whether it is; computes nothing."""
        if self.path.parent.is_symlink():
            return False
        try:
            self.splits = self.splits or self._read()
        except StoredError:
            return False
        return True

    def _check_place(self, wrong: str) -> None:
        """Raises ValueError if no file can be made at `path`, or if it would lie outside of the
        run's folder.
        """
        reason = f"{self.what}: {wrong}" if self.path.exists() else self.what
        check_writable(self.path, reason)
        if self.path.parent.is_symlink():
            raise ValueError(
                f"{reason}: {self.path.parent} is a link, and nothing is written through one"
            )

    def _read_or_compute(self) -> dict[str, Rows]:
        """The latents, which another process may have stored by now. The caller holds the lock."""
        what, fingerprint = self.what, self.first_stage.fingerprint[:16]
        try:
            return self._read()
        except StoredError as error:
            why = f"{error}; computing them anew" if self.path.exists() else "computing them"
            level = logging.WARNING if self.path.exists() else logging.INFO
            name = type(self.first_stage).__name__.lower()
            log.log(level, "%s: %s with %s %s", what, why, name, fingerprint)
        count = sum(self.images.sizes.values())
        print(f"{what:<9} of {count:,} images, computed once", file=sys.stderr, flush=True)
        columns = {name: column for name, (_, column) in self._layout().items()}
        writer = StoreWriter(self.folder, columns, self.stem)
        for split in SPLITS:
            for records, labels in self._encoded(split):
                writer.append(f"{split}_{what}", records.numpy())
                writer.append(f"{split}_labels", labels.numpy())
        writer.finish(self.of)
        return self._read()

    def _encoded(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Records (n, ...) and labels (n,) of a split, a batch at a time, on the CPU."""
        self.images.setup()
        device = own_device()
        self.first_stage.to(device)
        with_mirrored = split == "train" and self.images.config.flip
        for mirrored in (False, True) if with_mirrored else (False,):
            for batch in self.images.batches(split, device):
                x = batch.x.flip(-1) if mirrored else batch.x
                yield self.first_stage.encode(x).cpu(), batch.labels.cpu()
        self.first_stage.to(torch.device("cpu"))

    def _read(self) -> dict[str, Rows]:
        """The stored records, verified. Raises StoredError."""
        limits = {f"{split}_labels": self.dataset.classes for split in SPLITS}
        if (limit := self.limit()) is not None:
            limits |= {f"{split}_{self.what}": limit for split in SPLITS}
        arrays = read_store(self.folder, self.of, self._layout(), self.stem, limits)
        rows: dict[str, Rows] = {}
        for split in SPLITS:
            labels = torch.cat([part.long() for part in arrays[f"{split}_labels"].blocks()])
            rows[split] = FileRows(arrays[f"{split}_{self.what}"], labels)
        return rows

    def _layout(self) -> dict[str, tuple[int, Column]]:
        """Records (N, ...) and labels (N,) of each split."""
        label = np.min_scalar_type(self.dataset.classes - 1)
        layout: dict[str, tuple[int, Column]] = {}
        for split, images in self.images.sizes.items():
            rows = images * (2 if split == "train" and self.images.config.flip else 1)
            layout |= {
                f"{split}_{self.what}": (rows, self.column()),
                f"{split}_labels": (rows, Column((), label)),
            }
        return layout

    def setup(self, stage: str | None = None) -> None:
        """Reads what is stored unless `prepare_data` did.

        Raises ValueError if it is not what it must be, and DataError if a rank has the latents of
        another first stage: each looks for the newest one, and another training may have ended
        between them.
        """
        if named := told_apart(self.first_stage.fingerprint):
            raise DataError(f"{self.what}: the ranks have different first stages: {named}")
        try:
            self.splits = self.splits or self._read()
        except StoredError as error:
            raise ValueError(f"{self.what}: {error}; prepare_data computes them") from error

    @property
    def encodes_anew(self) -> bool:
        """Whether a training batch is of images, which are encoded once they are on the device."""
        return self.images.config.binarize == "dynamic"

    def train_dataloader(self) -> TrainLoader:
        if self.encodes_anew:
            self.images.setup()
        of = self.images if self.encodes_anew else self
        return self.images.train_loader(of.splits["train"], *self._rank_and_world())

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Encodes a training batch of images, see `encodes_anew`; others stay as they are."""
        if not self.encodes_anew or self.trainer is None or not self.trainer.training:
            return batch
        return self.encoded(batch)

    def encoded(self, batch: Batch) -> Batch:
        """The records of a training batch of images uint8 (N, C, H, W), augmented by its seed."""
        x = self.images.scale(batch, augment=True).x
        return batch._replace(x=self.first_stage.to(x.device).encode(x))

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
        """The first n records of a split, (n, ...)."""
        return self.splits[split].first(n)
