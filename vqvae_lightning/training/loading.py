"""From a run folder to a module: the checkpoint names kind and settings, weights fit exactly."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from vqvae_lightning.config import (
    ConfigError,
    DataConfig,
    Experiment,
    one_line,
    training_command,
)
from vqvae_lightning.data.imageset import image_set, overlap
from vqvae_lightning.kinds import KINDS, Kind, kind_names
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.first_stage import FirstStage, FrozenLatents
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.training.bounds import built_on_meta
from vqvae_lightning.training.folders import read_each
from vqvae_lightning.training.record import RECORD
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.search import find_runs
from vqvae_lightning.training.settings import computed_settings
from vqvae_lightning.training.stages import Generates, HasLatents
from vqvae_lightning.verified import CheckpointError, read_checkpoint, write_checkpoint

if TYPE_CHECKING:  # imported by the kind of a run that is loaded
    import pytorch_lightning as pl


def module_of(checkpoint: dict[str, Any], path: Path) -> "pl.LightningModule":
    """The module of the checkpoint at `path`, in evaluation mode.

    Raises CheckpointError if it fits no module, and ConfigError for settings that are not known
    here, or for a part in a file that the user has not named.
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
    except ConfigError as error:
        raise ConfigError(f"checkpoint: {path}: {error}") from error
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
    trained, setting = checkpoint.get("hyper_parameters"), KINDS[record.kind].config.first_stage_at
    described = trained.get(setting) if isinstance(trained, dict) else None
    if described != (record.source.as_dict() if record.source else None):
        raise CheckpointError(f"checkpoint: {path} is of a prior on another {setting}'s latents")
    known, then = computed_settings(run.experiment()), checkpoint.get("settings")
    # A setting that came later is not among those of an older checkpoint.
    for key, value in then.items() if isinstance(then, dict) else ():
        if key in known and known[key] != value:
            raise CheckpointError(
                f"checkpoint: {path} was trained with {key}={value}, but config.yaml beside it says"
                f" {known[key]}"
            )
    return checkpoint


def load_run(run: Run) -> "pl.LightningModule":
    """The best module of a run; one of stage 2 comes with its first stage attached."""
    module = module_of(own_checkpoint(run, run.best), run.best)
    if KINDS[run.record.kind].stage == 2:
        cast(Generates, module).attach(kept_first_stage(run))
    return module


def load_first_stage(path: Path) -> FirstStage:
    """The frozen first stage of the checkpoint of an autoencoder.

    Raises CheckpointError, or ValueError if it is of another kind.
    """
    return first_stage_of(read_checkpoint(path), path)


def first_stage_of(checkpoint: dict[str, Any], path: Path) -> FirstStage:
    """The frozen first stage of the checkpoint at `path`. Raises as `load_first_stage`."""
    net = cast(HasLatents, module_of(checkpoint, path)).net
    if not isinstance(net, Autoencoder):
        raise ValueError(f"checkpoint: {path} is of a prior, wanted an autoencoder")
    return FrozenLatents(net) if net.layout is None else Tokenizer(net)


def first_stage_record(run: Run) -> dict[str, str]:
    """The entry of run.json by which priors find a finished run of stage 1.

    It is the fingerprint of the best weights. Other runs have no such entry.
    """
    if KINDS[run.record.kind].stage != 1:
        return {}
    return {"fingerprint": load_first_stage(run.best).fingerprint}


def keep_first_stage(prior: Run) -> None:
    """Copies the weights of a prior's first stage into its folder, unless they are there.

    The autoencoder may be trained on, moved or removed afterwards. Raises ConfigError if it is gone
    already.
    """
    if not prior.first_stage.is_file():
        source = next(first_stage_runs(prior, prior.experiment().model.first_stage_run), None)
        if source:
            checkpoint = own_checkpoint(source, source.best)
            kept = {name: checkpoint[name] for name in ("hyper_parameters", "state_dict")}
            write_checkpoint(prior.first_stage, kept)
    kept_first_stage(prior)


def kept_first_stage(prior: Run) -> FirstStage:
    """The first stage that a prior was trained on: the prior's own copy, or that of its run.

    The fingerprint of its weights identifies it. Raises ConfigError if there is none.
    """
    return find_kept_first_stage(prior)[0]


def find_kept_first_stage(prior: Run) -> tuple[FirstStage, Path]:
    """As `kept_first_stage`, with the checkpoint that holds it."""
    source = prior.record.learned_from
    for path in _first_stage_files(prior):
        try:
            found = load_first_stage(path)
        except ValueError as error:
            print(f"left out  {one_line(error)}", file=sys.stderr, flush=True)
            continue
        if found.fingerprint == source.fingerprint:
            return found, path
    setting = KINDS[prior.record.kind].config.first_stage_at
    raise ConfigError(
        f"{setting}: neither {prior.first_stage} nor a run beside {prior.path} holds the one that"
        f" this run was trained on, {source.run} with fingerprint {source.fingerprint[:16]}"
    )


