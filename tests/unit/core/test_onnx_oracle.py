# SPDX-License-Identifier: Apache-2.0
"""What is read of an ONNX model without the library onnx is what that library says of it; bytes
that are none are refused.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.onnx import (
    TRITON_TYPES,
    OnnxTensor,
    read_onnx,
)
from hypothesis import event, given
from hypothesis import strategies as st
from onnx import TensorProto, helper

TYPES = st.sampled_from(sorted(TensorProto.DataType.values())[1:])
NAMES = st.text(st.sampled_from("abcxyz_/:é.0"), min_size=1, max_size=6)
DIMS = st.one_of(st.integers(0, 4), st.just(1 << 40), st.sampled_from(["batch", "n", None]))
SHAPES = st.one_of(st.none(), st.lists(DIMS, max_size=4))
LOCATIONS = st.sampled_from(["weights.bin", "data/w.bin", "a" * 200, "é.data"])


@st.composite
def values(draw: st.DrawFn, name: str) -> Any:
    """An input or output: a tensor mostly."""
    kind = draw(st.sampled_from(["tensor", "tensor", "tensor", "sequence", "optional", "none"]))
    if kind == "none":
        return onnx.ValueInfoProto(name=name)
    tensor = helper.make_tensor_type_proto(draw(TYPES), draw(SHAPES))
    if kind == "sequence":
        tensor = helper.make_sequence_type_proto(tensor)
    elif kind == "optional":
        tensor = helper.make_optional_type_proto(tensor)
    return helper.make_value_info(name, tensor)


@st.composite
def weights(draw: st.DrawFn, name: str) -> Any:
    made = helper.make_tensor(name, TensorProto.FLOAT, [2], [0.0, draw(st.floats(0, 1))])
    if draw(st.booleans()):
        made.ClearField("float_data")
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("offset", "0"), ("location", draw(LOCATIONS)), ("length", "8")):
            made.external_data.add(key=key, value=value)
    return made


@st.composite
def graphs(draw: st.DrawFn, depth: int = 0) -> Any:
    names = draw(st.lists(NAMES, min_size=2, max_size=7, unique=True))
    cut = draw(st.integers(0, len(names) - 1))
    inputs = [draw(values(name)) for name in names[:cut]]
    outputs = [draw(values(name)) for name in names[cut:]]
    # Up to IR version 3 each weight is listed among the inputs too.
    listed = draw(st.lists(st.sampled_from(names[:cut]), unique=True)) if cut else []
    initializers = [draw(weights(name)) for name in [*listed, "unlisted"]]
    nodes = []
    if depth < 2 and draw(st.booleans()):
        branch = draw(graphs(depth + 1))
        nodes.append(helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch))
    if draw(st.booleans()):
        nodes.append(helper.make_node("Constant", [], ["k"], value=draw(weights("value"))))
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers, doc_string="text")
    if draw(st.booleans()):
        graph.metadata_props.add(key="k", value="v")
    return graph


@st.composite
def models(draw: st.DrawFn) -> Any:
    model = helper.make_model(
        draw(graphs()),
        ir_version=draw(st.integers(3, 10)),
        opset_imports=[helper.make_opsetid("", draw(st.integers(7, 21)))],
        producer_name=draw(NAMES),
    )
    # Larger than what is read at once.
    model.doc_string = "x" * draw(st.sampled_from([0, 10, 70_000]))
    return model


def read(data: bytes) -> Any:
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        Path(file.name).write_bytes(data)
        return read_onnx(file.name)


def tensor_of(info: Any) -> OnnxTensor:
    """By the library."""
    if not info.type.HasField("tensor_type"):
        return OnnxTensor(info.name, None, None)
    tensor = info.type.tensor_type
    dims = None
    if tensor.HasField("shape"):
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return OnnxTensor(info.name, TRITON_TYPES.get(tensor.elem_type), dims)


def external_of(graph: Any) -> set[str]:
    """By the library: of weights, constants, and those of graphs inside."""
    tensors, found = list(graph.initializer), set()
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found |= external_of(attribute.g)
            elif attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            found |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    return found


@given(models())
def test_inputs_outputs_and_files_are_those_of_the_library(model: Any) -> None:
    found = read(model.SerializeToString())
    parsed = onnx.load_from_string(model.SerializeToString())
    weights = {tensor.name for tensor in parsed.graph.initializer}
    assert found.inputs == tuple(
        tensor_of(info) for info in parsed.graph.input if info.name not in weights
    )
    assert found.outputs == tuple(map(tensor_of, parsed.graph.output))
    assert found.external == tuple(sorted(external_of(parsed.graph)))
    event(f"{len(found.external)} files, {len(found.inputs)} inputs")


@given(models(), st.data())
def test_what_is_cut_off_is_refused_or_whole(model: Any, data: st.DataObject) -> None:
    """Protobuf has no end: a cut between two fields is a message too, if the graph is in it."""
    whole = model.SerializeToString()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        found = read(cut)
    except ArtifactError as error:
        event("refused")
        check_refusal(error)
        return
    event("whole")
    assert found == read(whole)
    onnx.load_from_string(cut)


@given(models(), st.data())
def test_a_flipped_byte_never_ends_in_another_error(model: Any, data: st.DataObject) -> None:
    damaged = bytearray(model.SerializeToString())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(damaged))
    except ArtifactError as error:
        check_refusal(error)


@given(st.binary(max_size=60))
def test_no_bytes_end_in_another_error(data: bytes) -> None:
    with pytest.raises(ArtifactError) as raised:
        read(data)
    check_refusal(raised.value)


def check_refusal(error: ArtifactError) -> None:
    assert any(
        words in error.message
        for words in (
            "is not a whole ONNX model",
            "is empty",
            "does not stay inside the model",
            "is a git-lfs pointer",
        )
    ), error.message
