# SPDX-License-Identifier: Apache-2.0
"""What a reader found, as JSON, and back. Whoever wrote the file may have taken the reader over, so
that its answer is believed as little as the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from ..domain.backends import FIL_FILES
from ..domain.fields import Fields
from ..domain.manifest import confine
from ..formats.model_file import Look
from ..formats.onnx import TRITON_TYPES, OnnxFile, OnnxTensor
from ..formats.served import Served
from ..formats.trees import ForestFile
from ..outside import JsonDict

_MOST = 1 << 24
_LEAST_SIZE, _LARGEST_SIZE = -1, 1 << 63
_TASKS = ("binary", "classes", "regression")
T = TypeVar("T")


def _tensor_to_dict(tensor: OnnxTensor) -> JsonDict:
    dims = None if tensor.dims is None else list(tensor.dims)
    return {"name": tensor.name, "data_type": tensor.data_type, "dims": dims}


def _tensor(data: object) -> OnnxTensor:
    fields = Fields(data)
    data_type = fields.text_or_none("data_type")
    if data_type is not None and data_type not in TRITON_TYPES.values():
        raise fields.wrong("data_type", "a type of Triton's")
    dims = None if fields.data.get("dims") is None else tuple(fields.each("dims"))
    for size in dims or ():
        if isinstance(size, bool) or not isinstance(size, int):
            raise fields.wrong("dims", "a list of sizes")
        if not _LEAST_SIZE <= size < _LARGEST_SIZE:
            raise fields.wrong("dims", "a list of sizes")
    return OnnxTensor(fields.text("name"), data_type, dims)


def onnx_to_dict(model: OnnxFile) -> JsonDict:
    return {
        "inputs": [_tensor_to_dict(tensor) for tensor in model.inputs],
        "outputs": [_tensor_to_dict(tensor) for tensor in model.outputs],
        "external": list(model.external),
    }


def onnx(data: object) -> OnnxFile:
    """Raises WrongShape, or ArtifactError for a path that leads out of the model."""
    fields = Fields(data)
    return OnnxFile(
        tuple(map(_tensor, fields.each("inputs"))),
        tuple(map(_tensor, fields.each("outputs"))),
        tuple(map(confine, fields.texts("external"))),
    )


def forest_to_dict(forest: ForestFile) -> JsonDict:
    """Without the bytes that belong in place of the file."""
    return {
        "model_type": forest.model_type,
        "features": forest.features,
        "task": forest.task,
        "columns": forest.columns,
        "averages": forest.averages,
        "names": list(forest.names),
    }


def forest(data: object) -> ForestFile:
    """Raises WrongShape."""
    fields = Fields(data)
    names = fields.texts("names")
    found = ForestFile(
        fields.text("model_type"),
        fields.number("features"),
        fields.text("task"),
        fields.number("columns"),
        averages=fields.data.get("averages") is True,
        names=names,
    )
    if found.model_type not in FIL_FILES or found.task not in _TASKS:
        raise fields.wrong("model_type", "one of a forest")
    if not (0 < found.features < _MOST and 0 < found.columns < _MOST):
        raise fields.wrong("features", "a number of features")
    return found


def served_to_dict(served: Served) -> JsonDict:
    return {
        "filename": served.filename,
        "onnx": None if served.onnx is None else onnx_to_dict(served.onnx),
        "forest": None if served.forest is None else forest_to_dict(served.forest),
        "names": list(served.names),
    }


def served(data: object) -> Served:
    """Raises WrongShape."""
    fields = Fields(data)
    filename = fields.text("filename")
    if "/" in filename or filename != confine(filename):
        raise fields.wrong("filename", "a file's name")
    return Served(
        filename,
        _or_none(fields.data, "onnx", onnx),
        _or_none(fields.data, "forest", forest),
        fields.texts("names"),
    )


def look_to_dict(look: Look) -> JsonDict:
    return {
        "onnx": None if look.onnx is None else onnx_to_dict(look.onnx),
        "forest": None if look.forest is None else forest_to_dict(look.forest),
        "completes": look.completes,
    }


def look(data: object, kind: str) -> Look:
    """Raises WrongShape."""
    fields = Fields(data)
    found = Look(
        kind,
        _or_none(fields.data, "onnx", onnx),
        _or_none(fields.data, "forest", forest),
        fields.data.get("completes") is True,
    )
    if (found.onnx is None) is (kind == "onnx"):
        raise fields.wrong("onnx", "what such a file has")
    return found


def _or_none(data: Mapping[str, object], key: str, read: Callable[[object], T]) -> T | None:
    return None if data.get(key) is None else read(data[key])
