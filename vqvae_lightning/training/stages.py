"""What the module of each stage offers, for code that is told only the kind of a run.

A LightningModule gives its attributes no types of their own: who knows the stage of a module casts
it to one of these.
"""

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.first_stage import FirstStage
from vqvae_lightning.models.settings import SecondStageConfig
from vqvae_lightning.signals.vocoder import VocoderNet

if TYPE_CHECKING:
    import pytorch_lightning as pl


class Compiles(Protocol):
    """A network whose layers torch.compile can take."""

    def compile_layers(self) -> None:
        """Compiles the layers in place."""


class HasNet(Protocol):
    """A module of any stage."""

    net: Compiles


class Draws(Protocol):
    """A network that latents are drawn from."""

    @property
    def evaluations(self) -> int:
        """Passes through the network for an image, with the usual settings."""


class HasLatents(Protocol):
    """A module of stage 1: from images to latents and back.

    `net.layout` is None where the latents have no codes.
    """

    net: Autoencoder


class Hears(Protocol):
    """A vocoder: from windows to waveforms."""

    net: VocoderNet


class Generates(Protocol):
    """A module of stage 2: p(z) over the latents of a first stage, and images drawn from it."""

    net: Draws
    config: SecondStageConfig
    first_stage: FirstStage
    classes: int
    description: dict[str, Any]  # the record of its first stage, see `TokenizerRecord`

    def attach(self, first_stage: FirstStage) -> "pl.LightningModule":
        """The module itself, with the first stage that it decodes with."""

    def sample(
        self, n: int, label: Tensor | None = None, decoded_as: Any = None, **sampling: Any
    ) -> Tensor:
        """n images (n, C, H, W) in [-1, 1]; the classes (n,) of a class-conditional prior, and the
        class, or the classes (n,), that a class-conditional decoder is given.
        """
