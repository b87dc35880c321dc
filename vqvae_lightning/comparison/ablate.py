"""`ablate`: variants of one experiment at equal budget with several seeds, summed up as mean and
spread of each.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vqvae_lightning.comparison.many import check_plan, evaluate_once, refuse_own, train_once
from vqvae_lightning.config import (
    AblateOptions,
    Ablation,
    ConfigError,
    check_name,
    experiment_file,
    merge_overrides,
    options,
)
from vqvae_lightning.kinds import Kind, kind_names
from vqvae_lightning.training.runs import Run


class Ablated(NamedTuple):
    """What an ablation asked and found."""

    ablation: Ablation
    variants: dict[str, list[Run]]  # by seed


def ablate(file: Path, chosen: AblateOptions, settings: Sequence[str]) -> Ablated:
    """Trains and evaluates each variant of an ablation file with each seed, unless that was done;
    see `Ablation`.

    With `first_stage` one is trained for each seed first, which variants of stage 2 learn from.
    `settings` are for every run. Raises ConfigError, before anything runs, for a file that is no
    ablation or a variant that does not fit, and after a run that failed.
    """
    ablation = read_ablation(file)
    root = Path(chosen.runs or f"runs/ablation-{file.stem}")
    everywhere = [*settings, f"tracking.group={root.name}"]
    kinds = _check(file, ablation, everywhere)
    variants: dict[str, list[Run]] = {name: [] for name in ablation.variants}
    for seed in range(chosen.seeds):
        first = None
        if ablation.first_stage:
            overrides = merge_overrides(everywhere, [f"seed={seed}"])
            first = train_once(root, f"first-s{seed}", Path(ablation.first_stage), overrides)
        for name, overrides in ablation.variants.items():
            started = time.monotonic()
            source = [f"model.{kinds[name].config.first_stage_at}={first.path}"] if first else []
            every = merge_overrides(
                ablation.settings, overrides, everywhere, source, [f"seed={seed}"]
            )
            run = train_once(root, f"{name}-s{seed}", Path(ablation.experiment), every)
            evaluate_once(run, ablation.evaluation)
            variants[name].append(run)
            print(
                f"ablate {file.stem}  {name} seed {seed}: {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return Ablated(ablation, variants)


def _check(file: Path, ablation: Ablation, everywhere: Sequence[str]) -> dict[str, Kind]:
    """The kind of each variant. Raises ConfigError for one that does not fit."""
    first = None
    if ablation.first_stage:
        try:
            first = check_plan(Path(ablation.first_stage), everywhere, [])
        except ConfigError as error:
            raise ConfigError(
                f"first_stage: {ablation.first_stage} with the settings of every run: {error}"
            ) from error
    kinds = {}
    for name, overrides in ablation.variants.items():
        check_name(name)
        refuse_own([*ablation.settings, *overrides], f"{file}, {name}", "seed")
        settings = merge_overrides(ablation.settings, overrides, everywhere)
        kind = check_plan(Path(ablation.experiment), settings, ablation.evaluation)
        if first and not kind.learns(first):
            wanted = kind_names(kind.learns)
            raise ConfigError(
                f"first_stage: got one of kind {first.name} in {file}, but {name} is of kind"
                f" {kind.name}, wanted {' or '.join(wanted) or 'none'}"
            )
        kinds[name] = kind
    return kinds


def read_ablation(file: Path) -> Ablation:
    """The ablation of a YAML file. Raises ConfigError if it is none."""
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml"))) or "none there"
        raise ConfigError(f"ablate: there is no file {file}; known: {known}")
    ablation = options(Ablation, [], file)
    if not ablation.variants:
        raise ConfigError(
            f"ablate: {file} has no variants, wanted a mapping of names to lists of key=value"
        )
    first = ablation.first_stage
    return replace(
        ablation,
        experiment=experiment_file(ablation.experiment),
        first_stage=experiment_file(first) if first else None,
    )
