"""The family of quantizers by name, and how a config puts one together."""

import dataclasses

from vqvae_lightning.config import ConfigError, VQVAEConfig, plain
from vqvae_lightning.models.quantizers.codebooks import (
    CosineVectorQuantizer,
    EMAVectorQuantizer,
    SimVQ,
    VectorQuantizer,
)
from vqvae_lightning.models.quantizers.composed import (
    ProductQuantizer,
    ProjectedQuantizer,
    ResidualQuantizer,
)
from vqvae_lightning.models.quantizers.estimators import ESTIMATORS
from vqvae_lightning.models.quantizers.lookup_free import FSQ, LFQ
from vqvae_lightning.models.quantizers.quantizer import NamedQuantizer, Quantizer

QUANTIZERS: dict[str, type[NamedQuantizer]] = {
    "ema": EMAVectorQuantizer,
    "gradient": VectorQuantizer,
    "cosine": CosineVectorQuantizer,
    "simvq": SimVQ,
    "fsq": FSQ,
    "lfq": LFQ,
}


def build_quantizer(config: VQVAEConfig) -> Quantizer:
    """The quantizer of a config: a product of `groups` residuals of `residual_levels` of the member
    it names.

    It is projected to where codes are looked up, if that has not `latent_dim` channels: for each
    group `lookup_dim`, or as many as the member needs, or its share of `latent_dim`. Raises
    ConfigError for a member that is not there and settings that do not fit.
    """
    if config.codebook not in QUANTIZERS:
        raise ConfigError(
            f"model.codebook: got '{config.codebook}', wanted one of {', '.join(QUANTIZERS)}"
        )
    member = QUANTIZERS[config.codebook]
    _check_settings(config, member)
    dim = config.lookup_dim or max(1, config.latent_dim // config.groups)
    groups: list[Quantizer] = []
    for _ in range(config.groups):
        levels = [member.build(config, dim) for _ in range(config.residual_levels)]
        groups.append(
            ResidualQuantizer(levels, ESTIMATORS[config.estimator])
            if len(levels) > 1
            else levels[0]
        )
    quantizer = ProductQuantizer(groups) if len(groups) > 1 else groups[0]
    if quantizer.in_channels == config.latent_dim:
        return quantizer
    return ProjectedQuantizer(quantizer, config.latent_dim)


def _check_settings(config: VQVAEConfig, member: type[NamedQuantizer]) -> None:
    """Raises ConfigError for a setting that this member has no use for."""
    given, defaults = plain(config), plain(VQVAEConfig())
    some = frozenset().union(*(other.settings for other in QUANTIZERS.values()))
    for name in (field.name for field in dataclasses.fields(config)):
        if name in some - member.settings and given[name] != defaults[name]:
            raise ConfigError(
                f"model.{name}: got {given[name]}, but codebook={config.codebook} has no use for"
                f" it; wanted {'nothing' if defaults[name] is None else defaults[name]}"
            )
