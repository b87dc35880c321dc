"""A run as a row: what it measured, in the units that are shown, and what follows from it."""

import math
from dataclasses import dataclass, replace
from typing import Any

from vqvae_lightning.comparison.budgets import Budget
from vqvae_lightning.comparison.records import Records
from vqvae_lightning.config import ConfigError, Experiment, to_dict
from vqvae_lightning.evaluation.samplers import latent_size
from vqvae_lightning.kinds import KINDS, Kind
from vqvae_lightning.metrics.information import bits, bits_per_dim, saved_vs_uniform
from vqvae_lightning.metrics.measures import MEASURES
from vqvae_lightning.training.record import RunRecord, TokenizerRecord
from vqvae_lightning.training.runs import Run

# What a run itself was trained with, as columns.
BUDGET = ("steps", "images_seen", "parameters")


@dataclass(frozen=True)
class Row:
    """One run. `values` holds only what exists: an absent number is not zero."""

    number: int  # from 1: how figures refer to the run
    run: Run
    kind: Kind
    images: tuple[str, str]  # what they have in common with those of runs to compare it with
    record: RunRecord
    settings: dict[str, Any]  # config.yaml
    first_stage: Run | None  # of a prior, if its folder is at hand
    likelihood: dict[str, Any] | None  # p(x|z); a prior has its first stage's
    values: dict[str, float]
    limits: dict[str, int]  # measure → the largest value it can take
    budget: Budget

    @property
    def name(self) -> str:
        return self.record.name

    # The other attributes that a measure's `comparable` may name, beside `likelihood`.

    @property
    def conditional(self) -> bool:
        """Whether the rate is of codes *given the label*, which is not a bound on −log p(x)."""
        return bool(self.settings["model"].get("class_conditional", False))

    @property
    def codes(self) -> str | None:
        """The fingerprint of the first stage whose codes, or other latents, a prior learned."""
        source = self.record.source
        return source.fingerprint if source else None

    @property
    def draws(self) -> float | None:
        """Samples of z for each image in the importance-weighted bound."""
        return self.values.get("iwae_samples")

    @property
    def exact(self) -> bool:
        """Whether the rate is not an upper bound on −log p(codes), as that of a masked prior."""
        return "bound_draws" not in self.values

    @property
    def vocoder(self) -> str | None:
        """What the figures of what is heard are of: None of Griffin-Lim."""
        return self.record.heard_by

    @property
    def train_images(self) -> float | None:
        """Train images that the classifiers of latents were fitted to."""
        return self.values.get("representation_images")


def read_row(run: Run, records: Records) -> Row:
    """The row of a run; its number is yet to be given. Raises ConfigError if it cannot be
    compared.
    """
    record, experiment = records.read(run)
    kind, model = KINDS[record.kind], experiment.model
    dims = math.prod(record.images.shape)
    measured = {key.removeprefix("test/"): float(value) for key, value in record.test.items()}
    budget = Budget.of(experiment, record.parameters or 0)
    measured |= {name: float(getattr(budget, name)) for name in BUDGET}
    if not kind.has_density:
        # Logged as 0 by convention. Nothing is charged, which is not a rate of zero.
        measured.pop("rate", None)
    first_stage = None
    if record.source and record.source.dims != dims:
        raise ConfigError(
            f"{record.source.run}, its first stage, is of images of {record.source.dims:,} numbers,"
            f" and its own have {dims:,}"
        )
    if record.tokenizer:
        measured |= _against_uniform(record.tokenizer, measured)
    if kind.stage == 2:
        first_stage = records.first_stage(run, experiment)
        if not first_stage:
            budget = replace(budget, missing=record.learned_from.fingerprint)
    if first_stage:
        of_first, its_experiment = records.read(first_stage)
        model = its_experiment.model
        budget += Budget.of(its_experiment, of_first.parameters or 0)
        measured |= _both_stages(measured, of_first.test, dims)
    likelihood = to_dict(model).get("likelihood")
    return Row(
        number=0,
        run=run,
        kind=kind,
        images=experiment.data.identity,
        record=record,
        settings=to_dict(experiment),
        first_stage=first_stage,
        likelihood=likelihood,
        values=_shown(measured, dims),
        limits=_limits(record, experiment),
        budget=budget,
    )


def _against_uniform(tokenizer: TokenizerRecord, measured: dict[str, float]) -> dict[str, float]:
    """The rate of a prior's codes if all were equally likely, and what it saves of that."""
    size = tokenizer.codebook_size
    uniform = math.prod(tokenizer.grid) * math.log2(size)
    found = {"uniform_bits": uniform, "uniform": uniform * math.log(2)}
    if "bits_per_code" in measured:
        found["saved_vs_uniform_bits"] = saved_vs_uniform(measured["bits_per_code"], size)
    return found


def _both_stages(
    measured: dict[str, float], of_first: dict[str, float], dims: int
) -> dict[str, float]:
    """What a run of stage 2 has from its first stage's test metrics: pixels from the first stage,
    latents from the run. A distortion of its own is kept: it belongs to the z of its rate.
    """
    found = {"distortion": measured.get("distortion", of_first["test/distortion"])}
    if "test/psnr" in of_first:
        found["tokenizer_psnr"] = of_first["test/psnr"]
    if "test/bits_per_dim" in of_first and "rate" in measured:
        found["bits_per_dim"] = bits_per_dim(found["distortion"] + measured["rate"], dims)
    return found


def _shown(measured: dict[str, float], dims: int) -> dict[str, float]:
    """Measured values in the units that are shown, and the sums of the ledger."""
    values = {
        key: MEASURES[key].shown(value, dims) if key in MEASURES else value
        for key, value in measured.items()
    }
    if "rate" in measured:
        values["rate_bits"] = bits(measured["rate"])
    if {"distortion", "rate"} <= set(values):
        values["total"] = values["distortion"] + values["rate"]
    return values


def _limits(record: RunRecord, experiment: Experiment) -> dict[str, int]:
    """The largest values of measures that have one: the size of the latent, and of the codebook."""
    tokenizer = record.tokenizer
    size = tokenizer.codebook_size if tokenizer else experiment.model.codebook_size
    found = {"active_units": latent_size(experiment), "codes_used": size}
    return {key: limit for key, limit in found.items() if limit}
