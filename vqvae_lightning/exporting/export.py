"""`export(run)`: a run as a folder that other programs can use, compared with the run itself.

```
Run ──► module, test images ──► files, config.json ──► opened again ──► compared ──► FOLDER
```

A folder under its own name is complete and was compared; at any error nothing is left.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqvae_lightning.config import (
    ConfigError,
    Experiment,
    ExportOptions,
    check_free,
    member_of,
    name_of,
    run_options,
)
from vqvae_lightning.data.images import to_uint8
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.exporting.agreement import DisagreementError, compare
from vqvae_lightning.exporting.card import write_card
from vqvae_lightning.exporting.formats import FORMATS, Graphs, check_packages
from vqvae_lightning.exporting.graphs import Graph, graphs_of
from vqvae_lightning.exporting.manifest import write_manifest
from vqvae_lightning.exporting.opening import Exported, open_export
from vqvae_lightning.exporting.weights import checkpoints_of, hyper_parameters, weights_bytes
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior
from vqvae_lightning.storage import check_writable, file_hash, new_folder, write_atomic
from vqvae_lightning.surroundings import own_surroundings
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run, versions

COMPARED = 64  # test images that what was exported is compared on


@own_surroundings()
def export(run: Run | str | Path, options: ExportOptions | None = None, **settings: Any) -> Path:
    """Writes a finished run into a new folder, opens it again and compares it with the run.

    Args:
        run: a finished run of any kind, or its folder.
        options: settings; by default those of `vqvae export`.
        settings: single ones on top, such as `format="hub"`.

    Returns:
        The folder.

    Raises:
        ConfigError: a setting that is unknown or out of range, a folder that exists or cannot be
            made, a package that is missing, a part that the format cannot hold. All but the last
            before anything is loaded.
        DisagreementError: what was written computes something else than the run.
    """
    run = Run.of(run)
    options = run_options(ExportOptions, run.path, options, settings)
    check_packages(options.format)
    target = Path(options.to or f"exports/{run.name}-{options.format}")
    check_new_folder(target)
    subject = Subject(run, options.root)
    check_steps(subject.experiment)
    check_decoder(subject)
    images = to_uint8(subject.images.references("test", COMPARED))
    with torch.random.fork_rng(devices=[]):
        graphs = graphs_of(load_run(run), subject.kind.stage)
        with new_folder(target.parent, target.name) as folder:
            about = _write(run, options.format, graphs, folder)
            write_manifest(folder, about)
            compared = _compare(folder, graphs, images, subject.kind.stage)
            write_manifest(folder, {**about, "compared": compared})
            check_new_folder(target)
            folder.rename(target)
    return target


def check_steps(experiment: Experiment) -> None:
    """Raises ConfigError for a model of stage 2 that does not draw code by code, as `step` does."""
    kind = KINDS[experiment.kind]
    if kind.stage == 1:
        return
    if not kind.has_codes:
        raise ConfigError(
            f"export: a run of kind {kind.name} draws all numbers of a z at once, which the"
            " exported step cannot; wanted one of stage 1, or an autoregressive prior"
        )
    networks = experiment.model.networks
    if not issubclass(member_of(experiment.model.network, networks), AutoregressivePrior):
        name = name_of(experiment.model.network, networks)
        raise ConfigError(
            f"export: a prior with model.network.name={name} draws many codes at a time, which the"
            " exported step cannot; wanted an autoregressive one"
        )


def check_decoder(subject: Subject) -> None:
    """Raises ConfigError for a decoder that is given the label, which no exported graph takes."""
    of_run = subject.net if subject.kind.stage == 1 else subject.prior.first_stage
    if of_run.classes:
        raise ConfigError(
            f"export: the decoder of {subject.path} is given the label, which no exported graph"
            " takes; wanted one with model.class_conditional=false"
        )


def check_new_folder(target: Path) -> None:
    """Raises ConfigError unless a folder can be made there, under a name that is free."""
    check_free(target, "the name of a new folder")
    check_writable(target / "config.json", "to")


def _about(run: Run, name: str, folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Writes the files. Returns the entries of config.json that all formats share."""
    for file, data in files.items():
        write_atomic(folder / file, data)
    record = run.record
    return {
        "library_version": versions()["vqvae_lightning"],
        "format": name,
        "kind": record.kind,
        "name": record.name,
        "images": asdict(record.images),
        "weights": {},
        "graphs": {},
        "files": {file: file_hash(folder / file) for file in files},
    }


def _write(run: Run, name: str, graphs: list[Graph], folder: Path) -> dict[str, Any]:
    """Writes the files of a format. Returns the content of config.json."""
    held = FORMATS[name].graphs
    if held is None:
        return _write_weights(run, name, folder)
    return _write_graphs(run, name, held, graphs, folder)


def _write_graphs(
    run: Run, name: str, held: Graphs, graphs: list[Graph], folder: Path
) -> dict[str, Any]:
    files = {f"{graph.name}.{name}": held.record(graph) for graph in graphs}
    described = {
        graph.name: {
            "inputs": [asdict(port) for port in graph.inputs],
            "output": asdict(graph.output),
        }
        for graph in graphs
    }
    return {**_about(run, name, folder, files), "graphs": described}


def _write_weights(run: Run, name: str, folder: Path) -> dict[str, Any]:
    checkpoints = checkpoints_of(run)
    files = {
        f"{part}.safetensors": weights_bytes(checkpoint["state_dict"])
        for part, checkpoint in checkpoints.items()
    }
    about = _about(run, name, folder, files)
    if FORMATS[name].has_card:
        write_card(run, folder, torch.Size(run.record.images.shape).numel())
    weights = {part: hyper_parameters(checkpoint) for part, checkpoint in checkpoints.items()}
    return {**about, "weights": weights}


def _compare(folder: Path, graphs: list[Graph], images: Tensor, stage: int) -> dict[str, Any]:
    """Opens the new folder and compares it with the run. Returns the entry for config.json."""
    opened = open_export(folder, trusted=True)
    if isinstance(opened, Exported):
        return compare(graphs, {g.name: partial(_called, opened, g.name) for g in graphs}, images)
    again = graphs_of(opened, stage)
    for first, second in zip(graphs, again, strict=True):
        check_same_weights(first.module, second.module)
    return compare(graphs, {graph.name: partial(_eager, graph) for graph in again}, images)


def _called(opened: Exported, name: str, given: Mapping[str, Tensor]) -> Tensor:
    return opened.call(name, *given.values())


def _eager(graph: Graph, given: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = graph.module(*given.values())
    return found


def check_same_weights(first: nn.Module, second: nn.Module) -> None:
    """Raises DisagreementError unless two modules have the same weights, bit for bit."""
    again = second.state_dict()
    for name, tensor in first.state_dict().items():
        if name not in again or not torch.equal(tensor, again[name]):
            raise DisagreementError(f"export: {name} was not read back as it was written")
