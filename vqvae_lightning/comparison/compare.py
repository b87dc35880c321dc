"""Several runs in one table: what was measured, what may be compared with what, and which settings differ."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vqvae_lightning.comparison.columns import MISSING, RESULTS, Column, present
from vqvae_lightning.comparison.generation import Generation, generations
from vqvae_lightning.config import AutoencoderConfig, ConfigError, Experiment, plain
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.evaluation.samplers import latent_size
from vqvae_lightning.training.loading import tokenizer_runs
from vqvae_lightning.training.runs import Run, differences

KINDS = {
    "ae": "AE",
    "vae": "VAE",
    "vqvae": "VQ-VAE",
    "prior": "prior",
}  # in the order of the story they tell, a prior after its tokenizer
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
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
    """What `compare` found: one group for each dataset, in the order in which the runs were given."""

    groups: tuple[Group, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for group in self.groups for row in group.rows)


def compare(runs: Sequence[Run]) -> Comparison:
    """Reads finished runs.

    Raises ValueError for no runs or an unfinished one, ConfigError for settings that this version does not know.
    """
    if not runs:
        raise ValueError("compare: got no runs, wanted at least one")
    by_images: dict[str, list[tuple[Run, dict[str, Any], Experiment]]] = {}
    for run in runs:
        info, experiment = run.info, _experiment(run)
        if info["status"] != "finished":
            raise ValueError(f"compare: {run.path} has status={info['status']}, wanted finished")
        title = TITLES.get(info["dataset"], info["dataset"])
        if experiment.data.binarize != "none":  # other pixels: as little comparable as another dataset
            title += f", {experiment.data.binarize} binarization"
        by_images.setdefault(title, []).append((run, info, experiment))
    groups: list[Group] = []
    count = 0
    for title, found in by_images.items():
        found.sort(key=lambda item: list(KINDS).index(item[1]["kind"]))  # stable: the order given, within a kind
        rows = [_row(count + i, *item) for i, item in enumerate(found, start=1)]
        groups.append(_group(title, rows))
        count += len(rows)
    return Comparison(tuple(groups))


def _experiment(run: Run) -> Experiment:
    try:
        return run.experiment()
    except ConfigError as error:
        raise ConfigError(f"{run.path / 'config.yaml'}: {error}") from None


def _row(number: int, run: Run, info: dict[str, Any], experiment: Experiment) -> Row:
    values = {key.removeprefix("test/"): float(value) for key, value in info["test"].items()}
    values["parameters"] = info["parameters"]
    if "mse" in values:
        values["mse"] *= 1000
    model, tokenizer, limits = experiment.model, None, {}
    shape = DATASETS[info["dataset"]].shape
    dims = math.prod(shape)
    if info["kind"] == "ae":
        del values["rate"]  # logged as 0 by convention: nothing is charged, which is not a rate of zero
    elif info["kind"] == "vae":
        limits["active_units"] = latent_size(experiment)
    elif info["kind"] == "vqvae":
        limits["codes_used"] = model.codebook_size
    else:
        described = info["tokenizer"]
        limits["codes_used"] = described["codebook_size"]
        uniform = math.log2(described["codebook_size"])  # bits of a code if all are equally likely
        values["saved"] = uniform - values["bits_per_code"]
        values["uniform_bits"] = math.prod(described["grid"]) * uniform
        values["uniform"] = values["uniform_bits"] * math.log(2)
        tokenizer = next(tokenizer_runs(run), None)
        if tokenizer:  # the two stages together: pixels from the tokenizer, codes from the prior
            test = tokenizer.info["test"]
            model = _experiment(tokenizer).model
            values |= {"distortion": test["test/distortion"], "tokenizer_psnr": test["test/psnr"]}
            if "test/bits_per_dim" in test:
                values["bits_per_dim"] = (values["distortion"] + values["rate"]) / (dims * math.log(2))
    if "rate" in values:
        values["rate_bits"] = values["rate"] / math.log(2)
    for key in {"distortion", "rate", "uniform"} & set(values):
        values[key] /= dims
    if {"distortion", "rate"} <= set(values):
        values["total"] = values["distortion"] + values["rate"]
    likelihood = plain(model.likelihood) if isinstance(model, AutoencoderConfig) else None
    return Row(number, run, info, plain(experiment), tokenizer, likelihood, values, limits)


def _group(title: str, rows: list[Row]) -> Group:
    columns = present(RESULTS, rows)
    stages = ([row for row in rows if row.kind != "prior"], [row for row in rows if row.kind == "prior"])
    settings = tuple(found for stage in stages if (found := differing_settings(stage)).values)
    best = {column.key: column.best(rows) for column in columns}
    generation = tuple(generations((row, row.info) for row in rows))
    return Group(title, tuple(rows), columns, best, generation, settings, tuple(_notes(rows)))


def differing_settings(rows: Sequence[Row]) -> Settings:
    """The settings that are not the same in all of these runs."""
    keys = {key: None for row in rows for key in differences(rows[0].settings, row.settings) if key not in PLACES}
    return Settings(tuple(rows), {key: tuple(_setting(row.settings, key) for row in rows) for key in keys})


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
        yield "VAE: the sum is −ELBO, with the KL term unweighted whatever beta it was trained with."
    if "vqvae" in kinds:
        yield "VQ-VAE: the rate is T log K, what T codes cost when all K are taken to be equally likely."
    if "prior" in kinds:
        yield "Prior: the distortion is its tokenizer's; the sum is that of the two stages together."
        yield "Saved: log2 K − the prior's bits per code. Histogram: what codes cost if only counted, not ordered."
    if any(row.conditional for row in rows):
        classes = DATASETS[rows[0].info["dataset"]].classes
        yield (
            f"Class-conditional prior: the rate is of the codes given the label. Without labels at most "
            f"{math.log2(classes):.1f} bits per image come on top, so its sum is not ranked against the others."
        )
    if len({str(row.likelihood) for row in rows if row.likelihood}) > 1:
        yield "The runs differ in p(x|z): their distortions are on different scales, and are not ranked."
    if any(row.kind == "prior" and "distortion" not in row.values for row in rows):
        yield "A prior without distortion: the run of its tokenizer is gone, or was trained again since."
