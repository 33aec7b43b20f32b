# SPDX-License-Identifier: Apache-2.0
"""Small models whose answers plain arithmetic can check, made with the standard library alone.

The quickstart and the tests run where no training framework and no `onnx` package is installed, so
the ONNX and XGBoost files are written byte by byte here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Tensor = list[Any]
Tensors = dict[str, Tensor]
Dims = Sequence[int | str | None]

ONNX_TYPES = {
    "FP32": 1,
    "UINT8": 2,
    "INT8": 3,
    "UINT16": 4,
    "INT16": 5,
    "INT32": 6,
    "INT64": 7,
    "BYTES": 8,
    "BOOL": 9,
    "FP16": 10,
    "FP64": 11,
    "UINT32": 12,
    "UINT64": 13,
    "COMPLEX64": 14,
    "BF16": 16,
}
STRUCT_TYPES = {
    "FP32": "f",
    "UINT8": "B",
    "INT8": "b",
    "UINT16": "H",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "BOOL": "?",
    "FP16": "e",
    "FP64": "d",
    "UINT32": "I",
    "UINT64": "Q",
}


@dataclass(frozen=True)
class Sample:
    """A model folder, inputs for it, and what it must answer."""

    name: str
    folder: Path
    inputs: Tensors
    datatypes: dict[str, str]
    expected: Callable[[Mapping[str, Tensor]], Tensors]
    # Largest difference between the answer and the arithmetic, both being computed in different
    # precisions.
    tolerance: float = 1e-5
    extra: dict[str, Any] = field(default_factory=dict)

    def request(self, inputs: Tensors | None = None) -> dict[str, Any]:
        """Body of an inference request of the KServe protocol."""
        return {
            "inputs": [
                {
                    "name": name,
                    "datatype": self.datatypes[name],
                    "shape": shape_of(value),
                    "data": flatten(value),
                }
                for name, value in (inputs or self.inputs).items()
            ]
        }

    def differences(self, response: Mapping[str, Any], inputs: Tensors | None = None) -> list[str]:
        """What in the JSON response of an inference is not what the arithmetic says."""
        answers = {item["name"]: item for item in response.get("outputs", [])}
        found = []
        for name, value in self.expected(inputs or self.inputs).items():
            if name not in answers:
                found.append(f"{name} is missing")
                continue
            want, got = flatten(value), answers[name]["data"]
            if len(want) != len(got):
                found.append(f"{name} has {len(got)} values instead of {len(want)}")
            elif any(_differ(a, b, self.tolerance) for a, b in zip(want, got)):
                found.append(f"{name} is {got} instead of {want}")
        return found


def _differ(want: Any, got: Any, tolerance: float) -> bool:
    if isinstance(want, float):
        return not math.isclose(want, got, rel_tol=tolerance, abs_tol=tolerance)
    return bool(want != got)


def shape_of(value: Any) -> list[int]:
    shape = []
    while isinstance(value, (list, tuple)):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def flatten(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value]
    return [leaf for item in value for leaf in flatten(item)]


# ---- ONNX ----------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _number(tag: int, value: int) -> bytes:
    return _varint(tag << 3) + _varint(value)


def _bytes(tag: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(tag << 3 | 2) + _varint(len(data)) + data


def pack(datatype: str, value: Any) -> bytes:
    flat = flatten(value)
    return struct.pack(f"<{len(flat)}{STRUCT_TYPES[datatype]}", *flat)


def onnx_tensor(
    name: str, datatype: str, value: Any, external: tuple[str, int, int] | None = None
) -> bytes:
    out = b"".join(_number(1, size) for size in shape_of(value)) + _number(2, ONNX_TYPES[datatype])
    if datatype == "BYTES":
        out += b"".join(_bytes(6, item) for item in flatten(value))
    elif external is None:
        out += _bytes(9, pack(datatype, value))
    else:
        location, offset, length = external
        for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
            out += _bytes(13, _bytes(1, key) + _bytes(2, text))
        out += _number(14, 1)
    return out + _bytes(8, name)


def _onnx_value(name: str, datatype: str, dims: Dims | None) -> bytes:
    tensor = _number(1, ONNX_TYPES[datatype])
    if dims is not None:
        shape = b""
        for size in dims:
            dim = _number(1, size) if isinstance(size, int) else _bytes(2, size) if size else b""
            shape += _bytes(1, dim)
        tensor += _bytes(2, shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


def onnx_node(
    kind: str, inputs: Iterable[str], outputs: Iterable[str], **attributes: int | list[int]
) -> bytes:
    out = b"".join(_bytes(1, name) for name in inputs) + b"".join(
        _bytes(2, name) for name in outputs
    )
    out += _bytes(4, kind)
    for name, value in attributes.items():
        if isinstance(value, int):
            out += _bytes(5, _bytes(1, name) + _number(3, value) + _number(20, 2))
        else:
            out += _bytes(
                5, _bytes(1, name) + b"".join(_number(8, item) for item in value) + _number(20, 7)
            )
    return out


def onnx_model(
    nodes: Iterable[bytes],
    inputs: Mapping[str, tuple[str, Dims | None]],
    outputs: Mapping[str, tuple[str, Dims | None]],
    initializers: Iterable[bytes] = (),
    opset: int = 17,
) -> bytes:
    graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, "graph")
    graph += b"".join(_bytes(5, tensor) for tensor in initializers)
    graph += b"".join(_bytes(11, _onnx_value(name, *value)) for name, value in inputs.items())
    graph += b"".join(_bytes(12, _onnx_value(name, *value)) for name, value in outputs.items())
    return (
        _number(1, 8) + _bytes(2, "mlops.triton") + _bytes(7, graph) + _bytes(8, _number(2, opset))
    )


def make_onnx(
    folder: Path | str,
    name: str = "network",
    *,
    version: int = 1,
    weights: Sequence[Sequence[float]] = ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)),
    bias: Sequence[float] = (0.5, -0.5),
    external_data: bool | str = False,
    filename: str = "model.onnx",
    config: str | None = "full",
) -> Sample:
    """y = x W + b. `config` is "full", None for no file at all, or the text of config.pbtxt."""
    folder = Path(folder) / name
    place = folder / str(version)
    place.mkdir(parents=True, exist_ok=True)
    rows, columns = len(weights), len(weights[0])
    matrix = [list(row) for row in weights]
    external = None
    if external_data:
        data_name = external_data if isinstance(external_data, str) else "weights.data"
        raw = pack("FP32", matrix)
        (place / data_name).write_bytes(raw)
        external = (data_name, 0, len(raw))
    (place / filename).write_bytes(
        onnx_model(
            [onnx_node("MatMul", ["x", "W"], ["xW"]), onnx_node("Add", ["xW", "b"], ["y"])],
            {"x": ("FP32", ["batch", rows])},
            {"y": ("FP32", ["batch", columns])},
            [onnx_tensor("W", "FP32", matrix, external), onnx_tensor("b", "FP32", list(bias))],
        )
    )
    text = (
        f'name: "{name}"\n'
        'platform: "onnxruntime_onnx"\n'
        "max_batch_size: 8\n"
        f'input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {rows} ] }} ]\n'
        f'output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {columns} ] }} ]\n'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    )
    if filename != "model.onnx":
        text += f'default_model_filename: "{filename}"\n'
    _write_config(folder, config, text)

    def expected(inputs: Mapping[str, Tensor]) -> Tensors:
        return {
            "y": [
                [sum(v * w for v, w in zip(x, col)) + b for col, b in zip(zip(*weights), bias)]
                for x in inputs["x"]
            ]
        }

    inputs = {"x": [[float(i + row) for i in range(rows)] for row in range(2)]}
    return Sample(name, folder, inputs, {"x": "FP32"}, expected)


def _write_config(folder: Path, config: str | None, full: str) -> None:
    if config is not None:
        (folder / "config.pbtxt").write_text(full if config == "full" else config, encoding="utf-8")


# ---- tree ensembles ------------------------------------------------------------------------------

# Feature, threshold, value when smaller, value when not, class: numbers that binary floating point
# holds exactly.
STUMPS = ((0, 0.5, -1.0, 1.0, 0), (1, 2.0, 0.25, -0.25, 0), (3, -1.0, 2.0, -0.5, 0))


def _stump(
    index: int, features: int, feature: int, threshold: float, low: float, high: float
) -> dict[str, Any]:
    """A tree of one split, as XGBoost writes it."""
    return {
        "base_weights": [0.0, low, high],
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": [1, 0, 0],
        "id": index,
        "left_children": [1, -1, -1],
        "loss_changes": [1.0, 0.0, 0.0],
        "parents": [2147483647, 0, 0],
        "right_children": [2, -1, -1],
        "split_conditions": [threshold, low, high],
        "split_indices": [feature, 0, 0],
        "split_type": [0, 0, 0],
        "sum_hessian": [2.0, 1.0, 1.0],
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(features),
            "num_nodes": "3",
            "size_leaf_vector": "1",
        },
    }


def xgboost_document(
    stumps: Sequence[tuple[int, float, float, float, int]] = STUMPS,
    *,
    features: int = 4,
    objective: str = "binary:logistic",
    classes: int = 0,
) -> dict[str, Any]:
    """What XGBoost's save_model writes, for trees of one split each."""
    trees = [_stump(index, features, *stump[:4]) for index, stump in enumerate(stumps)]
    param = "softmax_multiclass_param" if classes else "reg_loss_param"
    return {
        "learner": {
            "attributes": {},
            "feature_names": [],
            "feature_types": [],
            "gradient_booster": {
                "model": {
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
                    "iteration_indptr": list(range(len(trees) + 1)),
                    "tree_info": [stump[4] for stump in stumps],
                    "trees": trees,
                },
                "name": "gbtree",
            },
            "learner_model_param": {
                "base_score": "5E-1" if not classes and objective == "binary:logistic" else "0E0",
                "boost_from_average": "1",
                "num_class": str(classes),
                "num_feature": str(features),
                "num_target": "1",
            },
            "objective": {
                "name": objective,
                param: {"num_class": str(classes)} if classes else {"scale_pos_weight": "1"},
            },
        },
        "version": [2, 0, 3],
    }


