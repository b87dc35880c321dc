"""Files of a user's own parts, executed because a command line or a program names them.

```
 plugins=parts/mine.py ──► use_plugins ──► executed, once per content
 config, checkpoint: {name: mine.py:MyQuantizer, sha256: …} ──► plugin_class ──► MyQuantizer
```

A config, a record or a checkpoint holds the name of a file, of a class and a SHA-256, never a path.
It is looked up among the files that were named, so nothing that somebody else wrote is executed.

The table of named files is one of the process, like Python's own table of modules: an executed file
cannot be taken back, and every config and checkpoint that is read may ask for its classes.
"""

import hashlib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from vqvae_lightning.config.setting import ConfigError
from vqvae_lightning.config.values import shown, word_of

LARGEST = 1_000_000  # bytes of a file
NAME = re.compile(r"(?:[^:]*/)?(?P<file>[^/:]+\.py):(?P<member>[A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True)
class Plugin:
    """A file that was named and executed."""

    path: Path
    sha256: str  # of what was executed
    module: ModuleType

    @property
    def name(self) -> str:
        """The name of the file. A record holds no more of its path."""
        return self.path.name


# In the order in which they were named; a file that changed and was named again is there twice.
_named: list[Plugin] = []


def use_plugins(files: str | Path | Sequence[str | Path]) -> list[ModuleType]:
    """Executes files of own parts. Settings may then name the classes in them.

    A file that was executed before is executed again only if its content has changed. Its folder is
    not searched for modules that it imports, because its SHA-256 would not cover them.

    Args:
        files: one file or several. Paths are relative to the current folder.

    Returns:
        The module of each file.

    Raises:
        ConfigError: a file that is not there, or fails; the message names its line.
    """
    paths = [files] if isinstance(files, str | Path) else files
    if not (isinstance(paths, Sequence) and all(isinstance(path, str | Path) for path in paths)):
        raise ConfigError(f"use_plugins: got {shown(files)}, wanted paths of files")
    return [_use(Path(path).expanduser()) for path in paths]


def _use(path: Path) -> ModuleType:
    source = _read(path)
    sha256 = hashlib.sha256(source).hexdigest()
    known = (p.module for p in _named if (p.name, p.sha256) == (path.name, sha256))
    module = next(known, None) or _executed(path, source, sha256)
    plugin = Plugin(path.absolute(), sha256, module)
    if plugin in _named:
        _named.remove(plugin)
    _named.append(plugin)
    return module


def _read(path: Path) -> bytes:
    if path.suffix != ".py" or not path.is_file():
        wanted = "a Python file such as my_parts.py"
        found = f"{shown(str(path))}, which is no Python file" if path.exists() else f"no {path}"
        raise ConfigError(f"plugins: there is {found}, wanted {wanted}")
    if ":" in path.name:
        raise ConfigError(f"plugins: got {shown(str(path))}, wanted a file without ':' in its name")
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"plugins: {path} has more than {LARGEST:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"plugins: {path} cannot be read ({error.strerror})") from error


def _executed(path: Path, source: bytes, sha256: str) -> ModuleType:
    """The module of a file, executed from the bytes that were hashed."""
    module = ModuleType(f"plugin_{path.stem}_{sha256[:16]}")
    module.__file__ = str(path)
    # Dataclasses look up the types of their fields there.
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
        raise ConfigError(f"plugins: {path}{_line(error, path)}: {what}") from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """`, line N`: where in the file an error was raised, or empty if it was elsewhere."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) and not lines else (lines or [None])[-1]
    return "" if line is None else f", line {line}"


def is_plugin(name: object) -> bool:
    """Whether the name of a part is that of a class in a file, `my_parts.py:MyQuantizer`."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def plugin_file(name: str) -> str:
    """The file in the name of a plugin's class, as it was written."""
    return name.rpartition(":")[0]


def check_plugin(name: str, sha256: str, key: str) -> None:
    """Raises ConfigError unless the file of a record's `FILE.py:CLASS` was named by the user."""
    if not is_plugin(name):
        raise ConfigError(f"{key}: got {shown(name)}, wanted FILE.py:CLASS")
    plugin_class(name, sha256, key)


def plugin_class(name: str, sha256: str | None, key: str) -> type[Any]:
    """The class `FILE.py:CLASS` of a file that was named.

    Args:
        name: file and class; folders before the file do not matter.
        sha256: of the file. Without it the file is taken as it was named last.
        key: what asks for it, for messages.

    Raises:
        ConfigError: the file was not named, has another content, or has no such class.
    """
    match = NAME.fullmatch(name)
    assert match, name
    file, member = match["file"], match["member"]
    plugin = _found(file, sha256, f"{key}: got {shown(f'{file}:{member}')}")
    found = getattr(plugin.module, member, None)
    if not isinstance(found, type):
        classes = ", ".join(_classes(plugin.module)) or "no class"
        raise ConfigError(f"{key}: {plugin.path} has no class {member}; it has {classes}")
    return found


def _found(file: str, sha256: str | None, got: str) -> Plugin:
    there = [plugin for plugin in _named if plugin.name == file]
    if not there:
        which = f" (SHA-256 {shown(sha256[:64])[1:-1]})" if sha256 else ""
        raise ConfigError(
            f"{got}, but a file is executed only where the command line names it; to do so, add"
            f" plugins={file}{which}"
        )
    if sha256 is None:
        last = {plugin.path: plugin for plugin in there}
        if len({plugin.sha256 for plugin in last.values()}) > 1:
            paths = " and ".join(map(str, last))
            raise ConfigError(f"{got}, which could be {paths}; rename one of them")
        return there[-1]
    same = [plugin for plugin in there if plugin.sha256 == sha256]
    if not same:
        raise ConfigError(
            f"{got} with SHA-256 {shown(sha256[:64])[1:-1]}, but {there[-1].path} has"
            f" {there[-1].sha256}; name a file with the content that it had then"
        )
    return same[-1]


def _classes(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__:
            yield name


def plugin_of(config: type[Any]) -> tuple[str, str, type[Any]] | None:
    """Name, SHA-256 and class of the plugin that owns this `Config`; None if no plugin does."""
    for plugin in reversed(_named):
        for name in _classes(plugin.module):
            found = getattr(plugin.module, name)
            if vars(found).get("Config") is config:
                return f"{plugin.name}:{name}", plugin.sha256, found
    return None


def plugin_arguments() -> list[str]:
    """`plugins=…` with the named files, for another command; an empty list without any."""
    paths = dict.fromkeys(plugin.path for plugin in _named)
    return [f"plugins={word_of([_short(path) for path in paths])}"] if paths else []


def check_unchanged() -> None:
    """Raises ConfigError if a file has changed since this process executed it."""
    for path, sha256 in {plugin.path: plugin.sha256 for plugin in _named}.items():
        if hashlib.sha256(_read(path)).hexdigest() != sha256:
            raise ConfigError(f"plugins: {path} has changed since it was executed; start again")


def _short(path: Path) -> str:
    """The path relative to the current folder if it lies in it, or else as it is."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
