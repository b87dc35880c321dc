"""Signal: what is known of the arrays of a data set beside their shape and their levels.

```
dataset.sound ──► signal_of ──► Signal ──► errors            metrics of reconstructions
                                       ├─► sounds            what is heard beside a picture
                                       ├─► completed_side    which half a completion hides
                                       └─► feature_networks  who judges samples
```

Every array is uint8 (C, H, W), and every one is shown as a picture. What differs is asked here, so
that nothing else asks whether a picture is an image or a spectrogram.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import numpy as np
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
    def check_data(self, data: DataConfig) -> None:
        """Raises ConfigError for settings of data that this signal has no use for."""
