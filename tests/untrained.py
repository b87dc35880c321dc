"""Finished runs that were never trained: what an evaluation needs, in a second."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_data
import small
import torch

from vqvae_lightning.config import merge_overrides
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.storage import write_json
from vqvae_lightning.training.build import build
from vqvae_lightning.training.loading import first_stage_record, keep_first_stage
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.train import lineage, parameter_count
from vqvae_lightning.verified import write_checkpoint

# What run.json of a prior says of its tokenizer.
TOKENIZER = {
    "run": "tok",
    "fingerprint": "f" * 64,
    "codebook_size": 512,
    "grid": [7, 7],
    "dims": 784,
}
# … and that of a flow, of its autoencoder.
FIRST_STAGE = {"run": "first", "fingerprint": "e" * 64, "shape": [16, 1, 1], "dims": 784}


@contextmanager
def workplace(root: Path) -> Iterator[None]:
    """Generated data under root/data in place of MNIST, on one thread; put back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with fake_data.installed(root / "data"):
        yield
    torch.set_num_threads(threads)


def record(path: Path, **values: Any) -> Run:
    """A run folder at `path` that says of itself what every run says, and `values`; nothing else is
    in it.
    """
    common = {"id": "0" * 16, "name": path.name, "kind": "ae", "dataset": "mnist", "seed": 0,
              "status": "finished", "created": "2026-01-01T00:00:00+00:00",
              "finished": "2026-01-01T01:00:00+00:00", "test": {}, "parameters": 1,
              "versions": {}, "command": ["vqvae", "train"]}  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "run.json", common | values)
    return Run(path)


@contextmanager
def workplace_with(root: Path, kinds: Iterable[str]) -> Iterator[None]:
    """A `workplace` with a run root/runs/KIND of each of these kinds, in this order."""
    with workplace(root):
        for kind in kinds:
            make_run(root, kind)
        yield


def untouched(module: Any, root: Path) -> None:
    """Leaves a module as it was built."""


def make_run(
    root: Path, kind: str, *more: str, change: Callable[[Any, Path], None] = untouched
) -> Run:
    """A run root/runs/kind whose module `change`(module, root) has had its hands on; `more` are
    settings.
    """
    settings = [
        f"data.root={root / 'data'}",
        f"runs={root / 'runs'}",
        *small.DATA,
        *small.KINDS[kind],
        f"name={kind}",
    ]
    sources = [name for name in KINDS if KINDS[kind].learns(KINDS[name])]
    if sources:
        setting = KINDS[kind].config.first_stage_at
        settings.append(f"model.{setting}={root / 'runs' / sources[0]}")
    if "model.quantizer.name=fsq" in more:  # the size of its codebook follows from its levels
        settings.remove("model.quantizer.codebook_size=16")
    file = Path(__file__).parents[1] / "experiments" / "mnist" / f"{kind}.yaml"
    experiment = load_experiment(file, merge_overrides(settings, more))
    module: Any = build(experiment)[1]
    change(module, root)
    count, described = parameter_count(module), lineage(experiment, module)
    run = Run.create(experiment, parameters=count, test={}, **described)
    run.best.parent.mkdir()
    state = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    write_checkpoint(run.best, {"run": run.record.id, **state})
    run.write(status="finished", finished=run.record.created, **first_stage_record(run))
    if sources:
        keep_first_stage(run)
    return run
