# SPDX-License-Identifier: Apache-2.0
"""Classes and functions of a data scientist's own, logged with the pyfunc flavor."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy
import pandas
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

from .logged import Logged, Trained, log_python

# As in a notebook, whose classes belong to no file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
HERE = Path(__file__).resolve().parent
AMOUNTS = pandas.DataFrame({"tariff": ["day", "night", "day"], "amount": [1.5, 2.25, -0.1]})


class Pricing(PythonModel):
    def load_context(self, context: Any) -> None:
        from tariffs import read_table

        self.table = read_table(context.artifacts["table"])

    def predict(self, context, model_input, params=None):
        price = model_input["tariff"].map(self.table) * model_input["amount"] * params["factor"]
        for discount in params["discounts"]:
            price = price - discount
        return pandas.DataFrame(
            {
                "label": params["label"] + ":" + model_input["tariff"],
                "price": price,
                "rows": numpy.full(len(price), params["rows"] if params["known"] else -1),
                "is_high": price > 3.0,
            }
        )


def pricing(name: str) -> Iterable[Logged]:
    """Artifacts, code of its own, params of all kinds; a DataFrame comes back."""
    defaults = {"factor": 1.0, "rows": 3, "label": "now", "known": True, "discounts": [0.5, 0.25]}
    answer = pandas.DataFrame({"label": ["a"], "price": [0.1], "rows": [1], "is_high": [True]})
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.json"
        table.write_text(json.dumps({"day": 2.0, "night": 1 / 3}), encoding="utf-8")
        info = log_python(
            name,
            Pricing(),
            artifacts={"table": str(table)},
            code_paths=[str(HERE / "code" / "tariffs")],
            signature=infer_signature(AMOUNTS, answer, params=defaults),
        )
    others = {"factor": 0.1, "rows": 7, "label": "spät", "known": False, "discounts": [0.1]}
    yield Logged(info, [(AMOUNTS, None), (AMOUNTS.head(1), {"factor": 2.5}), (AMOUNTS, others)])


def shout(name: str) -> Iterable[Logged]:
    """A function with type hints, from which MLflow makes the signature."""

    def predict(model_input: list[str]) -> list[str]:
        return [one.upper() for one in model_input]

    info = log_python(name, predict, input_example=["a"])
    yield Logged(info, [(["straße", "", "日本"], None)])


def from_code(name: str) -> Iterable[Logged]:
    x = pandas.DataFrame({"a": [1.5, 2.0], "b": [0.1, 1e300]})
    signature = infer_signature(x, x.mul(2).add_prefix("twice_"))
    info = log_python(name, str(HERE / "from_code.py"), signature=signature)
    yield Logged(info, [(x, None), (x.tail(1).reset_index(drop=True), None)])


class WithFunction(PythonModel):
    """One answer for each row, of any type."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def predict(self, context, model_input, params=None):
        return self.function(model_input)


def answers(function: Any, inputs: Any, signature: ModelSignature | None = None) -> Trained:
    def train(name: str) -> Iterable[Logged]:
        told = signature or infer_signature(inputs, function(inputs))
        yield Logged(log_python(name, WithFunction(function), signature=told), [(inputs, None)])

    return train


NUMBERS = pandas.DataFrame({"n": [1, 2, 2**53 + 1], "x": [0.1, -0.0, float("nan")]})
TENSORS = {
    "image": numpy.arange(12, dtype=numpy.float32).reshape(2, 3, 2),
    "code": numpy.array([3, -4], dtype=numpy.int64),
}
MOMENTS = ["2026-02-28T23:59:59.123456", "1969-07-20T20:17:40"]
DATES = pandas.DataFrame(
    {
        "when": pandas.to_datetime(MOMENTS, format="ISO8601"),
        "is_open": [True, False],
        "count": numpy.array([1, -(2**31)], dtype=numpy.int32),
        "ratio": numpy.array([0.1, 1.0], dtype=numpy.float32),
    }
)


def days_later(x: Any) -> Any:
    return pandas.DataFrame(
        {
            "next": x["when"] + pandas.Timedelta(days=1),
            "is_closed": ~x["is_open"],
            "count": x["count"],
            "ratio": x["ratio"],
        }
    )


def sent_columns(x: Any) -> Any:
    """Which columns came, and a sum of those that may be missing."""
    given = numpy.full(len(x), ",".join(map(str, x.columns)), dtype=object)
    return pandas.DataFrame({"columns": given, "sum": x.sum(axis=1, numeric_only=True)})


def optional(kind: str, columns: list[Any]) -> Trained:
    def train(name: str) -> Iterable[Logged]:
        schema = Schema([ColSpec("double", "must"), ColSpec(kind, "may", required=False)])
        output = Schema([ColSpec("string", "columns"), ColSpec("double", "sum")])
        info = log_python(
            name, WithFunction(sent_columns), signature=ModelSignature(schema, output)
        )
        must = pandas.DataFrame({"must": [0.1, 0.2]})
        yield Logged(info, [(must, None), (must.assign(may=columns), None)])

    return train


def python_version(x: Any) -> Any:
    return [platform.python_version() for dummy in range(len(x))]


def echo(size: int) -> Trained:
    """What benchmarks/pyfunc.py measures with."""
    tensors = Schema([TensorSpec(numpy.dtype("float32"), (-1, size))])

    def train(name: str) -> Iterable[Logged]:
        signature = ModelSignature(tensors, tensors)
        yield Logged(log_python(name, WithFunction(lambda x: x), signature=signature))

    return train


def tensor_signature(dims: int) -> ModelSignature:
    """A tensor with a first dimension of any size, and a param that has a default."""
    return ModelSignature(
        Schema([TensorSpec(numpy.dtype("float64"), (-1, dims))]),
        Schema([TensorSpec(numpy.dtype("float64"), (-1, dims))]),
        ParamSchema([ParamSpec("scale", "double", 1.0)]),
    )


class Scaled(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * params["scale"]


def scaled(name: str) -> Iterable[Logged]:
    x = numpy.array([[0.1, 0.2], [1e-308, float("inf")]])
    info = log_python(name, Scaled(), signature=tensor_signature(2))
    yield Logged(info, [(x, None), (x, {"scale": 1 / 3})])


MODELS: dict[str, Trained] = {
    "pricing": pricing,
    "shout": shout,
    "from_code": from_code,
    "scaled": scaled,
    "frame": answers(lambda x: x.assign(n=x["n"] + 1), NUMBERS),
    "series": answers(lambda x: x["x"] * 2, NUMBERS),
    "words": answers(lambda x: [f"<{one}>" for one in x["n"]], NUMBERS),
    "tensors": answers(lambda x: {"sum": x["image"].sum(axis=2), "code": x["code"] * 2}, TENSORS),
    "dates": answers(days_later, DATES),
    "optional_number": optional("double", [1.5, 2.5]),
    "optional_text": optional("string", ["a", None]),
    "echo_1kB": echo(256),
    "echo_1MB": echo(1 << 18),
    "other_python": answers(python_version, NUMBERS),
}
