"""Settings: the typed schema (`schema`) and how a YAML file and a command line become one (`load`)."""

from vqvae_lightning.config.load import describe, experiment_from, load_experiment, model_config
from vqvae_lightning.config.schema import (
    MODEL_CONFIGS,
    AEConfig,
    AutoencoderConfig,
    ConfigError,
    DataConfig,
    Experiment,
    LikelihoodConfig,
    NetworkConfig,
    OptimizerConfig,
    PriorConfig,
    TrackingConfig,
    TrainerConfig,
    VAEConfig,
    VQVAEConfig,
    plain,
)

__all__ = [
    "MODEL_CONFIGS",
    "AEConfig",
    "AutoencoderConfig",
    "ConfigError",
    "DataConfig",
    "Experiment",
    "LikelihoodConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "PriorConfig",
    "TrackingConfig",
    "TrainerConfig",
    "VAEConfig",
    "VQVAEConfig",
    "describe",
    "experiment_from",
    "load_experiment",
    "model_config",
    "plain",
]
