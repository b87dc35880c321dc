"""A model as a codec sees it, and whether it is that of a file."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from vqvae_lightning.codec.codes import Codes
from vqvae_lightning.codec.container import LOSSLESS, LOSSY, CodecError, Container, Group
from vqvae_lightning.codec.pixels import Pixels
from vqvae_lightning.codec.streams import coder_series, coder_version
from vqvae_lightning.codec.tables import Steps


class Decoded(NamedTuple):
    """What a group holds."""

    codes: Codes  # n,T  none of a VAE
    pixels: Pixels | None  # n,C,H,W uint8, of a lossless file


class Coded(ABC):
    """A model by which images are coded."""

    kind: str
    usual_group: int  # images that share a stream, unless others are asked for

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    @property
    @abstractmethod
    def largest_group(self) -> int:
        """How many images may share a stream at most."""

    @property
    @abstractmethod
    def table_shape(self) -> tuple[int, int]:
        """(M, K) of the static table."""

    @abstractmethod
    def names(self) -> tuple[str, str | None]:
        """SHA-256 of the weights of the autoencoder and of the prior."""

    @abstractmethod
    def writer(
        self, x: Tensor, labels: Any, lossless: bool
    ) -> tuple[Steps, Callable[[slice], Group]]:
        """The static table of a file, and what makes a group of some of the images.

        Args:
            x: the images (N, C, H, W) in [-1, 1].
            labels: their classes (N,), or None.
            lossless: whether the pixels are to come back.

        Raises:
            ConfigError: the model cannot code so.
            ValueError: images or labels that do not fit.
        """

    @abstractmethod
    def reader(self, container: Container) -> Callable[[Group, int], Decoded]:
        """What reads a group of so many images; it raises ValueError unless its CRC32 is right."""

    @abstractmethod
    def images(self, codes: Codes) -> Tensor:
        """Images uint8 (n, C, H, W) of the codes of a lossy file."""


def check_model(container: Container, coded: Coded) -> None:
    """Raises CodecError unless a file was made by this model, and by a coder like this one."""
    header = container.header
    model, prior = coded.names()
    for name, found, wanted in (
        ("autoencoder", model, header.model),
        ("prior", prior, header.prior),
    ):
        if found != wanted:
            raise CodecError(
                f"was made by the {name} {_short(wanted)}, and this run has {_short(found)}"
            )
    shapes = list(coded.image_shape), list(coded.table_shape)
    fits = shapes == (header.shape, header.table) and header.group <= coded.largest_group
    if not fits or header.mode not in (LOSSY, LOSSLESS):
        raise CodecError("is damaged: it does not fit the model that it names")
    if coder_series(header.coder) != coder_series(coder_version()):
        raise CodecError(
            f"was coded by constriction {header.coder}, whose bits {coder_version()} does not read"
        )


def _short(name: str | None) -> str:
    return "none" if name is None else name[:16]
