# SPDX-License-Identifier: Apache-2.0
"""The Python-based backends `onnxruntime` and `fil` in a real Triton, against plain arithmetic and
the libraries.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.config_pbtxt import (
    render,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.default_config import (
    onnx_config,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.onnx import read_onnx
from support import models
from support.models import onnx_model, onnx_node, onnx_tensor
from support.servers import ROOT, Triton, server_python, triton_server

np = pytest.importorskip("numpy")
client = pytest.importorskip("tritonclient.http")

MORPHEUS = Path(os.environ.get("MORPHEUS_DATA") or ROOT.parent / "shared" / "data" / "morpheus")
ONE = "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with triton_server(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(char if char.isalnum() else "_" for char in request.node.name)


def put(
    triton: Triton,
    name: str,
    data: bytes,
    config: str | None,
    filename: str = "model.onnx",
    version: int = 1,
) -> None:
    folder = triton.repository / name / str(version)
    folder.mkdir(parents=True)
    (folder / filename).write_bytes(data)
    if config is not None:
        (folder.parent / "config.pbtxt").write_text(config)


def loaded(triton: Triton, name: str) -> None:
    status, body = triton.load(name)
    assert status == 200, body


def refused(triton: Triton, name: str, *words: str) -> str:
    status, body = triton.load(name)
    assert status == 400, body
    for word in words:
        assert word in body["error"], body["error"]
    assert triton.call("v2/health/live")[0] == 200
    return str(body["error"])


def ask(
    triton: Triton, name: str, inputs: dict[str, Any], outputs: Sequence[str] = ()
) -> dict[str, Any]:
    with client.InferenceServerClient(triton.url) as server:
        tensors = []
        for key, value in inputs.items():
            value = np.asarray(value)
            kind = next(kind for kind, dtype in NUMPY.items() if value.dtype == dtype)
            tensor = client.InferInput(key, list(value.shape), kind)
            tensor.set_data_from_numpy(value)
            tensors.append(tensor)
        wanted = [client.InferRequestedOutput(key) for key in outputs] or None
        result = server.infer(name, tensors, outputs=wanted)
        return {
            item["name"]: result.as_numpy(item["name"]) for item in result.get_response()["outputs"]
        }


def failure(triton: Triton, name: str, inputs: dict[str, Any]) -> str:
    with pytest.raises(client.InferenceServerException) as caught:
        ask(triton, name, inputs)
    return str(caught.value)


def identity(kind: str, dims: Sequence[Any] | None) -> bytes:
    return onnx_model(
        [onnx_node("Identity", ["x"], ["y"])], {"x": (kind, dims)}, {"y": (kind, dims)}
    )


# ---- onnxruntime ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", ["full", None, 'parameters { key: "p" value { string_value: "v" } }\n']
)
@pytest.mark.parametrize("version", [1, 7])
def test_network_answers_as_arithmetic_does(
    triton: Triton, name: str, config: str | None, version: int
) -> None:
    sample = models.make_onnx(triton.repository, name, config=config, version=version)
    loaded(triton, name)
    status, body = triton.infer(name, sample.request())
    assert status == 200, body
    assert sample.differences(body) == []
    assert body["model_version"] == str(version)


@pytest.mark.parametrize("config", ['backend: "onnxruntime"\n', 'platform: "onnxruntime_onnx"\n'])
def test_default_model_filename(triton: Triton, name: str, config: str) -> None:
    sample = models.make_onnx(
        triton.repository,
        name,
        filename="net.onnx",
        config=config + 'default_model_filename: "net.onnx"\n',
    )
    loaded(triton, name)
    assert sample.differences(triton.infer(name, sample.request())[1]) == []


def test_completed_configuration(triton: Triton, name: str) -> None:
    put(triton, name, identity("INT64", ["batch", 3, "free"]), None)
    loaded(triton, name)
    config = triton.model_config(name)
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] == 4
    assert "dynamic_batching" in config
    assert [(item["name"], item["data_type"], item["dims"]) for item in config["input"]] == [
        ("x", "TYPE_INT64", [3, -1])
    ]
    assert [(item["name"], item["data_type"], item["dims"]) for item in config["output"]] == [
        ("y", "TYPE_INT64", [3, -1])
    ]


def test_completed_configuration_without_batching(triton: Triton, name: str) -> None:
    put(triton, name, identity("FP64", [2, 3]), None)
    loaded(triton, name)
    config = triton.model_config(name)
    assert config["max_batch_size"] == 0
    assert config["input"][0]["dims"] == [2, 3]
    value = np.arange(6.0).reshape(2, 3)
    assert (ask(triton, name, {"x": value})["y"] == value).all()


def test_vector_of_batches_is_reshaped(triton: Triton, name: str) -> None:
    """[batch] has no dimension left for Triton's configuration: it becomes [1] with a reshape."""
    put(triton, name, identity("FP32", ["batch"]), None)
    loaded(triton, name)
    assert triton.model_config(name)["input"][0]["dims"] == [1]
    value = np.array([[1.5], [2.5]], np.float32)
    assert (ask(triton, name, {"x": value})["y"] == value).all()


