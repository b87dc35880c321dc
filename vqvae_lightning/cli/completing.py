"""Completions of the arguments of `vqvae` in a shell: settings, their values, and paths.

Settings come from settings.json, for the modules that define them take seconds to import.
"""

import argparse
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from argcomplete import autocomplete

from vqvae_lightning.cli.commands import COMMANDS
from vqvae_lightning.cli.reference import kept
from vqvae_lightning.config.listing import Row
from vqvae_lightning.config.shipped import experiment_names

# The setting of every command that is in no dataclass: `cli.plugins` reads it before all others.
PLUGINS = Row("plugins", "[]", "a list", "files of your own parts, which are executed", place=".py")


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asked for completions, and ends the process."""
    autocomplete(parser, always_complete_options=False)


class Completer:
    """The completions of an argument of one command, each with its description."""

    def __init__(self, name: str) -> None:
        self.name, self.command = name, COMMANDS[name]

    def __call__(self, prefix: str, **_: object) -> dict[str, str]:
        key, equals, value = prefix.partition("=")
        found = self._values(key, value) if equals else self._words(prefix)
        return {text: meaning for text, meaning in found if text.startswith(prefix)}

    def _rows(self) -> list[Row]:
        own = self.command.settings
        names = [*([own] if own else []), *self.command.more]
        return [*(row for name in names for row in kept(name)), *([PLUGINS] if own else [])]

    def _values(self, key: str, value: str) -> Iterator[tuple[str, str]]:
        """`key=value` for each value that is a name or a place."""
        for row in self._rows():
            if row.key == key:
                texts = [*row.choices, *(paths(value) if row.place else ())]
                yield from ((f"{key}={text}", row.meaning) for text in texts)

    def _words(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Names of settings with `=`, and arguments that are no settings, such as run folders."""
        yield from ((f"{row.key}=", row.meaning) for row in self._rows())
        if self.name == "completion":
            yield from (("bash", ""), ("zsh", ""))
        if self.name == "settings":
            yield from ((row.key, row.meaning) for row in kept("experiment"))
        if self.command.runs:
            yield from ((str(run.parent), "run") for run in Path("runs").glob("*/run.json"))
        if self.command.files:
            yield from ((name, "experiment") for name in experiment_names(self.command.files))
        if self.command.runs or self.command.files:
            yield from ((path, "") for path in paths(prefix))


def paths(prefix: str) -> list[str]:
    """The files and folders whose path begins with a text; a folder's ends with a slash."""
    found = glob.glob(glob.escape(os.path.expanduser(prefix)) + "*")
    return [f"{path}/" if os.path.isdir(path) else path for path in sorted(found)]
