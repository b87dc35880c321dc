"""Signal: what is known of the arrays of a data set beside their shape and their levels.

```
dataset.sound ──► signal_of ──► Signal ──► errors            metrics of reconstructions
                                       ├─► sounds            what is heard beside a picture
                                       ├─► played            arrays as they are perceived
                                       ├─► completed_side    which half a completion hides
                                       ├─► varied            what a classifier is trained on
                                       └─► feature_networks  who judges samples
```

Every array is uint8 (C, H, W), and every one is shown as a picture. What differs is asked here, so
that nothing else asks whether a picture is an image or a spectrogram.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_lightning.config import DataConfig
from vqvae_lightning.metrics.reconstruction import Errors


class Clip(NamedTuple):
    """A sound."""

    samples: NDArray[np.float32]  # n, in [-1, 1]
    rate: int  # samples per second


class Signal(ABC):
    """Images, or recordings."""

    errors: Errors
    rate: int  # samples per second of what is heard; 0 of images
    samples: int  # … and of a whole window
    # The side of which `sample show=completion` hides the second half.
    completed_side: ClassVar[Literal["height", "width"]]
    # The names of `fid_network` whose features mean something.
    feature_networks: ClassVar[tuple[str, ...]]

    @abstractmethod
    def sounds(self, x: Tensor) -> list[Clip]:
        """What arrays x (N, C, H, W) in [-1, 1] sound like, one after another; none of images."""

    @abstractmethod
    def played(self, x: Tensor) -> Tensor:
        """What is perceived of arrays x (N, C, H, W) in [-1, 1], as such arrays again."""

    @abstractmethod
    def varied(self, x: Tensor) -> Tensor:
        """Arrays x (N, C, H, W) in [-1, 1] of a data set, each changed as its class allows.

        Draws from torch's global random state.
        """

    @abstractmethod
    def check_data(self, data: DataConfig) -> None:
        """Raises ConfigError for settings of data that this signal has no use for."""


def moved(x: Tensor, up: Tensor, left: Tensor) -> Tensor:
    """Arrays (N, C, H, W), each moved by whole numbers `up` and `left` (N, 1) of positions.

    The border is repeated.
    """
    height, width = x.shape[2:]
    rows = (torch.arange(height, device=x.device) + up).clamp(0, height - 1)  # n,H
    columns = (torch.arange(width, device=x.device) + left).clamp(0, width - 1)  # n,W
    picked = x.gather(2, rows[:, None, :, None].expand_as(x))
    return picked.gather(3, columns[:, None, None, :].expand_as(x))
