"""A model as a codec sees it, and whether it is that of a file."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from vqvae_lightning.codec.codes import Codes
from vqvae_lightning.codec.container import CodecError, Container, Group, Header
from vqvae_lightning.codec.pixels import Pixels
from vqvae_lightning.codec.streams import coder_series, coder_version
from vqvae_lightning.codec.tables import Steps
from vqvae_lightning.config import ConfigError


class Decoded(NamedTuple):
    """What a group holds."""

    codes: Codes  # n,T  none of a VAE
    pixels: Pixels | None  # n,C,H,W uint8, of a lossless file


@dataclass(frozen=True)
class Wanted:
    """How images are to be coded."""

    labels: Any = None  # their classes (N,), of a class-conditional prior
    lossless: bool = False  # whether the pixels are to come back
    step: float | None = None  # of z on a grid; None: the usual one


@dataclass(frozen=True)
class Plan:
    """What a file of some images holds for all its groups, and what makes a group of some."""

    table: Steps  # M,K, static
    write: Callable[[slice], Group]
    grid: tuple[float, int] | None = None  # as the header has it


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

    @abstractmethod
    def names(self) -> tuple[str, str | None]:
        """SHA-256 of the weights of the autoencoder and of the prior."""

    @property
    @abstractmethod
    def modes(self) -> tuple[str, ...]:
        """The modes of its files."""

    @abstractmethod
    def fits(self, header: Header) -> bool:
        """Whether a file with this mode, table and grid can be one of such a model."""

    @abstractmethod
    def plan(self, x: Tensor, wanted: Wanted) -> Plan:
        """How images (N, C, H, W) in [-1, 1] are written.

        Raises ConfigError if the model cannot code so, and ValueError for images or labels that do
        not fit.
        """

    @abstractmethod
    def reader(self, container: Container) -> Callable[[Group, int], Decoded]:
        """What reads a group of so many images; it raises ValueError unless its CRC32 is right."""

    @abstractmethod
    def images(self, codes: Codes, header: Header) -> Tensor:
        """Images uint8 (n, C, H, W) of the codes of a lossy file."""

    def refuse_step(self, wanted: Wanted) -> None:
        """Raises ConfigError for the step of a grid that this model has not."""
        if wanted.step is not None:
            raise ConfigError(
                f"step: got {wanted.step}, but z of a {self.kind} goes on no grid; wanted none"
            )


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
    fits = list(coded.image_shape) == header.shape and header.group <= coded.largest_group
    if not (fits and coded.fits(header)):
        raise CodecError("is damaged: it does not fit the model that it names")
    if coder_series(header.coder) != coder_series(coder_version()):
        raise CodecError(
            f"was coded by constriction {header.coder}, whose bits {coder_version()} does not read"
        )


def _short(name: str | None) -> str:
    return "none" if name is None else name[:16]