def ubjson(value: Any) -> bytes:
    """Universal Binary JSON, XGBoost's default format."""
    if isinstance(value, dict):
        return b"{" + b"".join(ubjson(key)[1:] + ubjson(item) for key, item in value.items()) + b"}"
    if isinstance(value, list):
        return b"[" + b"".join(ubjson(item) for item in value) + b"]"
    if isinstance(value, str):
        return b"SL" + struct.pack(">q", len(value.encode())) + value.encode()
    if isinstance(value, float):
        return b"d" + struct.pack(">f", value)
    return b"l" + struct.pack(">i", value)


def margins(
    stumps: Sequence[tuple[int, float, float, float, int]], row: Sequence[float], classes: int = 0
) -> list[float]:
    sums = [0.0] * max(1, classes)
    for feature, threshold, low, high, group in stumps:
        sums[group] += low if row[feature] < threshold else high
    return sums


def logistic(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def make_forest(
    folder: Path | str,
    name: str = "forest",
    *,
    version: int = 1,
    stumps: Sequence[tuple[int, float, float, float, int]] = STUMPS,
    features: int = 4,
    filename: str = "xgboost.json",
    model_type: str = "xgboost_json",
    predict_proba: bool = True,
    threshold: float = 0.5,
    kind: str = "KIND_CPU",
    config: str | None = "full",
) -> Sample:
    """A binary classifier for the FIL backend, in XGBoost's JSON (or UBJ, for a file name that ends
    so).
    """
    folder = Path(folder) / name
    place = folder / str(version)
    place.mkdir(parents=True, exist_ok=True)
    document = xgboost_document(stumps, features=features)
    data = ubjson(document) if filename.endswith(".ubj") else json.dumps(document).encode()
    (place / filename).write_bytes(data)
    parameters = {
        "model_type": model_type,
        "predict_proba": str(predict_proba).lower(),
        "output_class": "true",
        "threshold": str(threshold),
        "algo": "ALGO_AUTO",
        "storage_type": "AUTO",
        "blocks_per_sm": "0",
    }
    text = (
        f'name: "{name}"\nbackend: "fil"\nmax_batch_size: 1024\ninput [ {{ name: "input__0"'
        f' data_type: TYPE_FP32 dims: [ {features} ] }} ]\noutput [ {{ name: "output__0" data_type:'
        f" TYPE_FP32 dims: [ {2 if predict_proba else 1} ] }} ]\ninstance_group [ {{ kind: {kind}"
        " count: 1 } ]\n"
    )
    if filename not in ("xgboost.json", "xgboost.ubj", "xgboost.model"):
        text += f'default_model_filename: "{filename}"\n'
    for key, value in parameters.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    _write_config(folder, config, text)

    def expected(inputs: Mapping[str, Tensor]) -> Tensors:
        scores = [logistic(margins(stumps, row)[0]) for row in inputs["input__0"]]
        if predict_proba:
            return {"output__0": [[1.0 - score, score] for score in scores]}
        return {"output__0": [1.0 if score > threshold else 0.0 for score in scores]}

    rows = [[0.0, 1.0, 7.0, 0.0], [1.0, 3.0, 7.0, -2.0], [0.25, 2.0, 7.0, -1.0]]
    inputs: Tensors = {"input__0": [row + [0.0] * (features - 4) for row in rows]}
    return Sample(name, folder, inputs, {"input__0": "FP32"}, expected)


# ---- Python backend ------------------------------------------------------------------------------

_PYTHON_MODEL = """\
import ctypes
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils

IDENTITY = {identity!r}
OFFSET = {offset!r}
FAIL = {fail!r}
FAIL_INFER = {fail_infer!r}


class TritonPythonModel:
    def initialize(self, args):
        wait = ctypes.PyDLL(None).sleep if {holds!r} else time.sleep
        wait({load_delay!r})
        if {crash!r}:
            os._exit(13)
        if FAIL:
            raise RuntimeError(FAIL)

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            time.sleep({infer_delay!r})
            if FAIL_INFER:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(FAIL_INFER)))
                continue
            y = (2 * x + OFFSET).astype(np.float32)
            identity = np.full((x.shape[0], 1), IDENTITY, dtype=np.int32)
            responses.append(
                pb_utils.InferenceResponse([pb_utils.Tensor("y", y), pb_utils.Tensor("identity", identity)])
            )
        return responses
"""  # noqa: E501


def make_python(
    folder: Path | str,
    name: str = "doubler",
    *,
    version: int = 1,
    identity: int = 1,
    wrong: bool = False,
    load_delay: float = 0,
    holds: bool = False,
    infer_delay: float = 0,
    crash: bool = False,
    fail: str | None = None,
    fail_infer: str | None = None,
    count: int = 1,
    kind: str = "KIND_CPU",
    config: str | None = "full",
) -> Sample:
    """y = 2 x, and a number that tells one deployment from another.

    `crash` ends the process in initialize, `fail` raises there, `fail_infer` answers each request
    with that error, `wrong` answers 2 x + 1. `holds` keeps the interpreter's lock for the whole
    seconds of `load_delay`, as a library may that reads much: the process does not see meanwhile
    that its server is gone, and lives on.
    """
    folder = Path(folder) / name
    place = folder / str(version)
    place.mkdir(parents=True, exist_ok=True)
    source = _PYTHON_MODEL.format(
        identity=identity,
        offset=1 if wrong else 0,
        load_delay=load_delay,
        holds=holds,
        infer_delay=infer_delay,
        crash=crash,
        fail=fail,
        fail_infer=fail_infer,
    )
    (place / "model.py").write_text(source, encoding="utf-8")
    text = (
        f'name: "{name}"\n'
        'backend: "python"\n'
        "max_batch_size: 8\n"
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]\n'
        'output [\n  { name: "y" data_type: TYPE_FP32 dims: [ 3 ] },\n'
        '  { name: "identity" data_type: TYPE_INT32 dims: [ 1 ] }\n]\n'
        f"instance_group [ {{ kind: {kind} count: {count} }} ]\n"
    )
    _write_config(folder, config, text)

    def expected(inputs: Mapping[str, Tensor]) -> Tensors:
        rows = inputs["x"]
        return {
            "y": [[2.0 * value for value in row] for row in rows],
            "identity": [[identity] for _row in rows],
        }

    return Sample(name, folder, {"x": [[1.0, 2.5, -4.0]]}, {"x": "FP32"}, expected)


