"""The tables of parts: what a name in an experiment means, and a part of its settings.

```
 {name: ema, settings} ──► QUANTIZERS["ema"] ──► a built quantizer
```

A new part is a class that owns a dataclass `Config`, and one line in a table; or it is such a class
in a user's own file (see `config.plugins`).
"""

from typing import Any

from vqvae_lightning.config import member_of
from vqvae_lightning.models.bottlenecks import Gaussian, Identity, NamedBottleneck
from vqvae_lightning.models.likelihoods import (
    BernoulliLikelihood,
    DiscretizedLogistic,
    GaussianLikelihood,
    Likelihood,
    LogisticMixture,
)
from vqvae_lightning.models.priors.coupling import Couplings
from vqvae_lightning.models.priors.flow import FlowNetwork
from vqvae_lightning.models.priors.masked import MaskedTransformer
from vqvae_lightning.models.priors.pixelcnn import PixelCNN
from vqvae_lightning.models.priors.pixelsnail import PixelSNAIL
from vqvae_lightning.models.priors.prior import PriorNetwork
from vqvae_lightning.models.priors.transformer import CodeTransformer
from vqvae_lightning.models.priors.velocity import CellTransformer, ResidualMLP
from vqvae_lightning.models.quantizers.codebooks import (
    CosineVectorQuantizer,
    EMAVectorQuantizer,
    SimVQ,
    VectorQuantizer,
)
from vqvae_lightning.models.quantizers.composed import ProductQuantizer, ProjectedQuantizer
from vqvae_lightning.models.quantizers.lookup_free import FSQ, LFQ
from vqvae_lightning.models.quantizers.quantizer import NamedQuantizer, Quantizer
from vqvae_lightning.models.trunks.conv import ConvTrunk
from vqvae_lightning.models.trunks.residual import ResidualTrunk
from vqvae_lightning.models.trunks.trunk import ImageShape, Trunk

# What `model.trunk.name` may be.
TRUNKS: dict[str, type[Trunk]] = {"conv": ConvTrunk, "residual": ResidualTrunk}

# What `model.quantizer.name` may be.
QUANTIZERS: dict[str, type[NamedQuantizer]] = {
    "ema": EMAVectorQuantizer,
    "gradient": VectorQuantizer,
    "cosine": CosineVectorQuantizer,
    "simvq": SimVQ,
    "fsq": FSQ,
    "lfq": LFQ,
}

# What `model.bottleneck.name` of an AE, and of a VAE, may be.
AE_BOTTLENECKS: dict[str, type[NamedBottleneck]] = {"identity": Identity}
VAE_BOTTLENECKS: dict[str, type[NamedBottleneck]] = {"gaussian": Gaussian}

# What `model.likelihood.name` may be.
LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "discretized_logistic": DiscretizedLogistic,
    "logistic_mixture": LogisticMixture,
    "bernoulli": BernoulliLikelihood,
}

# What `model.network.name` of a prior may be.
PRIORS: dict[str, type[PriorNetwork]] = {
    "transformer": CodeTransformer,
    "pixelcnn": PixelCNN,
    "pixelsnail": PixelSNAIL,
    "masked": MaskedTransformer,
}

# What `model.network.name` of a flow may be.
FLOWS: dict[str, type[FlowNetwork]] = {
    "mlp": ResidualMLP,
    "dit": CellTransformer,
    "coupling": Couplings,
}


def build_trunk(config: Any, image_shape: ImageShape, vector: bool) -> Trunk:
    """The trunk whose settings these are; it makes an encoder and a decoder when it is asked to.

    Its z is a `vector`, or a grid of vectors.
    """
    member: Any = member_of(config, TRUNKS)
    trunk: Trunk = member(config, image_shape, vector)
    return trunk


def build_likelihood(config: Any) -> Likelihood:
    """The likelihood whose settings these are."""
    member: Any = member_of(config, LIKELIHOODS)
    likelihood: Likelihood = member(config)
    return likelihood


def build_quantizer(config: NamedQuantizer.Config, latent_dim: int, groups: int = 1) -> Quantizer:
    """The quantizer whose settings these are, for z of `latent_dim` channels.

    With several `groups` it is a product of them. It is projected to the space where codes are
    looked up, if that has not `latent_dim` channels.
    """
    member = member_of(config, QUANTIZERS)
    dim = max(1, latent_dim // groups)
    parts = [member.build(config, dim) for _ in range(groups)]
    quantizer = ProductQuantizer(parts) if groups > 1 else parts[0]
    if quantizer.in_channels == latent_dim:
        return quantizer
    return ProjectedQuantizer(quantizer, latent_dim)
