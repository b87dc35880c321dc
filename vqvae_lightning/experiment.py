"""An experiment is read here: YAML file, `key=value` overrides, and what has to fit together.

`config` reads settings of any dataclass; this module knows which dataclass a kind of run has.
Every error is a ConfigError of one line.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vqvae_lightning.config import ConfigError, Experiment, check_name, name_of, read_yaml, to_dict
from vqvae_lightning.config.files import to_yaml
from vqvae_lightning.config.parts import is_section, without_leftovers
from vqvae_lightning.config.places import absolute_places, canonical_places, find_places
from vqvae_lightning.config.reader import configured, overridden, sections
from vqvae_lightning.config.values import shown, visible
from vqvae_lightning.kinds import KINDS


def load_experiment(file: str | Path | None, overrides: Sequence[str]) -> Experiment:
    """The experiment of a YAML file, or of the defaults, with `key=value` overrides on top.

    Its places are canonical. The file may be the record of a run: its places are then where they
    are now. Where an override names another member of a part, such as `model.quantizer.name=fsq`,
    the file's settings that this member has not are left out. Raises ConfigError, one line, for a
    file that is not there or not a mapping, an unknown key (naming the nearest), a value of the
    wrong type or out of range, an override without `=`, and two overrides of one key.
    """
    if file and _is_record(Path(file)):
        before = to_dict(read_experiment(Path(file).parent))
    else:
        before = read_yaml(file) if file else {}
    values = overridden(before, overrides, experiment_sections())
    kind = values.get("kind", Experiment.kind)
    values = without_leftovers(_defaults(kind), before, values)
    return canonical_places(experiment_from(values, kind))


def experiment_from(values: Mapping[str, Any], kind: str) -> Experiment:
    """The typed experiment of what `read_yaml` returns, or of plain values.

    Raises ConfigError as `load_experiment` does.
    """
    defaults = _defaults(kind)
    if "plugins" in values:
        raise ConfigError(
            f"plugins: got {shown(values['plugins'])} in a file, wanted it on the command line: no"
            " file says what is executed"
        )
    _check_model_keys(values.get("model"), kind)
    experiment = configured(defaults, values)
    _check_together(experiment)
    return experiment


def checked(experiment: Experiment) -> Experiment:
    """An experiment that a program made, read like one of a file: its places are canonical.

    Without a `model` it has the defaults of its kind. Raises ConfigError as `load_experiment` does.
    """
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"experiment: got {type(experiment).__name__}, wanted an Experiment, as load_experiment"
            " makes of a file"
        )
    wanted = type(_defaults(experiment.kind).model)
    if is_section(experiment.model) and not isinstance(experiment.model, wanted):
        raise ConfigError(
            f"model: got {type(experiment.model).__name__}, wanted {wanted.__name__}, as"
            f" kind={experiment.kind}"
        )
    values = to_dict(experiment)
    if experiment.model is None:
        del values["model"]
    return canonical_places(experiment_from(values, experiment.kind))


def _defaults(kind: Any) -> Experiment:
    """The default experiment of a kind. Raises ConfigError for a kind that is not there."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"kind: got {shown(kind)}, wanted one of {', '.join(KINDS)}")
    return Experiment(kind=str(kind), model=KINDS[kind].config())


def experiment_sections() -> set[str]:
    """The dotted keys of all sections that an experiment of any kind may have."""
    of_models = (sections(kind.config(), "model.") for kind in KINDS.values())
    return sections(Experiment()) | {"model"}.union(*of_models)


def _check_model_keys(values: Any, kind: str) -> None:
    """Raises ConfigError for a setting of the model that only other kinds have."""
    own = {f.name for f in dataclasses.fields(KINDS[kind].config)}
    for key in values if isinstance(values, Mapping) else ():
        others = [
            name
            for name, other in KINDS.items()
            if key in {f.name for f in dataclasses.fields(other.config)}
        ]
        if others and key not in own:
            raise ConfigError(
                f"unknown key {visible(f'model.{key}')}; it belongs to kind={' and '.join(others)},"
                f" this is kind={kind}"
            )


def read_experiment(folder: Path, kind: str | None = None) -> Experiment:
    """The experiment of `config.yaml` in a run folder, its places where they are now.

    Raises ConfigError if the file is gone, holds settings that are not known here, or is of another
    kind than `kind`.
    """
    values = read_yaml(folder / "config.yaml")
    recorded = values.get("kind", kind or Experiment.kind)
    if kind and recorded != kind:
        file = folder / "config.yaml"
        raise ConfigError(
            f"kind: {file} holds kind={shown(recorded)}, wanted {kind}, as in run.json"
        )
    experiment = experiment_from(values, recorded)
    if experiment.data.path and not experiment.data.fingerprint:
        # A record may be somebody else's: what it calls a path is never read.
        raise ConfigError(
            f"data.fingerprint: {folder / 'config.yaml'} names own images without it, wanted the"
            " SHA-256 that a run records"
        )
    return find_places(experiment, folder)


def describe_record(experiment: Experiment) -> str:
    """The experiment as a run folder records it: YAML with absolute places, and no `resume`."""
    return describe(dataclasses.replace(absolute_places(experiment), resume=None))


def describe(experiment: Experiment) -> str:
    """The experiment as YAML, which reads back as the same experiment."""
    return to_yaml(to_dict(experiment))


def _is_record(file: Path) -> bool:
    return file.name == "config.yaml" and (file.parent / "run.json").is_file() and file.is_file()


def _check_together(experiment: Experiment) -> None:
    """Raises ConfigError for settings of different sections that do not fit together."""
    if experiment.name:
        check_name(experiment.name)
    steps, every = experiment.trainer.steps, experiment.trainer.validate_every
    if steps % min(every, steps):
        raise ConfigError(
            f"trainer.validate_every: {every} does not divide trainer.steps {steps}; "
            "the last steps would be neither validated nor saved"
        )
    micro_batches = experiment.trainer.accumulate
    for name, weight in experiment.model.batch_terms.items():
        if micro_batches > 1 and weight > 0:
            raise ConfigError(
                f"trainer.accumulate: got {micro_batches} with model.{name}={weight}, a term over"
                f" the whole batch, of which a micro-batch is a part; wanted 1, or model.{name}=0"
            )
    model = experiment.model
    if experiment.trainer.strategy == "fsdp" and not model.shards:
        network = name_of(model.network, model.networks) if model.networks else ""
        got = f"kind={experiment.kind}" + f", model.network.name={network}" * bool(network)
        raise ConfigError(
            f"trainer.strategy: got fsdp with {got}, but it is for Transformers over codes alone;"
            " wanted ddp, or kind=prior with model.network.name=transformer or masked"
        )
    experiment.model.check_data(experiment.data)
