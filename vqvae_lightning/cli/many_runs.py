"""The commands of several runs. Each prints its result and returns it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vqvae_lightning.cli.one_run import no_runs, refuse_beside_runs, split_arguments, sync_command

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from vqvae_lightning.comparison.compare import Comparison
    from vqvae_lightning.comparison.study import Spread
    from vqvae_lightning.training.runs import Run

Options = TypeVar("Options", bound="DataclassInstance")
Spreads = dict[tuple[str, ...], dict[str, "Spread"]]  # row → column → spread


def compare(arguments: Sequence[str]) -> "Comparison":
    """`vqvae compare RUN …`; returns the Comparison."""
    from vqvae_lightning.config import CompareOptions, options

    folders, settings = split_arguments(arguments)
    chosen = options(CompareOptions, settings)
    refuse_beside_runs(folders, settings)
    from vqvae_lightning.storage import check_writable
    from vqvae_lightning.training.runs import Run
    from vqvae_lightning.training.search import find_runs

    runs = [Run.open(folder) for folder in folders] or find_runs(
        chosen.runs, dataset=chosen.dataset, path=chosen.path
    )
    if not runs:
        raise no_runs("compare", chosen)
    out = Path(chosen.out or f"{chosen.runs}/compare.html")
    check_writable(out, "out")
    comparison = _show(runs, out, named=bool(folders))
    if chosen.wandb:
        from vqvae_lightning.comparison.publish import publish

        place = publish(comparison, chosen.project, Path(chosen.runs))
        print(
            f"W&B       {sync_command([place]) if isinstance(place, Path) else place or 'not used'}"
        )
    return comparison


def dashboard(arguments: Sequence[str]) -> str | None:
    """`vqvae dashboard project=…`; returns the address of the W&B workspace, None if not saved."""
    from vqvae_lightning.config import DashboardOptions, options

    chosen = options(DashboardOptions, arguments)
    from vqvae_lightning.comparison.dashboard import save_dashboard

    address = save_dashboard(chosen)
    if address:
        print(f"W&B       {address}")
    return address


def study(arguments: Sequence[str]) -> Spreads:
    """`vqvae study dataset=mnist seeds=3`; returns the spreads of the test metrics."""
    from vqvae_lightning.config import StudyOptions

    chosen, settings = _own(StudyOptions, arguments)
    from vqvae_lightning.comparison.study import print_spreads, sampler_spreads, spreads
    from vqvae_lightning.comparison.study import study as run_study

    recipes = run_study(chosen, settings)
    runs = [run for of_recipe in recipes.values() for run in of_recipe]
    summary = spreads(recipes)
    _show(runs, runs[0].path.parent / "compare.html")
    print_spreads(summary, ("test metric",))
    if samples := sampler_spreads(recipes):
        print_spreads(samples, ("recipe", "sampler", "by"))
    return summary


def sweep(arguments: Sequence[str]) -> "Comparison":
    """`vqvae sweep FILE`; trains the grid of a W&B sweep file and returns its Comparison."""
    from vqvae_lightning.config import SweepOptions

    file, settings = _one_file("sweep", arguments, "sweeps/mnist_codebook")
    chosen, settings = _own(SweepOptions, settings)
    from vqvae_lightning.comparison.sweep import sweep as run_sweep

    runs = run_sweep(file, chosen, settings)
    return _show(runs, runs[0].path.parent / "compare.html")


def ablate(arguments: Sequence[str]) -> Spreads:
    """`vqvae ablate FILE seeds=3`; returns the spreads of the variants' test metrics."""
    from vqvae_lightning.config import AblateOptions

    file, settings = _one_file("ablate", arguments, "ablations/quantizers")
    chosen, settings = _own(AblateOptions, settings)
    from vqvae_lightning.comparison.ablate import ablate as run_ablation
    from vqvae_lightning.comparison.study import print_spreads, variant_spreads

    found = run_ablation(file, chosen, settings)
    runs = [run for of_variant in found.variants.values() for run in of_variant]
    _show(runs, runs[0].path.parent / "compare.html")
    summary = variant_spreads(found.variants, found.ablation.metrics)
    print_spreads(summary, ("variant",))
    return summary


def _own(kind: type[Options], settings: Sequence[str]) -> tuple[Options, list[str]]:
    """The options of the command itself, and the settings that go to its runs."""
    from vqvae_lightning.config import options, split_overrides

    own, others = split_overrides([field.name for field in dataclasses.fields(kind)], settings)
    return options(kind, own), others


def _one_file(command: str, arguments: Sequence[str], example: str) -> tuple[Path, list[str]]:
    """The one file among the arguments of a command, and the settings."""
    from vqvae_lightning.config import ConfigError, existing_file

    files, settings = split_arguments(arguments)
    if len(files) != 1:
        raise ConfigError(f"{command}: got {len(files)} files, wanted one such as {example}")
    return Path(existing_file(files[0], example.partition("/")[0])), settings


def _show(runs: Sequence["Run"], page: Path, named: bool = True) -> "Comparison":
    """Compares runs, prints the tables and writes the page."""
    from vqvae_lightning.comparison.compare import compare as compare_runs
    from vqvae_lightning.comparison.report import write_report
    from vqvae_lightning.comparison.table import print_table

    comparison = compare_runs(runs, named)
    print_table(comparison)
    print(f"page      {write_report(comparison, page).resolve().as_uri()}")
    return comparison
