"""From a run folder back to a module: kind and settings come from the checkpoint, weights are loaded strictly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from vqvae_lightning.config import ConfigError, DataConfig, Experiment
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.storage import CheckpointError, read_checkpoint
from vqvae_lightning.training.autoencoders import AUTOENCODERS
from vqvae_lightning.training.bounds import built_on_meta
from vqvae_lightning.training.prior import CodePrior
from vqvae_lightning.training.runs import Run, find_runs

MODULES: dict[str, Any] = {**AUTOENCODERS, CodePrior.kind: CodePrior}


def load_module(path: Path) -> pl.LightningModule:
    """The module of a checkpoint, in evaluation mode. Raises CheckpointError if it is damaged or fits no module."""
    checkpoint = read_checkpoint(path)
    settings = dict(checkpoint.get("hyper_parameters", {}))
    kind = settings.pop("kind", None)
    if kind not in MODULES:
        raise CheckpointError(f"checkpoint: {path} holds kind={kind}, wanted one of {', '.join(MODULES)}")
    try:
        held = checkpoint["state_dict"].values()
        size = sum(tensor.nbytes for tensor in held)
        meta = built_on_meta(lambda: MODULES[kind](**settings), path, len(held), size)
        wanted = {name: tuple(tensor.shape) for name, tensor in meta.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        for name in {**wanted, **found}:
            if wanted.get(name) != found.get(name):
                raise CheckpointError(
                    f"checkpoint: {path} does not fit its settings: {name} is {found.get(name, 'absent')}, "
                    f"wanted {wanted.get(name, 'none of that name')}"
                )
        module = MODULES[kind](**settings)
        module.load_state_dict(checkpoint["state_dict"], strict=True)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint: {path} is none that can be read here: {reason}") from error
    return module.eval()


def load_run(run: Run) -> pl.LightningModule:
    """The best module of a run; a prior comes with its tokenizer attached."""
    module = load_module(run.best)
    if isinstance(module, CodePrior):
        recorded = module.description["run"]
        module.attach(load_tokenizer(next(iter(tokenizer_places(run, recorded)), None) or Run.open(recorded)))
    return module


def tokenizer_places(prior: Run, recorded: str) -> list[Run]:
    """The run folders that a prior's tokenizer may be in: where it was, and beside the prior."""
    places = (Run(Path(recorded)), Run(prior.path.parent / Path(recorded).name))
    return [run for run in places if (run.path / "run.json").is_file()]


def load_tokenizer(run: Run) -> Tokenizer:
    """The frozen tokenizer of a VQ-VAE run."""
    return Tokenizer(load_module(run.best).net)  # type: ignore[arg-type]


def find_tokenizer(runs: str, data: DataConfig) -> Run:
    """The newest finished VQ-VAE run of the same images. Raises ConfigError naming the command to run first."""
    found = [run for run in find_runs(runs, "vqvae", data.name) if run.experiment().data.binarize == data.binarize]
    if not found:
        such = f" with data.binarize={data.binarize}" if data.binarize != "none" else ""
        raise ConfigError(
            f"model.tokenizer: there is no finished vqvae run of {data.name}{such} in {runs}/; "
            f"run `make train-vqvae DATASET={data.name}` first"
        )
    return found[-1]


def check_tokenizer(run: Run, data: DataConfig) -> None:
    """Raises ConfigError unless the run is a VQ-VAE of the images that a prior is to be of."""
    info = run.info
    if info["kind"] != "vqvae":
        raise ConfigError(f"model.tokenizer: a prior needs a vqvae run, but {run.path} holds kind={info['kind']}")
    if info["dataset"] != data.name:
        raise ConfigError(f"model.tokenizer: {run.path} was trained on {info['dataset']}, the data is {data.name}")
    binarize = run.experiment().data.binarize
    if binarize != data.binarize:
        raise ConfigError(
            f"model.tokenizer: {run.path} was trained with data.binarize={binarize}, the data is {data.binarize}"
        )


def describe_tokenizer(tokenizer: Tokenizer, run: Run) -> dict[str, Any]:
    """What a prior keeps of its tokenizer, in plain values."""
    return {
        "run": str(run.path),
        "fingerprint": tokenizer.fingerprint,
        "codebook_size": tokenizer.codebook_size,
        "grid": list(tokenizer.grid),
        "dims": tokenizer.dims,
    }


def with_tokenizer(experiment: Experiment, resumed: Run | None) -> Experiment:
    """A prior's experiment with its tokenizer named: that of the run it resumes, or the newest of its dataset."""
    if experiment.kind != "prior" or experiment.model.tokenizer:
        return experiment
    found = (
        resumed.experiment().model.tokenizer if resumed else str(find_tokenizer(experiment.runs, experiment.data).path)
    )
    return replace(experiment, model=replace(experiment.model, tokenizer=found))
