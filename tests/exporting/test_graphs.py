"""What is recorded of a model computes what the model computes, for a batch of any size."""

import functools
import warnings
from typing import Any
from unittest import mock

import pytest
import small
import torch

from vqvae_lightning.config import merge_overrides
from vqvae_lightning.data.images import to_float
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.exporting.agreement import DisagreementError, compare
from vqvae_lightning.exporting.graphs import Graph, autoencoder_graphs, step_graph
from vqvae_lightning.exporting.runtimes import onnx_bytes, open_onnx, quiet, record
from vqvae_lightning.models.build import build_autoencoder, build_prior
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior
from vqvae_lightning.models.quantizers import nearest

Q, L, T = "model.quantizer.name=", "model.likelihood.name=", "model.trunk.name="
FSQ = [f"{Q}fsq", "model.quantizer.levels=[4,5]"]
RESIDUAL = [f"{T}residual", "model.trunk.hidden=8", "model.trunk.multipliers=[1,2]"]
PER_PIXEL = ["model.likelihood.learned=true", "model.likelihood.per_pixel=true"]
CASES: dict[str, tuple[str, list[str]]] = {
    "ema": ("vqvae", []),
    "gradient": ("vqvae", [f"{Q}gradient"]),
    "cosine, groups": ("vqvae", [f"{Q}cosine", "model.groups=2"]),
    "simvq": ("vqvae", [f"{Q}simvq"]),
    "fsq": ("vqvae", FSQ),
    "lfq, groups": ("vqvae", [f"{Q}lfq", "model.groups=2"]),
    "residual levels, projected": (
        "vqvae",
        ["model.quantizer.residual_levels=3", "model.quantizer.lookup_dim=3"],
    ),
    "vector of codes": ("vqvae", ["model.latent=vector"]),
    "ae": ("ae", ["model.likelihood.bounded=true"]),
    "vae, residual trunk": (
        "vae",
        ["model.latent=grid", "model.trunk.residual_blocks=1", *RESIDUAL],
    ),
    "vae, bernoulli": ("vae", [f"{L}bernoulli", "data.binarize=dynamic"]),
    "vae, mixture": ("vae", [f"{L}logistic_mixture"]),
    "vae, logistic": ("vae", [f"{L}discretized_logistic", *PER_PIXEL]),
}
# Each of these takes longer than all others together.
LONG = ("residual levels, projected", "vae, residual trunk")
QUICK_FIRST = [
    pytest.param(case, marks=[pytest.mark.slow] if case in LONG else []) for case in CASES
]
N = "model.network."
MODERN = [
    f"{N}positions=both", f"{N}norm=rms", f"{N}mlp=swiglu", f"{N}qk_norm=true",
    f"{N}order=annealed",
]  # fmt: skip
PRIORS = {
    "transformer": ((4, 4), 10, ["model.label_dropout=0.1"]),
    "transformer, all parts": ((3, 3, 2), 10, MODERN),
    "pixelcnn": ((3, 3, 2), 0, ["model.class_conditional=false"]),
    "pixelsnail": ((1, 1), 10, []),
}


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


def autoencoder(kind: str, more: list[str]) -> list[Graph]:
    settings = small.KINDS[kind]
    if "model.trunk.name=residual" in more:
        settings = [word for word in settings if not word.startswith("model.trunk.")]
    if f"{Q}fsq" in more:
        settings = [word for word in settings if "codebook_size" not in word]
    config = load_experiment(None, [f"kind={kind}", *merge_overrides(settings, more)]).model
    return autoencoder_graphs(build_autoencoder(config, (1, 16, 12)).eval())


def prior(name: str) -> Graph:
    shape, classes, more = PRIORS[name]
    sizes = [word for word in small.KINDS["prior"] if name != "pixelcnn" or "heads" not in word]
    words = ["kind=prior", f"model.network.name={name.split(',')[0]}", *sizes, *more]
    config = load_experiment(None, words).model
    net = build_prior(config, CodeLayout.of_shape(shape, 16), classes).eval()
    assert isinstance(net, AutoregressivePrior)
    return step_graph(net)


def pixels(n: int) -> torch.Tensor:
    return torch.randint(256, (n, 1, 16, 12), dtype=torch.uint8)


def recorded(graph: Graph) -> Any:
    """A call of what `torch.export` recorded of a graph."""
    module = record(graph).module()
    return lambda given: module(*given.values())


@pytest.mark.parametrize("case", QUICK_FIRST)
def test_a_recorded_autoencoder_gives_the_codes_and_the_images_of_the_eager_one(case: str) -> None:
    graphs = autoencoder(*CASES[case])
    compared = compare(graphs, {graph.name: recorded(graph) for graph in graphs}, pixels(9))
    assert compared.get("codes_that_differ", 0) == 0
    assert ("codes" in compared) == (CASES[case][0] == "vqvae")


@pytest.mark.parametrize("name", PRIORS)
def test_a_recorded_step_gives_the_logits_of_the_eager_prior(name: str) -> None:
    graph = prior(name)
    call, length = recorded(graph), graph.inputs[0].shape[1]
    assert isinstance(length, int)
    for n in (1, 5):
        codes, labels = torch.randint(16, (n, length)), torch.arange(n)
        for position in {0, length - 1}:
            given = {"codes": codes, "position": torch.tensor(position), "labels": labels}
            given = {port.name: given[port.name] for port in graph.inputs}
            with torch.no_grad():
                wanted = graph.module(*given.values())
            torch.testing.assert_close(call(given), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PRIORS)
