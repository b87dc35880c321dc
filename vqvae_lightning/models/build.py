"""Models of their settings.

```
 settings of a kind ──► trunk, bottleneck, likelihood, network ──► a module of built parts
```
"""

from collections.abc import Sequence
from typing import Any, cast

from vqvae_lightning.config import ConfigError, member_of, name_of
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.parts import FLOWS, PRIORS, build_likelihood
from vqvae_lightning.models.priors.flow import Flow
from vqvae_lightning.models.priors.prior import PriorNetwork
from vqvae_lightning.models.settings import AutoencoderConfig, FlowConfig, PriorConfig
from vqvae_lightning.models.trunks.trunk import ImageShape


def build_autoencoder(
    config: AutoencoderConfig, image_shape: ImageShape, classes: int = 0
) -> Autoencoder:
    """The autoencoder of a kind's settings, for images (C, H, W) of so many classes.

    Parts draw their weights in this order, which therefore must not change: bottleneck, likelihood,
    encoder, decoder, and vectors of the labels where the decoder is given them.
    """
    if config.class_conditional and classes < 1:
        raise ConfigError(
            f"classes: got {classes}, wanted at least 1, or model.class_conditional=false"
        )
    trunk = config.build_trunk(image_shape)
    bottleneck, likelihood = config.build_bottleneck(), build_likelihood(config.likelihood)
    if bottleneck.out_channels != config.latent_dim:
        raise ConfigError(
            f"model.latent_dim: got {config.latent_dim}, but {type(bottleneck).__name__} makes z of"
            f" {bottleneck.out_channels} channels"
        )
    of_decoder = bottleneck.out_channels * (2 if config.class_conditional else 1)
    return Autoencoder(
        trunk.encoder(bottleneck.in_channels),
        bottleneck,
        trunk.decoder(of_decoder, likelihood.parts * image_shape[0]),
        likelihood,
        image_shape,
        trunk.grid,
        classes if config.class_conditional else 0,
    )


def build_prior(
    config: PriorConfig, layout: CodeLayout, classes: int, texts: Sequence[str] = ()
) -> PriorNetwork:
    """The prior over the codes of a layout.

    Args:
        config: its settings.
        layout: how codes lie on the grid and in a sequence.
        classes: how many labels the data have.
        texts: what each label says, where the prior reads it.

    Raises:
        ConfigError: it is to read texts, and there are none or its network reads none.
    """
    member: Any = member_of(config.network, PRIORS)
    labels = classes if config.class_conditional else 0
    settings = (layout, labels, config.network, config.label_dropout)
    if not config.reads_texts:
        return cast(PriorNetwork, member(*settings))
    if not member.reads_texts:
        able = " or ".join(name for name, other in PRIORS.items() if other.reads_texts)
        name = name_of(config.network, PRIORS)
        raise ConfigError(
            f"model.condition: got text with model.network.name={name}, which reads none; wanted"
            f" {able}"
        )
    if len(texts) != classes or not any(texts):
        raise ConfigError(
            "model.condition: got text, but the labels of the data have none; wanted recordings"
            " whose labels say what is spoken"
        )
    return cast(PriorNetwork, member(*settings, texts))


def build_flow(config: FlowConfig, shape: tuple[int, int, int], classes: int) -> Flow:
    """The flow over latents (D, h, w); `classes` are those of the data."""
    labels = classes if config.class_conditional else 0
    member = member_of(config.network, FLOWS)
    return member.build(config.network, shape, labels, config.label_dropout)
