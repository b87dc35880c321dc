"""Images by their z on a uniform grid: those of an AE, lossy.

```
 z N,D,h,w ──► whole steps of the grid ──► symbols N,T, by a static table of each channel
 symbols   ──► z in the middle of its step ──► decoder ──► images
```

An AE has no p(z). Its density is the histogram of the coded z on the grid, which the file holds and
pays for: nothing has to be fitted again where the file is read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.codec.coded import Coded, Decoded, Plan, Wanted
from vqvae_lightning.codec.codes import CodeCoder, Codes, static_table
from vqvae_lightning.codec.container import LARGEST_GROUP, LOSSY, Container, Group, Header
from vqvae_lightning.codec.groups import GroupCoder
from vqvae_lightning.config import ConfigError
from vqvae_lightning.data.images import to_uint8
from vqvae_lightning.models.first_stage import FrozenLatents
from vqvae_lightning.models.layout import CodeLayout

BATCH = 256  # images that the networks see at once
USUAL_SHARE = 0.2  # of the standard deviation of z: the usual step of the grid
MOST_STEPS = 2**16  # between the smallest and the largest z of the images of a file


@dataclass(frozen=True)
class ByGrid(Coded):
    """An autoencoder whose z is neither random nor a code."""

    kind: str
    first_stage: FrozenLatents

    usual_group = 256
    largest_group = LARGEST_GROUP
    modes = (LOSSY,)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.first_stage.image_shape

    def names(self) -> tuple[str, str | None]:
        return self.first_stage.fingerprint, None

    def fits(self, header: Header) -> bool:
        channels = self.first_stage.shape[0]
        return (header.mode, header.table[0]) == (LOSSY, channels) and header.grid is not None

    def plan(self, x: Tensor, wanted: Wanted) -> Plan:
        if wanted.lossless:
            raise ConfigError(
                f"lossless: a model of kind {self.kind} has neither codes nor p(z), and its files"
                " are lossy"
            )
        z = self._latents(x)
        step = _usual_step(z) if wanted.step is None else wanted.step
        symbols, lowest, size = _on_grid(z, step)
        table = static_table(symbols, self._layout(size))
        coder = GroupCoder(CodeCoder(self._layout(size), table, None, 0))
        return Plan(table, lambda rows: coder.write(symbols[rows], None), (step, lowest))

    def reader(self, container: Container) -> Callable[[Group, int], Decoded]:
        layout = self._layout(container.header.table[1])
        return GroupCoder(CodeCoder(layout, container.table, None, 0)).read

    def images(self, codes: Codes, header: Header) -> Tensor:
        assert header.grid is not None
        step, lowest = header.grid
        channels, *cells = self.first_stage.shape
        z = (torch.from_numpy(codes).double() + lowest) * step
        z = z.unflatten(1, (*cells, channels)).movedim(-1, 1).float()  # n,D,h,w
        return torch.cat([to_uint8(self.first_stage.decode(part)) for part in z.split(BATCH)])

    def _latents(self, x: Tensor) -> Tensor:
        """z (N, T) float64, those of a grid cell beside each other."""
        z = torch.cat([self.first_stage.latents(part) for part in x.split(BATCH)])  # N,D,h,w
        return z.movedim(1, -1).flatten(1).double()

    def _layout(self, size: int) -> CodeLayout:
        """How symbols lie in a sequence: each channel has its own table, of `size` symbols."""
        channels, height, width = self.first_stage.shape
        return CodeLayout((height, width), size, channels)


def _usual_step(z: Tensor) -> float:
    """USUAL_SHARE of the spread of z; numbers that are all alike have none, and any grid does."""
    return USUAL_SHARE * float(z.std(correction=0)) or 1.0


def _on_grid(z: Tensor, step: float) -> tuple[Codes, int, int]:
    """The symbols of z (N, T) in whole steps, what symbol 0 stands for, and how many there are."""
    if not torch.isfinite(z).all():
        raise ValueError("codec: the encoder gives numbers that are not finite")
    low, high = (float(bound) for bound in torch.aminmax(z))
    if (high - low) / step > MOST_STEPS - 2:
        raise ConfigError(
            f"step: got {step:g}, but z lies between {low:.4g} and {high:.4g}, wanted at least"
            f" {(high - low) / (MOST_STEPS - 2):.2g}"
        )
    whole = np.rint(z.numpy() / step).astype(np.int64)
    lowest = int(whole.min())
    return np.ascontiguousarray(whole - lowest), lowest, int(whole.max()) - lowest + 1
