"""Settings of an experiment (`schema`) and of a command (`commands`), and their `reader`.

The settings of a model and its parts are in `models`, and an experiment is read by
`vqvae_lightning.experiment`.
"""

from vqvae_lightning.config.commands import (
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
    merge_overrides,
    options,
    section_config,
    split_overrides,
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
    setting,
    to_dict,
)
from vqvae_lightning.config.values import check_text, one_line, visible, word_of

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
    "make_command",
    "member_of",
    "merge_overrides",
    "name_of",
    "one_line",
    "options",
    "own_command",
    "part",
    "read_yaml",
    "runs_argument",
    "section_config",
    "setting",
    "short",
    "split_overrides",
    "to_dict",
    "visible",
    "word_of",
]
