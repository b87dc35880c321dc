"""The files of own parts that a command line names. No other file is executed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def use_named_plugins(arguments: Sequence[str]) -> list[str]:
    """Executes the files that a command line names, and returns its other arguments.

    A file is named by `plugins=my_parts.py`, or by the whole setting of a part, such as
    `model.quantizer.name=my_parts.py:MyQuantizer`. Raises ConfigError, also for such an argument
    that is the name of something here: a shell's `*` may have put it there, and not the user.
    """
    if not any(word.startswith("plugins=") or ".py:" in word for word in arguments):
        return list(arguments)
    from vqvae_lightning.config import ConfigError, is_setting, use_plugins

    for word in arguments:
        names_file = word.startswith("plugins=") or (".py:" in word and is_setting(word))
        if names_file and os.path.lexists(word):
            raise ConfigError(
                f"argument: '{word}' is also the name of a file or folder here, so nothing was"
                f" executed; for that one write ./{word}"
            )
    named = list(_listed(arguments))
    there = {Path(file).name for file in named}
    # After plugins=parts/mine.py, mine.py:MyQuantizer is of that file.
    named += [file for file in _of_parts(arguments) if file not in there]
    use_plugins(list(dict.fromkeys(named)))
    return [word for word in arguments if not word.startswith("plugins=")]


def _listed(arguments: Sequence[str]) -> Iterator[str]:
    """The files that `plugins=` names."""
    from vqvae_lightning.config.values import Word, read

    for word in arguments:
        key, _, text = word.partition("=")
        if key == "plugins":
            yield from read(Word(text), list[str], key)


def _of_parts(arguments: Sequence[str]) -> Iterator[str]:
    """The files that the settings of parts name."""
    from vqvae_lightning.config.plugins import is_plugin, plugin_file
    from vqvae_lightning.config.reader import is_setting, pairs
    from vqvae_lightning.experiment import experiment_sections

    for word in arguments:
        if ".py:" in word and is_setting(word):
            for key, value in pairs(word, experiment_sections()):
                if key.startswith("model.") and key.endswith(".name") and is_plugin(value):
                    yield plugin_file(value)