def test_scalars_are_one_element(triton: Triton, name: str) -> None:
    data = onnx_model(
        [
            onnx_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            onnx_node("Mul", ["sum", "factor"], ["y"]),
        ],
        {"x": ("FP32", ["n"]), "factor": ("FP32", [])},
        {"y": ("FP32", [])},
    )
    put(triton, name, data, None)
    loaded(triton, name)
    got = ask(
        triton, name, {"x": np.array([1, 2, 3], np.float32), "factor": np.array([2], np.float32)}
    )["y"]
    assert got.tolist() == [12]


def test_the_made_configuration_of_a_scalar_is_served(triton: Triton, name: str) -> None:
    """What is written for an ONNX file without a configuration loads, whatever rank it has."""
    data = onnx_model(
        [
            onnx_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            onnx_node("Mul", ["sum", "factor"], ["total"]),
        ],
        {"x": ("FP32", ["n", 3]), "factor": ("FP32", [])},
        {"total": ("FP32", [])},
    )
    put(triton, name, data, None)
    described = read_onnx(str(triton.repository / name / "1/model.onnx"))
    (triton.repository / name / "config.pbtxt").write_bytes(render(onnx_config(described)))
    loaded(triton, name)
    values = {"x": np.array([[1, 2, 3]], np.float32), "factor": np.array([2], np.float32)}
    assert ask(triton, name, values)["total"].tolist() == [12]


def control(name: str, kind: str, more: str = "int32_false_true: [ 0, 1 ]") -> str:
    return f'{{ name: "{name}" control [ {{ kind: CONTROL_SEQUENCE_{kind} {more} }} ] }}'


