"""The table of priors: what `model.architecture` may name."""

from vqvae_lightning.config import PriorConfig
from vqvae_lightning.models.autoregressive import AutoregressivePrior
from vqvae_lightning.models.pixelcnn import PixelCNN
from vqvae_lightning.models.pixelsnail import PixelSNAIL
from vqvae_lightning.models.transformer import CodeTransformer

PRIORS: dict[str, type[AutoregressivePrior]] = {
    "transformer": CodeTransformer,
    "pixelcnn": PixelCNN,
    "pixelsnail": PixelSNAIL,
}


def build_prior(
    codebook_size: int, grid: tuple[int, int], classes: int, config: PriorConfig
) -> AutoregressivePrior:
    """The prior that `config` names, over an h×w grid of K codes; `classes` 0: without labels."""
    return PRIORS[config.architecture](codebook_size, grid, classes, config)
