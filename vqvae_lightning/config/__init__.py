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
    RunOptions,
    RunsOptions,
    SampleOptions,
    StudyOptions,
    SweepOptions,
)
from vqvae_lightning.config.files import read_yaml
from vqvae_lightning.config.listing import documented
from vqvae_lightning.config.parts import (
    find_member,
    member_of,
    name_of,
    part,
    plugins_of,
    to_dict,
)
from vqvae_lightning.config.places import (
    canonical,
    command_line,
    images_settings,
    own_command,
    runs_setting,
    short,
)
from vqvae_lightning.config.plugins import (
    check_plugin,
    check_unchanged,
    plugin_arguments,
    plugin_class,
    use_plugins,
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
    STORES,
    ConfigError,
    DataConfig,
    Experiment,
    OptimizerConfig,
    OwnImagesConfig,
    TrackingConfig,
    TrainerConfig,
    setting,
)
from vqvae_lightning.config.shipped import (
    experiment_file,
    experiment_folders,
    experiment_names,
    training_command,
)
from vqvae_lightning.config.values import check_text, one_line, visible, word_of

__all__ = [
    "STORES",
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
    "OwnImagesConfig",
    "RunOptions",
    "RunsOptions",
    "SampleOptions",
    "StudyOptions",
    "SweepOptions",
    "TrackingConfig",
    "TrainerConfig",
    "canonical",
    "check_name",
    "check_plugin",
    "check_text",
    "check_unchanged",
    "command_line",
    "documented",
    "experiment_file",
    "experiment_folders",
    "experiment_names",
    "find_member",
    "images_settings",
    "is_setting",
    "member_of",
    "merge_overrides",
    "name_of",
    "one_line",
    "options",
    "own_command",
    "part",
    "plugin_arguments",
    "plugin_class",
    "plugins_of",
    "read_yaml",
    "runs_setting",
    "section_config",
    "setting",
    "short",
    "split_overrides",
    "to_dict",
    "training_command",
    "use_plugins",
    "visible",
    "word_of",
]
