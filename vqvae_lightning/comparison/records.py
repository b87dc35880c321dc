"""What a comparison needs of a run.json: every value is there and of its type, or the run is
refused by name.
"""

from collections.abc import Mapping
from typing import Any

from vqvae_lightning.comparison.columns import GENERATION
from vqvae_lightning.config import ConfigError
from vqvae_lightning.training.record import check_shape

# What a figure of samples is quoted with.
FIGURE = {
    "sampler": str,
    "network": str,
    "weights_sha256": str,
    "preprocessing": str,
    "samples": int,
    "reference": str,
    "reference_images": int,
    "seed": int,
}
# The test metrics without which a run of a kind cannot stand in the ledger.
MEASURED = {
    "ae": ("distortion",),
    "vae": ("distortion", "rate"),
    "vqvae": ("distortion", "rate", "psnr", "perplexity", "codes_used"),
    "prior": ("rate", "bits_per_code"),
}


def check_record(info: Mapping[str, Any]) -> None:
    """Raises ConfigError, one line, unless `info` is the run.json of a finished run with all that
    is compared.
    """
    if info["status"] != "finished":
        raise ConfigError(f"run.json has status={info['status']}, wanted finished")
    test = {f"test/{name}": float for name in MEASURED[info["kind"]]}
    check_shape(info["test"], test, "run.json: test")
    check_figures(info)


def check_figures(info: Mapping[str, Any]) -> None:
    """Raises ConfigError, one line, for a measurement of samples that lacks its protocol or is no
    number.
    """
    check_shape(info.get("generation", []), [FIGURE], "run.json: generation")
    for figure in info.get("generation", []):
        measured = {column.key: float for column in GENERATION if column.key in figure}
        check_shape(figure, measured, "run.json: generation")
