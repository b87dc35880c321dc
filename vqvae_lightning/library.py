"""`load`: opens a folder or a file as a model, for a program of the user's own."""

from pathlib import Path
from typing import Any, TypeVar, overload

import pytorch_lightning as pl

from vqvae_lightning.config import ConfigError, canonical
from vqvae_lightning.exporting.manifest import is_export
from vqvae_lightning.surroundings import own_surroundings
from vqvae_lightning.training.loading import load_run, module_of
from vqvae_lightning.training.runs import Run
from vqvae_lightning.verified import read_checkpoint

Module = TypeVar("Module", bound=pl.LightningModule)


# The class is read from the folder, so a type checker knows it only if the caller names it.
@overload
def load(place: Run | str | Path) -> Any: ...
@overload
def load(place: Run | str | Path, kind: type[Module]) -> Module: ...
@own_surroundings()
def load(place: Run | str | Path, kind: type[Any] = object) -> Any:
    """The model of a run folder, an exported folder, or the checkpoint of a user's own Trainer.

    The model is on the CPU and in evaluation mode. A prior from a folder has its tokenizer. Nothing
    in the folder or file is executed. A folder of ONNX graphs gives an `Exported`; see
    `open_export`.

    Args:
        place: a run or its folder, of which the best checkpoint is loaded; an exported folder; or a
            checkpoint file. A file is verified if there is a SHA-256 beside it.
        kind: the class that the model has to have, such as `VQVAE`. A type checker then knows it.

    Raises:
        ConfigError: nothing is at the place, or the model has another class.
        CheckpointError: the checkpoint is damaged, or holds no model of this package.
    """
    if not isinstance(kind, type):
        raise ConfigError(f"load: got kind={kind!r}, wanted a class such as VQVAE")
    path = place.path if isinstance(place, Run) else Path(canonical(place, "load"))
    module = _module_at(path)
    if not isinstance(module, kind):
        got, wanted = type(module).__name__, kind.__name__
        raise ConfigError(f"load: {path} holds a model of class {got}, wanted {wanted}")
    return module


def _module_at(path: Path) -> object:
    if path.is_file():
        return module_of(read_checkpoint(path, recorded=False), path)
    if not path.exists():
        raise ConfigError(f"load: there is no {path}, wanted a run folder or a checkpoint")
    if is_export(path):
        # Its imports take a second.
        from vqvae_lightning.exporting.opening import open_export

        return open_export(path)
    return load_run(Run.open(path))
