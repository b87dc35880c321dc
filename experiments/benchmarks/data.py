"""An epoch of images without a model: one gather a batch against a Dataset of single images."""

from collections.abc import Iterator

from torch.utils.data import DataLoader

from experiments.benchmarks.peers import SingleImages
from experiments.benchmarks.timing import Row, faster, interleave
from vqvae_lightning.config import DataConfig
from vqvae_lightning.data.images import ImageDataModule

BATCH = 128


def data() -> Iterator[Row]:
    """All training images once: shuffled, flipped, float in [-1, 1]."""
    for name in ("mnist", "cifar10"):
        module = ImageDataModule(DataConfig(name=name, batch_size=BATCH, flip=True), seed=0)
        module.setup()

        def ours(module: ImageDataModule = module) -> None:
            for batch in module.train_dataloader():
                module.scale(batch, augment=True)

        def single(workers: int, module: ImageDataModule = module) -> None:
            train = module.splits["train"]
            images = SingleImages(train.first(len(train)), train.labels, flip=True)
            for _ in DataLoader(images, BATCH, shuffle=True, drop_last=True, num_workers=workers):
                pass

        variants = {
            f"{workers} workers": lambda workers=workers, run=single: run(workers)
            for workers in (0, 2)
        }
        times = interleave({"ours": ours, **variants}, rounds=5, seconds=40)
        for label in variants:
            yield faster(
                times, f"an epoch of {name} without a model", label, 20, f"single images, {label}"
            )
