"""Reads an experiment: YAML file, `key=value` overrides, checks. Every error is a ConfigError of one line."""

import dataclasses
import difflib
import math
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from vqvae_lightning.config.schema import MODEL_CONFIGS, ConfigError, Experiment, plain

Options = TypeVar("Options")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def load_experiment(file: str | Path | None, overrides: list[str]) -> Experiment:
    """The experiment of a YAML file (or of the defaults) with `key=value` overrides on top.

    Raises ConfigError, one line, for a file that is not there or not a mapping, an unknown key (naming the nearest),
    a value of the wrong type or out of range, an override without `=`, and two overrides of one key.
    """
    from omegaconf import OmegaConf

    with _one_line():
        loaded = OmegaConf.create(read_yaml(file) if file else {})
        dotlist = OmegaConf.from_dotlist(_checked_overrides(overrides))
        kind = OmegaConf.select(OmegaConf.merge(loaded, dotlist), "kind", default="vqvae")
        return experiment_from(OmegaConf.merge(loaded, dotlist), kind)


def experiment_from(values: Any, kind: str) -> Experiment:
    """The typed experiment of a mapping (DictConfig or plain). Raises ConfigError as `load_experiment` does."""
    from omegaconf import OmegaConf

    if not isinstance(kind, str) or kind not in MODEL_CONFIGS:
        raise ConfigError(f"kind: got '{kind}', wanted one of {', '.join(MODEL_CONFIGS)}")
    defaults = Experiment(kind=kind, model=MODEL_CONFIGS[kind]())  # type: ignore[arg-type]
    with _one_line():
        merged = OmegaConf.create(values)
        written = OmegaConf.to_container(merged)
        _check_keys(written, defaults, "")
        _refuse_no_values(written, "")
        experiment = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(defaults), merged))
    assert isinstance(experiment, Experiment)
    _check_ranges(experiment, "")
    _check_together(experiment)
    return experiment


def model_config(cls: type, values: Any) -> Any:
    """The dataclass `cls` from itself or from the plain mapping a checkpoint holds. Raises ConfigError."""
    from omegaconf import OmegaConf

    if isinstance(values, cls):
        return values
    with _one_line():
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), OmegaConf.create(dict(values))))
    _check_ranges(config, "model.")
    return config


def options(cls: type[Options], settings: Sequence[str], file: str | Path | None = None) -> Options:
    """The dataclass `cls` with a YAML file and `key=value` settings on top. Raises ConfigError as `load_experiment`."""
    from omegaconf import OmegaConf

    with _one_line():
        loaded = OmegaConf.create(read_yaml(file) if file else {})
        given = OmegaConf.merge(loaded, OmegaConf.from_dotlist(_checked_overrides(settings)))
        _check_keys(OmegaConf.to_container(given), cls(), "")
        chosen = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), given))
    _check_ranges(chosen, "")
    return cast(Options, chosen)


def last_words(*settings: Sequence[str]) -> list[str]:
    """`key=value` words of several lists, where a later list has the last word on a key."""
    return list({word.partition("=")[0]: word for words in settings for word in words}.values())


def own_words(names: Collection[str], settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """The `key=value` words whose keys are among `names`, and the others."""
    own = [word for word in settings if word.partition("=")[0] in names]
    return own, [word for word in settings if word not in own]


def describe(experiment: Experiment) -> str:
    """The experiment as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(plain(experiment)))


@contextmanager
def _one_line() -> Iterator[None]:
    """Turns the errors of OmegaConf and YAML into a ConfigError of one line."""
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except OmegaConfBaseException as error:
        key, line = getattr(error, "full_key", None), str(error).splitlines()[0]
        raise ConfigError(f"{key}: {line}" if key else line) from error
    except YAMLError as error:
        raise ConfigError("config: " + " ".join(str(error).split())) from error


def check_name(name: str) -> None:
    """Raises ConfigError unless `name` can be the name of a folder and nothing more."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"name: got '{name}', wanted 1 to 100 letters, digits, '.', '_' or '-'")


def read_yaml(file: str | Path) -> Any:
    """The mapping in a YAML file, a DictConfig. Raises ConfigError for a file that is not there or holds none."""
    from omegaconf import DictConfig, OmegaConf

    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"config: there is no file {path}")
    try:
        with _one_line():
            loaded = OmegaConf.load(path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"config: {path} is not UTF-8 text") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"config: {path} holds a list or a single value, wanted a mapping")
    return loaded


