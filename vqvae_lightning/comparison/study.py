"""`study`: recipes of one dataset with several seeds, compared, with mean and spread."""

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vqvae_lightning.comparison.columns import MISSING
from vqvae_lightning.comparison.generation import generation_values, sampler_label
from vqvae_lightning.comparison.many import check_plan, evaluate_once, train_once
from vqvae_lightning.comparison.table import frameless, print_columns
from vqvae_lightning.config import (
    ConfigError,
    EvaluateOptions,
    StudyOptions,
    experiment_folders,
    merge_overrides,
    split_overrides,
    visible,
)
from vqvae_lightning.data.imageset import image_set
from vqvae_lightning.evaluation.samplers import changed_sampling
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.kinds import KINDS, Kind
from vqvae_lightning.metrics.measures import in_table
from vqvae_lightning.training.runs import Run

# Recipes of a study beside one of each kind.
SECOND = ("prior_masked",)
# Of every evaluation; a sampler is not every kind's.
EVALUATION = {*EvaluateOptions.__dataclass_fields__} - {
    "runs",
    "dataset",
    "path",
    "split",
    "seed",
    "sampler",
}


@dataclass(frozen=True)
class Spread:
    """A metric over seeds."""

    mean: float
    deviation: float  # sample standard deviation; 0 for one run
    count: int

    def __str__(self) -> str:
        """Both to the second digit of the deviation; four digits where there is none."""
        if not math.isfinite(self.deviation):
            return f"{self.mean:.4g} ± {self.deviation:.4g}"
        if not self.deviation:
            return f"{self.mean:.4g} ± 0" if self.count > 1 else f"{self.mean:.4g}"
        places = max(0, 1 - math.floor(math.log10(self.deviation)))
        return f"{self.mean:.{places}f} ± {self.deviation:.{places}f}"


def study(options: StudyOptions, settings: Sequence[str]) -> dict[str, list[Run]]:
    """Trains and evaluates what is not done yet, seed by seed; returns recipe → runs by seed.

    `settings` are `key=value` for every run; those of EVALUATION are for every evaluation. Raises
    ConfigError, before anything runs, if one does not fit a recipe, and after a run that failed,
    naming its log.
    """
    files = experiment_files(options)
    plan = [(seed, recipe) for seed in range(options.seeds) for recipe in files]
    root = Path(options.runs or f"runs/study-{options.dataset}")
    measured, settings = split_overrides(EVALUATION, settings)
    experiments = {recipe: load_experiment(file, settings) for recipe, file in files.items()}
    kinds = {recipe: KINDS[experiment.kind] for recipe, experiment in experiments.items()}
    if image_set(next(iter(experiments.values())).data).classes > 1:
        measured = merge_overrides(["representation=true"], measured)
    for recipe, file in files.items():
        check_plan(file, _settings(root, recipe, 0, settings, kinds), measured)
    runs: dict[str, list[Run]] = {recipe: [] for recipe in files}
    for number, (seed, recipe) in enumerate(plan, start=1):
        started = time.monotonic()
        own = _settings(root, recipe, seed, settings, kinds)
        run = train_once(root, _name(recipe, seed), files[recipe], own)
        evaluate_once(run, measured)
        runs[recipe].append(run)
        seconds = time.monotonic() - started
        done = f"{seconds:.0f} s" if seconds > 1 else "skipped, done before"
        print(f"study {number}/{len(plan)}  {recipe} seed {seed}: {done}", flush=True)
    return runs


def experiment_files(options: StudyOptions) -> dict[str, Path]:
    """The recipes of the study, in order: name → experiment file.

    They are those that were asked for, or one of each kind that is compared and SECOND, as far as
    the dataset has them. Raises ConfigError for one that is not there, and if there is none.
    """
    given = options.experiments != StudyOptions.experiments
    places = [Path(options.experiments)] if given else experiment_folders()
    folders = [place / options.dataset for place in places]
    folder = next((path for path in folders if path.is_dir()), folders[-1])
    compared = [name for name, kind in KINDS.items() if not kind.is_vocoder]
    asked = options.recipes or [*compared, *SECOND]
    found = {name: file for name in asked if (file := folder / f"{name}.yaml").is_file()}
    if not found:
        names = ", ".join(f"{name}.yaml" for name in asked)
        raise ConfigError(f"study: {folder} has no experiment file, wanted one of {names}")
    for name in options.recipes:
        if name not in found:
            raise ConfigError(
                f"recipes: got {visible(name)}, but {folder} has no {visible(name)}.yaml"
            )
    return found


