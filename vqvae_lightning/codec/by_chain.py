"""Images by bits-back coding: those of a VAE, lossless."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vqvae_lightning.codec.bitsback import ChainCoder
from vqvae_lightning.codec.coded import Coded, Decoded, Plan, Wanted
from vqvae_lightning.codec.codes import Codes
from vqvae_lightning.codec.container import LARGEST_GROUP, LOSSLESS, Container, Group, Header
from vqvae_lightning.config import ConfigError
from vqvae_lightning.data.images import to_uint8
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.first_stage import fingerprint

NO_TABLE = (1, 1)  # the shape of the static table of a file without codes


@dataclass(frozen=True)
class ByChain(Coded):
    """A VAE, whose images are chained."""

    kind: str
    net: Autoencoder

    usual_group = LARGEST_GROUP
    largest_group = LARGEST_GROUP
    modes = (LOSSLESS,)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.net.image_shape

    def names(self) -> tuple[str, str | None]:
        return fingerprint(self.net), None

    def fits(self, header: Header) -> bool:
        found = header.mode, tuple(header.table), header.grid
        return found == (LOSSLESS, NO_TABLE, None)

    def plan(self, x: Tensor, wanted: Wanted) -> Plan:
        self.refuse_step(wanted)
        if not wanted.lossless:
            raise ConfigError(
                f"compress: a {self.kind} has no codes for a lossy file, wanted lossless=true"
            )
        coder, pixels = self._coder(), to_uint8(x).numpy()
        return Plan(np.zeros(NO_TABLE, np.uint8), lambda rows: coder.write(pixels[rows]))

    def reader(self, container: Container) -> Callable[[Group, int], Decoded]:
        coder = self._coder()
        return lambda group, n: Decoded(np.zeros((n, 0), np.int64), coder.read(group, n))

    def images(self, codes: Codes, header: Header) -> Tensor:
        raise AssertionError("a file of a VAE is lossless")

    def _coder(self) -> ChainCoder:
        return ChainCoder(copy.deepcopy(self.net))