CONTROLS = [control(kind, kind) for kind in ("START", "END", "READY")]
CORRID = control("CORRID", "CORRID", "data_type: TYPE_UINT64")


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("strategy", "controls"), [("", CONTROLS), ("oldest { } ", [*CONTROLS, CORRID])]
)
def test_control_inputs_of_sequences_come_from_triton(
    triton: Triton, name: str, strategy: str, controls: list[str], complete: bool
) -> None:
    """As NVIDIA's examples simple_sequence and simple_dyna_sequence have them; clients send the
    input alone.
    """
    column: list[int | str | None] = ["batch", 1]
    with_id = len(controls) > 3
    data = onnx_model(
        [
            onnx_node("Cast", ["CORRID" if with_id else "END"], ["id"], to=6),
            onnx_node("Mul", ["END", "id"], ["last"]),
            onnx_node("Add", ["INPUT", "START"], ["first"]),
            onnx_node("Add", ["first", "last"], ["sum"]),
            onnx_node("Mul", ["READY", "sum"], ["OUTPUT"]),
        ],
        {
            **dict.fromkeys(("INPUT", "START", "END", "READY"), ("INT32", column)),
            **({"CORRID": ("UINT64", column)} if with_id else {}),
        },
        {"OUTPUT": ("INT32", column)},
    )
    tensors = (
        'input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
        'output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    )
    config = (
        f'backend: "onnxruntime"\nmax_batch_size: 8\n{tensors if complete else ""}'
        f"sequence_batching {{ {strategy}control_input [ {', '.join(controls)} ] }}\n{ONE}"
    )
    put(triton, name, data, config)
    loaded(triton, name)
    assert [one["name"] for one in triton.model_config(name)["input"]] == ["INPUT"]
    with client.InferenceServerClient(triton.url) as server:
        tensor = client.InferInput("INPUT", [1, 1], "INT32")
        tensor.set_data_from_numpy(np.array([[10]], np.int32))
        answers = [
            server.infer(name, [tensor], sequence_id=7, sequence_start=start, sequence_end=end)
            for start, end in ((True, False), (False, False), (False, True))
        ]
    found = [answer.as_numpy("OUTPUT").tolist() for answer in answers]
    assert found == [[[11]], [[10]], [[17 if with_id else 11]]]


def test_a_control_input_that_the_model_does_not_have(triton: Triton, name: str) -> None:
    config = (
        'backend: "onnxruntime"\nmax_batch_size: 8\n'
        f"sequence_batching {{ control_input [ {CORRID} ] }}\n{ONE}"
    )
    put(triton, name, identity("FP32", ["batch", 1]), config)
    refused(triton, name, "CORRID")


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("BATCH_ELEMENT_COUNT", [-1], [6.0]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT", [-1], [6.0]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", [-1], [0.0, 6.0]),
        ("BATCH_ITEM_SHAPE", [-1, -1], [[3.0], [3.0]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [-1], [3.0, 3.0]),
    ],
)
def test_batch_inputs_are_made_by_the_server(
    triton: Triton, name: str, kind: str, shape: list[int], expected: Any
) -> None:
    """A ragged input is one row of its elements, and clients send nothing else."""
    data = onnx_model(
        [onnx_node("Identity", ["x"], ["y"]), onnx_node("Identity", ["made"], ["seen"])],
        {"x": ("FP32", ["n"]), "made": ("FP32", ["m", "k"][: len(shape)])},
        {"y": ("FP32", ["n"]), "seen": ("FP32", ["m", "k"][: len(shape)])},
    )
    output = f"dims: {shape[1:] or [1]} reshape {{ shape: {shape[1:]} }}"
    scatter = 'kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x"'
    made = f'kind: {kind} target_name: "made" data_type: TYPE_FP32 source_input: "x"'
    config = (
        'backend: "onnxruntime"\nmax_batch_size: 8\n'
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] },'
        f' {{ name: "seen" data_type: TYPE_FP32 {output} }} ]\n'
        f"batch_input [ {{ {made} }} ]\nbatch_output [ {{ {scatter} }} ]\n{ONE}"
    )
    put(triton, name, data, config)
    loaded(triton, name)
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = ask(triton, name, {"x": value})
    assert (found["y"] == value).all()
    # Triton itself lays the reshape of the configuration over an answer.
    assert found["seen"].ravel().tolist() == np.ravel(expected).tolist()


def test_undeclared_rank_takes_what_the_configuration_says(triton: Triton, name: str) -> None:
    tensor = '{{ name: "{}" data_type: TYPE_FP32 dims: [ -1, 2 ] }}'
    config = (
        f'backend: "onnxruntime"\ninput [ {tensor.format("x")} ]\noutput [ {tensor.format("y")} ]\n'
        + ONE
    )
    put(triton, name, identity("FP32", None), config)
    loaded(triton, name)
    value = np.ones((3, 2), np.float32)
    assert (ask(triton, name, {"x": value})["y"] == value).all()


@pytest.mark.parametrize("kind", sorted(NUMPY))
def test_every_data_type(triton: Triton, name: str, kind: str) -> None:
    put(triton, name, identity(kind, ["batch", "free"]), None)
    loaded(triton, name)
    if kind == "BYTES":
        value = np.array([["a", "grün \N{SNOWMAN}", ""], ["x" * 5000, "\0", "b"]], dtype=object)
        got = ask(triton, name, {"x": value})["y"]
        assert [item.decode() for item in got.ravel()] == value.ravel().tolist()
        assert got.shape == value.shape
        return
    top = 1 if kind == "BOOL" else np.iinfo(NUMPY[kind]).max if "INT" in kind else 0.5
    value = np.array([[0, 1, top], [1, 0, top]], dtype=NUMPY[kind])
    got = ask(triton, name, {"x": value})["y"]
    assert got.dtype == value.dtype
    assert (got == value).all()


def test_dynamic_shapes(triton: Triton, name: str) -> None:
    put(triton, name, identity("FP32", ["n", "m", 2]), 'backend: "onnxruntime"\n' + ONE)
    loaded(triton, name)
    for shape in ((1, 1, 2), (3, 7, 2), (4, 500, 2), (2, 0, 2)):
        value = np.random.default_rng(0).random(shape, np.float32)
        assert (ask(triton, name, {"x": value})["y"] == value).all()


