"""What a comparison needs of a run.json: every value is there and of its type, or the run is refused by name."""

import math
from collections.abc import Mapping
from typing import Any

from vqvae_lightning.comparison.columns import GENERATION, is_number
from vqvae_lightning.config import ConfigError
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.evaluation.samplers import SAMPLERS

# A shape is a type, a list of one shape, a mapping of keys to shapes, or one of `str` (any key) to a shape.
RECORD: dict[Any, Any] = {
    "name": str,
    "kind": str,
    "dataset": str,
    "seed": int,
    "status": str,
    "created": str,
    "finished": str,
    "command": [str],
    "versions": {str: str},
    "parameters": int,
    "test": {str: float},
}
TOKENIZER = {"run": str, "fingerprint": str, "codebook_size": int, "grid": [int]}
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
WANTED = {str: "text", int: "a whole number of at least 0", float: "a number", list: "a list", dict: "a mapping"}


def check_record(info: Any) -> None:
    """Raises ConfigError, one line, unless `info` is the run.json of a finished run with all that is compared."""
    check_shape(info, {"status": str}, "run.json")
    if info["status"] != "finished":
        raise ConfigError(f"run.json has status={info['status']}, wanted finished")
    check_shape(info, RECORD, "run.json")
    for key, known in (("kind", SAMPLERS), ("dataset", DATASETS)):
        if info[key] not in known:
            raise ConfigError(f"run.json: {key} is {_shown(info[key])}, wanted one of {', '.join(known)}")
    test = {f"test/{name}": float for name in MEASURED[info["kind"]]}
    check_shape(info["test"], test, "run.json: test")
    if not info["command"]:
        raise ConfigError("run.json: command is empty, wanted the words of a command line")
    if info["kind"] == "prior":
        check_shape(info, {"tokenizer": TOKENIZER}, "run.json")
        size, grid = info["tokenizer"]["codebook_size"], info["tokenizer"]["grid"]
        if not (1 <= len(grid) <= 4 and size * math.prod(grid) >= 1):
            raise ConfigError(
                f"run.json: tokenizer has {size} codes and a grid of {len(grid)} sides, wanted at least 1 of each"
            )
    check_figures(info)


def check_figures(info: Mapping[str, Any]) -> None:
    """Raises ConfigError, one line, for a measurement of samples that lacks its protocol or is no number."""
    check_shape(info.get("generation", []), [FIGURE], "run.json: generation")
    for figure in info.get("generation", []):
        measured = {column.key: float for column in GENERATION if column.key in figure}
        check_shape(figure, measured, "run.json: generation")


def check_shape(value: Any, shape: Any, where: str) -> None:
    """Raises ConfigError, one line that begins with `where`, unless `value` has the shape."""
    kind = type(shape) if isinstance(shape, dict | list) else shape
    if kind is float:
        # JSON's NaN and Infinity are what a diverged run measured. They are shown and never ranked.
        fits = is_number(value) or (isinstance(value, float) and not math.isfinite(value))
    elif kind is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40
    else:
        fits = isinstance(value, kind)
    if not fits:
        raise ConfigError(f"{where} is {_shown(value)}, wanted {WANTED[kind]}")
    if kind is list:
        for number, item in enumerate(value):
            check_shape(item, shape[0], f"{where}.{number}")
    elif kind is dict:
        for key in value if str in shape else shape:
            if key not in value:
                raise ConfigError(f"{where} has no {key}")
            check_shape(value[key], shape[str] if str in shape else shape[key], f"{where}.{_shown(key)[1:-1]}")


def _shown(value: Any) -> str:
    """A value for a message of one line: control characters are escaped, and what is long is cut off."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}…"