def test_a_step_does_not_look_at_codes_from_its_position_on(name: str) -> None:
    graph = prior(name)
    length = graph.inputs[0].shape[1]
    assert isinstance(length, int)
    codes, position = torch.randint(16, (3, length)), torch.tensor(length // 2)
    changed = codes.clone()
    changed[:, length // 2 :] = 15 - changed[:, length // 2 :]
    labels = [torch.arange(3)] if len(graph.inputs) == 3 else []
    first, second = (graph.module(each, position, *labels) for each in (codes, changed))
    torch.testing.assert_close(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_onnx_gives_what_every_eager_autoencoder_gives(case: str) -> None:
    graphs = autoencoder(*CASES[case])
    calls = {
        graph.name: open_onnx(onnx_bytes(graph), graph.inputs, graph.output) for graph in graphs
    }
    assert compare(graphs, calls, pixels(64)).get("codes_that_differ", 0) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIORS)
def test_onnx_gives_the_logits_of_every_eager_prior(name: str) -> None:
    graph = prior(name)
    call, length = (
        open_onnx(onnx_bytes(graph), graph.inputs, graph.output),
        graph.inputs[0].shape[1],
    )
    assert isinstance(length, int)
    given = {"codes": torch.randint(16, (5, length)), "position": torch.tensor(length - 1)}
    if len(graph.inputs) == 3:
        given["labels"] = torch.arange(5)
    with torch.no_grad():
        wanted = graph.module(*given.values())
    torch.testing.assert_close(call(given), wanted, rtol=1e-4, atol=1e-5)


def traced_codes(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of 40 images by a model that was traced by hand on `batch` images, and by itself.

    Eager looks 256 rows up at once, of which 40 images have two.
    """
    encoder = autoencoder("vqvae", [])[0].module
    images = pixels(40)
    chunks = mock.patch.object(nearest, "CPU_SCORES", 1)
    with torch.no_grad(), warnings.catch_warnings(), quiet(), chunks:
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(encoder, (images[:batch],), check_trace=False)
        found: torch.Tensor = traced(images)
        return found, encoder(images)


def test_a_model_traced_by_hand_gives_the_eager_codes_of_other_batches() -> None:
    found, wanted = traced_codes(3)
    assert torch.equal(found, wanted)


def test_without_knowing_that_it_is_traced_the_recorded_loop_has_the_chunks_of_the_first() -> None:
    chunks = pytest.raises(RuntimeError, match="Expected 1 elements in a list but found 2")
    with mock.patch.object(nearest, "is_traced", return_value=False), chunks:
        traced_codes(3)


def test_a_model_exported_by_hand_gives_the_eager_codes_of_other_batches() -> None:
    net = build_autoencoder(small.model_config("vqvae"), (1, 16, 12)).eval()

    class Codes(torch.nn.Module):
        net: torch.nn.Module

        def forward(self, x: torch.Tensor) -> Any:
            return self.net.encode(x).codes  # type: ignore[operator]

    module, x = Codes(), to_float(pixels(20))
    module.net = net
    with torch.no_grad(), quiet():
        sizes = ({0: torch.export.Dim("n")},)
        program = torch.export.export(module, (x[:3],), dynamic_shapes=sizes)
        assert torch.equal(program.module()(x), module(x))


@pytest.mark.parametrize("wrong", ["encoder", "decoder"])
def test_a_graph_that_computes_something_else_is_told(wrong: str) -> None:
    graphs, others = autoencoder("vqvae", []), autoencoder("vqvae", [])
    calls = {graph.name: eager(graph) for graph in graphs}
    compare(graphs, calls, pixels(9))
    other = {graph.name: eager(graph) for graph in others}
    with pytest.raises(DisagreementError, match=f"values of the {wrong}"):
        compare(graphs, {**calls, wrong: other[wrong]}, pixels(9))


def test_one_wrong_code_in_a_thousand_is_told() -> None:
    graphs = autoencoder("vqvae", [])
    calls = {graph.name: eager(graph) for graph in graphs}

    def flipped(given: Any) -> torch.Tensor:
        codes: torch.Tensor = eager(graphs[0])(given)
        codes.view(-1)[-1] = (codes.view(-1)[-1] + 1) % 16
        return codes

    with pytest.raises(DisagreementError, match="1 are not those of the model"):
        compare(graphs, {**calls, "encoder": flipped}, pixels(90))


def eager(graph: Graph) -> Any:
    return functools.partial(_eager, graph)


def _eager(graph: Graph, given: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = graph.module(*given.values())
    return found


@pytest.mark.parametrize("k", [1, 2, 7, 8])
def test_the_median_that_is_recorded_is_the_eager_one(k: int) -> None:
    codes = torch.randn(k, 5)
    eager_one = nearest.median(codes)
    with mock.patch.object(nearest, "is_traced", return_value=True):
        assert torch.equal(nearest.median(codes), eager_one)
    # So is the one of trainer.deterministic, for a GPU has no other.
    with (
        mock.patch("torch.are_deterministic_algorithms_enabled", return_value=True),
        mock.patch.object(torch.Tensor, "median", side_effect=RuntimeError),
    ):
        assert torch.equal(nearest.median(codes), eager_one)