def test_requests_are_batched_and_bad_ones_fail_alone(triton: Triton, name: str) -> None:
    """Requests of several clients in one run: each gets its own rows, and an index out of range
    spoils only its own.
    """
    data = onnx_model(
        [onnx_node("Gather", ["table", "i"], ["y"], axis=0)],
        {"i": ("INT64", ["batch", "n"])},
        {"y": ("FP32", ["batch", "n"])},
        [onnx_tensor("table", "FP32", [float(value) for value in range(100)])],
    )
    config = (
        'backend: "onnxruntime"\nmax_batch_size: 64\ninput [ { name: "i" data_type: TYPE_INT64'
        ' dims: [ -1 ] } ]\noutput [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }'
        " ]\ndynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: [ 32"
        " ] }\n" + ONE
    )
    put(triton, name, data, config)
    loaded(triton, name)
    answers: list[tuple[int, int, Any]] = []

    def one(index: int) -> None:
        rows = [[index, 100 if index == 5 else index + 1]] * (1 + index % 3)
        request = {
            "inputs": [{"name": "i", "datatype": "INT64", "shape": [len(rows), 2], "data": rows}]
        }
        answers.append((index, len(rows), triton.infer(name, request)))

    threads = [threading.Thread(target=one, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, rows, (status, body) in answers:
        if index == 5:
            assert status == 400
            assert "'i'" in body["error"]
        else:
            assert (status, body["outputs"][0]["data"]) == (
                200,
                [float(index), float(index + 1)] * rows,
            )
    statistics = triton.call(f"v2/models/{name}/stats")[1]["model_stats"][0]
    assert statistics["execution_count"] < 16


@pytest.mark.parametrize(("batch", "free"), [(0, "-1, "), (8, "")])
def test_optional_inputs(triton: Triton, name: str, batch: int, free: str) -> None:
    data = onnx_model(
        [onnx_node("Mul", ["x", "scale"], ["y"])],
        {"x": ("FP32", ["batch", 2]), "scale": ("FP32", ["batch", 1])},
        {"y": ("FP32", ["batch", 2])},
        [onnx_tensor("scale", "FP32", [[10.0]])],
    )
    config = (
        f'backend: "onnxruntime"\nmax_batch_size: {batch}\n'
        f'input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {free}2 ] }},'
        f' {{ name: "scale" data_type: TYPE_FP32 dims: [ {free}1 ] optional: true }} ]\n'
        f'output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {free}2 ] }} ]\n' + ONE
    )
    put(triton, name, data, config)
    loaded(triton, name)
    x = np.array([[1, 2], [3, 4]], np.float32)
    assert ask(triton, name, {"x": x})["y"].tolist() == [[10, 20], [30, 40]]
    assert ask(triton, name, {"x": x, "scale": np.array([[3], [2]], np.float32)})["y"].tolist() == [
        [3, 6],
        [6, 8],
    ]


def test_optional_input_without_default_is_named(triton: Triton, name: str) -> None:
    data = onnx_model(
        [onnx_node("Add", ["x", "z"], ["y"])],
        {"x": ("FP32", [2]), "z": ("FP32", [2])},
        {"y": ("FP32", [2])},
    )
    tensor = '{{ name: "{}" data_type: TYPE_FP32 dims: [ 2 ] {} }}'
    config = (
        f'backend: "onnxruntime"\ninput [ {tensor.format("x", "")},'
        f" {tensor.format('z', 'optional: true')} ]\n"
        f"output [ {tensor.format('y', '')} ]\n" + ONE
    )
    put(triton, name, data, config)
    loaded(triton, name)
    text = failure(triton, name, {"x": np.zeros(2, np.float32)})
    assert "input 'z' is missing" in text


@pytest.mark.parametrize("external", [True, "0f8c-weights.bin"])
def test_external_data(triton: Triton, name: str, external: Any) -> None:
    sample = models.make_onnx(triton.repository, name, external_data=external)
    loaded(triton, name)
    assert sample.differences(triton.infer(name, sample.request())[1]) == []


def test_missing_external_data_is_named(triton: Triton, name: str) -> None:
    sample = models.make_onnx(triton.repository, name, external_data=True)
    (sample.folder / "1" / "weights.data").unlink()
    refused(triton, name, "weights.data")


def test_only_requested_outputs(triton: Triton, name: str) -> None:
    data = onnx_model(
        [onnx_node("Neg", ["x"], ["a"]), onnx_node("Abs", ["x"], ["b"])],
        {"x": ("FP32", ["batch", 1])},
        {"a": ("FP32", ["batch", 1]), "b": ("FP32", ["batch", 1])},
    )
    put(triton, name, data, None)
    loaded(triton, name)
    x = np.array([[-2]], np.float32)
    assert {key: value.tolist() for key, value in ask(triton, name, {"x": x}).items()} == {
        "a": [[2]],
        "b": [[2]],
    }
    assert list(ask(triton, name, {"x": x}, ["b"])) == ["b"]


def test_bad_strings_are_named(triton: Triton, name: str) -> None:
    put(triton, name, identity("BYTES", ["batch", "n"]), None)
    loaded(triton, name)
    text = failure(triton, name, {"x": np.array([[b"\xff\xfe"]], dtype=object)})
    assert "input 'x'" in text
    assert "UTF-8" in text


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"x": np.zeros((1, 2), np.float32)}, "'x'"),
        ({"x": np.zeros((1, 3), np.float64)}, "'x'"),
        ({"x": np.zeros((9, 3), np.float32)}, "batch"),
        ({"z": np.zeros((1, 3), np.float32)}, "'z'"),
        ({}, "['x']"),
    ],
    ids=["shape", "type", "batch", "unknown", "missing"],
)
def test_bad_requests(triton: Triton, inputs: dict[str, Any], word: str) -> None:
    if not (triton.repository / "badrequests").exists():
        models.make_onnx(triton.repository, "badrequests")
    loaded(triton, "badrequests")
    assert word in failure(triton, "badrequests", inputs)


