# SPDX-License-Identifier: Apache-2.0
"""What an .onnx file says of itself: inputs, outputs and the files that hold its weights.

Read from protobuf's wire format, because the library ``onnx`` is not on a host that only publishes,
and a message of
2 GB need not be in memory to find a few names in it.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Union

from ..domain.manifest import confine
from ..errors import ArtifactError
from .given_file import opened, view_of

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
TRITON_TYPES = {
    1: "TYPE_FP32",
    2: "TYPE_UINT8",
    3: "TYPE_INT8",
    4: "TYPE_UINT16",
    5: "TYPE_INT16",
    6: "TYPE_INT32",
    7: "TYPE_INT64",
    8: "TYPE_STRING",
    9: "TYPE_BOOL",
    10: "TYPE_FP16",
    11: "TYPE_FP64",
    12: "TYPE_UINT32",
    13: "TYPE_UINT64",
    16: "TYPE_BF16",
}
_DEEPEST = 20
_MOST_TENSORS = 1 << 16
_LONGEST_NAME = 1 << 16
_MOST_DIMENSIONS = 1 << 10
_EXTERNAL = 1
# Evaluated at run time, where ansible-test still asks for the old form.
Value = Union[int, memoryview]  # noqa: UP007


@dataclass(frozen=True)
class OnnxTensor:
    """An input or output. ``data_type`` as Triton spells it, None for what Triton cannot carry
    (sequences, maps); ``dims`` with -1 for free sizes, None where the model does not say.
    """

    name: str
    data_type: str | None
    dims: tuple[int, ...] | None


@dataclass(frozen=True)
class OnnxFile:
    """``external`` names the files with weights, relative to the model's folder."""

    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    external: tuple[str, ...]


def read_onnx(path: str) -> OnnxFile:
    """Read a model's interface.

    Raises:
        ArtifactError: a git-lfs pointer, an empty or truncated file, or no ONNX model.
    """
    with opened(path) as file:
        head = file.read(len(LFS_POINTER))
        if head == LFS_POINTER:
            raise ArtifactError(
                f"this is a git-lfs pointer: {path}; fetch the file itself with 'git lfs pull'"
            )
        if not head:
            raise ArtifactError(f"{path} is empty")
        view = view_of(file)
    try:
        return _model(view)
    except (ValueError, IndexError) as error:
        raise ArtifactError(f"{path} is not a whole ONNX model ({str(error)[:200]})") from None


def refuse_what_triton_cannot_carry(model: OnnxFile, path: str) -> None:
    """Refuse inputs and outputs that are no tensors, or of types that Triton does not have: nothing
    in a configuration helps.

    Raises:
        ArtifactError: with the tensor's name.
    """
    for side, described in (("input", model.inputs), ("output", model.outputs)):
        for tensor in described:
            if tensor.data_type is None:
                raise ArtifactError(
                    f"the {side} '{tensor.name}' of {path} is a sequence, a map or of a number type"
                    " that Triton does not have: a model is served by tensors alone (skl2onnx:"
                    " options={'zipmap': False}; in what another tool wrote, such as CatBoost, take"
                    " the node ZipMap out and make its input the output)",
                    step="read the model",
                )


def content_of_onnx(path: str, external: Mapping[str, str]) -> str:
    """sha256 of a model in which each name of a file with weights is replaced by that file's
    sha256.

    MLflow draws such names anew each time it saves the same model.
    """
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        places = []
        for name, content in external.items():
            entry = b"\x0a\x08location\x12" + _length_of(name.encode()) + name.encode()
            place = data.find(entry)
            while place >= 0:
                places.append(
                    (place + len(entry) - len(name.encode()), len(name.encode()), content)
                )
                place = data.find(entry, place + len(entry))
        for place, length, content in sorted(places):
            digest.update(data[done:place])
            digest.update(content.encode())
            done = place + length
        digest.update(data[done:])
    return digest.hexdigest()


