"""A small classifier of one dataset: a feature extractor for images unlike Inception's, such as
digits.

Its features give a Fréchet distance, precision and recall that mean something on MNIST, and its
labels say whether a class-conditional sample shows its class. It is trained on real images only,
and no model is trained with it. Of recordings there is one for each sort of labels.

```
x N,C,H,W ──► 2 × (conv, conv, halve) ──► linear ──► features N,128 ──► linear ──► logits N,classes
```

Sides above 32 are halved first, by strided convolutions.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import (
    ClassifierOptions,
    ConfigError,
    DataConfig,
    OptimizerConfig,
    OwnImagesConfig,
    images_settings,
    one_line,
    own_command,
    to_dict,
)
from vqvae_lightning.data.images import ImageDataModule, to_float
from vqvae_lightning.data.imageset import ImageSet, image_set, sound_of
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.own.build import resolve
from vqvae_lightning.data.randomness import seed_torch
from vqvae_lightning.evaluation.features import FeatureNetwork
from vqvae_lightning.signals.signal import Signal
from vqvae_lightning.storage import check_writable, file_hash
from vqvae_lightning.training.callbacks import Progress
from vqvae_lightning.training.optimization import clip_gradients, configure_optimizer
from vqvae_lightning.training.runs import versions
from vqvae_lightning.training.trainer import silence_known_warnings
from vqvae_lightning.verified import CheckpointError, read_checkpoint, write_checkpoint

WIDTH, FEATURES, GROUPS = 32, 128, 8
LARGEST = 32  # pixels of a side that the convolutions see
# Of an epoch. Batches of a small data set are smaller, so that the same steps see it fewer times.
FEWEST_STEPS = 36
OWN = fields(OwnImagesConfig)
OPTIMIZER = OptimizerConfig(lr=2e-3, weight_decay=0.05)


class Classifier(pl.LightningModule):
    """Convolutions with GroupNorm; images (N, C, H, W) in [-1, 1] to logits (N, classes).

    `signal` says how training images may be varied; None: they are never trained on.
    """

    def __init__(
        self, channels: int, side: int, classes: int, signal: Signal | None = None
    ) -> None:
        super().__init__()
        self.signal = signal
        layers: list[nn.Module] = []
        width = channels
        while side > LARGEST:
            # H,W halved
            layers += [
                nn.Conv2d(width, WIDTH, 4, stride=2, padding=1),
                nn.GroupNorm(GROUPS, WIDTH),
                nn.ReLU(),
            ]
            width, side = WIDTH, side // 2
        for out in (WIDTH, 2 * WIDTH):
            for _ in range(2):
                layers += [
                    nn.Conv2d(width, out, 3, padding=1),
                    nn.GroupNorm(GROUPS, out),
                    nn.ReLU(),
                ]
                width = out
            layers += [nn.MaxPool2d(2)]
        layers += [
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(width * (side // 4) ** 2, FEATURES),
            nn.ReLU(),
        ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, classes)
        self.correct = 0
        self.to(memory_format=torch.channels_last)

    def embed(self, x: Tensor) -> Tensor:
        """Features (N, FEATURES) of images x (N, C, H, W) in [-1, 1]."""
        features: Tensor = self.features(x.contiguous(memory_format=torch.channels_last))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        seed_torch(batch.seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert self.signal is not None
        x = self.signal.varied(batch.x)
        return F.cross_entropy(self(x), batch.labels, label_smoothing=0.05)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        clip_gradients(self, OPTIMIZER.clip)

    def configure_optimizers(self) -> Any:
        return configure_optimizer(self, OPTIMIZER, self.trainer.max_steps)

    def on_test_epoch_start(self) -> None:
        self.correct = 0

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.correct += int((self(batch.x).argmax(1) == batch.labels).sum())


def classifier_name(images: ImageSet) -> str:
    """Names the classifier of a dataset; of one with several sorts of labels that of its sort."""
    return f"{images.name}-{images.label}" if images.label else images.name


def classifier_path(name: str, root: Path) -> Path:
    """Where the classifier of this name lies."""
    return root / "classifiers" / f"{name}.ckpt"


def _judged(data: DataConfig) -> dict[str, Any]:
    """What a classifier knows: channels, side and classes, and of recordings their window."""
    images, window = image_set(data), sound_of(data)
    channels, side, _ = images.shape
    found: dict[str, Any] = {"shape": [channels, side, images.classes]}
    return found | ({"window": window._asdict()} if window else {})


class TrainedClassifier(NamedTuple):
    """The result of `train_classifier`."""

    path: Path
    test_accuracy: float  # 0 to 1
    sha256: str  # of the file


def train_classifier(options: ClassifierOptions) -> TrainedClassifier:
    """Trains the classifier of a dataset and replaces its file by an atomic write.

    The test images take no part in any choice. Another classifier has another hash, and figures
    made with the two are not comparable.

    Raises:
        DataError: the images cannot be had.
        ValueError: no file can be written there, or the images are no squares; raised before
            anything is computed.
    """
    root, own = Path(options.root), {f.name: getattr(options, f.name) for f in OWN}
    config = resolve(
        DataConfig(name=options.dataset, root=options.root, label=options.label, **own)
    )
    dataset = image_set(config)
    path = classifier_path(classifier_name(dataset), root)
    check_writable(path, "root")
    silence_known_warnings()
    pl.seed_everything(options.seed, verbose=False)
    channels, side, width = dataset.shape
    if side != width:
        raise ValueError(f"dataset: {dataset.name} has images of {side}×{width}, wanted squares")
    if side < 8:
        raise ValueError(f"size: got {side}, wanted at least 8 for two halvings")
    if dataset.classes < 2:
        raise ValueError(
            f"dataset: {dataset.name} has no labels to tell apart, wanted two at least"
        )
    held_out = min(config.validation_size, max(1, dataset.train_size // 10))
    batch = max(1, min(128, (dataset.train_size - held_out) // FEWEST_STEPS))
    fitting = replace(config, batch_size=batch, validation_size=held_out, flip=channels == 3)
    data = ImageDataModule(fitting, options.seed)
    module = Classifier(channels, side, dataset.classes, data.signal)
    trainer = pl.Trainer(
        devices=1,
        max_steps=options.steps,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[Progress()],
    )
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    accuracy = module.correct / len(data.splits["test"])
    state = {**_judged(config), "state_dict": module.cpu().state_dict()}
    write_checkpoint(
        path,
        {**state, "test_accuracy": accuracy, "options": to_dict(options), "versions": versions()},
    )
    return TrainedClassifier(path, accuracy, file_hash(path))


class ClassifierFeatures(FeatureNetwork):
    """Features before the last layer of a dataset's own classifier, F = 128.

    Distances are on a scale of their own. Raises ConfigError if it has not been trained, and
    CheckpointError if its file is damaged or is another's.
    """

    size = FEATURES
    preprocessing = "pixels in [-1, 1], float32"

    def __init__(self, data: DataConfig, root: Path) -> None:
        images = image_set(data)
        name = classifier_name(images)
        path = classifier_path(name, root)
        channels, side, width = images.shape
        if side != width:
            raise ConfigError(
                f"fid_network: a classifier sees squares, and {images.name} has {side}x{width}"
            )
        if not path.is_file():
            there = [] if str(root) == "data" else [f"root={root}"]
            label = [f"label={data.label}"] if data.label else []
            named = images_settings(data, name="dataset")
            first = own_command("classifier", *named, *label, *there)
            raise ConfigError(f"fid_network: there is no classifier at {path}; run `{first}`")
        checkpoint = read_checkpoint(path)
        self.name = f"classifier-{name}"
        self.weights = file_hash(path)
        for key, wanted in _judged(data).items():
            if checkpoint.get(key) != wanted:
                got = checkpoint.get(key)
                raise CheckpointError(f"checkpoint: {path} is of {key} {got}, wanted {wanted}")
        self.module = Classifier(channels, side, images.classes)
        try:
            self.module.load_state_dict(checkpoint.get("state_dict", {}))
        except (AttributeError, RuntimeError, TypeError) as error:
            reason = one_line(error)[:200]
            raise CheckpointError(
                f"checkpoint: {path} is no classifier of {name}: {reason}"
            ) from error
        self.module.eval()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self.module.to(images.device).embed(to_float(images))

    @torch.inference_mode()
    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of features (N, F) whose image the classifier takes for its label (N,)."""
        logits: Tensor = self.module.cpu().head(features)
        return float((logits.argmax(1) == labels).double().mean())
