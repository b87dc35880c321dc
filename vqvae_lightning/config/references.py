"""`${data.name}` in a config: the value of another of its settings, and nothing else.

Any other interpolation, such as `${oc.env:HOME}` in any spelling, is refused before it is read.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vqvae_lightning.config.setting import ConfigError
from vqvae_lightning.config.values import Word, shown

REFERENCE = re.compile(r"(?<!\\)\$\{([A-Za-z_][A-Za-z0-9_.]*)\}")


def resolve_references(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values with each reference replaced by the text of the setting that it names, or of that
    setting's default.

    Raises ConfigError for one that names no setting, a section, a list or itself.
    """
    referring = [(key, text) for key, text in _texts(values, "") if "${" in text]
    if not referring:
        return dict(values)
    for key, text in referring:
        if "${" in REFERENCE.sub("", text):
            raise ConfigError(
                f"{key}: got {shown(text)}, but a config cannot read the environment; write the"
                " value"
            )
    # It is only needed here, and takes a tenth of a second to import.
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    try:
        known = OmegaConf.merge(OmegaConf.create(dict(defaults)), OmegaConf.create(_plain(values)))
        resolved = OmegaConf.to_container(known, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        key = getattr(error, "full_key", None) or referring[0][0]
        absent = isinstance(error, InterpolationKeyError)
        what = "there is no such setting" if absent else "that is not one plain value"
        text = shown(dict(referring).get(key, referring[0][1]))
        raise ConfigError(f"{key}: got {text}, but {what}; write the value") from error
    return dict(_replaced(values, resolved, ""))


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text among nested values, with its dotted key."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _texts(item, f"{key}.{number}")
    elif isinstance(value, str):
        yield key, value


def _plain(value: Any) -> Any:
    """The values as plain text: OmegaConf does not know Word and Bare."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _replaced(value: Any, resolved: Any, key: str) -> Any:
    """The values with those of `resolved` in place of references, as text that the setting's type
    reads.
    """
    if isinstance(value, Mapping):
        return {
            name: _replaced(item, resolved[str(name)], f"{key}.{name}".lstrip("."))
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _replaced(item, resolved[number], f"{key}.{number}")
            for number, item in enumerate(value)
        ]
    if not isinstance(value, str) or "${" not in value:
        return value
    if resolved is None or isinstance(resolved, dict | list):
        raise ConfigError(
            f"{key}: got {shown(value)}, but that is not one plain value; write the value"
        )
    return Word(str(resolved).lower() if isinstance(resolved, bool) else resolved)