def _length_of(text: bytes) -> bytes:
    size, made = len(text), b""
    while size >= 0x80:
        made += bytes([size & 0x7F | 0x80])
        size >>= 7
    return made + bytes([size])


def _model(view: memoryview) -> OnnxFile:
    found: Value | None = None
    for number, value in _fields(view):
        if number == 7 and found is not None:
            raise ValueError("it holds several graphs")
        found = value if number == 7 else found
    if found is None:
        raise ValueError("it holds no graph")
    graph = _message(found)
    inputs, outputs, weights, external = [], [], set(), set()
    for number, value in _fields(graph):
        if number == 11:
            inputs.append(_value_info(_message(value)))
        elif number == 12:
            outputs.append(_value_info(_message(value)))
        elif number == 5:
            weights |= {_text(name) for key, name in _fields(_message(value)) if key == 8}
        if len(inputs) + len(outputs) > _MOST_TENSORS:
            raise ValueError(f"it has more than {_MOST_TENSORS} inputs and outputs")
    for location in _external_in_graph(graph, 0):
        external.add(confine(location))
    if not outputs:
        raise ValueError("its graph has no output")
    # Up to IR version 3 each weight is listed among the inputs too.
    return OnnxFile(
        tuple(t for t in inputs if t.name not in weights), tuple(outputs), tuple(sorted(external))
    )


def _external_in_graph(graph: memoryview, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    for number, value in _fields(graph):
        if number == 5:
            yield from _external_in_tensor(_message(value))
        elif number == 1:
            for key, attribute in _fields(_message(value)):
                if key == 5:
                    yield from _external_in_attribute(_message(attribute), depth)


def _external_in_attribute(attribute: memoryview, depth: int) -> Iterator[str]:
    for number, value in _fields(attribute):
        if number in (6, 11):
            yield from _external_in_graph(_message(value), depth + 1)
        elif number in (5, 10):
            yield from _external_in_tensor(_message(value))


def _external_in_tensor(tensor: memoryview) -> Iterator[str]:
    if (14, _EXTERNAL) not in (field for field in _fields(tensor) if field[0] == 14):
        return
    for number, value in _fields(tensor):
        if number == 13:
            entry = {key: _text(text) for key, text in _fields(_message(value)) if key in (1, 2)}
            if entry.get(1) == "location":
                yield entry.get(2, "")


def _value_info(info: memoryview) -> OnnxTensor:
    name, data_type, dims = "", None, None
    for number, value in _fields(info):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for key, kind in _fields(_message(value)):
                if key == 1:
                    data_type, dims = _tensor_type(_message(kind))
    return OnnxTensor(name, data_type, dims)


def _tensor_type(kind: memoryview) -> tuple[str | None, tuple[int, ...] | None]:
    data_type, dims = None, None
    for number, value in _fields(kind):
        if number == 1 and isinstance(value, int):
            data_type = TRITON_TYPES.get(value)
        elif number == 2:
            dims = tuple(_size(_message(dim)) for key, dim in _fields(_message(value)) if key == 1)
            if len(dims) > _MOST_DIMENSIONS:
                raise ValueError(f"a tensor has more than {_MOST_DIMENSIONS} dimensions")
    return data_type, dims


def _size(dim: memoryview) -> int:
    for number, value in _fields(dim):
        if number == 1 and isinstance(value, int):
            return value if value < 1 << 63 else -1
    return -1


def _fields(view: memoryview) -> Iterator[tuple[int, Value]]:
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        kind = key & 7
        if kind == 0:
            value: Value
            value, position = _varint(view, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
            value, position = view[position : position + length], position + length
        elif kind == 2:
            length, position = _varint(view, position)
            value, position = view[position : position + length], position + length
        else:
            raise ValueError(f"byte {position} is no protobuf field")
        if position > len(view):
            raise ValueError("it ends too early")
        yield key >> 3, value


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"byte {position} is no protobuf number")


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message belongs")
    return value


def _text(value: Value) -> str:
    text = _message(value)
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"a name has more than {_LONGEST_NAME} bytes")
    return bytes(text).decode()
