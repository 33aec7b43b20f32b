# SPDX-License-Identifier: Apache-2.0
"""A model that MLflow's own loader runs: what it takes and answers, as its signature says, and what
is written beside it for the worker; pure.

A signature may be anybody's: what it says that tensors cannot carry exactly, or that is not
understood, makes the model one that takes MLflow's scoring JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..outside import JsonDict, JsonObject
from .fields import Fields, WrongShape, read_json

WORKER_VERSION = "1.0"
"""Of the worker that this release deploys."""
SCHEMA = 1
SETTINGS_NAME = "pyfunc.json"
PROGRAMS = ("model.py", "pyfunc_worker.py", "pyfunc_wire.py")
"""In the version folder: what the collection's package ``worker`` is."""
MODEL_FOLDER = "model"
"""In the version folder: the whole MLflow model."""
INTERFACE_KEY = "mlops_triton_pyfunc"
"""A parameter of config.pbtxt: what clients know of the signature, as JSON."""
REQUEST, RESPONSE = "request", "response"
"""The tensors of the form json."""
# Whoever asks for more rows at once divides them.
LARGEST_BATCH = 1 << 20
ROW_BY_ROW = frozenset({"sklearn", "xgboost", "lightgbm", "catboost"})
"""Flavors whose models answer each row by itself, so that requests may be joined. Everything else
may look at the whole table: a pyfunc class, a time series, what is normalised over a batch."""

