"""An exported prior: what it is given is looked at before a graph sees it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from vqvae_lightning.config import ConfigError
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.exporting.graphs import Graph, Port, autoencoder_graphs, step_graph
from vqvae_lightning.exporting.manifest import Manifest, check_together
from vqvae_lightning.exporting.opening import ExportedPrior
from vqvae_lightning.models.build import build_autoencoder, build_prior
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior

Ports = dict[str, tuple[tuple[Port, ...], Port]]


def graphs(*more: str) -> list[Graph]:
    """Those of a small prior over 2×2 codes, with ten classes."""
    config = load_experiment(None, ["kind=vqvae", *small.KINDS["vqvae"]]).model
    net = build_autoencoder(config, (1, 8, 8)).eval()
    config = load_experiment(None, ["kind=prior", *small.KINDS["prior"], *more]).model
    prior = build_prior(config, CodeLayout.of_shape((2, 2), 16), 10).eval()
    assert isinstance(prior, AutoregressivePrior)
    return [*autoencoder_graphs(net, sequences=True), step_graph(prior)]


def ports(found: list[Graph]) -> Ports:
    return {graph.name: (graph.inputs, graph.output) for graph in found}


def opened(*more: str) -> ExportedPrior:
    """An exported prior whose graphs are the modules themselves."""
    found = graphs(*more)
    manifest = Manifest(Path(), "onnx", "prior", {}, ports(found), {})
    modules = {graph.name: graph.module for graph in found}
    calls = {name: lambda given, m=m: m(*given.values()) for name, m in modules.items()}
    return ExportedPrior(manifest, calls)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"label": 10}, "labels: got 10, wanted classes: 0 to 9"),
        ({"label": -1}, "labels: got -1, wanted classes: 0 to 9"),
        ({"label": 1.5}, "labels: got float32"),
        ({"label": "three"}, "label: got 'three', wanted one whole number, or 2"),
        ({"label": [1, 2, 3]}, r"label: got \[1, 2, 3\], wanted one whole number, or 2"),
        ({}, "label: got None, wanted a class, or one for each"),
        ({"n": "two"}, "n: got 'two', wanted a number"),
        ({"label": 1, "temperature": "hot"}, "temperature: got 'hot', wanted a number"),
        ({"label": 1, "top_k": 17}, "top_k: got 17, wanted 1 to 16"),
    ],
)
@torch.no_grad()
def test_what_cannot_be_drawn_is_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}") as error:
        opened().sample(**{"n": 2, **given})
    assert "\n" not in str(error.value)


@torch.no_grad()
def test_a_prior_that_forgot_labels_has_one_for_no_label() -> None:
    forgetful = opened("model.label_dropout=0.1")
    assert forgetful.sample(2, 10).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="labels: got 11, wanted classes, or 10 for no label"):
        forgetful.sample(2, 11)


@torch.no_grad()
def test_codes_and_positions_beyond_the_last_are_one_line() -> None:
    prior, codes = opened(), torch.zeros(1, 4, dtype=torch.int64)
    array: Any = codes.numpy()
    for call, line in (
        (lambda: prior.decode(codes + 16), "codes: got 16, wanted codes: 0 to 15"),
        (lambda: prior.step(codes, 4, codes[:, 0]), "position: got 4, wanted the position"),
        (lambda: prior.encode(array), "images: got ndarray, wanted a torch tensor"),
    ):
        with pytest.raises(ValueError, match=f"^{line}"):
            call()


@torch.no_grad()
def test_a_graph_that_gives_something_else_than_the_manifest_says_is_one_line() -> None:
    found = opened()
    found.manifest.graphs["step"] = (
        found.manifest.graphs["step"][0],
        replace(found.manifest.graphs["step"][1], shape=("batch", 17)),
    )
    with pytest.raises(ValueError, match=r"logits: got float32 of shape \(2, 16\), wanted"):
        found.sample(2, 1)


@pytest.mark.parametrize(
    ("position", "shape"),
    [(0, ("batch", 5)), (0, ("batch",)), (1, ("batch",)), (2, ()), (-1, ("batch", "batch"))],
)
def test_a_step_whose_shapes_do_not_fit_its_codes_is_refused(
    position: int, shape: tuple[int | str, ...]
) -> None:
    described = ports(graphs())
    check_together(described, 2)
    inputs, output = described["step"]
    changed = [replace(p, shape=shape) if n == position else p for n, p in enumerate(inputs)]
    output = replace(output, shape=shape) if position == -1 else output
    with pytest.raises(ConfigError, match="do not fit together"):
        check_together({**described, "step": (tuple(changed), output)}, 2)
