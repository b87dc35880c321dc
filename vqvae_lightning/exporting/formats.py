"""FORMATS: one record per format of an export, with the packages of the extra that it needs."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

from vqvae_lightning.config import ConfigError
from vqvae_lightning.exporting.graphs import Graph, Port
from vqvae_lightning.exporting.runtimes import Call, onnx_bytes, open_onnx, open_pt2, pt2_bytes


class Graphs(NamedTuple):
    """How a format writes a graph as bytes, and how it opens them again."""

    record: Callable[[Graph], bytes]
    open: Callable[[bytes, tuple[Port, ...], Port], Call]
    runs_code: bool = False  # whether to open one can run code that is in it


class Format(NamedTuple):
    """A format of graphs or of weights, with the packages that it needs."""

    graphs: Graphs | None = None  # None: it holds weights
    opened_with: tuple[str, ...] = ()
    written_with: tuple[str, ...] = ()  # beside those
    has_card: bool = False


FORMATS = {
    "onnx": Format(Graphs(onnx_bytes, open_onnx), ("onnx", "onnxruntime"), ("onnxscript",)),
    "pt2": Format(Graphs(pt2_bytes, open_pt2, runs_code=True)),
    "safetensors": Format(opened_with=("safetensors",)),
    "hub": Format(opened_with=("safetensors",), written_with=("huggingface_hub",), has_card=True),
}


def check_packages(name: str, writes: bool = True) -> None:
    """Raises ConfigError, one line, unless the packages of a format are installed."""
    wanted = FORMATS[name].opened_with + (FORMATS[name].written_with if writes else ())
    if missing := [package for package in wanted if find_spec(package) is None]:
        raise ConfigError(
            f"format: {name} needs the package {missing[0]}, which is not installed; run"
            " `pip install 'vqvae_lightning[export]'`, here with `--constraint .ci/constraints.txt`"
        )