def _checked_overrides(overrides: Sequence[str]) -> list[str]:
    given: dict[str, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if override.startswith("-") or not equals or not key:
            raise ConfigError(f"override: got '{override}', wanted key=value, for example optimizer.lr=1e-3")
        if key in given:
            raise ConfigError(f"{key}: got {given[key]} and {value}, wanted one value")
        given[key] = value
    return list(overrides)


def _check_keys(values: Any, schema: Any, prefix: str, root: Any = None) -> None:
    """Unknown keys are refused here, where the nearest name, its right place or its right model can be named."""
    root = schema if root is None else root
    names = [f.name for f in dataclasses.fields(schema)]
    for key, value in values.items():
        full = f"{prefix}{key}"
        if key not in names:
            raise ConfigError(f"unknown key {full}; {_hint(str(key), names, prefix, root)}")
        child = getattr(schema, key)
        if dataclasses.is_dataclass(child):
            if not isinstance(value, dict):
                raise ConfigError(f"{full}: got '{value}', wanted a mapping")
            _check_keys(value, child, f"{full}.", root)


def _hint(key: str, names: list[str], prefix: str, root: Any) -> str:
    kinds = [k for k, c in MODEL_CONFIGS.items() if key in {f.name for f in dataclasses.fields(c)}]
    if prefix == "model." and kinds:
        return f"it belongs to kind={' and '.join(kinds)}, this is kind={root.kind}"
    elsewhere = [path for path in _all_keys(root) if path.split(".")[-1] == key]
    if elsewhere:
        return f"it exists as {elsewhere[0]}"
    nearest = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {prefix}{nearest[0]}?" if nearest else f"known here: {', '.join(names)}"


def _refuse_no_values(values: Any, key: str) -> None:
    """What is no value: `???`, and an interpolated environment variable, which would end in logs and checkpoints."""
    if isinstance(values, dict):
        for name, value in values.items():
            _refuse_no_values(value, f"{key}.{name}" if key else str(name))
    elif values == "???":
        raise ConfigError(f"{key}: got ???, wanted a value")
    elif isinstance(values, str) and "${oc." in values:
        raise ConfigError(f"{key}: got '{values}', but a config cannot read the environment; write the value")


def _all_keys(config: Any, prefix: str = "") -> list[str]:
    keys = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        keys += _all_keys(value, f"{prefix}{f.name}.") if dataclasses.is_dataclass(value) else [prefix + f.name]
    return keys


def _check_ranges(config: Any, prefix: str) -> None:
    for f in dataclasses.fields(config):
        value, key = getattr(config, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            _check_ranges(value, f"{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):
                raise ConfigError(f"{key}: got {value}, wanted a finite number")
            for name, holds, words in (
                ("at_least", lambda v, limit: v >= limit, "at least"),
                ("above", lambda v, limit: v > limit, "above"),
                ("at_most", lambda v, limit: v <= limit, "at most"),
                ("below", lambda v, limit: v < limit, "below"),
            ):
                limit = f.metadata.get(name)
                if limit is not None and not holds(value, limit):
                    raise ConfigError(f"{key}: got {value}, wanted {words} {limit} ({f.metadata['meaning']})")


def _check_together(experiment: Experiment) -> None:
    if experiment.name:
        check_name(experiment.name)
    devices = experiment.trainer.devices
    if devices != "auto" and not (isinstance(devices, int) and devices >= 1):
        raise ConfigError(f"trainer.devices: got '{devices}', wanted a number of at least 1, or auto")
    steps, every = experiment.trainer.steps, experiment.trainer.validate_every
    if steps % min(every, steps):
        raise ConfigError(
            f"trainer.validate_every: {every} does not divide trainer.steps {steps}; "
            "the last steps would be neither validated nor saved"
        )
    _check_accumulate(experiment)
    likelihood = getattr(experiment.model, "likelihood", None)
    if likelihood is not None and likelihood.name == "bernoulli" and experiment.data.binarize == "none":
        raise ConfigError(
            "model.likelihood.name: bernoulli needs binary pixels, got data.binarize=none, wanted dynamic"
        )
    if likelihood is not None and likelihood.name == "discretized_logistic" and experiment.data.binarize != "none":
        raise ConfigError(
            "model.likelihood.name: discretized_logistic is of 256 grey levels, got "
            f"data.binarize={experiment.data.binarize}, wanted none"
        )


def _check_accumulate(experiment: Experiment) -> None:
    """Raises ConfigError for a term of the loss over the whole batch, of which a pass sees a part."""
    model, passes = experiment.model, experiment.trainer.accumulate
    lfq = getattr(model, "codebook", None) == "lfq"
    whole = {"entropy": model.entropy if lfq else 0, "free_bits": getattr(model, "free_bits", 0)}
    for name, weight in whole.items():
        if passes > 1 and weight > 0:
            raise ConfigError(
                f"trainer.accumulate: got {passes} with model.{name}={weight}, a term over the whole batch, of which "
                f"a pass sees a part; wanted 1, or model.{name}=0"
            )
