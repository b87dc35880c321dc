"""The experiment files that come with the package, and how a word names one.

A wheel holds them in `vqvae_lightning/experiments`, a checkout beside the package. A file of the
user's own `experiments` folder comes before a shipped one of the same name.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from vqvae_lightning.config.data import DataConfig
from vqvae_lightning.config.nearest import meant
from vqvae_lightning.config.places import (
    images_settings,
    own_command,
    runs_setting,
    short,
    window_settings,
)
from vqvae_lightning.config.setting import ConfigError

PACKAGE = Path(__file__).parents[1]
PLANS = ("ablations", "sweeps")  # folders of plans for many runs


def experiment_folders() -> list[Path]:
    """The folders of experiment files that are there: the current one's, then the shipped one."""
    inside, beside = PACKAGE / "experiments", PACKAGE.parent / "experiments"
    folders = [Path("experiments"), inside if inside.is_dir() else beside]
    return [folder for folder in folders if folder.is_dir()]


def experiment_file(word: str) -> str:
    """The file that a word names: `mnist/vqvae` is experiments/mnist/vqvae.yaml.

    `experiments/mnist/vqvae.yaml` names the same one where no such folder is. Another word, such as
    the path of a file, is returned as it is.
    """
    if os.path.lexists(word):
        return word
    name = word.removeprefix("experiments/").removesuffix(".yaml")
    files = (folder / f"{name}.yaml" for folder in experiment_folders())
    return next((short(file) for file in files if file.is_file()), word)


def existing_file(word: str, folder: str = "experiments") -> str:
    """The file that a word of a command line names.

    Raises ConfigError if it is not there, with the nearest of the `experiment_names` of a folder.
    """
    file = experiment_file(word)
    if not os.path.lexists(file):
        name = word.removeprefix("experiments/").removesuffix(".yaml")
        known = list(dict.fromkeys(experiment_names(folder)))
        raise ConfigError(f"config: there is no file {word}; {meant(name, known)}")
    return file


def experiment_names(folder: str = "experiments") -> Iterator[str]:
    """The names of experiment files, such as mnist/vqvae, or of the plans in one of PLANS."""
    for place in experiment_folders():
        for file in sorted(place.glob("*/*.yaml")):
            kind = file.parent.name
            if folder == (kind if kind in PLANS else "experiments"):
                yield f"{kind}/{file.stem}"


def training_command(kind: str, data: DataConfig, runs: str) -> str:
    """The command line that trains a kind of run on some images, by a shipped experiment."""
    name = f"{'own' if data.path else data.name}/{kind}"
    images = images_settings(data, "data.") if data.path else window_settings(data, "data.")
    if name not in experiment_names():
        name, images = f"mnist/{kind}", images_settings(data, "data.")
    binary = [] if data.binarize == "none" else [f"data.binarize={data.binarize}"]
    return own_command("train", name, *images, *binary, *runs_setting(runs))
