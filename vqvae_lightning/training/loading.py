"""From a run folder to a module: the checkpoint names kind and settings, weights fit exactly."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch

from vqvae_lightning.config import (
    ConfigError,
    DataConfig,
    Experiment,
    one_line,
    training_command,
)
from vqvae_lightning.kinds import KINDS, kind_names
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.training.bounds import built_on_meta
from vqvae_lightning.training.folders import read_each
from vqvae_lightning.training.record import RECORD
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.search import find_runs
from vqvae_lightning.training.settings import computed_settings
from vqvae_lightning.training.stages import Generates, HasLatents
from vqvae_lightning.verified import CheckpointError, read_checkpoint, write_checkpoint


def module_of(checkpoint: dict[str, Any], path: Path) -> pl.LightningModule:
    """The module of the checkpoint at `path`, in evaluation mode.

    Raises CheckpointError if it fits no module.
    """
    given = checkpoint.get("hyper_parameters")
    settings = dict(given) if isinstance(given, dict) else {}
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise CheckpointError(
            f"checkpoint: {path} holds kind={kind}, wanted one of {', '.join(KINDS)}"
        )
    build = KINDS[kind].module
    try:
        held = checkpoint["state_dict"].values()
        size = sum(tensor.nbytes for tensor in held)
        meta = built_on_meta(lambda: build(**settings), path, len(held), size)
        wanted = {name: tuple(tensor.shape) for name, tensor in meta.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        for name in {**wanted, **found}:
            if wanted.get(name) != found.get(name):
                raise CheckpointError(
                    f"checkpoint: {path} does not fit its settings: {name} is"
                    f" {found.get(name, 'absent')}, wanted {wanted.get(name, 'none of that name')}"
                )
        for name, tensor in checkpoint["state_dict"].items():
            if not torch.isfinite(tensor).all():
                raise CheckpointError(
                    f"checkpoint: {path} holds weights that are not finite: {name}"
                )
        module = build(**settings)
        module.load_state_dict(checkpoint["state_dict"], strict=True)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        reason = one_line(error)
        raise CheckpointError(
            f"checkpoint: {path} is none that can be read here: {reason}"
        ) from error
    return module.eval()


def own_checkpoint(run: Run, path: Path) -> dict[str, Any]:
    """A checkpoint of a run, verified to be its own. Raises CheckpointError.

    A file and its hash may both come from another run, from a prior on other codes, or from a
    training with other settings than config.yaml says now.
    """
    checkpoint, record = read_checkpoint(path), run.record
    if checkpoint.get("run") != record.id:
        raise CheckpointError(
            f"checkpoint: {path} is of run {checkpoint.get('run')}, wanted {record.id}, that of"
            f" {run.path}"
        )
    trained = checkpoint.get("hyper_parameters")
    described = trained.get("tokenizer") if isinstance(trained, dict) else None
    if described != (record.tokenizer.as_dict() if record.tokenizer else None):
        raise CheckpointError(f"checkpoint: {path} is of a prior on another tokenizer's codes")
    known, then = computed_settings(run.experiment()), checkpoint.get("settings")
    # A setting that came later is not among those of an older checkpoint.
    for key, value in then.items() if isinstance(then, dict) else ():
        if key in known and known[key] != value:
            raise CheckpointError(
                f"checkpoint: {path} was trained with {key}={value}, but config.yaml beside it says"
                f" {known[key]}"
            )
    return checkpoint


def load_run(run: Run) -> pl.LightningModule:
    """The best module of a run; one of stage 2 comes with its tokenizer attached."""
    module = module_of(own_checkpoint(run, run.best), run.best)
    if KINDS[run.record.kind].stage == 2:
        cast(Generates, module).attach(kept_tokenizer(run))
    return module


def load_tokenizer(path: Path) -> Tokenizer:
    """The frozen tokenizer of a VQ-VAE's checkpoint.

    Raises CheckpointError, or ValueError if it is of another kind.
    """
    return tokenizer_of(read_checkpoint(path), path)


def tokenizer_of(checkpoint: dict[str, Any], path: Path) -> Tokenizer:
    """The frozen tokenizer of the checkpoint at `path`. Raises as `load_tokenizer`."""
    return Tokenizer(cast(HasLatents, module_of(checkpoint, path)).net)


def tokenizer_record(run: Run) -> dict[str, str]:
    """The entry of run.json by which priors find a finished tokenizer.

    It is the fingerprint of the best weights. Other kinds have no such entry.
    """
    if not KINDS[run.record.kind].is_tokenizer:
        return {}
    return {"fingerprint": load_tokenizer(run.best).fingerprint}


def keep_tokenizer(prior: Run) -> None:
    """Copies the weights of a prior's tokenizer into its folder, unless they are there.

    The VQ-VAE may be trained on, moved or removed afterwards. Raises ConfigError if it is gone
    already.
    """
    if not prior.tokenizer.is_file():
        source = next(tokenizer_runs(prior, prior.experiment().model.tokenizer), None)
        if source:
            checkpoint = own_checkpoint(source, source.best)
            kept = {name: checkpoint[name] for name in ("hyper_parameters", "state_dict")}
            write_checkpoint(prior.tokenizer, kept)
    kept_tokenizer(prior)


def kept_tokenizer(prior: Run) -> Tokenizer:
    """The tokenizer that a prior was trained on: the prior's own copy, or that of a VQ-VAE run.

    The fingerprint of its weights identifies it. Raises ConfigError if there is none.
    """
    return find_kept_tokenizer(prior)[0]


def find_kept_tokenizer(prior: Run) -> tuple[Tokenizer, Path]:
    """As `kept_tokenizer`, with the checkpoint that holds it."""
    wanted = prior.record.first_stage.fingerprint
    for path in _tokenizer_files(prior):
        try:
            tokenizer = load_tokenizer(path)
        except ValueError as error:
            print(f"left out  {one_line(error)}", file=sys.stderr, flush=True)
            continue
        if tokenizer.fingerprint == wanted:
            return tokenizer, path
    raise ConfigError(
        f"tokenizer: neither {prior.tokenizer} nor a run beside {prior.path} holds the one that"
        f" this prior was trained on, {prior.record.first_stage.run} with fingerprint"
        f" {wanted[:16]}"
    )


def _tokenizer_files(prior: Run) -> Iterator[Path]:
    """Files that may hold a prior's tokenizer: its own copy first, then the best of other runs."""
    if prior.tokenizer.is_file():
        yield prior.tokenizer
    for run in tokenizer_runs(prior, prior.experiment().model.tokenizer):
        yield run.best


