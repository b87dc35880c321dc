"""The two formats of a graph: `torch.export`'s archive and ONNX, each written and opened.

Both are made of one recorded program, whose batch has any size.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from vqvae_lightning.config import ConfigError, one_line
from vqvae_lightning.exporting.graphs import BATCH, Graph, Port, example

if TYPE_CHECKING:
    from google.protobuf.message import Message

# A graph that was opened: inputs by name → its output.
Call = Callable[[Mapping[str, Tensor]], Tensor]
# What onnxruntime calls the types of ports.
ONNX_TYPES = {"tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(float)": "float32"}
RECORDED = 3  # images of the recorded batch: torch takes sizes of 0 and 1 for fixed ones


def record(graph: Graph) -> ExportedProgram:
    """The program of a graph for a batch of any size.

    Raises ConfigError, one line, for a module that torch cannot record.
    """
    inputs = example(graph, RECORDED)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                graph.module,
                tuple(inputs.values()),
                dynamic_shapes=open_batch(graph),
                strict=False,
            )
    except Exception as error:
        # torch raises errors of many types, and explains each on a page.
        reason = one_line(str(error).partition("\n")[0])
        raise ConfigError(f"export: the {graph.name} cannot be recorded: {reason}") from error
    for module in program.graph_module.modules():
        # Every node would keep the paths of the files here that it comes from.
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def open_batch(graph: Graph) -> tuple[dict[int, Dim], ...]:
    """The axes of each input that are of any size."""
    batch = Dim(BATCH, min=1)
    return tuple({0: batch} if BATCH in port.shape else {} for port in graph.inputs)


def pt2_bytes(graph: Graph) -> bytes:
    """The archive of a graph, as `torch.export.save` writes it."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(record(graph), buffer)
    return buffer.getvalue()


def open_pt2(data: bytes, inputs: tuple[Port, ...], output: Port) -> Call:
    """A graph from the bytes of its archive, which `torch.export.load` trusts: see `opening`.

    Raises ConfigError, one line, for one whose tensors are of other types or shapes.
    """
    with quiet():
        program = torch.export.load(io.BytesIO(data))
        module: nn.Module = program.module()
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    for ports, names in ((inputs, signature.user_inputs), ((output,), signature.user_outputs)):
        found = [values[name] for name in names if isinstance(name, str)]
        # An archive has other names.
        named = zip(ports, found, strict=False)
        check_ports(
            ports, [(p.name, str(t.dtype).removeprefix("torch."), t.shape) for p, t in named]
        )

    def call(given: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            found: Tensor = module(*(given[port.name] for port in inputs))
        return found

    return call


def onnx_bytes(graph: Graph) -> bytes:
    """The ONNX model of a graph, weights included.

    Raises ConfigError, one line, for a module that has no ONNX form, or is too large for one file.
    """
    program = record(graph)
    names = [port.name for port in graph.inputs]
    try:
        with quiet():
            written = torch.onnx.export(
                program, input_names=names, output_names=[graph.output.name], dynamo=True,
                dynamic_shapes=open_batch(graph), external_data=False, verbose=False,
            )  # fmt: skip
            assert written is not None
            data: bytes = written.model_proto.SerializeToString()
    except Exception as error:
        # As in `record`; protobuf refuses more than 2 GiB.
        reason = one_line(str(error).partition("\n")[0])
        raise ConfigError(f"export: the {graph.name} has no ONNX form: {reason}") from error
    return data


def open_onnx(data: bytes, inputs: tuple[Port, ...], output: Port) -> Call:
    """A graph from the bytes of its ONNX model, which may be a stranger's.

    Raises ConfigError, one line, for a model that names other files, that cannot be opened, or
    whose tensors have other names, types or shapes.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    # Bytes can be an ONNX model and one of onnxruntime's own format, in which nothing was checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        model = onnx.load_model_from_string(data)
        if names_files(model):
            raise ValueError("its weights are in other files")
        # A field that this onnx does not know was not checked either.
        model.DiscardUnknownFields()
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # protobuf and onnxruntime raise errors of many types.
        raise ConfigError(f"it is no ONNX model that can be opened: {one_line(error)}") from error
    for ports, found in ((inputs, session.get_inputs()), ((output,), session.get_outputs())):
        check_ports(ports, [(p.name, ONNX_TYPES.get(p.type, p.type), p.shape) for p in found])

    def call(given: Mapping[str, Tensor]) -> Tensor:
        arrays = {port.name: given[port.name].numpy() for port in inputs}
        return torch.from_numpy(session.run(None, arrays)[0])

    return call


def check_ports(ports: Sequence[Port], found: Sequence[tuple[str, str, Sequence[object]]]) -> None:
    """Raises ConfigError unless a graph has tensors of these ports: name, type and shape of each.

    A side that is no number is that of the batch.
    """
    wanted = [(port.name, port.dtype, port.shape) for port in ports]
    held = [
        (name, dtype, tuple(side if isinstance(side, int) else BATCH for side in shape))
        for name, dtype, shape in found
    ]
    if held != wanted:
        raise ConfigError(
            f"it has tensors {one_line(held)}, wanted {one_line(wanted)}, as config.json says"
        )


def names_files(message: "Message") -> bool:
    """Whether a tensor anywhere in an ONNX model is in another file.

    Every field is looked at: tensors stand in initializers, sparse ones, attributes, functions and
    the branches and loops of all of these.
    """
    for field, value in message.ListFields():
        if field.name == "external_data" or (field.name == "data_location" and value):
            return True
        if field.message_type and any(map(names_files, value if field.is_repeated else [value])):
            return True
    return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings and logs of torch and its exporters, which are for their developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