def test_dimension_that_only_the_model_knows_is_named(triton: Triton, name: str) -> None:
    config = (
        'backend: "onnxruntime"\nmax_batch_size: 4\ninput [ { name: "x" data_type: TYPE_FP32 dims:'
        ' [ -1 ] } ]\noutput [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]\n' + ONE
    )
    models.make_onnx(triton.repository, name, config=config)
    loaded(triton, name)
    assert "x" in failure(triton, name, {"x": np.zeros((1, 5), np.float32)})


CONFIG = (
    'backend: "onnxruntime"\nmax_batch_size: {batch}\ninput [ {{ {input} }} ]\noutput [ {{ {output}'
    " }} ]\n" + ONE.replace("{", "{{").replace("}", "}}")
)


@pytest.mark.parametrize(
    ("batch", "tensor_in", "tensor_out", "words"),
    [
        (
            4,
            'name: "z" data_type: TYPE_FP32 dims: [ 3 ]',
            'name: "y" data_type: TYPE_FP32 dims: [ 2 ]',
            ("input 'z'", "x"),
        ),
        (
            4,
            'name: "x" data_type: TYPE_INT32 dims: [ 3 ]',
            'name: "y" data_type: TYPE_FP32 dims: [ 2 ]',
            ("'x'", "TYPE_FP32"),
        ),
        (
            4,
            'name: "x" data_type: TYPE_FP32 dims: [ 5 ]',
            'name: "y" data_type: TYPE_FP32 dims: [ 2 ]',
            ("'x'", "[-1, 5]"),
        ),
        (
            4,
            'name: "x" data_type: TYPE_FP32 dims: [ 3 ]',
            'name: "q" data_type: TYPE_FP32 dims: [ 2 ]',
            ("output 'q'", "y"),
        ),
        (
            0,
            'name: "x" data_type: TYPE_FP32 dims: [ 3 ]',
            'name: "y" data_type: TYPE_FP32 dims: [ 2 ]',
            ("'x'", "[3]"),
        ),
    ],
)
def test_configurations_that_do_not_fit(
    triton: Triton, name: str, batch: int, tensor_in: str, tensor_out: str, words: Sequence[str]
) -> None:
    config = CONFIG.format(batch=batch, input=tensor_in, output=tensor_out)
    models.make_onnx(triton.repository, name, config=config)
    refused(triton, name, *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("is empty",)),
        (b"not a model at all", ("cannot be loaded",)),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            ("git-lfs pointer",),
        ),
        (identity("FP32", [1])[:-20], ("cannot be loaded",)),
        (identity("BF16", ["n"]), ("'x'", "bfloat16")),
    ],
    ids=["empty", "text", "pointer", "truncated", "bfloat16"],
)
def test_broken_onnx_files(triton: Triton, name: str, content: bytes, words: Sequence[str]) -> None:
    put(triton, name, content, None)
    refused(triton, name, *words)


