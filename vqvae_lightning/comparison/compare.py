"""Several runs in one table: what was measured, what may be compared with what, and which settings
differ.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vqvae_lightning.comparison.columns import MISSING, RESULTS, Column, present
from vqvae_lightning.comparison.generation import Generation, generations
from vqvae_lightning.comparison.records import check_record
from vqvae_lightning.config import ConfigError, Experiment, one_line, plain
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.evaluation.samplers import latent_size
from vqvae_lightning.training.loading import neighbours, tokenizer_runs
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.search import read_each
from vqvae_lightning.training.settings import differences

KINDS = {
    "ae": "AE",
    "vae": "VAE",
    "vqvae": "VQ-VAE",
    "prior": "prior",
}  # in the order of the story they tell, a prior after its tokenizer
TITLES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
# Settings that say where a run lies, not what it computes.
PLACES = ("name", "runs", "resume", "data.root", "data.download")


@dataclass(frozen=True)
class Row:
    """One run. `values` holds only what exists: a number that is not there is not zero."""

    number: int  # from 1: how figures refer to the run
    run: Run
    info: dict[str, Any]  # run.json
    settings: dict[str, Any]  # config.yaml
    tokenizer: Run | None  # of a prior, if its folder is at hand
    likelihood: dict[str, Any] | None  # p(x|z); a prior has its tokenizer's
    values: dict[str, float]
    limits: dict[str, int]  # metric → the largest value it can take

    @property
    def name(self) -> str:
        return str(self.info["name"])

    @property
    def kind(self) -> str:
        return str(self.info["kind"])

    @property
    def conditional(self) -> bool:
        """Whether the rate is of codes *given the label*, which is not a bound on −log p(x)."""
        return bool(self.settings["model"].get("class_conditional", False))


@dataclass(frozen=True)
class Settings:
    """The settings in which some runs differ: dotted key → one text per row."""

    rows: tuple[Row, ...]
    values: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Group:
    """Runs on the same images: only inside a group are numbers compared."""

    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]  # those for which some row has a value
    best: dict[str, set[int]]  # column → numbers of the rows to mark
    generation: tuple[Generation, ...]  # of samplers, a table for each protocol
    settings: tuple[Settings, ...]
    notes: tuple[str, ...]  # how to read the table


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: one group for each dataset, in the order in which the runs were
    given.
    """

    groups: tuple[Group, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for group in self.groups for row in group.rows)


def compare(runs: Sequence[Run], named: bool = True) -> Comparison:
    """Reads finished runs.

    A run that cannot be compared (unfinished, settings unknown to this version, values of run.json
    that are missing or of another type) ends the comparison if the runs were `named` by the user.
    One that was found by a search is left out, and a line says so. Raises ConfigError, one line
    with the folder; ValueError for no runs.
    """
    if not runs:
        raise ValueError("compare: got no runs, wanted at least one")
    records, by_images = _Records(runs), dict[str, list[Row]]()

    def read(run: Run) -> Row:
        try:
            return _row(run, records)
        except (ValueError, OSError) as error:
            problem = one_line(f"{run.path}: {error}")
            raise ConfigError(f"compare: {problem}") from error

    rows = [read(run) for run in runs] if named else [row for _, row in read_each(runs, read)]
    if not rows:
        raise ConfigError(f"compare: none of the {len(runs)} runs found can be compared")
    for row in rows:
        by_images.setdefault(_images(row), []).append(row)
    groups: list[Group] = []
    count = 0
    for title, found in by_images.items():
        found.sort(
            key=lambda row: list(KINDS).index(row.kind)
        )  # stable: the order given, within a kind
        groups.append(
            _group(title, [replace(row, number=count + i) for i, row in enumerate(found, start=1)])
        )
        count += len(found)
    return Comparison(tuple(groups))


def _images(row: Row) -> str:
    """The images that a run is of.

    Binary pixels are as little comparable with grey ones as another dataset.
    """
    title, binarize = TITLES[row.info["dataset"]], row.settings["data"]["binarize"]
    return title if binarize == "none" else f"{title}, {binarize} binarization"


class _Records:
    """run.json and config.yaml of run folders, checked; each is read once, also where many priors
    share a tokenizer.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = {run.path: run for run in runs}
        self.beside: dict[Path, list[Run]] = {}
        self.known: dict[Path, tuple[dict[str, Any], Experiment]] = {}

    def read(self, run: Run) -> tuple[dict[str, Any], Experiment]:
        """Raises ConfigError for a run that cannot be compared."""
        if run.path not in self.known:
            check_record(run.info)
            self.known[run.path] = run.info, run.experiment()
        return self.known[run.path]

    def tokenizer(self, prior: Run, experiment: Experiment) -> Run | None:
        """The run that holds a prior's tokenizer now, if it can be compared."""
        root = prior.path.parent
        if root not in self.beside:
            others = [run for run in neighbours(prior.path) if run.path not in self.runs]
            self.beside[root] = [*self.runs.values(), *others]
        for run in tokenizer_runs(prior, experiment.model.tokenizer, self.beside[root]):
            # A folder in its place that cannot be compared is not it.
            with suppress(ConfigError):
                self.read(run)
                return run
        return None


