"""`sweep`: the grid of a W&B sweep file, run here without a server."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqvae_lightning.comparison.many import check_plan, refuse_own, train_once
from vqvae_lightning.config import (
    ConfigError,
    SweepOptions,
    experiment_file,
    merge_overrides,
    read_yaml,
    word_of,
)
from vqvae_lightning.training.runs import Run


def sweep(file: Path, options: SweepOptions, settings: Sequence[str]) -> list[Run]:
    """Trains each combination of the values in a sweep file that is not yet trained; returns all
    runs, in order.

    The file is one for `wandb sweep`: `method: grid`, `command` that names an experiment file, and
    `parameters` with `value` or `values` each. `settings` are for every run. Raises ConfigError,
    before anything runs, for a file that is no such grid or a combination that does not fit, and
    after a run that failed, naming its log.
    """
    experiment, combinations = read_grid(file)
    root = Path(options.runs or f"runs/sweep-{file.stem}")
    plan = []
    for overrides in combinations:
        refuse_own(overrides, str(file))
        every = merge_overrides(settings, overrides, [f"tracking.group={root.name}"])
        check_plan(experiment, every, [])
        plan.append((run_name(overrides), every))
    runs = []
    for number, (name, every) in enumerate(plan, start=1):
        runs.append(train_once(root, name, experiment, every))
        print(f"sweep {number}/{len(plan)}  {name}", flush=True)
    return runs


def read_grid(file: Path) -> tuple[Path, list[list[str]]]:
    """The experiment file of a sweep file, and its combinations as `key=value` overrides.

    Raises ConfigError.
    """
    try:
        content = read_yaml(file)
    except ConfigError as error:
        raise ConfigError(f"sweep: cannot read {file} ({error})") from None
    if content.get("method") != "grid":
        raise ConfigError(
            f"sweep: {file} has method={content.get('method')}, wanted grid; others need `wandb"
            " sweep`"
        )
    command, parameters = content.get("command"), content.get("parameters")
    named = (
        [str(part) for part in command if str(part).endswith((".yaml", ".yml"))]
        if isinstance(command, list)
        else []
    )
    if len(named) != 1:
        raise ConfigError(
            f"sweep: the command in {file} names {len(named)} experiment files, wanted one"
        )
    if not isinstance(parameters, dict) or not parameters:
        raise ConfigError(
            f"sweep: {file} has parameters={parameters}, wanted a mapping of settings to their"
            " values"
        )
    axes = [_axis(file, key, given) for key, given in parameters.items()]
    return Path(experiment_file(named[0])), [
        list(overrides) for overrides in itertools.product(*axes)
    ]


def _axis(file: Path, key: str, given: Any) -> list[str]:
    values = (
        given.get("values", [given["value"]] if "value" in given else None)
        if isinstance(given, dict)
        else None
    )
    if not isinstance(values, list) or not values:
        raise ConfigError(
            f"sweep: {key} in {file} has no value and no values; a grid wants one of them"
        )
    return [f"{key}={word_of(value)}" for value in values]


def run_name(overrides: Sequence[str]) -> str:
    """The combination as a folder's name, `codebook_size-128_seed-0`; one that is cut or changed
    ends in a hash.
    """
    parts = []
    for override in overrides:
        key, _, value = override.partition("=")
        parts.append(f"{key.rpartition('.')[2]}-{value}")
    name = "_".join(parts)
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:90]
    return (
        name
        if name == safe
        else f"{safe}-{hashlib.sha256(' '.join(overrides).encode()).hexdigest()[:8]}"
    )