def test_parameters_of_the_real_backend(triton: Triton, name: str) -> None:
    config = (
        'backend: "onnxruntime"\nparameters { key: "intra_op_thread_count" value { string_value:'
        ' "1" } }\nparameters { key: "execution_mode" value { string_value: "0" } }\nparameters {'
        ' key: "enable_mem_arena" value { string_value: "false" } }\noptimization { graph { level:'
        " 1 } }\n"
    )
    sample = models.make_onnx(triton.repository, name, config=config)
    loaded(triton, name)
    assert sample.differences(triton.infer(name, sample.request())[1]) == []


# ---- fil -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knobs",
    [
        {"predict_proba": True},
        {"predict_proba": False},
        {"predict_proba": False, "threshold": 0.2},
        {"predict_proba": False, "threshold": 0.95},
        {"filename": "xgboost.ubj", "model_type": "xgboost_ubj"},
        {"filename": "abp.bst", "model_type": "xgboost"},
        {"version": 3},
    ],
    ids=lambda knobs: "-".join(f"{key}={value}" for key, value in knobs.items()),
)
def test_forest_answers_as_arithmetic_does(
    triton: Triton, name: str, knobs: dict[str, Any]
) -> None:
    sample = models.make_forest(triton.repository, name, **knobs)
    loaded(triton, name)
    status, body = triton.infer(name, sample.request())
    assert status == 200, body
    assert sample.differences(body) == []
    # As the real backend: a single value per row has no dimension of its own.
    assert body["outputs"][0]["shape"] == ([3, 2] if knobs.get("predict_proba", True) else [3])


NOTHING_HERE = (
    "threads_per_tree",
    "chunk_size",
    "transfer_threshold",
    "use_experimental_optimizations",
    "layout",
    "precision",
)


@pytest.mark.parametrize(("proba", "classifies"), [("true", "true"), ("false", "false")])
def test_one_column_of_probabilities(
    triton: Triton, name: str, proba: str, classifies: str
) -> None:
    """Also with all the parameters that tune a GPU."""
    sample = models.make_forest(triton.repository, name)
    path = sample.folder / "config.pbtxt"
    text = path.read_text().replace("dims: [ 2 ]", "dims: [ 1 ]")
    for key, value in (("predict_proba", proba), ("output_class", classifies)):
        text = text.replace(
            f'"{key}" value {{ string_value: "true" }}',
            f'"{key}" value {{ string_value: "{value}" }}',
        )
    assert text.count('"false"') == (proba, classifies).count("false")
    path.write_text(
        text
        + "".join(
            f'parameters {{ key: "{key}" value {{ string_value: "1" }} }}\n' for key in NOTHING_HERE
        )
    )
    loaded(triton, name)
    got = triton.infer(name, sample.request())[1]["outputs"][0]["data"]
    assert got == pytest.approx(
        [row[1] for row in sample.expected(sample.inputs)["output__0"]], abs=1e-6
    )


MULTI = ((0, 0.5, 1.0, 0.0, 0), (0, 0.5, 0.0, 1.0, 1), (1, 2.0, 0.5, 2.0, 2))


@pytest.mark.parametrize("proba", [True, False])
def test_several_classes(triton: Triton, name: str, proba: bool) -> None:
    document = models.xgboost_document(MULTI, objective="multi:softmax", classes=3)
    config = (
        'backend: "fil"\nparameters { key: "model_type" value { string_value: "xgboost_json" }'
        f' }}\nparameters {{ key: "predict_proba" value {{ string_value: "{str(proba).lower()}" }}'
        ' }\nparameters { key: "output_class" value { string_value: "true" } }\n'
    )
    put(triton, name, json.dumps(document).encode(), config, "xgboost.json")
    loaded(triton, name)
    rows = np.array([[0, 1, 0, 0], [1, 3, 0, 0], [1, 1, 0, 0]], np.float32)
    sums = np.exp([models.margins(MULTI, row, 3) for row in rows.tolist()])
    want = sums / sums.sum(axis=1, keepdims=True)
    got = ask(triton, name, {"input__0": rows})["output__0"]
    if proba:
        assert triton.model_config(name)["output"][0]["dims"] == [3]
        assert np.allclose(got, want, atol=1e-6)
    else:
        assert got.tolist() == want.argmax(axis=1).tolist()