def _first_stage_files(prior: Run) -> Iterator[Path]:
    """Files that may hold a prior's first stage: its own copy first, then the best of other
    runs.
    """
    if prior.first_stage.is_file():
        yield prior.first_stage
    for run in first_stage_runs(prior, prior.experiment().model.first_stage_run):
        yield run.best


def first_stage_runs(
    prior: Run, recorded: str | None, others: Iterable[Run] | None = None
) -> Iterator[Run]:
    """The finished runs that hold a prior's first stage now.

    Args:
        prior: the run of the prior.
        recorded: the folder that its settings name, if they name one.
        others: runs to search before that folder; without them, all folders beside the prior are
            searched after it.
    """
    wanted = prior.record.learned_from.fingerprint
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


def replaced_first_stage(prior: Run) -> Path | None:
    """The folder that a prior's settings name, if it now holds another first stage; else None."""
    place = Path(prior.experiment().model.first_stage_run or "")
    source = prior.record.source
    if not source or not (place / RECORD).is_file():
        return None
    named = Run.open(place).record.fingerprint
    return None if named == source.fingerprint else place


def latents_folder(prior: Run) -> Path:
    """The run folder that keeps a prior's latents: that of its first stage, so that several priors
    share them.
    """
    return next(first_stage_runs(prior, prior.experiment().model.first_stage_run), prior).path


def find_first_stage(kind: Kind, runs: str, data: DataConfig) -> Run:
    """The newest finished run of the same images that a kind of run can learn from.

    Raises ConfigError naming the command to run first.
    """
    sources = [run for run in find_runs(runs) if kind.learns(KINDS[run.record.kind])]
    candidates = read_each(sources, lambda run: run.experiment().data)
    found = [run for run, of_run in candidates if of_run.identity == data.identity]
    # A run of an older version has no fingerprint. One that has is found, though it is older.
    found = [run for run in found if run.record.fingerprint] or found
    if not found:
        such = f" with data.binarize={data.binarize}" if data.binarize != "none" else ""
        names = kind_names(kind.learns)
        first = training_command(names[0], data, runs)
        raise ConfigError(
            f"model.{kind.config.first_stage_at}: there is no finished {' or '.join(names)} run of"
            f" {data.dataset}{such} in {runs}/; run `{first}` first"
        )
    return found[-1]


def check_first_stage(kind: Kind, run: Run, data: DataConfig) -> None:
    """Raises ConfigError unless a kind of run can learn from `run`, and from this dataset and
    binarization.
    """
    record, setting = run.record, f"model.{kind.config.first_stage_at}"
    if not kind.learns(KINDS[record.kind]):
        raise ConfigError(
            f"{setting}: a run of kind {kind.name} needs a {' or '.join(kind_names(kind.learns))}"
            f" run, but {run.path} holds kind={record.kind}"
        )
    of_run = run.experiment().data
    if of_run.identity[0] != data.identity[0]:
        raise ConfigError(
            f"{setting}: {run.path} was trained on {of_run.described}, the data is {data.described}"
        )
    if of_run.binarize != data.binarize:
        raise ConfigError(
            f"{setting}: {run.path} was trained with data.binarize={of_run.binarize}, the data is"
            f" {data.binarize}"
        )
    if run.experiment().model.class_conditional:
        _check_labels(kind, run, of_run, data)
    if record.status == "finished" and record.fingerprint is None:
        raise ConfigError(
            f"{setting}: {run.path} has no fingerprint in run.json, as a run of an older version;"
            " wanted one of this version: train it again"
        )


def _check_labels(kind: Kind, run: Run, of_run: DataConfig, data: DataConfig) -> None:
    """Raises ConfigError unless a kind of run fits a first stage whose decoder is given the label.

    The labels of a prior are the decoder's, or have nothing in common with them. Of digits and
    speakers over a decoder of speakers, codes would be of one speaker and decoded as another.
    """
    setting = f"model.{kind.config.first_stage_at}"
    if not kind.has_codes:
        raise ConfigError(
            f"{setting}: the decoder of {run.path} is given the label, which a run of kind"
            f" {kind.name} does not know; wanted one with model.class_conditional=false"
        )
    known, wanted = image_set(of_run), image_set(data)
    if known.label != wanted.label and overlap(known, wanted):
        raise ConfigError(
            f"{setting}: the decoder of {run.path} is given data.label={known.label}, got"
            f" data.label={wanted.label}, which overlaps with it; wanted the same, or one apart"
            " from it and decoded_as when samples are drawn"
        )


def with_first_stage(experiment: Experiment) -> Experiment:
    """The experiment of a new prior with its first stage named: by default the newest of its
    dataset.

    Other experiments are returned as they are.
    """
    kind, model = KINDS[experiment.kind], experiment.model
    if kind.stage != 2 or model.first_stage_run:
        return experiment
    found = str(find_first_stage(kind, experiment.runs, experiment.data).path)
    return replace(experiment, model=model.learning_from(found))
