"""`${data.name}` in a config: the value of another of its settings, and nothing else.

Text that asks for anything more, such as `${oc.env:HOME}` in any spelling, is refused before
something could read it.
"""

import re
from collections.abc import Mapping
from typing import Any

from vqvae_lightning.config.schema import ConfigError
from vqvae_lightning.config.values import Word, shown

REFERENCE = re.compile(r"(?<!\\)\$\{([A-Za-z_][A-Za-z0-9_.]*)\}")


def resolve_references(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values with each reference replaced by the text, or the default, of what it names.

    Raises ConfigError for one that names no setting, a section, a list or a setting that is a
    reference itself.
    """

    def look_up(reference: re.Match[str], key: str) -> str:
        found = _at(reference[1], values)
        found = _at(reference[1], defaults) if found is None else found
        if found is None or isinstance(found, Mapping | list) or "${" in str(found):
            what = "there is no such setting" if found is None else "that is not one plain value"
            raise ConfigError(f"{key}: got {shown(reference[0])}, but {what}; write the value")
        return str(found).lower() if isinstance(found, bool) else str(found)

    def resolve(value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return {name: resolve(item, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [resolve(item, f"{key}.{number}") for number, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        if "${" in REFERENCE.sub("", value):
            why = "a config cannot read the environment"
            raise ConfigError(f"{key}: got {shown(value)}, but {why}; write the value")
        return Word(REFERENCE.sub(lambda reference: look_up(reference, key), value))

    return {name: resolve(item, str(name)) for name, item in values.items()}


def _at(key: str, tree: Any) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
