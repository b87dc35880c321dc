"""Measures of samples as tables, one for each protocol: figures of two protocols do not compare."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from vqvae_lightning.comparison.budgets import Budget
from vqvae_lightning.comparison.columns import best, present
from vqvae_lightning.evaluation.distances import KID_SUBSET_SIZE, KID_SUBSETS, NEIGHBOURS
from vqvae_lightning.evaluation.samplers import RECONSTRUCTION, changed_sampling
from vqvae_lightning.metrics.measures import Measure, in_table
from vqvae_lightning.training.runs import Run

PROTOCOL = (
    "network",
    "weights_sha256",
    "preprocessing",
    "samples",
    "reference",
    "reference_images",
)


class Named(Protocol):
    """What the caller knows a run by, and what it was trained with."""

    @property
    def name(self) -> str: ...

    @property
    def budget(self) -> Budget: ...


@dataclass(frozen=True)
class Evaluated:
    """A run that was evaluated by itself."""

    name: str
    budget: Budget


R = TypeVar("R", bound=Named, covariant=True)


@dataclass(frozen=True)
class Sampled(Generic[R]):
    """One sampler of one run."""

    number: int  # within its table
    run: R
    sampler: str
    values: dict[str, float]
    seed: int = 0
    limits: dict[str, int] = field(default_factory=dict)
    # Of the draws, where they are not the usual ones.
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def budget(self) -> Budget:
        """That of its run."""
        return self.run.budget

    @property
    def label(self) -> str:
        """The sampler, with the settings and the seed that are not the usual ones."""
        seed = {"seed": self.seed} if self.seed else {}
        return sampler_label(self.sampler, self.settings | seed)


@dataclass(frozen=True)
class Generation(Generic[R]):
    """The figures of one protocol."""

    title: str
    protocol: str  # what a figure must be quoted with
    rows: tuple[Sampled[R], ...]
    ranked: tuple[Sampled[R], ...]  # a reconstruction is no sample
    columns: tuple[Measure, ...]
    best: dict[str, set[int]]  # column → numbers of the samplers to mark


def sampler_label(sampler: str, settings: dict[str, Any]) -> str:
    """A sampler and how it was set, such as `prior, guidance 2.0`."""
    return ", ".join([sampler, *(f"{name} {value}" for name, value in settings.items())])


def generation_values(figure: Mapping[str, Any]) -> dict[str, float]:
    """What a figure of run.json measured, by column, in the column's unit."""
    columns = [column for column in in_table("samplers") if column.key in figure]
    return {column.key: column.shown(figure[column.key]) for column in columns}


def generations_of(run: Run) -> list[Generation[Evaluated]]:
    """The tables of one run by itself."""
    budget = Budget.of(run.experiment(), run.record.parameters or 0)
    return generations([(Evaluated(run.name, budget), run.record.generation)])


def generations(runs: Iterable[tuple[R, list[dict[str, Any]]]]) -> list[Generation[R]]:
    """The tables of runs. Each run is given as what the caller knows it by, with its figures."""
    by_protocol: dict[tuple[Any, ...], list[tuple[R, dict[str, Any]]]] = {}
    for run, figures in runs:
        for figure in figures:
            by_protocol.setdefault(tuple(figure[key] for key in PROTOCOL), []).append((run, figure))
    return [_table(figures) for figures in by_protocol.values()]


def _table(figures: list[tuple[R, dict[str, Any]]]) -> Generation[R]:
    rows = []
    for number, (run, figure) in enumerate(figures, start=1):
        settings, values = changed_sampling(figure), generation_values(figure)
        rows.append(
            Sampled(number, run, figure["sampler"], values, figure["seed"], settings=settings)
        )
    columns = present(in_table("samplers"), rows)
    subset = min(KID_SUBSET_SIZE, figures[0][1]["samples"], figures[0][1]["reference_images"])
    drawn = tuple(row for row in rows if row.sampler != RECONSTRUCTION)
    protocol = figures[0][1]
    inception = protocol["network"].startswith("inception")
    return Generation(
        (
            "FID, by the Inception network of the literature"
            if inception
            else "By the features of a classifier (no FID)"
        ),
        f"{protocol['network']} (SHA-256 {protocol['weights_sha256'][:12]}…;"
        f" {protocol['preprocessing']}); {protocol['samples']:,} samples against the"
        f" {protocol['reference_images']:,} {protocol['reference']} images; precision, recall:"
        f" {NEIGHBOURS} neighbours"
        + (f"; KID: {KID_SUBSETS} subsets of {subset:,}" if inception else ""),
        tuple(rows),
        drawn,
        columns,
        {column.key: best(column, drawn) for column in columns},
    )