# ---- ensembles -----------------------------------------------------------------------------------


def make_ensemble(
    folder: Path | str, name: str, members: Sequence[Sample], *, pinned: int = -1
) -> Sample:
    """The members of ``make_python``, one after another: y = 2 ** n x. It has no files but its
    configuration.

    `pinned` is the version of each member that it asks for; -1 the highest.
    """
    place = Path(folder) / name
    (place / "1").mkdir(parents=True, exist_ok=True)
    steps = []
    for number, member in enumerate(members):
        source = "x" if number == 0 else f"between_{number}"
        target = "y" if number == len(members) - 1 else f"between_{number + 1}"
        steps.append(
            f'{{ model_name: "{member.name}" model_version: {pinned}\n      input_map {{ key: "x"'
            f' value: "{source}" }}\n      output_map {{ key: "y" value: "{target}" }} }}'
        )
    _write_config(
        place,
        (
            f'name: "{name}"\n'
            'platform: "ensemble"\n'
            "max_batch_size: 8\n"
            'input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]\n'
            'output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]\n'
            f"ensemble_scheduling {{\n  step [\n    {', '.join(steps)}\n  ]\n}}\n"
        ),
        "",
    )

    def expected(inputs: Mapping[str, Tensor]) -> Tensors:
        return {"y": [[2.0 ** len(members) * value for value in row] for row in inputs["x"]]}

    return Sample(name, place, {"x": [[1.0, 2.5, -4.0]]}, {"x": "FP32"}, expected)


def wants_gpu(config: Any) -> bool:
    """True where an instance group of a parsed configuration can only be placed on a GPU."""
    return any(group.kind == group.KIND_GPU for group in config.instance_group)
