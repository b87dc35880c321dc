"""Train, compare and sample AE, VAE and VQ-VAE, and priors over its codes, from a program.

The names below are imported when they are first used: `import vqvae_lightning` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqvae_lightning.codec.coding import compress as compress
    from vqvae_lightning.codec.coding import decompress as decompress
    from vqvae_lightning.codec.container import CodecError as CodecError
    from vqvae_lightning.comparison.compare import compare as compare
    from vqvae_lightning.comparison.report import write_report as write_report
    from vqvae_lightning.config import ConfigError as ConfigError
    from vqvae_lightning.config import DataConfig as DataConfig
    from vqvae_lightning.config import Experiment as Experiment
    from vqvae_lightning.config import OptimizerConfig as OptimizerConfig
    from vqvae_lightning.config import TrackingConfig as TrackingConfig
    from vqvae_lightning.config import TrainerConfig as TrainerConfig
    from vqvae_lightning.config import use_plugins as use_plugins
    from vqvae_lightning.data.formats import DataError as DataError
    from vqvae_lightning.data.images import to_float as to_float
    from vqvae_lightning.data.images import to_uint8 as to_uint8
    from vqvae_lightning.evaluation.evaluate import evaluate as evaluate
    from vqvae_lightning.evaluation.sample import sample as sample
    from vqvae_lightning.experiment import load_experiment as load_experiment
    from vqvae_lightning.exporting.export import export as export
    from vqvae_lightning.exporting.opening import open_export as open_export
    from vqvae_lightning.library import load as load
    from vqvae_lightning.models.quantizers.codebooks import (
        CosineVectorQuantizer as CosineVectorQuantizer,
    )
    from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer as EMAVectorQuantizer
    from vqvae_lightning.models.quantizers.codebooks import SimVQ as SimVQ
    from vqvae_lightning.models.quantizers.codebooks import VectorQuantizer as VectorQuantizer
    from vqvae_lightning.models.quantizers.composed import ProductQuantizer as ProductQuantizer
    from vqvae_lightning.models.quantizers.composed import ResidualQuantizer as ResidualQuantizer
    from vqvae_lightning.models.quantizers.lookup_free import FSQ as FSQ
    from vqvae_lightning.models.quantizers.lookup_free import LFQ as LFQ
    from vqvae_lightning.models.settings import AEConfig as AEConfig
    from vqvae_lightning.models.settings import FlowConfig as FlowConfig
    from vqvae_lightning.models.settings import PriorConfig as PriorConfig
    from vqvae_lightning.models.settings import VAEConfig as VAEConfig
    from vqvae_lightning.models.settings import VQVAEConfig as VQVAEConfig
    from vqvae_lightning.models.tokenizer import Tokenizer as Tokenizer
    from vqvae_lightning.training.autoencoders import AE as AE
    from vqvae_lightning.training.autoencoders import VAE as VAE
    from vqvae_lightning.training.autoencoders import VQVAE as VQVAE
    from vqvae_lightning.training.flow import AEFlow as AEFlow
    from vqvae_lightning.training.flow import VAEFlow as VAEFlow
    from vqvae_lightning.training.prior import CodePrior as CodePrior
    from vqvae_lightning.training.runs import Run as Run
    from vqvae_lightning.training.search import find_runs as find_runs
    from vqvae_lightning.training.train import TrainResult as TrainResult
    from vqvae_lightning.training.train import train as train
    from vqvae_lightning.verified import CheckpointError as CheckpointError

    __version__: str

# Module → its public names. The imports above say the same to a type checker.
_PLACES = {
    "codec.coding": ("compress", "decompress"),
    "codec.container": ("CodecError",),
    "comparison.compare": ("compare",),
    "comparison.report": ("write_report",),
    "config": (
        "ConfigError", "DataConfig", "Experiment", "OptimizerConfig", "TrackingConfig",
        "TrainerConfig", "use_plugins",
    ),
    "data.formats": ("DataError",),
    "data.images": ("to_float", "to_uint8"),
    "evaluation.evaluate": ("evaluate",),
    "evaluation.sample": ("sample",),
    "experiment": ("load_experiment",),
    "exporting.export": ("export",),
    "exporting.opening": ("open_export",),
    "library": ("load",),
    "models.settings": ("AEConfig", "FlowConfig", "PriorConfig", "VAEConfig", "VQVAEConfig"),
    "models.quantizers.codebooks": (
        "CosineVectorQuantizer", "EMAVectorQuantizer", "SimVQ", "VectorQuantizer",
    ),
    "models.quantizers.composed": ("ProductQuantizer", "ResidualQuantizer"),
    "models.quantizers.lookup_free": ("FSQ", "LFQ"),
    "models.tokenizer": ("Tokenizer",),
    "training.autoencoders": ("AE", "VAE", "VQVAE"),
    "training.flow": ("AEFlow", "VAEFlow"),
    "training.prior": ("CodePrior",),
    "training.runs": ("Run",),
    "training.search": ("find_runs",),
    "training.train": ("TrainResult", "train"),
    "verified": ("CheckpointError",),
}  # fmt: skip
_HOMES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("vqvae_lightning")
    elif name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
