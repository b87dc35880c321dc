"""A model as a codec sees it: its tokenizer and its prior, and whether it is that of a file."""

from dataclasses import dataclass

from vqvae_lightning.codec.codes import CodeCoder
from vqvae_lightning.codec.container import LOSSLESS, LOSSY, CodecError, Container
from vqvae_lightning.codec.stepping import coding_copy
from vqvae_lightning.codec.streams import coder_series, coder_version
from vqvae_lightning.codec.tables import Steps
from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.priors.prior import PriorNetwork
from vqvae_lightning.models.tokenizer import Tokenizer, fingerprint
from vqvae_lightning.training.image_model import ImageModel
from vqvae_lightning.training.prior import CodePrior


@dataclass(frozen=True)
class Coded:
    """A model as a codec sees it."""

    kind: str
    tokenizer: Tokenizer
    prior: PriorNetwork | None  # as it was trained
    classes: int  # labels that the prior wants

    @classmethod
    def of(cls, model: object) -> "Coded":
        """Raises ConfigError for a model that has no codes."""
        if isinstance(model, CodePrior):
            if model.tokenizer is None:
                raise ConfigError("codec: this prior has no tokenizer; call attach(tokenizer)")
            classes = model.classes if model.config.class_conditional else 0
            return cls(model.kind, model.tokenizer, model.net, classes)
        if isinstance(model, ImageModel) and model.net.layout is not None:
            return cls(model.kind, model.tokenizer(), None, 0)
        name = getattr(model, "kind", type(model).__name__)
        raise ConfigError(f"codec: a model of kind {name} has no codes, wanted vqvae or prior")

    def names(self) -> tuple[str, str | None]:
        """SHA-256 of the weights of the tokenizer and of the prior."""
        prior = None if self.prior is None else fingerprint(self.prior)
        return self.tokenizer.fingerprint, prior

    def coder(self, table: Steps) -> CodeCoder:
        """The coder of its codes, with this static table."""
        net = None if self.prior is None else coding_copy(self.prior)
        return CodeCoder(self.tokenizer.layout, table, net, self.classes)


def check_model(container: Container, coded: Coded) -> None:
    """Raises CodecError unless a file was made by this model, and by a coder like this one."""
    header = container.header
    model, prior = coded.names()
    for name, found, wanted in (("tokenizer", model, header.model), ("prior", prior, header.prior)):
        if found != wanted:
            raise CodecError(
                f"was made by the {name} {_short(wanted)}, and this run has {_short(found)}"
            )
    layout = coded.tokenizer.layout
    shapes = [list(coded.tokenizer.image_shape), [layout.num_codebooks, layout.codebook_size]]
    if shapes != [header.shape, header.table] or header.mode not in (LOSSY, LOSSLESS):
        raise CodecError("is damaged: it does not fit the model that it names")
    if coder_series(header.coder) != coder_series(coder_version()):
        raise CodecError(
            f"was coded by constriction {header.coder}, whose bits {coder_version()} does not read"
        )


def _short(name: str | None) -> str:
    return "none" if name is None else name[:16]