def _row(run: Run, records: _Records) -> Row:
    """The row of a run, its number yet to be given."""
    info, experiment = records.read(run)
    values = {key.removeprefix("test/"): float(value) for key, value in info["test"].items()}
    values["parameters"] = info["parameters"]
    if "mse" in values:
        values["mse"] *= 1000
    model, tokenizer, limits = experiment.model, None, {}
    dims = math.prod(DATASETS[info["dataset"]].shape)
    if info["kind"] == "ae":
        values.pop(
            "rate", None
        )  # logged as 0 by convention: nothing is charged, which is not a rate of zero
    elif info["kind"] == "vae":
        limits["active_units"] = latent_size(experiment)
    elif info["kind"] == "vqvae":
        limits["codes_used"] = model.quantizer.codebook_size
    else:
        limits["codes_used"] = info["tokenizer"]["codebook_size"]
        values |= _uniform(info["tokenizer"], values["bits_per_code"])
        tokenizer = records.tokenizer(run, experiment)
        if tokenizer:  # the two stages together: pixels from the tokenizer, codes from the prior
            of_tokenizer, its_experiment = records.read(tokenizer)
            model, test = its_experiment.model, of_tokenizer["test"]
            values |= {"distortion": test["test/distortion"], "tokenizer_psnr": test["test/psnr"]}
            if "test/bits_per_dim" in test:
                values["bits_per_dim"] = (values["distortion"] + values["rate"]) / (
                    dims * math.log(2)
                )
    if "rate" in values:
        values["rate_bits"] = values["rate"] / math.log(2)
    for key in {"distortion", "rate", "uniform"} & set(values):
        values[key] /= dims
    if {"distortion", "rate"} <= set(values):
        values["total"] = values["distortion"] + values["rate"]
    likelihood = plain(model).get("likelihood")
    return Row(0, run, info, plain(experiment), tokenizer, likelihood, values, limits)


def _uniform(tokenizer: dict[str, Any], bits_per_code: float) -> dict[str, float]:
    """What an image's codes cost if all are equally likely, and what a prior saved of that per
    code.
    """
    uniform = math.log2(tokenizer["codebook_size"])  # bits of a code
    bits = math.prod(tokenizer["grid"]) * uniform
    return {"saved": uniform - bits_per_code, "uniform_bits": bits, "uniform": bits * math.log(2)}


def _group(title: str, rows: list[Row]) -> Group:
    columns = present(RESULTS, rows)
    stages = (
        [row for row in rows if row.kind != "prior"],
        [row for row in rows if row.kind == "prior"],
    )
    settings = tuple(found for stage in stages if (found := differing_settings(stage)).values)
    best = {column.key: column.best(rows) for column in columns}
    generation = tuple(generations((row, row.info) for row in rows))
    return Group(title, tuple(rows), columns, best, generation, settings, tuple(_notes(rows)))


def differing_settings(rows: Sequence[Row]) -> Settings:
    """The settings that are not the same in all of these runs."""
    keys = {
        key: None
        for row in rows
        for key in differences(rows[0].settings, row.settings)
        if key not in PLACES
    }
    return Settings(
        tuple(rows), {key: tuple(_setting(row.settings, key) for row in rows) for key in keys}
    )


def _setting(settings: Any, key: str) -> str:
    for part in key.split("."):
        if not isinstance(settings, dict) or part not in settings:
            return MISSING
        settings = settings[part]
    if isinstance(settings, bool) or settings is None:
        return {True: "true", False: "false", None: "null"}[settings]
    return ", ".join(map(str, settings)) or "none" if isinstance(settings, list) else str(settings)


def _notes(rows: Sequence[Row]) -> Iterable[str]:
    """What a reader must know to read the numbers of these rows, and only these."""
    kinds = {row.kind for row in rows}
    if "ae" in kinds:
        yield "AE: no rate and no likelihood. An AE has no p(z), so nothing can be charged."
    if any(row.settings["model"].get("beta", 1.0) != 1.0 for row in rows):
        yield (
            "VAE: the sum is −ELBO, with the KL term unweighted whatever beta it was trained with."
        )
    if "vqvae" in kinds:
        yield (
            "VQ-VAE: the rate is T log K, what T codes cost when all K are taken to be equally"
            " likely."
        )
    if "prior" in kinds:
        yield (
            "Prior: the distortion is its tokenizer's; the sum is that of the two stages together."
        )
        yield (
            "Saved: log2 K − the prior's bits per code. Histogram: what codes cost if only counted,"
            " not ordered."
        )
    if any(row.conditional for row in rows):
        classes = DATASETS[rows[0].info["dataset"]].classes
        yield (
            "Class-conditional prior: the rate is of the codes given the label. Without labels at"
            f" most {math.log2(classes):.1f} bits per image come on top, so its sum is not ranked"
            " against the others."
        )
    if len({str(row.likelihood) for row in rows if row.likelihood}) > 1:
        yield (
            "The runs differ in p(x|z): their distortions are on different scales, and are not"
            " ranked."
        )
    if any(row.kind == "prior" and "distortion" not in row.values for row in rows):
        yield (
            "A prior without distortion: the run of its tokenizer is gone, or was trained again"
            " since."
        )
