"""Settings: of an experiment (`schema`), of a verb (`verbs`), and how YAML and a command line are
read (`reader`).

The settings of a model and its parts are in `models`, and an experiment is read by
`vqvae_lightning.experiment`.
"""

from vqvae_lightning.config.files import read_yaml
from vqvae_lightning.config.places import (
    canonical,
    command_line,
    make_command,
    own_command,
    runs_argument,
    short,
)
from vqvae_lightning.config.reader import (
    check_name,
    is_setting,
    last_words,
    model_config,
    options,
    own_words,
)
from vqvae_lightning.config.schema import (
    ConfigError,
    DataConfig,
    Experiment,
    OptimizerConfig,
    TrackingConfig,
    TrainerConfig,
    member_of,
    name_of,
    part,
    plain,
    setting,
)
from vqvae_lightning.config.values import check_text, one_line, visible, word_of
from vqvae_lightning.config.verbs import (
    AblateOptions,
    Ablation,
    CalibrateOptions,
    ClassifierOptions,
    CompareOptions,
    DashboardOptions,
    DataOptions,
    DoctorOptions,
    Drawing,
    EvaluateOptions,
    SampleOptions,
    StudyOptions,
    SweepOptions,
)

__all__ = [
    "AblateOptions",
    "Ablation",
    "CalibrateOptions",
    "ClassifierOptions",
    "CompareOptions",
    "ConfigError",
    "DashboardOptions",
    "DataConfig",
    "DataOptions",
    "DoctorOptions",
    "Drawing",
    "EvaluateOptions",
    "Experiment",
    "OptimizerConfig",
    "SampleOptions",
    "StudyOptions",
    "SweepOptions",
    "TrackingConfig",
    "TrainerConfig",
    "canonical",
    "check_name",
    "check_text",
    "command_line",
    "is_setting",
    "last_words",
    "make_command",
    "member_of",
    "model_config",
    "name_of",
    "one_line",
    "options",
    "own_command",
    "own_words",
    "part",
    "plain",
    "read_yaml",
    "runs_argument",
    "setting",
    "short",
    "visible",
    "word_of",
]
