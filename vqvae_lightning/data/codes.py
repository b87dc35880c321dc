"""CodeDataModule: the codes of a frozen tokenizer, computed once and stored with the tokenizer's fingerprint."""

import io
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from filelock import FileLock
from torch import Tensor

from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import EvalLoader, TrainLoader
from vqvae_lightning.data.sources import Dataset
from vqvae_lightning.models.distributed import own_device
from vqvae_lightning.models.quantizers.quantizer import histogram
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.storage import write_whole

log = logging.getLogger(__name__)


class CodeDataModule(pl.LightningDataModule):
    """Codes (N, T) of the train, validation and test images under one tokenizer.

    ```
    images ──► tokenizer (frozen) ──► codes N,T int32 ──► <folder>/<dataset>-<fingerprint>.npz ──► Batch
    ```

    With `data.flip`, the training codes are those of the images and of their mirror images.
    """

    def __init__(self, images: ImageDataModule, tokenizer: Tokenizer, folder: Path) -> None:
        super().__init__()
        self.images, self.tokenizer = images, tokenizer
        key = f"{images.config.name}-v{images.config.validation_size}-s{images.seed}"
        key += ("-flip" if images.config.flip else "") + f"-{images.config.binarize}"
        self.path = folder / f"{key}-{tokenizer.fingerprint[:16]}.npz"
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}  # name → codes int32 N,T and labels int64 N

    @property
    def dataset(self) -> Dataset:
        return self.images.dataset

    def prepare_data(self) -> None:
        """Computes the codes unless they are stored. Safe in every process at once."""
        self.images.prepare_data()
        if self.path.is_file():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            if not self.path.is_file():
                self._extract()

    def _extract(self) -> None:
        log.info("codes: computing them with tokenizer %s", self.tokenizer.fingerprint[:16])
        self.images.setup()
        device = own_device()
        self.tokenizer.to(device)
        arrays: dict[str, np.ndarray] = {"fingerprint": np.array(self.tokenizer.fingerprint)}
        for split in ("train", "val", "test"):
            parts, labels = [], []
            for mirrored in (False, True) if split == "train" and self.images.config.flip else (False,):
                for batch in self.images.batches(split, device):
                    x = batch.x.flip(-1) if mirrored else batch.x
                    parts.append(self.tokenizer.encode(x).cpu().int())
                    labels.append(batch.labels)
            arrays[f"{split}_codes"] = torch.cat(parts).numpy()
            arrays[f"{split}_labels"] = torch.cat(labels).numpy()
        self.tokenizer.to(torch.device("cpu"))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_whole(self.path, buffer.getvalue())

    def setup(self, stage: str | None = None) -> None:
        """Reads the stored codes. Raises ValueError if they are another tokenizer's or cannot be read."""
        if self.splits:
            return
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"codes: cannot read {self.path} ({error}); delete it to compute them again") from error
        if str(arrays["fingerprint"]) != self.tokenizer.fingerprint:
            raise ValueError(
                f"codes: {self.path} holds codes of tokenizer {str(arrays['fingerprint'])[:16]}, "
                f"wanted {self.tokenizer.fingerprint[:16]}; delete it to compute them again"
            )
        for split in ("train", "val", "test"):
            codes, labels = arrays[f"{split}_codes"], arrays[f"{split}_labels"]
            self.splits[split] = (torch.from_numpy(codes), torch.from_numpy(labels))

    def train_dataloader(self) -> TrainLoader:
        return self.images.train_loader(*self.splits["train"], *self._rank_and_world())

    def val_dataloader(self) -> EvalLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> EvalLoader:
        config = self.images.config
        return EvalLoader(*self.splits[split], config.eval_batch_size, self.images.seed, *self._rank_and_world())

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def references(self, split: str, n: int) -> Tensor:
        """The first n code sequences of a split, (n, T)."""
        return self.splits[split][0][:n]

    def code_counts(self, split: str) -> Tensor:
        """How often each code occurs in a split, (M, K) int64."""
        return histogram(self.splits[split][0], self.tokenizer.codebook_size, self.tokenizer.maps)
