"""YAML files: read with the text of each value, and written so that they read back as the same."""

import math
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser
from yaml.resolver import Resolver

from vqvae_lightning.config.setting import ConfigError
from vqvae_lightning.config.values import Bare, check_text, shown, visible

LARGEST_FILE, MOST_VALUES = 1_000_000, 10_000
TAG = "tag:yaml.org,2002:"
# YAML 1.1 takes 1e-3 for text, YAML 1.2 and people for a number.
EXPONENT = re.compile(
    r"[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
)


# PyYAML has no types: its classes are Any to mypy.
class Loader(Composer, CParser, SafeConstructor, Resolver):  # type: ignore[misc]
    """Keeps the text of every value, as a Bare where YAML would make something else of it.

    Refuses a key that is given twice, and merge keys that make more than a config holds. The
    parser is the one in C: a comparison reads hundreds of files.
    """

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.composer.ComposerError(
                    "in a mapping",
                    node.start_mark,
                    f"found duplicate key {visible(key.value)}",
                    key.start_mark,
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            problem = "merge keys make too many values"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        natural = self.resolve(yaml.ScalarNode, node.value, (True, False))
        written_bare = not node.style and node.tag == natural
        return Bare(node.value) if written_bare and node.tag != f"{TAG}str" else str(node.value)


# PyYAML has no types, as above.
class Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Puts text in quotes wherever Loader would not take it for text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for name in ("str", "int", "float", "bool", "null", "timestamp"):
    Loader.add_constructor(TAG + name, Loader.construct_text)
for cls in (Loader, Dumper):
    cls.add_implicit_resolver(f"{TAG}float", EXPONENT, list("-+0123456789."))


def read_yaml(file: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, {} of an empty one, every value as text.

    Raises ConfigError for a file that is not there, is no UTF-8, holds no mapping, or holds control
    characters.
    """
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"config: there is no file {path}")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"config: {path} has more than {LARGEST_FILE:,} bytes")
        loaded = Loader(path.read_text(encoding="utf-8")).get_single_data()
    except UnicodeDecodeError as error:
        raise ConfigError(f"config: {path} is not UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"config: {path} cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise ConfigError(f"config: {path} is nested too deeply") from error
    except yaml.YAMLError as error:
        reason = str(error).replace("<unicode string>", str(path))
        raise ConfigError(f"config: {' '.join(reason.split())}") from error
    loaded = {} if loaded is None else loaded
    if not isinstance(loaded, dict):
        raise ConfigError(f"config: {path} holds a list or a single value, wanted a mapping")
    _check_content(loaded, str(path))
    return loaded


def read_mapping(text: str, key: str) -> dict[str, Any]:
    """The mapping that `{name: value, …}` is in YAML, every value as text. Raises ConfigError."""
    try:
        loaded = Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{key}: got {shown(text)}, wanted a mapping such as {{name: value, other: value}}"
        )
    _check_content(loaded, key)
    return loaded


def to_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML, one line each."""
    text: str = yaml.dump(
        values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text


def _check_content(values: dict[str, Any], where: str) -> None:
    """Raises ConfigError for control characters, and for too many values, which aliases can
    make.
    """
    count, left = 0, list(values.items())
    while left:
        key, value = left.pop()
        count += 1
        if count > MOST_VALUES:
            limit = f"more than {MOST_VALUES:,} values"
            raise ConfigError(f"config: {where} holds recursive aliases, or {limit}")
        check_text(str(key), "config")
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(key, item) for item in value]
        elif isinstance(value, str):
            check_text(value, str(key))
