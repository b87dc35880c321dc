"""A stranger's ONNX model reads no file, wherever in it a tensor says that it is in one."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array

from vqvae_lightning.config import ConfigError
from vqvae_lightning.exporting.graphs import Port
from vqvae_lightning.exporting.runtimes import open_onnx

SECRET = np.array([7, 8], np.float32)
INPUTS, OUTPUT = (Port("x", "float32", (2,), "numbers"),), Port("y", "float32", (2,), "numbers")
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
ADD = helper.make_node("Add", ["x", "c"], ["y"])


def numbers(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])


def elsewhere(name: str) -> TensorProto:
    """Two numbers that are in the file `secret`."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    return tensor


def sparse() -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(elsewhere("c"), from_array(np.array([0, 1]), "at"), [2])


def branches(branch: GraphProto) -> list[NodeProto]:
    """Nodes whose output `c` is that of a branch."""
    true = helper.make_node("Constant", [], ["true"], value=from_array(np.array(True)))
    both = {"then_branch": branch, "else_branch": branch}
    return [true, helper.make_node("If", ["true"], ["c"], **both)]


def branch(*nodes: NodeProto) -> GraphProto:
    same = helper.make_node("Identity", ["c"], ["out"])
    return helper.make_graph([*nodes, same], "branch", [], [numbers("out")])


def model(*nodes: NodeProto) -> ModelProto:
    graph = helper.make_graph([*nodes], "graph", [numbers("x")], [numbers("y")])
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=9)


def with_function(*nodes: NodeProto) -> ModelProto:
    function = helper.make_function("own", "F", ["x"], ["y"], [*nodes, ADD], OPSETS[:1])
    found = model(helper.make_node("F", ["x"], ["y"], domain="own"))
    found.functions.append(function)
    return found


def of_place(place: str) -> ModelProto:
    """A model that adds two numbers to its input, which are in a file."""
    constant = helper.make_node("Constant", [], ["c"], sparse_value=sparse())
    inner = branch()
    if place == "sparse initializer":
        found = model(ADD)
        found.graph.sparse_initializer.append(sparse())
    elif place == "sparse attribute":
        found = model(constant, ADD)
    elif place == "sparse initializer of a branch":
        inner.sparse_initializer.append(sparse())
        found = model(*branches(inner), ADD)
    elif place == "function":
        found = with_function(constant)
    else:
        inner.initializer.append(elsewhere("c"))
        found = with_function(*branches(inner))
    return found


@pytest.mark.parametrize(
    "place",
    [
        "sparse initializer",
        "sparse attribute",
        "sparse initializer of a branch",
        "function",
        "branch of a function",
    ],
)
def test_a_model_that_onnxruntime_would_read_a_file_for_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(SECRET.tobytes())
    data = of_place(place).SerializeToString()
    (read,) = onnxruntime.InferenceSession(data).run(None, {"x": np.zeros(2, np.float32)})
    assert (read == SECRET).all()
    with pytest.raises(ConfigError, match="its weights are in other files"):
        open_onnx(data, INPUTS, OUTPUT)


def test_a_tensor_of_an_attribute_that_is_a_list_is_looked_at() -> None:
    node = helper.make_node("Any", ["x"], ["c"], domain="own")
    listed = AttributeProto(name="any", type=AttributeProto.TENSORS, tensors=[elsewhere("c")])
    node.attribute.append(listed)
    with pytest.raises(ConfigError, match="its weights are in other files"):
        open_onnx(model(node, ADD).SerializeToString(), INPUTS, OUTPUT)


def test_bytes_that_begin_as_onnxruntimes_own_format_are_read_as_the_model_that_was_checked() -> (
    None
):
    plain = model(helper.make_node("Add", ["x", "x"], ["y"]))
    # onnxruntime knows its own format by these letters at the fourth byte; here they are the name
    # of a producer.
    both = b"\x12\x06\0\0ORTM" + plain.SerializeToString()
    assert onnx.load_model_from_string(both).graph == plain.graph
    with pytest.raises(Exception, match="ORT model verification failed"):
        onnxruntime.InferenceSession(both)
    assert open_onnx(both, INPUTS, OUTPUT)({"x": torch.ones(2)}).tolist() == [2, 2]
