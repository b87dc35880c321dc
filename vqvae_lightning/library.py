"""`load`: from a folder or a file to a model, for a program of one's own."""

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
    """The model of a run folder, of an exported one, or of the checkpoint of one's own Trainer.

    It is on the CPU, in evaluation mode; a prior of a folder has its tokenizer. Nothing in the
    folder or file is executed. A folder of ONNX graphs gives an `Exported`; see `open_export`.

    Args:
        place: a run or its folder, whose best checkpoint is taken, a folder that `export` made, or
            a checkpoint file. A file that has no SHA-256 beside it is not compared with one.
        kind: the class that is wanted, such as `VQVAE`, so that a type checker knows it, too.

    Raises:
        ConfigError: there is nothing at the place, or it is of another kind.
        CheckpointError: the checkpoint is damaged, or of no model that is known here.
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