def test_regression(triton: Triton, name: str) -> None:
    document = models.xgboost_document(objective="reg:squarederror")
    config = (
        'backend: "fil"\nparameters { key: "model_type" value { string_value: "xgboost_json" } }\n'
        'parameters { key: "output_class" value { string_value: "false" } }\n'
    )
    put(triton, name, json.dumps(document).encode(), config, "xgboost.json")
    loaded(triton, name)
    rows = [[0.0, 1.0, 7.0, 0.0], [1.0, 3.0, 7.0, -2.0]]
    got = ask(triton, name, {"input__0": np.array(rows, np.float32)})["output__0"]
    assert got.tolist() == [models.margins(models.STUMPS, row)[0] for row in rows]


LIGHTGBM = """tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=binary sigmoid:1
feature_names=a b
feature_infos=[0:1] [0:1]
tree_sizes=300

Tree=0
num_leaves=2
num_cat=0
split_feature=1
split_gain=1
threshold=0.5
decision_type=2
left_child=-1
right_child=-2
leaf_value=-1.5 2
leaf_weight=1 1
leaf_count=1 1
internal_value=0
internal_weight=0
internal_count=2
is_linear=0
shrinkage=1


end of trees
"""


def test_lightgbm(triton: Triton, name: str) -> None:
    config = (
        'backend: "fil"\nmax_batch_size: 0\nparameters { key: "model_type" value { string_value:'
        ' "lightgbm" } }\nparameters { key: "output_class" value { string_value: "true" }'
        ' }\nparameters { key: "predict_proba" value { string_value: "true" } }\ninput [ { name:'
        ' "input__0" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]\noutput [ { name: "output__0"'
        " data_type: TYPE_FP32 dims: [ -1, 2 ] } ]\n"
    )
    put(triton, name, LIGHTGBM.encode(), config, "model.txt")
    loaded(triton, name)
    got = ask(triton, name, {"input__0": np.array([[0, 0.25], [0, 0.75]], np.float32)})["output__0"]
    assert got[:, 1].tolist() == pytest.approx(
        [models.logistic(-1.5), models.logistic(2)], abs=1e-6
    )


def test_requests_of_different_size_in_one_batch(triton: Triton, name: str) -> None:
    sample = models.make_forest(triton.repository, name)
    path = sample.folder / "config.pbtxt"
    path.write_text(
        path.read_text()
        + "dynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: [ 64 ] }\n"
    )
    loaded(triton, name)
    wrong: list[Any] = []

    def one(index: int) -> None:
        inputs = {"input__0": [[float(index % 2), 3.0, 7.0, float(-index)]] * (1 + index % 4)}
        status, body = triton.infer(name, sample.request(inputs))
        if status != 200 or sample.differences(body, inputs):
            wrong.append(body)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert triton.call(f"v2/models/{name}/stats")[1]["model_stats"][0]["execution_count"] < 16


def test_wrong_number_of_features_is_named(triton: Triton, name: str) -> None:
    sample = models.make_forest(triton.repository, name)
    path = sample.folder / "config.pbtxt"
    path.write_text(path.read_text().replace("dims: [ 4 ]", "dims: [ -1 ]"))
    loaded(triton, name)
    text = failure(triton, name, {"input__0": np.zeros((2, 5), np.float32)})
    assert "input 'input__0' has shape [2, 5]" in text
    assert "4 features" in text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"input__0"', '"x"', ("'input__0'",)),
        ("dims: [ 4 ]", "dims: [ 5 ]", ("'input__0'", "4 features")),
        ("dims: [ 2 ]", "dims: [ 3 ]", ("'output__0'", "2 values")),
        ("TYPE_FP32 dims: [ 4 ]", "TYPE_FP64 dims: [ 4 ]", ("'input__0'", "TYPE_FP32")),
        ('"xgboost_json"', '"catboost"', ("model_type", "catboost")),
        ('"xgboost_json"', '"xgboost_ubj"', ("xgboost.ubj",)),
        ('string_value: "0.5"', 'string_value: "half"', ("threshold",)),
    ],
)
def test_forest_configurations_that_do_not_fit(
    triton: Triton, name: str, old: str, new: str, words: Sequence[str]
) -> None:
    sample = models.make_forest(triton.repository, name)
    path = sample.folder / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    refused(triton, name, *words)


