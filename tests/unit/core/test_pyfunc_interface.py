# SPDX-License-Identifier: Apache-2.0
"""A signature becomes tensors only where these carry exactly what MLflow means by it; compared with
MLflow over signatures that it made itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.fields import WrongShape
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.pyfunc import (
    COLUMN_TYPES,
    SCHEMA,
    TENSOR_TYPES,
    Interface,
    Port,
    PyfuncSettings,
    interface_of,
)

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

COLUMN = {"type": "long", "name": "age", "required": True}
LABELS = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}


def read(inputs: Any, outputs: Any = None, params: Any = None) -> Interface:
    said = {"inputs": inputs, "outputs": [LABELS] if outputs is None else outputs, "params": params}
    texts = {
        side: one if one is None or isinstance(one, str) else json.dumps(one)
        for side, one in said.items()
    }
    return interface_of({"signature": texts})


def tensor(*shape: Any, dtype: str = "float32", **more: Any) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [*shape]}, **more}


def test_columns_and_labels_are_batched_tensors() -> None:
    found = read([COLUMN, {"type": "string", "name": "city", "required": True}])
    assert (found.form, found.batched, found.reason) == ("tensors", True, None)
    assert found.inputs == (
        Port("age", "long", "column", column="age"),
        Port("city", "string", "column", column="city"),
    )
    assert found.outputs == (Port("predictions", "int64", "tensor", shape=(-1,)),)
    assert found.inputs[0].triton_type == "TYPE_INT64"


def test_a_single_tensor_without_a_name_gets_one() -> None:
    found = read([tensor(-1, 4)], [tensor(-1, 3)])
    assert [(one.name, one.column) for one in (*found.inputs, *found.outputs)] == [
        ("inputs", None),
        ("predictions", None),
    ]


def test_tensors_of_a_fixed_size_are_not_batched() -> None:
    found = read([tensor(2, 3, name="x")], [tensor(2, name="y")])
    assert (found.form, found.batched) == ("tensors", False)
    assert not read([tensor(-1, 3, name="x")], [tensor(2, name="y")]).batched


def test_an_optional_number_is_an_optional_input() -> None:
    found = read([COLUMN, {"type": "double", "name": "income", "required": False}])
    assert [one.required for one in found.inputs] == [True, False]
    older = read([COLUMN, {"type": "double", "name": "income", "optional": True}])
    assert older == found


@pytest.mark.parametrize(
    ("inputs", "outputs", "params", "reason"),
    [
        (None, None, None, "it has no signature of inputs"),
        ([{**COLUMN, "type": "string", "required": False}], None, None, "'age' may be null"),
        ([{**COLUMN, "type": "array", "items": {"type": "long"}}], None, None, "is an Array"),
        ([{**COLUMN, "type": "object", "properties": {}}], None, None, "is an Object"),
        ([{**COLUMN, "type": "map", "values": {"type": "long"}}], None, None, "is a Map"),
        ([{**COLUMN, "type": "any"}], None, None, "is of any type"),
        ([{**COLUMN, "type": "sparkvector"}], None, None, "is of type 'sparkvector'"),
        ([{"type": "long", "required": True}], None, None, "a name that is a text"),
        ([{**COLUMN, "name": 3}], None, None, "an input has a name that is no text"),
        ([COLUMN, COLUMN], None, None, "two inputs have the name 'age'"),
        ([{**COLUMN, "name": ""}], None, None, "a name that Triton does not take"),
        ([{**COLUMN, "name": "a\nb"}], None, None, "a name that Triton does not take"),
        ([{**COLUMN, "name": "\ud800"}], None, None, "a name that Triton does not take"),
        ([COLUMN, tensor(-1, name="x")], None, None, "columns and tensors"),
        ([{**COLUMN, "required": False}], None, None, "all its columns are optional"),
        ([COLUMN], [tensor(3, name="y")], None, "however many the columns have"),
        ([COLUMN], [], None, "says nothing of outputs"),
        ([COLUMN], [tensor()], None, "has no dimension"),
        ([COLUMN], [tensor(-1, 0)], None, "size 0"),
        ([COLUMN], [tensor(-1, dtype="complex64")], None, "complex64"),
        ([COLUMN], [tensor(-1, "x")], None, "not understood"),
        ([COLUMN], [{**COLUMN, "required": False}], None, "'age' may be null"),
        ([COLUMN], [{"type": "long"}, {"type": "long"}], None, "not each output"),
        ([COLUMN], None, [{"name": "p", "type": "object", "default": {}}], "'p' is an Object"),
        ([COLUMN], None, [{"name": "timeout", "type": "long", "default": 1}], "reads itself"),
        ([COLUMN], None, [{"name": "p", "type": "long", "default": 1, "shape": [2]}], "a shape"),
        ("[", None, None, "not understood"),
        ("{}", None, None, "not understood"),
        ("[" * 100_000, None, None, "not understood"),
        ([5], None, None, "not understood"),
        ([COLUMN] * 2000, None, None, "2000 inputs"),
    ],
    ids=range(31),
)  # fmt: skip
def test_what_tensors_cannot_carry_exactly_is_json_and_says_why(
    inputs: Any, outputs: Any, params: Any, reason: str
) -> None:
    found = read(inputs, outputs, params)
    assert found.form == "json"
    reason = reason.replace("it has no signature of inputs", "says nothing of inputs")
    assert reason in (found.reason or ""), found.reason
    assert not found.inputs and not found.batched


def test_of_the_form_json_clients_are_told_what_the_signature_says() -> None:
    tags = {**COLUMN, "name": "tags", "type": "array", "items": {"type": "string"}}
    told = read([COLUMN, tags]).to_dict()
    usual = {"required": True, "kind": "column", "shape": None}
    array = {"type": "array", "items": {"type": "string"}}
    assert told["inputs"] == [
        {"name": "age", "type": "long", "column": "age", **usual},
        {"name": "tags", "type": array, "column": "tags", **usual},
    ]
    assert told["outputs"][0]["kind"] == "tensor"
    assert read([{**tags, "name": "x" * 70_000}]).to_dict()["inputs"] == []


@pytest.mark.parametrize("mlmodel", [None, {}, {"signature": None}, {"signature": "x"}])
def test_a_model_without_a_signature_is_json(mlmodel: Any) -> None:
    assert interface_of(mlmodel) == Interface("json", "it has no signature")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
SPECS = st.lists(
    VALUES
    | st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from([*COLUMN_TYPES, "tensor", "array"]) | VALUES,
            "name": st.text(max_size=5) | VALUES,
            "required": st.booleans() | VALUES,
            "tensor-spec": st.fixed_dictionaries(
                {},
                optional={
                    "dtype": st.sampled_from([*TENSOR_TYPES]) | VALUES,
                    "shape": st.lists(st.integers(-2, 5), max_size=4) | VALUES,
                },
            )
            | VALUES,
            "default": VALUES,
            "shape": VALUES,
        },
    ),
    max_size=3,
)


@hypothesis.given(SPECS, SPECS, SPECS)
def test_whatever_a_signature_says_is_read_or_told(inputs: Any, outputs: Any, params: Any) -> None:
    found = read(inputs, outputs, params)
    assert (found.form == "json") == bool(found.reason)
    settings = PyfuncSettings("/p/bin/python", "d", found, True, 60.0, 240.0)
    again = PyfuncSettings.from_bytes(settings.to_bytes())
    assert again.to_bytes() == settings.to_bytes()


def settings() -> dict[str, Any]:
    made = PyfuncSettings("/e/bin/python", "abc", read([COLUMN]), True, 60.0, 240.0)
    return made.to_dict()


def test_settings_come_back_as_they_were_written() -> None:
    assert PyfuncSettings.from_dict(settings()).to_dict() == settings()


@pytest.mark.parametrize(
    "change",
    [
        {"schema": SCHEMA + 1},
        {"schema": None},
        {"form": "xml"},
        {"python": "python3"},
        {"inputs": []},
        {"inputs": [{}]},
        {"inputs": "x"},
        {"batched": 1},
        {"params": [{"name": "p", "type": "binary"}]},
        {"predict_timeout": 0},
        {"start_timeout": "60"},
        {"outputs": [{**settings()["outputs"][0], "shape": [1.5]}]},
        {"outputs": [{**settings()["outputs"][0], "type": "float8"}]},
    ],
    ids=str,
)
def test_settings_that_this_release_did_not_write_are_refused(change: Any) -> None:
    with pytest.raises(WrongShape):
        PyfuncSettings.from_dict({**settings(), **change})


# ---- what MLflow itself reads of the same signature ----------------------------------------------

NAMES = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=4, unique=True)


@st.composite
def schemas(draw: Any, alone: bool) -> Any:
    """A schema of MLflow: columns or tensors, with names or without."""
    import numpy
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    names = draw(NAMES)
    if draw(st.booleans()):
        types = st.sampled_from([*DataType]) | st.builds(Array, st.sampled_from([*DataType]))
        required = draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
        return Schema([ColSpec(draw(types), n, r) for n, r in zip(names, required)])
    kinds = [*TENSOR_TYPES, "complex64", "datetime64[ns]"]
    shapes = st.lists(st.sampled_from([-1, 1, 3]), max_size=3).map(tuple)
    made = [(numpy.dtype(draw(st.sampled_from(kinds))), draw(shapes)) for _name in names]
    if alone and draw(st.booleans()):
        return Schema([TensorSpec(*made[0])])
    return Schema([TensorSpec(*one, name) for one, name in zip(made, names)])


def matches(port: Port, spec: Any) -> None:
    from mlflow.types.schema import TensorSpec

    assert port.column == spec.name
    assert port.name == (spec.name or port.name)
    assert port.required == spec.required
    if isinstance(spec, TensorSpec):
        assert (port.kind, port.type, port.shape) == ("tensor", spec.type.name, spec.shape)
    else:
        assert (port.kind, port.type) == ("column", spec.type.name)


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(st.data())
def test_a_signature_of_mlflow_is_what_mlflow_reads_or_json(data: Any) -> None:
    pytest.importorskip("pandas", reason="MLflow's signatures need it")
    from mlflow.models import ModelSignature

    inputs, outputs = data.draw(schemas(True)), data.draw(schemas(True))
    made = ModelSignature(inputs=inputs, outputs=outputs).to_dict()
    read_back = ModelSignature.from_dict(made)
    found = interface_of({"signature": made})
    if found.form == "json":
        assert found.reason
        return
    for ports, schema in ((found.inputs, read_back.inputs), (found.outputs, read_back.outputs)):
        assert len(ports) == len(schema.inputs)
        for port, spec in zip(ports, schema.inputs):
            matches(port, spec)
    assert found.batched == all(
        one.shape is None or one.shape[0] == -1 for one in (*found.inputs, *found.outputs)
    )


def test_params_are_those_of_mlflow(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="MLflow's signatures need it")
    import datetime

    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    when = datetime.datetime.fromisoformat("2026-01-02T03:00:00")
    params = ParamSchema(
        [
            ParamSpec("temperature", "double", 0.5),
            ParamSpec("stop", "string", ["a", "b"], (-1,)),
            ParamSpec("since", "datetime", when),
            ParamSpec("top", "long", 3),
            ParamSpec("greedy", "boolean", False),
        ]
    )
    schema = Schema([ColSpec("string", "text")])
    made = ModelSignature(inputs=schema, outputs=schema, params=params).to_dict()
    found = interface_of({"signature": made})
    assert [(one.name, one.type, one.default, one.shape) for one in found.params] == [
        ("temperature", "double", 0.5, None),
        ("stop", "string", ["a", "b"], (-1,)),
        ("since", "datetime", "2026-01-02T03:00:00", None),
        ("top", "long", 3, None),
        ("greedy", "boolean", False, None),
    ]
