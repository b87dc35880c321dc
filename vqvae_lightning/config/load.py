"""Reads an experiment: YAML file, `key=value` overrides, checks.

Every error is a ConfigError of one line.
"""

import dataclasses
import difflib
import itertools
import math
import operator
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from vqvae_lightning.config.files import read_mapping, read_yaml, to_yaml
from vqvae_lightning.config.places import absolute_places, canonical_places, find_places
from vqvae_lightning.config.references import resolve_references
from vqvae_lightning.config.schema import MODEL_CONFIGS, ConfigError, Experiment, plain
from vqvae_lightning.config.values import Word, check_text, read, shown, visible, word_of
from vqvae_lightning.config.verbs import VERB_OPTIONS

Config = TypeVar("Config")
SETTINGS = {f.name for cls in (Experiment, *VERB_OPTIONS) for f in dataclasses.fields(cls)}
SECTIONS = {
    "model",
    "model.network",
    "model.likelihood",
    "data",
    "optimizer",
    "trainer",
    "tracking",
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def load_experiment(file: str | Path | None, overrides: Sequence[str]) -> Experiment:
    """The experiment of a YAML file, or of the defaults, with `key=value` overrides on top.

    Its places are canonical. The file may be the record of a run: its places are then where they
    are now. Raises ConfigError, one line, for a file that is not there or not a mapping, an unknown
    key (naming the nearest), a value of the wrong type or out of range, an override without `=`,
    and two overrides of one key.
    """
    if file and _is_record(Path(file)):
        values = plain(read_experiment(Path(file).parent))
    else:
        values = read_yaml(file) if file else {}
    values = _overridden(values, overrides)
    return canonical_places(experiment_from(values, values.get("kind", "vqvae")))


def experiment_from(values: Mapping[str, Any], kind: str) -> Experiment:
    """The typed experiment of what `read_yaml` returns, or of plain values.

    Raises ConfigError as `load_experiment` does.
    """
    if not isinstance(kind, str) or kind not in MODEL_CONFIGS:
        raise ConfigError(f"kind: got {shown(kind)}, wanted one of {', '.join(MODEL_CONFIGS)}")
    defaults = Experiment(kind=kind, model=MODEL_CONFIGS[kind]())  # type: ignore[arg-type]
    experiment = _configured(defaults, values)
    _check_together(experiment)
    return experiment


def read_experiment(folder: Path, kind: str | None = None) -> Experiment:
    """The experiment of `config.yaml` in a run folder, its places where they are now.

    Raises ConfigError if the file is gone, holds settings that are not known here, or is of another
    kind than `kind`.
    """
    values = read_yaml(folder / "config.yaml")
    recorded = values.get("kind", kind or "vqvae")
    if kind and recorded != kind:
        file = folder / "config.yaml"
        raise ConfigError(
            f"kind: {file} holds kind={shown(recorded)}, wanted {kind}, as in run.json"
        )
    return find_places(experiment_from(values, recorded), folder)


def describe_record(experiment: Experiment) -> str:
    """The experiment as a run folder records it: YAML with absolute places, and no `resume`."""
    return describe(dataclasses.replace(absolute_places(experiment), resume=None))


def describe(experiment: Experiment) -> str:
    """The experiment as YAML, which reads back as the same experiment."""
    return to_yaml(plain(experiment))


def model_config(cls: type, values: Any) -> Any:
    """The dataclass `cls` from itself or from the plain mapping a checkpoint holds.

    Raises ConfigError.
    """
    if isinstance(values, cls):
        return values
    if not isinstance(values, Mapping):
        raise ConfigError(f"model: got {shown(values)}, wanted a mapping")
    _check_keys(values, cls(), "model.")
    return _read_fields(cls(), values, "model.")


def options(cls: type[Config], settings: Sequence[str], file: str | Path | None = None) -> Config:
    """The dataclass `cls` with a YAML file and `key=value` settings on top.

    Raises ConfigError as `load_experiment`.
    """
    values = _overridden(read_yaml(file) if file else {}, settings)
    return canonical_places(_configured(cls(), values))


def last_words(*settings: Sequence[str]) -> list[str]:
    """`key=value` words of several lists, where a later list has the last word on a key."""
    return list({word.partition("=")[0]: word for words in settings for word in words}.values())


def own_words(names: Collection[str], settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """The `key=value` words whose keys are among `names`, and the others."""
    own = [word for word in settings if word.partition("=")[0] in names]
    return own, [word for word in settings if word not in own]


def is_setting(word: str) -> bool:
    """Whether a word of a command line is `key=value`, and no file or folder with `=` in its name.

    A key holds no `/`, so `./a=b` is never a setting. Nor is `a=b` if there is a file of that name,
    and `a` is no setting of any verb.
    """
    key, equals, _ = word.partition("=")
    if not equals or "/" in key:
        return False
    return key.partition(".")[0] in SETTINGS or not os.path.lexists(word)


def check_name(name: str) -> None:
    """Raises ConfigError unless `name` can be the name of a folder and nothing more."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"name: got {shown(name)}, wanted 1 to 100 letters, digits, '.', '_' or '-'"
        )


def _is_record(file: Path) -> bool:
    return file.name == "config.yaml" and (file.parent / "run.json").is_file() and file.is_file()


def _overridden(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The nested values with `key=value` words on top, whose text is read when its type is
    known.
    """
    given: dict[str, str] = {}
    result = _copied(values)
    for key, text in itertools.chain.from_iterable(map(_pairs, overrides)):
        if key in given:
            raise ConfigError(f"{key}: got {given[key]} and {text}, wanted one value")
        given[key] = text
        _put(result, key, text)
    return result


def _pairs(override: str) -> Iterator[tuple[str, str]]:
    """Key and text of a `key=value` word; of `section={key: value, …}`, those of each setting in
    it.
    """
    check_text(override, "override")
    key, equals, text = override.partition("=")
    if override.startswith("-") or not equals or not key:
        raise ConfigError(
            f"override: got '{override}', wanted key=value, for example optimizer.lr=1e-3"
        )
    if key in SECTIONS and text.startswith("{"):
        for name, value in read_mapping(text, key).items():
            yield from _pairs(f"{key}.{name}={word_of(value)}")
    else:
        yield key, text


def _put(values: dict[str, Any], key: str, text: str) -> None:
    *sections, last = key.split(".")
    for depth, section in enumerate(sections, start=1):
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            where = ".".join(sections[:depth])
            raise ConfigError(f"{where}: got {shown(values)} and {key}={text}, wanted one of them")
    values[last] = Word(text)


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copied(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }


def _configured(defaults: Config, values: Mapping[str, Any]) -> Config:
    """The dataclass `defaults` with values on top, each read by its type. Raises ConfigError."""
    values = resolve_references(values, plain(defaults))
    _check_keys(values, defaults, "")
    return _read_fields(defaults, values, "")


def _read_fields(defaults: Config, values: Mapping[str, Any], prefix: str) -> Config:
    types, changes = get_type_hints(type(defaults)), {}
    for f in dataclasses.fields(defaults):  # type: ignore[arg-type]
        child, key = getattr(defaults, f.name), prefix + f.name
        if f.name in values and dataclasses.is_dataclass(child):
            changes[f.name] = _read_fields(child, values[f.name], f"{key}.")
        elif f.name in values:
            changes[f.name] = read(values[f.name], types[f.name], key)
            _check_range(changes[f.name], f.metadata, key)
    return dataclasses.replace(defaults, **changes)  # type: ignore[type-var]


def _check_keys(values: Mapping[str, Any], schema: Any, prefix: str, root: Any = None) -> None:
    """Unknown keys are refused here, where the nearest name, its right place or its right model can
    be named.
    """
    root = schema if root is None else root
    types = get_type_hints(type(schema))
    for key, value in values.items():
        full = f"{prefix}{key}"
        if key not in types:
            raise ConfigError(
                f"unknown key {visible(full)}; {_hint(str(key), list(types), prefix, root)}"
            )
        child = getattr(schema, key)
        if dataclasses.is_dataclass(child):
            if not isinstance(value, Mapping):
                example = f"{full}.{dataclasses.fields(child)[0].name}=…"
                wanted = (
                    f"a setting of it, such as {example}"
                    if isinstance(value, Word)
                    else "a mapping"
                )
                raise ConfigError(f"{full}: got {shown(value)}, wanted {wanted}")
            _check_keys(value, child, f"{full}.", root)
        elif isinstance(value, Mapping) and isinstance(child, list):
            example = ",".join(map(str, child)) or "a,b"
            got = f"{full}.{next(iter(value), '')}"
            raise ConfigError(f"{full}: got {got}, wanted the whole list: {full}=[{example}]")
        elif isinstance(value, Mapping) and not isinstance(child, dict):
            raise ConfigError(
                f"unknown key {visible(full)}.{next(iter(value), '')}; {full} is a setting, not a"
                " section"
            )


def _hint(key: str, names: list[str], prefix: str, root: Any) -> str:
    kinds = [k for k, c in MODEL_CONFIGS.items() if key in {f.name for f in dataclasses.fields(c)}]
    if prefix == "model." and kinds and isinstance(root, Experiment):
        return f"it belongs to kind={' and '.join(kinds)}, this is kind={root.kind}"
    if key in _all_keys(root):
        return "in a file, a setting stands in the mapping of its section"
    elsewhere = [path for path in _all_keys(root) if path.split(".")[-1] == key]
    if elsewhere:
        return f"it exists as {elsewhere[0]}"
    nearest = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {prefix}{nearest[0]}?" if nearest else f"known here: {', '.join(names)}"


def _all_keys(config: Any, prefix: str = "") -> list[str]:
    keys = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        keys += (
            _all_keys(value, f"{prefix}{f.name}.")
            if dataclasses.is_dataclass(value)
            else [prefix + f.name]
        )
    return keys


def _check_range(value: object, metadata: Mapping[str, Any], key: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if not math.isfinite(value):
        raise ConfigError(f"{key}: got {value}, wanted a finite number")
    for name, holds, words in (
        ("at_least", operator.ge, "at least"),
        ("above", operator.gt, "above"),
        ("at_most", operator.le, "at most"),
        ("below", operator.lt, "below"),
    ):
        limit = metadata.get(name)
        if limit is not None and not holds(value, limit):
            raise ConfigError(f"{key}: got {value}, wanted {words} {limit} ({metadata['meaning']})")


def _check_together(experiment: Experiment) -> None:
    if experiment.name:
        check_name(experiment.name)
    steps, every = experiment.trainer.steps, experiment.trainer.validate_every
    if steps % min(every, steps):
        raise ConfigError(
            f"trainer.validate_every: {every} does not divide trainer.steps {steps}; "
            "the last steps would be neither validated nor saved"
        )
    _check_accumulate(experiment)
    likelihood = getattr(experiment.model, "likelihood", None)
    if (
        likelihood is not None
        and likelihood.name == "bernoulli"
        and experiment.data.binarize == "none"
    ):
        raise ConfigError(
            "model.likelihood.name: bernoulli needs binary pixels, got data.binarize=none, wanted"
            " dynamic"
        )
    if (
        likelihood is not None
        and likelihood.name == "discretized_logistic"
        and experiment.data.binarize != "none"
    ):
        raise ConfigError(
            "model.likelihood.name: discretized_logistic is of 256 grey levels, got "
            f"data.binarize={experiment.data.binarize}, wanted none"
        )


def _check_accumulate(experiment: Experiment) -> None:
    """Raises ConfigError for a term of the loss over the whole batch, of which a pass sees a
    part.
    """
    model, passes = experiment.model, experiment.trainer.accumulate
    lfq = getattr(model, "codebook", None) == "lfq"
    whole = {"entropy": model.entropy if lfq else 0, "free_bits": getattr(model, "free_bits", 0)}
    for name, weight in whole.items():
        if passes > 1 and weight > 0:
            raise ConfigError(
                f"trainer.accumulate: got {passes} with model.{name}={weight}, a term over the"
                f" whole batch, of which a pass sees a part; wanted 1, or model.{name}=0"
            )