def tokenizer_runs(
    prior: Run, recorded: str | None, others: Iterable[Run] | None = None
) -> Iterator[Run]:
    """The finished runs that hold a prior's tokenizer now.

    Args:
        prior: the run of the prior.
        recorded: the folder that its settings name, if they name one.
        others: runs to search before that folder; without them, all folders beside the prior are
            searched after it.
    """
    wanted = prior.record.first_stage.fingerprint
    there = [Run(Path(recorded))] if recorded else []
    for run in itertools.chain(
        others or (), there, neighbours(prior.path) if others is None else ()
    ):
        # A run that cannot be read does not count.
        with suppress(ConfigError):
            if run.record.status == "finished" and run.record.fingerprint == wanted:
                yield run


def neighbours(folder: Path) -> list[Run]:
    """The run folders that lie beside one, whether they can be read or not."""
    return [Run(path.parent) for path in sorted(folder.parent.glob(f"*/{RECORD}"))]


def replaced_tokenizer(prior: Run) -> Path | None:
    """The folder that a prior's settings name, if it now holds another tokenizer; else None."""
    place = Path(getattr(prior.experiment().model, "tokenizer", None) or "")
    tokenizer = prior.record.tokenizer
    if not tokenizer or not (place / RECORD).is_file():
        return None
    named = Run.open(place).record.fingerprint
    return None if named == tokenizer.fingerprint else place


def codes_folder(prior: Run) -> Path:
    """The folder of a prior's codes: beside its tokenizer, so that several priors share them."""
    return next(tokenizer_runs(prior, prior.experiment().model.tokenizer), prior).path / "codes"


def find_tokenizer(runs: str, data: DataConfig) -> Run:
    """The newest finished tokenizer run of the same images.

    Raises ConfigError naming the command to run first.
    """
    finished = find_runs(runs)
    tokenizers = [run for run in finished if KINDS[run.record.kind].is_tokenizer]
    candidates = read_each(tokenizers, lambda run: run.experiment().data)
    found = [run for run, of_run in candidates if of_run.identity == data.identity]
    if not found:
        such = f" with data.binarize={data.binarize}" if data.binarize != "none" else ""
        wanted = _tokenizer_names()
        kind = kind_names(lambda kind: kind.is_tokenizer)[0]
        first = training_command(kind, data, runs)
        raise ConfigError(
            f"model.tokenizer: there is no finished {wanted} run of {data.dataset}{such} in"
            f" {runs}/; run `{first}` first"
        )
    return found[-1]


def check_tokenizer(run: Run, data: DataConfig) -> None:
    """Raises ConfigError unless `run` is a tokenizer trained on this dataset and binarization."""
    record = run.record
    if not KINDS[record.kind].is_tokenizer:
        raise ConfigError(
            f"model.tokenizer: a prior needs a {_tokenizer_names()} run, but {run.path} holds"
            f" kind={record.kind}"
        )
    of_run = run.experiment().data
    if of_run.identity[0] != data.identity[0]:
        raise ConfigError(
            f"model.tokenizer: {run.path} was trained on {of_run.described}, the data is"
            f" {data.described}"
        )
    binarize = of_run.binarize
    if binarize != data.binarize:
        raise ConfigError(
            f"model.tokenizer: {run.path} was trained with data.binarize={binarize}, the data is"
            f" {data.binarize}"
        )


def _tokenizer_names() -> str:
    return " or ".join(kind_names(lambda kind: kind.is_tokenizer))


def with_tokenizer(experiment: Experiment) -> Experiment:
    """The experiment of a new prior with its tokenizer named: by default the newest of its dataset.

    Other experiments are returned as they are.
    """
    if KINDS[experiment.kind].stage == 1 or experiment.model.tokenizer:
        return experiment
    found = str(find_tokenizer(experiment.runs, experiment.data).path)
    return replace(experiment, model=replace(experiment.model, tokenizer=found))
