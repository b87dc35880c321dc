"""Windows with the waveforms that they are of: what a vocoder learns."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, DataConfig
from vqvae_lightning.data.dataset import Split
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.imageset import image_set
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.data.waveforms import padded


class HeardBatch(NamedTuple):
    """A batch of windows, and their recordings."""

    batch: Batch
    waveforms: Tensor  # N,S float32 in [-1, 1], as they were recorded


class HeardDataModule(ImageDataModule):
    """The windows of a data set, and for each batch of them the recordings (N, S).

    Raises what ImageDataModule raises, and ConfigError for data whose recordings are not at hand.
    """

    def __init__(self, config: DataConfig, seed: int, accumulate: int = 1) -> None:
        recorded = " or ".join(name for name, dataset in DATASETS.items() if dataset.sound)
        if config.path is not None:
            raise ConfigError(
                "data.path: the store of own recordings holds windows, and a vocoder learns"
                f" waveforms; wanted data.name={recorded}"
            )
        if image_set(config).sound is None:
            raise ConfigError(
                f"data.name: {config.dataset} holds images, and a vocoder learns recordings;"
                f" wanted {recorded}"
            )
        super().__init__(config, seed, accumulate)

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        super().setup(stage)
        splits: tuple[Split, ...] = ("train", "val", "test")
        self.waveforms = {split: self._waveforms(split) for split in splits}

    def _waveforms(self, split: Split) -> Tensor:
        found = self.dataset.recordings(Path(self.config.root), split)
        waveforms, _ = padded(found, self.signal.samples)
        assert len(waveforms) == len(self.splits[split]), split
        return torch.from_numpy(waveforms)

    def on_after_batch_transfer(  # type: ignore[override]
        self, batch: Batch, dataloader_idx: int
    ) -> HeardBatch:
        """The batch on its device, scaled, with the recordings of its rows."""
        assert self.trainer is not None
        split: Split = (
            "train" if self.trainer.training else "test" if self.trainer.testing else "val"
        )
        waveforms = self.waveforms[split].index_select(0, batch.rows.cpu())
        scaled = super().on_after_batch_transfer(batch, dataloader_idx)
        return HeardBatch(scaled, waveforms.to(scaled.x.device))
