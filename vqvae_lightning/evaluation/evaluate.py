"""`evaluate(run)`: the metrics of a run's best checkpoint over a whole split."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from vqvae_lightning.config import ConfigError, EvaluateOptions, run_options, to_dict
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.evaluators import EVALUATORS
from vqvae_lightning.evaluation.subject import Plan, Subject
from vqvae_lightning.storage import check_writable
from vqvae_lightning.surroundings import own_surroundings
from vqvae_lightning.training.record import RECORD
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.trainer import silence_known_warnings


@own_surroundings()
def evaluate(
    run: Run | str | Path, options: EvaluateOptions | None = None, **settings: Any
) -> dict[str, float]:
    """Metrics of a split, by name; run.json keeps those of the test split.

    run.json also keeps `kl_per_dim` of a VAE, and with `fid_samples` a figure of each sampler in
    `generation`, with its protocol (see `fidelity`). What an evaluator measured is kept as soon as
    it is done.

    Args:
        run: a finished run, or its folder.
        options: settings; by default those of `vqvae evaluate`.
        settings: single ones on top, such as `fid_samples=1000`.

    Raises:
        ConfigError: a setting is unknown or out of range, or the settings ask for what such a run
            cannot have (see EVALUATORS).
        ValueError: the run folder cannot be written. Like ConfigError, it comes before anything is
            loaded or computed.
        CheckpointError: the checkpoint, or a feature network, is damaged.
        DataError: the images cannot be had.
    """
    run = Run.of(run)
    options = run_options(EvaluateOptions, run.path, options, settings)
    subject = Subject(run, options.root, options.vocoder, stages=(1, 2, 3))
    for file in (subject.run.path / RECORD, subject.run.images / "codes.png"):
        check_writable(file, "run")
    evaluators = list(chosen(subject, options))
    silence_known_warnings()
    # The evaluators here seed themselves. A user's own may draw from this one.
    pl.seed_everything(subject.experiment.seed, verbose=False)
    known: dict[str, float] = {}
    for evaluator in evaluators:
        found = evaluator.measure(subject, options, known)
        known |= found
        if options.split == "test" and found:
            _keep(subject, evaluator, named(found, options.split))
    subject.run.write(evaluated=to_dict(options))
    return named(known, options.split)


def _keep(subject: Subject, evaluator: Evaluator, found: Mapping[str, float]) -> None:
    """Puts figures of the test split into run.json.

    Figures of what is heard are of one vocoder there: another one's are removed.
    """
    with subject.run.change() as record:
        known = record.get("test", {})
        if evaluator.heard and record.get("heard_by") != subject.vocoder:
            others = {f"test/{name}" for each in EVALUATORS.values() for name in each.heard}
            known = {name: value for name, value in known.items() if name not in others}
            record.pop("heard_by", None)
            if subject.vocoder:
                record["heard_by"] = subject.vocoder
        record["test"] = {**known, **found}


def chosen(plan: Plan, options: EvaluateOptions) -> Iterator[Evaluator]:
    """The evaluators that take part: those that the run can have, unless the settings say no.

    Raises ConfigError if the settings ask for one that it cannot have, and CheckpointError for a
    damaged feature network.
    """
    for evaluator in EVALUATORS.values():
        asked = evaluator.asked(options)
        if asked is False:
            continue
        if plan.kind.stage in evaluator.stages:
            refusal = evaluator.refuses(plan, options)
        else:
            setting = "".join(evaluator.settings[:1])
            refusal = f"{setting}: {plan.path} is of kind {plan.kind.name}, which has none"
        if refusal is None:
            yield evaluator
        elif asked:
            raise ConfigError(refusal)


def named(found: Mapping[str, float], split: str) -> dict[str, float]:
    """Measured values by the names that they are kept under, such as `test/psnr`."""
    return {f"{split}/{name}": value for name, value in found.items()}