@pytest.mark.parametrize(
    "model_type", ["xgboost", "xgboost_json", "xgboost_ubj", "lightgbm", "treelite_checkpoint"]
)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        bytes(range(256)) * 20,
        b'{"learner": {',
        b"\x80\x04\x95pickle.",
        b"../../x.tl",
    ],
    ids=["empty", "pointer", "garbage", "truncated", "pickle", "link"],
)
def test_broken_forest_files(triton: Triton, name: str, model_type: str, content: bytes) -> None:
    config = (
        f'backend: "fil"\ndefault_model_filename: "forest.bin"\n{ONE}'
        f'parameters {{ key: "model_type" value {{ string_value: "{model_type}" }} }}\n'
    )
    put(triton, name, content, config, "forest.bin")
    text = refused(triton, name, "forest.bin")
    assert "/project/" not in text


def library(script: str, *arguments: str) -> Any:
    """What a script prints as JSON in the server's environment, where the libraries are."""
    run = subprocess.run(
        [str(server_python("TRITON_SERVER_PYTHON", "triton-server")), "-c", script, *arguments],
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(run.stdout)


def test_damaged_checkpoint_does_not_take_the_server_along(triton: Triton, name: str) -> None:
    sample = models.make_forest(triton.repository, name)
    checkpoint = sample.folder / "1" / "checkpoint.tl"
    library(
        "import sys, treelite;"
        " treelite.frontend.load_xgboost_model(sys.argv[1]).serialize(sys.argv[2]); print(1)",
        str(sample.folder / "1" / "xgboost.json"),
        str(checkpoint),
    )
    path = sample.folder / "config.pbtxt"
    path.write_text(path.read_text().replace("xgboost_json", "treelite_checkpoint"))
    loaded(triton, name)
    assert sample.differences(triton.infer(name, sample.request())[1]) == []
    sound = checkpoint.read_bytes()
    checkpoint.write_bytes(sound[: len(sound) // 2])
    refused(triton, name, "checkpoint.tl")


PREDICT = """
import json, sys
import numpy as np, treelite
rows = np.array(json.load(open(sys.argv[2])), np.float32)
model = treelite.Model.deserialize(sys.argv[1])
print(json.dumps(treelite.gtil.predict(model, rows).astype(np.float32)[:, 0, :].tolist()))
"""


@pytest.mark.skipif(
    not MORPHEUS.is_dir(), reason="the reference models of Morpheus are not on this machine"
)
@pytest.mark.parametrize("model", ["ransomw-model-short-rf", "ransomw-model-medium-rf"])
def test_forests_of_morpheus(triton: Triton, tmp_path: Path, model: str) -> None:
    """Unmodified but for the kind of instance, which is the deployer's business on a host without
    GPU.
    """
    source = MORPHEUS / "triton-model-repo" / model
    folder = triton.repository / model
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "checkpoint.tl").write_bytes(
        (MORPHEUS / "ransomware-models" / model / "checkpoint.tl").read_bytes()
    )
    (folder / "config.pbtxt").write_text(
        (source / "config.pbtxt").read_text().replace("KIND_GPU", "KIND_CPU")
    )
    loaded(triton, model)
    features = triton.model_config(model)["input"][0]["dims"][0]
    rows = np.random.default_rng(7).random((200, features), np.float32) * 50
    (tmp_path / "rows.json").write_text(json.dumps(rows.tolist()))
    want = np.array(
        library(PREDICT, str(folder / "1" / "checkpoint.tl"), str(tmp_path / "rows.json")),
        np.float32,
    )
    assert len(np.unique(want)) > 2
    assert (ask(triton, model, {"input__0": rows})["output__0"] == want).all()


def test_nothing_is_written_into_the_repository(triton: Triton) -> None:
    """A file that appears in a model's folder makes the next load a full one."""
    sample = models.make_python(triton.repository, "untouched")
    loaded(triton, "untouched")
    loaded(triton, "untouched")
    assert triton.loads("untouched") == 1
    assert not list(sample.folder.rglob("__pycache__"))