def _name(recipe: str, seed: int) -> str:
    return f"{recipe}-s{seed}"


def _settings(
    root: Path, recipe: str, seed: int, settings: Sequence[str], kinds: Mapping[str, Kind]
) -> list[str]:
    """Settings of one run; the study's own come last, so that none makes it another study's.

    Args:
        root: the study's folder.
        recipe: of the run.
        seed: of the run.
        settings: `key=value` for every run of the study.
        kinds: recipe → kind, of the study. A run of stage 2 learns the latents of the first that it
            can.
    """
    own = [f"seed={seed}", f"tracking.group={root.name}"]
    sources = [name for name, kind in kinds.items() if kinds[recipe].learns(kind)]
    if sources:
        setting = kinds[recipe].config.first_stage_at
        own.append(f"model.{setting}={root / _name(sources[0], seed)}")
    return merge_overrides(settings, own)


# Row of a table of spreads → column → values or their spread.
Cells = dict[tuple[str, ...], dict[str, list[float]]]


def spreads(recipes: Mapping[str, Iterable[Run]]) -> dict[tuple[str, ...], dict[str, Spread]]:
    """Mean and spread over seeds of every test metric: (metric,) → recipe → Spread."""
    values: Cells = {}
    for recipe, runs in recipes.items():
        for run in runs:
            for key, value in run.record.test.items():
                _cell(values, (key.removeprefix("test/"),), recipe).append(value)
    return _summed_up(values)


def variant_spreads(
    variants: Mapping[str, Iterable[Run]], metrics: Sequence[str]
) -> dict[tuple[str, ...], dict[str, Spread]]:
    """Mean and spread of some test metrics over the runs of a variant: (variant,) → metric →
    Spread.
    """
    values: Cells = {}
    for variant, runs in variants.items():
        for run in runs:
            for metric in metrics:
                if f"test/{metric}" in run.record.test:
                    _cell(values, (variant,), metric).append(run.record.test[f"test/{metric}"])
    return _summed_up(values)


def sampler_spreads(
    recipes: Mapping[str, Iterable[Run]],
) -> dict[tuple[str, ...], dict[str, Spread]]:
    """Mean and spread over seeds of the measures of samples: (recipe, sampler, protocol) → measure
    → Spread.
    """
    values: Cells = {}
    for recipe, runs in recipes.items():
        for figure in (figure for run in runs for figure in run.record.generation):
            protocol = (
                f"{figure['network']} {figure['weights_sha256'][:8]}, {figure['samples']:,}"
                f" samples, {figure['reference']}, seed {figure['seed']}"
            )
            row = (
                recipe,
                sampler_label(figure["sampler"], changed_sampling(figure)),
                protocol,
            )
            shown = generation_values(figure)
            for measure in in_table("samplers"):
                if measure.key in shown:
                    cell = _cell(values, row, f"{measure.title} {measure.unit}".strip())
                    cell.append(shown[measure.key])
    return _summed_up(values)


def _cell(values: Cells, row: tuple[str, ...], column: str) -> list[float]:
    return values.setdefault(row, {}).setdefault(column, [])


def _summed_up(values: Cells) -> dict[tuple[str, ...], dict[str, Spread]]:
    return {
        row: {column: _spread(v) for column, v in cells.items()} for row, cells in values.items()
    }


def _spread(values: list[float]) -> Spread:
    """Of a diverged run's NaN or infinity there is neither mean nor deviation."""
    if not all(map(math.isfinite, values)):
        return Spread(math.nan, math.nan if len(values) > 1 else 0.0, len(values))
    return Spread(
        statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values)
    )


def print_spreads(
    summary: dict[tuple[str, ...], dict[str, Spread]],
    heads: Sequence[str],
    console: Console | None = None,
) -> None:
    """Tables of spreads, their rows in order of their names, which stand under `heads`."""

    def build(columns: Sequence[str]) -> Table:
        table = frameless()
        for head in heads:
            table.add_column(head, overflow="fold")
        for column in columns:
            table.add_column(Text(visible(column)), justify="right", no_wrap=True)
        for row in sorted(summary):
            table.add_row(
                *(Text(visible(text)) for text in row),
                *(str(summary[row].get(column, MISSING)) for column in columns),
            )
        return table

    console = console or Console()
    console.print("mean ± standard deviation over seeds", style="italic")
    print_columns(
        build,
        list(dict.fromkeys(column for cells in summary.values() for column in cells)),
        console,
    )
