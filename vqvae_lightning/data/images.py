"""ImageDataModule: the images of a dataset, or own ones, as uint8 rows, scaled on the device."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from vqvae_lightning.config import DataConfig
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.imageset import check_sizes, image_set, split_sizes
from vqvae_lightning.data.loader import Batch, EvalLoader, TrainLoader
from vqvae_lightning.data.own.build import resolve
from vqvae_lightning.data.randomness import derive_seed, eval_seed
from vqvae_lightning.data.rows import BinaryRows, ChosenRows, Rows, spread, stratified_split
from vqvae_lightning.data.sources import holds, prepare
from vqvae_lightning.models.distributed import told_apart
from vqvae_lightning.signals.build import signal_of


class ImageDataModule(pl.LightningDataModule):
    """Train, validation and test images of one dataset, or of a path.

    ```
    data/<name>/        ──► uint8 N,C,H,W in memory ─┐
    data/stores/<name>/ ──► uint8 N,C,H,W in files  ─┴──► Batch (one gather) ──► device
                                                     ──► flip, binarize, float [-1, 1]
    ```

    Validation is a stratified part of the training set, drawn from the seed, unless there is a
    split of that name; the test set is never touched in training. Own images are read into their
    store, if they are not there yet. Raises DataError for own images that cannot be had,
    ConfigError for settings that images, or recordings, have no use for, and ValueError, before
    anything is fetched, for a batch or a validation split that the training set cannot fill.
    """

    def __init__(self, config: DataConfig, seed: int, accumulate: int = 1) -> None:
        super().__init__()
        self.config, self.seed, self.accumulate = resolve(config), seed, accumulate
        self.dataset = image_set(self.config)
        self.signal = signal_of(self.dataset.sound)
        self.signal.check_data(self.config)
        self.sizes = split_sizes(self.config, self.dataset)
        check_sizes(self.config, self.sizes)
        self.splits: dict[str, Rows] = {}  # images uint8 (C, H, W) of train, val and test

    def prepare_data(self) -> None:
        """Fetches what is missing, unless the images have been read already.

        Safe in every process at once; raises DataError if it cannot be had.
        """
        if not self.splits and self.config.path is None:
            prepare(self.config.name, Path(self.config.root), self.config.download)

    def setup(self, stage: str | None = None) -> None:
        """Opens the images.

        Raises DataError if they are not what they were, or not those of the other ranks.
        """
        if self.splits:
            return
        self._check_ranks()
        root = Path(self.config.root)
        own = ("val",) if self.dataset.validation_size else ()
        found = {name: self.dataset.rows(root, name) for name in ("train", "test", *own)}
        if self.config.binarize == "static":
            found = {name: BinaryRows(rows, name) for name, rows in found.items()}
        train, test = found["train"], found["test"]
        if own:
            self.splits = found
        else:
            seed = derive_seed(self.seed, "validation")
            mask = stratified_split(train.labels.numpy(), self.sizes["val"], seed)
            held_out = torch.from_numpy(mask)
            val, rest = (ChosenRows(train, part.nonzero()[:, 0]) for part in (held_out, ~held_out))
            self.splits = {"train": rest, "val": val, "test": test}
        self._published = found

    def _check_ranks(self) -> None:
        """Raises DataError if a rank has other images: each machine may have its own store."""
        if self.config.path is None:
            return
        if named := told_apart(str(self.config.fingerprint)):
            raise DataError(f"data.path: the ranks have different images: {named}")

    def published(self, split: Literal["train", "test"]) -> Rows:
        """The images of a split as it was published, in its order.

        The published train split holds the images that validation takes from it.
        """
        return self._published[split]

    def train_dataloader(self) -> TrainLoader:
        return self.train_loader(self.splits["train"], *self._rank_and_world())

    def train_loader(self, rows: Rows, rank: int, world: int) -> TrainLoader:
        """Shuffled batches of images, or of their codes."""
        return TrainLoader(rows, self.config.batch_size, self.seed, rank, world, self.accumulate)

    def val_dataloader(self) -> EvalLoader:
        return self.eval_loader("val", *self._rank_and_world())

    def test_dataloader(self) -> EvalLoader:
        return self.eval_loader("test", *self._rank_and_world())

    def eval_loader(self, split: str, rank: int = 0, world: int = 1) -> EvalLoader:
        """Every image of a split once, in order."""
        return EvalLoader(self.splits[split], self.config.eval_batch_size, self.seed, rank, world)

    def batches(
        self, split: str, device: torch.device, at_most: int | None = None
    ) -> Iterator[Batch]:
        """Every image of a split once, in order, not augmented; or `at_most` so many, see `spread`.

        Images, float (N, C, H, W) in [-1, 1], and labels are on `device`.
        """
        self.setup()
        rows = self.splits[split]
        if at_most is not None and at_most < len(rows):
            rows = ChosenRows(rows, spread(at_most, len(rows)))
        for batch in EvalLoader(rows, self.config.eval_batch_size, self.seed, 0, 1):
            moved = batch._replace(x=batch.x.to(device), labels=batch.labels.to(device))
            yield self.scale(moved)

    def references(self, split: str, n: int) -> Tensor:
        """The first n images of a split as an evaluation sees them.

        They are float32 (n, C, H, W) in [-1, 1].
        """
        rows = self.splits[split]
        index = torch.arange(min(n, len(rows)))
        labels = rows.labels.index_select(0, index)
        return self.scale(Batch(rows.take(index), labels, index, eval_seed(self.seed))).x

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
    are there. `root` and `data` are fetched into. Own images are known by their fingerprint, and
    the path that the run names is not looked at.
    """
    if root is None and holds_images(recorded):
        return replace(recorded, download=False)
    return replace(recorded, root=root or DataConfig().root)


def opened_images(config: DataConfig, seed: int) -> ImageDataModule:
    """The images of a run with these settings, read. Raises DataError if they cannot be had."""
    data = ImageDataModule(config, seed)
    data.prepare_data()
    data.setup()
    return data


def holds_images(config: DataConfig) -> bool:
    """Whether the images are in `config.root`. No file is read."""
    if config.path is None:
        return holds(config.name, Path(config.root))
    return (Path(config.root) / config.folder / "store.json").is_file()


def to_float(x: Tensor) -> Tensor:
    """uint8 0 … 255 → float32 in [-1, 1]."""
    return x.to(torch.float32, copy=True).div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Float in [-1, 1] → uint8 0 … 255, the exact inverse of `to_float` on its values."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
