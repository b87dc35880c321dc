"""What was measured of samples, as tables: one for each protocol, for figures of two protocols do
not compare.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vqvae_lightning.comparison.columns import GENERATION, Column, present
from vqvae_lightning.evaluation.distances import KID_SUBSET_SIZE, KID_SUBSETS, NEIGHBOURS
from vqvae_lightning.evaluation.fidelity import RECONSTRUCTION
from vqvae_lightning.evaluation.samplers import changed_sampling

PROTOCOL = (
    "network",
    "weights_sha256",
    "preprocessing",
    "samples",
    "reference",
    "reference_images",
)


@dataclass(frozen=True)
class Sampled:
    """One sampler of one run."""

    number: int  # within its table
    run: Any  # whatever the caller knows the run by
    sampler: str
    values: dict[str, float]
    seed: int = 0
    limits: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(
        default_factory=dict
    )  # of the draws, where they are not the usual ones

    @property
    def label(self) -> str:
        """The sampler, its settings if they are not the usual ones, and its seed unless that is
        0.
        """
        seed = {"seed": self.seed} if self.seed else {}
        return sampler_label(self.sampler, self.settings | seed)


@dataclass(frozen=True)
class Generation:
    """The figures of one protocol."""

    title: str
    protocol: str  # what a figure must be quoted with
    rows: tuple[Sampled, ...]
    columns: tuple[Column, ...]
    best: dict[
        str, set[int]
    ]  # column → numbers of the samplers to mark; a reconstruction is no sample


def sampler_label(sampler: str, settings: dict[str, Any]) -> str:
    """A sampler and how it was set, such as `prior, guidance 2.0`."""
    return ", ".join([sampler, *(f"{name} {value}" for name, value in settings.items())])


def generation_values(figure: Mapping[str, Any]) -> dict[str, float]:
    """What a figure of run.json measured, by column, in the column's unit."""
    values = {column.key: figure[column.key] for column in GENERATION if column.key in figure}
    return values | ({"kid": 1000 * values["kid"]} if "kid" in values else {})


def generations(runs: Iterable[tuple[Any, dict[str, Any]]]) -> list[Generation]:
    """The tables of runs, each given as what the caller knows it by and its run.json."""
    by_protocol: dict[tuple[Any, ...], list[tuple[Any, dict[str, Any]]]] = {}
    for run, info in runs:
        for figure in info.get("generation", []):
            by_protocol.setdefault(tuple(figure[key] for key in PROTOCOL), []).append((run, figure))
    return [_table(figures) for figures in by_protocol.values()]


def _table(figures: list[tuple[Any, dict[str, Any]]]) -> Generation:
    rows = []
    for number, (run, figure) in enumerate(figures, start=1):
        settings, values = changed_sampling(figure), generation_values(figure)
        rows.append(
            Sampled(number, run, figure["sampler"], values, figure["seed"], settings=settings)
        )
    columns = present(GENERATION, rows)
    subset = min(KID_SUBSET_SIZE, figures[0][1]["samples"], figures[0][1]["reference_images"])
    drawn = [row for row in rows if row.sampler != RECONSTRUCTION]
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
        columns,
        {column.key: column.best(drawn) for column in columns},
    )