COLUMN_TYPES = {
    "boolean": "TYPE_BOOL",
    "integer": "TYPE_INT32",
    "long": "TYPE_INT64",
    "float": "TYPE_FP32",
    "double": "TYPE_FP64",
    "string": "TYPE_STRING",
    "binary": "TYPE_STRING",
    "datetime": "TYPE_STRING",
}
TENSOR_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "str": "TYPE_STRING",
    "object": "TYPE_STRING",
    "bytes": "TYPE_STRING",
}
_PARAM_TYPES = frozenset(COLUMN_TYPES) - {"binary"}
# No number has a value that says "none", but for floats (NaN) and times (NaT).
_WITH_NULL = frozenset({"float", "double", "datetime"})
_COMPOUND = {"array": "an Array", "object": "an Object", "map": "a Map", "any": "of any type"}
# Triton, its servers and its clients read these of a request's parameters themselves.
_TAKEN = frozenset(
    {
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "priority",
        "timeout",
        "headers",
        "classification",
        "shared_memory_region",
        "shared_memory_offset",
        "shared_memory_byte_size",
    }
)
_A = {"input": "an input", "output": "an output", "parameter": "a parameter"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MOST_TENSORS = 1000
_MOST_VALUES = 100_000
_LONGEST_TEXT = 1 << 20
_LONGEST_NAME = 200
# A configuration is kept in records and sent with each question for it.
_LONGEST_TOLD = 1 << 16
_LARGEST_SIZE = 2**63 - 1
_DEEPEST = 64


@dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        name: of Triton's tensor.
        type: a column's type as MLflow spells it, or a tensor's as numpy does.
        kind: "column" or "tensor".
        shape: of a tensor, as in the signature; None of a column.
        column: its name in the signature; None where it has none.
    """

    name: str
    type: str
    kind: str
    required: bool = True
    shape: tuple[int, ...] | None = None
    column: str | None = None

    @property
    def triton_type(self) -> str:
        return (TENSOR_TYPES if self.kind == "tensor" else COLUMN_TYPES)[self.type]

    def to_dict(self) -> JsonDict:
        shape = None if self.shape is None else list(self.shape)
        return {
            "name": self.name,
            "type": self.type,
            "required": self.required,
            "kind": self.kind,
            "shape": shape,
            "column": self.column,
        }

    @classmethod
    def read(cls, fields: Fields) -> Port:
        """Raises WrongShape."""
        kind, type_ = fields.text("kind"), fields.text("type")
        known = {"tensor": TENSOR_TYPES, "column": COLUMN_TYPES}.get(kind)
        if known is None or type_ not in known:
            raise fields.wrong("type", f"a type of a {kind}")
        shape = None if fields.data.get("shape") is None else _sizes(fields.data["shape"])
        if fields.data.get("shape") is not None and shape is None:
            raise fields.wrong("shape", "a list of sizes")
        return cls(
            fields.text("name"),
            type_,
            kind,
            _flag(fields, "required"),
            shape,
            None if fields.data.get("column") is None else fields.text("column"),
        )


@dataclass(frozen=True)
class Param:
    """A parameter of a request. ``shape`` is None for a single value, (-1,) for a list."""

    name: str
    type: str
    default: Any
    shape: tuple[int, ...] | None = None

    def to_dict(self) -> JsonDict:
        shape = None if self.shape is None else list(self.shape)
        return {"name": self.name, "type": self.type, "default": self.default, "shape": shape}

    @classmethod
    def read(cls, fields: Fields) -> Param:
        """Raises WrongShape."""
        type_ = fields.text("type")
        if type_ not in _PARAM_TYPES:
            raise fields.wrong("type", "a type of a parameter")
        shape = fields.data.get("shape")
        if shape not in (None, [-1], (-1,)):
            raise fields.wrong("shape", "null or [-1]")
        return cls(
            fields.text("name"), type_, fields.data.get("default"), None if shape is None else (-1,)
        )


@dataclass(frozen=True)
class Interface:
    """What a model takes and answers.

    Attributes:
        form: "tensors", or "json" for MLflow's scoring JSON.
        reason: why json, as a part of a sentence; None for tensors.
        batched: the first dimension of all tensors is Triton's batch.
        told: of the form json, what the signature says of inputs and of outputs, for clients: types
            are as it writes them, and a name that is none is None.
    """

    form: str
    reason: str | None = None
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    params: tuple[Param, ...] = ()
    batched: bool = False
    told: tuple[tuple[JsonDict, ...], tuple[JsonDict, ...]] = ((), ())

    def to_dict(self) -> JsonDict:
        """What clients are told."""
        return {
            "form": self.form,
            "inputs": [*self.told[0], *(port.to_dict() for port in self.inputs)],
            "outputs": [*self.told[1], *(port.to_dict() for port in self.outputs)],
            "params": [param.to_dict() for param in self.params],
        }


@dataclass(frozen=True)
class PyfuncSettings:
    """What stub and worker are told, in ``pyfunc.json``.

    Attributes:
        python: of the environment, as the server sees it; ``environment`` its digest.
        independent_rows: requests may be joined.
        predict_timeout, start_timeout: seconds.
    """

    python: str
    environment: str
    interface: Interface
    independent_rows: bool
    predict_timeout: float
    start_timeout: float
    worker: str = WORKER_VERSION

    def to_dict(self) -> JsonDict:
        return {
            "schema": SCHEMA,
            "worker": self.worker,
            "python": self.python,
            "environment": self.environment,
            **self.interface.to_dict(),
            "batched": self.interface.batched,
            "independent_rows": self.independent_rows,
            "predict_timeout": self.predict_timeout,
            "start_timeout": self.start_timeout,
        }

    def to_bytes(self) -> bytes:
        return (json.dumps(self.to_dict(), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_dict(cls, data: object) -> PyfuncSettings:
        """Raises WrongShape for what ``to_dict`` did not write, or a newer one did."""
        fields = Fields(data)
        if fields.number("schema") > SCHEMA:
            raise WrongShape(f"schema is newer than {SCHEMA}")
        form, python = fields.text("form"), fields.text("python")
        if form not in ("tensors", "json"):
            raise fields.wrong("form", "tensors or json")
        if not python.startswith("/"):
            raise fields.wrong("python", "an absolute path")
        sides = [[*fields.objects(side)] for side in ("inputs", "outputs")]
        if form == "tensors" and not all(sides):
            raise WrongShape("inputs and outputs are missing")
        in_json = form == "json"
        inputs, outputs = (
            () if in_json else tuple(Port.read(one) for one in side) for side in sides
        )
        given, answered = (
            tuple(dict(one.data) for one in side) if in_json else () for side in sides
        )
        params = tuple(Param.read(one) for one in fields.objects("params"))
        batched = _flag(fields, "batched")
        return cls(
            python,
            fields.text("environment"),
            Interface(form, None, inputs, outputs, params, batched, (given, answered)),
            _flag(fields, "independent_rows"),
            _seconds(fields, "predict_timeout"),
            _seconds(fields, "start_timeout"),
            fields.text("worker"),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> PyfuncSettings:
        """Raises WrongShape."""
        return cls.from_dict(read_json(data, _MOST_VALUES))


def in_words(requirements: object, packages: object) -> str:
    """How many there are of each, as far as that is known."""
    counted = ((requirements, "requirement"), (packages, "package"))
    said = [
        f"{number} {what}{'s' * (number != 1)}"
        for number, what in counted
        if isinstance(number, int)
    ]
    return "; ".join(said) or "not known"


class _NotExact(Exception):
    """Why tensors cannot carry it, as a part of a sentence."""


def interface_of(mlmodel: JsonObject | None) -> Interface:
    """What the signature in an MLmodel says; what tensors cannot carry is of the form json."""
    signature = (mlmodel or {}).get("signature")
    if not isinstance(signature, Mapping):
        return Interface("json", "it has no signature")
    params: tuple[Param, ...] = ()
    try:
        params = _params(_specs(signature, "params"))
        inputs = _ports(_specs(signature, "inputs"), "input")
        outputs = _ports(_specs(signature, "outputs"), "output")
        _refuse_no_rows(inputs)
        batched = _is_batched([*inputs, *outputs])
    except _NotExact as why:
        told = (_told(signature, "inputs"), _told(signature, "outputs"))
        return Interface("json", str(why), params=params, told=told)
    return Interface("tensors", None, inputs, outputs, params, batched)


def _told(signature: JsonObject, side: str) -> tuple[JsonDict, ...]:
    """One side of a signature, for clients; nothing where it is not understood or very long."""
    try:
        specs = _specs(signature, side)
        found = tuple(_described(spec) for spec in specs)
    except (_NotExact, RecursionError):
        return ()
    return found if len(json.dumps(found)) <= _LONGEST_TOLD else ()


def _described(spec: Mapping[str, Any]) -> JsonDict:
    name, type_ = spec.get("name"), spec.get("type")
    if not isinstance(type_, str):
        raise _NotExact("its type is no text")
    name = name if isinstance(name, str) else None
    required = spec.get("required", not spec.get("optional", False)) is not False
    shape: list[int] | None = None
    kind, said = "column", type_ if type_ in COLUMN_TYPES else _nested(spec)
    if type_ == "tensor":
        info = spec.get("tensor-spec")
        sizes = _sizes(info.get("shape")) if isinstance(info, Mapping) else None
        if not isinstance(info, Mapping) or not isinstance(info.get("dtype"), str) or sizes is None:
            raise _NotExact("its tensor is not understood")
        kind, said, shape = "tensor", info["dtype"], list(sizes)
    return {
        "name": name,
        "type": said,
        "required": required,
        "kind": kind,
        "shape": shape,
        "column": name,
    }


def _nested(spec: Mapping[str, Any]) -> JsonDict:
    return {key: value for key, value in spec.items() if key not in ("name", "required")}


def _specs(signature: JsonObject, side: str) -> list[Mapping[str, Any]]:
    text = signature.get(side)
    if text in (None, "", "null"):
        if side == "params":
            return []
        raise _NotExact(f"its signature says nothing of {side}")
    not_understood = _NotExact(f"its signature's {side} are not understood")
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise not_understood
    try:
        found = read_json(text.encode(), _MOST_VALUES)
    except (WrongShape, UnicodeEncodeError):
        raise not_understood from None
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise not_understood
    if not found and side != "params":
        raise _NotExact(f"its signature says nothing of {side}")
    if len(found) > _MOST_TENSORS:
        raise _NotExact(f"it has {len(found)} {side}, and tensors are made for {_MOST_TENSORS}")
    return found


def _ports(specs: Sequence[Mapping[str, Any]], side: str) -> tuple[Port, ...]:
    kinds = {one.get("type") == "tensor" for one in specs}
    if len(kinds) > 1:
        raise _NotExact(f"its {side}s are columns and tensors")
    names = [_name_of(one, side) for one in specs]
    if len(specs) > 1 and None in names:
        raise _NotExact(f"not each {side} has a name that is a text")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _NotExact(f"two {side}s have the name {twice!r}")
    make = _tensor if kinds == {True} else _column
    alone = "predictions" if side == "output" else "inputs"
    if kinds == {False} and side == "input" and None in names:
        # pandas would name it by its number.
        raise _NotExact("not each input has a name that is a text")
    return tuple(
        make(one, alone if name is None else name, name, side) for one, name in zip(specs, names)
    )


def _name_of(spec: Mapping[str, Any], side: str) -> str | None:
    name = spec.get("name")
    if name is None:
        return None
    if not isinstance(name, str):
        raise _NotExact(f"{_A[side]} has a name that is no text")
    try:
        fits = 0 < len(name.encode()) <= _LONGEST_NAME and not _CONTROL.search(name)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise _NotExact(f"{_A[side]} has a name that Triton does not take")
    return name


def _column(spec: Mapping[str, Any], name: str, column: str | None, side: str) -> Port:
    type_, required = spec.get("type"), spec.get("required", not spec.get("optional", False))
    what = f"column {name!r}" if column is not None else f"its {side}"
    if not isinstance(type_, str) or not isinstance(required, bool):
        raise _NotExact(f"{what} is not understood")
    if type_ not in COLUMN_TYPES:
        raise _NotExact(f"{what} is {_COMPOUND.get(type_.lower(), f'of type {type_[:40]!r}')}")
    if not required and (
        type_ in ("string", "binary") or (side == "output" and type_ not in _WITH_NULL)
    ):
        raise _NotExact(f"{what} may be null, and no tensor of {type_} says so")
    return Port(name, type_, "column", required, None, column)


def _tensor(spec: Mapping[str, Any], name: str, column: str | None, side: str) -> Port:
    what = f"the {side} {name!r}" if column is not None else f"its {side}"
    info = spec.get("tensor-spec")
    type_ = info.get("dtype") if isinstance(info, Mapping) else None
    shape = _sizes(info.get("shape")) if isinstance(info, Mapping) else None
    if not isinstance(type_, str) or shape is None:
        raise _NotExact(f"{what} is not understood")
    if type_ not in TENSOR_TYPES:
        raise _NotExact(f"{what} has the type {type_[:40]!r}, for which Triton has none")
    if not shape:
        raise _NotExact(f"{what} has no dimension, and Triton takes no such tensors")
    if 0 in shape:
        raise _NotExact(f"{what} has a dimension of size 0")
    return Port(name, type_, "tensor", True, shape, column)


def _sizes(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, (list, tuple)) or len(value) > _DEEPEST:
        return None
    for size in value:
        if not isinstance(size, int) or isinstance(size, bool) or not -1 <= size <= _LARGEST_SIZE:
            return None
    return tuple(value)


def _refuse_no_rows(inputs: Sequence[Port]) -> None:
    if not any(port.required for port in inputs):
        raise _NotExact("all its columns are optional, and no tensor says how many rows there are")


def _is_batched(ports: Sequence[Port]) -> bool:
    """Columns are of as many rows as a request has; tensors are where their first size is free."""
    fixed = [port for port in ports if port.shape is not None and port.shape[0] != -1]
    if fixed and any(port.kind == "column" for port in ports):
        raise _NotExact(
            f"'{fixed[0].name}' has {fixed[0].shape[0] if fixed[0].shape else 0} rows, however"
            " many the columns have"
        )
    return not fixed


def _params(specs: Sequence[Mapping[str, Any]]) -> tuple[Param, ...]:
    found = []
    for spec in specs:
        name = spec.get("name")
        if not isinstance(name, str) or _name_of(spec, "parameter") is None:
            raise _NotExact("a parameter has no name that is a text")
        if name in _TAKEN or name.startswith(("triton_", "binary_")):
            raise _NotExact(f"its parameter {name!r} has a name that Triton reads itself")
        type_ = spec.get("type", spec.get("dtype"))
        if not isinstance(type_, str) or type_ not in _PARAM_TYPES:
            said = _COMPOUND.get(str(type_).lower()[:40], f"of type {str(type_)[:40]!r}")
            raise _NotExact(f"parameter {name!r} is {said}")
        if spec.get("shape") not in (None, [-1]):
            raise _NotExact(f"parameter {name!r} has a shape of its own")
        shape = None if spec.get("shape") is None else (-1,)
        found.append(Param(name, type_, spec.get("default"), shape))
    names = [param.name for param in found]
    if len(names) != len({*names}):
        raise _NotExact("two parameters have the same name")
    return tuple(found)


def _flag(fields: Fields, key: str) -> bool:
    found = fields.data.get(key)
    if not isinstance(found, bool):
        raise fields.wrong(key, "true or false")
    return found


def _seconds(fields: Fields, key: str) -> float:
    found = fields.data.get(key)
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not found > 0:
        raise fields.wrong(key, "a number of seconds")
    return float(found)
