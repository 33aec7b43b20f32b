# SPDX-License-Identifier: Apache-2.0
"""What a model answers becomes tensors of exactly these values, or a sentence; and what comes in
becomes what the signature says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.worker import (
    pyfunc_wire,
    pyfunc_worker,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pyfunc_models import column, tensor


def encode(spec: dict[str, Any], values: Any) -> tuple[str, list[int], list[Any]]:
    kind, shape, raw = pyfunc_worker.encode(spec, values)
    count = math.prod(shape)
    if kind == "BYTES":
        return kind, shape, pyfunc_wire.unpack_texts(raw, count)
    return kind, shape, np.frombuffer(raw, dtype=pyfunc_worker.NUMPY_TYPES[kind]).tolist()


EXACT: list[tuple[str, Any, str, list[Any]]] = [
    ("long", np.array([1, 2], dtype="int32"), "INT64", [1, 2]),
    ("long", [1, 2], "INT64", [1, 2]),
    ("long", pd.Series([1, 2], dtype="Int64"), "INT64", [1, 2]),
    ("integer", np.array([2**31 - 1]), "INT32", [2**31 - 1]),
    ("double", np.array([1, 2]), "FP64", [1.0, 2.0]),
    ("double", np.array([0.1], dtype="float32"), "FP64", [float(np.float32(0.1))]),
    ("float", np.array([0.5]), "FP32", [0.5]),
    ("boolean", np.array([True, False]), "BOOL", [True, False]),
    ("boolean", np.array([True, False], dtype=object), "BOOL", [True, False]),
    ("string", np.array(["a", "ü"]), "BYTES", [b"a", "ü".encode()]),
    ("string", np.array(["a", "b"], dtype=object), "BYTES", [b"a", b"b"]),
    ("string", ["a"], "BYTES", [b"a"]),
    ("string", pd.Series(["a", "b"]), "BYTES", [b"a", b"b"]),
    ("string", pd.Series(["a", "b", "a"], dtype="category"), "BYTES", [b"a", b"b", b"a"]),
    ("binary", [b"a\0", b""], "BYTES", [b"a\0", b""]),
    (
        "datetime",
        pd.Series(pd.to_datetime(["2024-02-29 12:00", None])),
        "BYTES",
        [b"2024-02-29T12:00:00.000000000", b"NaT"],
    ),
    ("long", np.array([], dtype="float64"), "INT64", []),
    ("string", np.array([], dtype="float64"), "BYTES", []),
]


@pytest.mark.parametrize(("kind", "values", "triton_type", "expected"), EXACT)
def test_exact_values_go_out(kind: str, values: Any, triton_type: str, expected: list[Any]) -> None:
    assert encode(column("y", kind), values) == (triton_type, [len(expected), 1], expected)


LOST: list[tuple[str, Any, str]] = [
    ("integer", np.array([2**31]), "int64, whose values are not all exact as integer"),
    ("float", np.array([0.1]), "float64, whose values are not all exact as float"),
    ("long", np.array([0.5]), "float64, whose values are not all exact as long"),
    ("long", np.array([math.nan]), "float64, whose values are not all exact as long"),
    ("long", np.array([2.0**63]), "float64, whose values are not all exact as long"),
    ("long", np.array([2**64 - 1], dtype="uint64"), "uint64, whose values are not all exact"),
    ("double", np.array([2**53 + 1]), "int64, whose values are not all exact as double"),
    ("boolean", np.array([0, 1]), "int64, whose values are not all exact as boolean"),
    ("long", np.array([True]), "bool, whose values are not all exact as long"),
    ("long", ["1"], "whose values are not all exact as long"),
    ("long", [1, None], "object, whose values are not all exact as long"),
    ("double", pd.Series([1, None], dtype="Int64"), "object, whose values are not all exact"),
    ("string", ["a", None], "holds NoneType and str, which cannot be said as string"),
    ("string", np.array([1.5]), "holds float, which cannot be said as string"),
    ("string", ["a", 1], "holds int and str, which cannot be said as string"),
    ("string", ["\ud800"], "text that UTF-8 cannot say"),
    ("binary", ["a"], "holds str, which cannot be said as binary"),
    ("datetime", ["2024-13-01"], "and its signature says datetime"),
    ("datetime", pd.Series(pd.to_datetime(["2024-01-01"], utc=True)), "times that have a zone"),
    ("double", np.zeros((2, 2)), "has shape [2, 2], and its signature says one column"),
    ("double", [[1.0], [1.0, 2.0]], "lists of different lengths"),
]


@pytest.mark.parametrize(("kind", "values", "sentence"), LOST)
def test_a_value_that_would_be_lost_is_a_sentence(kind: str, values: Any, sentence: str) -> None:
    with pytest.raises(pyfunc_worker.Refused) as caught:
        encode(column("y", kind), values)
    assert sentence in str(caught.value)


NUMBERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([*NUMBERS, *FLOATS]),
    st.sampled_from([*NUMBERS, *FLOATS]),
    st.binary(min_size=8, max_size=32),
)
def test_a_cast_is_exact_or_refused(given_type: str, wanted: str, raw: bytes) -> None:
    found = np.frombuffer(raw, dtype=given_type, count=len(raw) // np.dtype(given_type).itemsize)
    try:
        _kind, shape, values = encode(tensor("y", wanted, [-1]), found)
    except pyfunc_worker.Refused:
        return
    assert shape == [len(found), 1]
    for before, after in zip(found.tolist(), values, strict=True):
        # Python compares whole numbers and fractions exactly.
        assert before == after or (math.isnan(before) and math.isnan(after))


@pytest.mark.parametrize("kind", [*NUMBERS, *FLOATS, "bool"])
def test_every_type_goes_out_as_it_is(kind: str) -> None:
    values = np.arange(6).reshape(3, 2).astype(kind)
    _kind, shape, found = encode(tensor("y", kind, [-1, 2]), values[:, ::-1])
    assert (shape, found) == ([3, 2], values[:, ::-1].ravel().tolist())


def test_a_tensor_has_the_shape_of_its_signature() -> None:
    assert encode(tensor("y", "int64", [-1]), np.arange(3))[1] == [3, 1]
    for values in (np.zeros((2, 3)), np.zeros(2), np.zeros((2, 2, 1))):
        with pytest.raises(pyfunc_worker.Refused, match="its signature says"):
            encode(tensor("y", "float64", [-1, 2]), values)


def test_answers_of_every_kind_find_their_outputs() -> None:
    two = [column("a", "long"), column("b", "double")]
    one = [column("predictions", "long", column=None)]
    frame = pd.DataFrame({"b": [0.5], "a": [1]})
    for answer in (frame, {"b": [0.5], "a": [1]}, np.array([[1, 0.5]])):
        found = pyfunc_worker.values_by_output(two, answer, pyfunc_worker.kind_of(answer))
        assert [list(each) for each in found] == [[1], [0.5]]
    for answer in (frame[["a"]], frame["a"], np.array([1]), [1], {"any": [1]}):
        (single,) = pyfunc_worker.values_by_output(one, answer, pyfunc_worker.kind_of(answer))
        assert np.asarray(single).ravel().tolist() == [1]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (pd.DataFrame({"a": [1]}), "answered with 'a', and its signature says 'a', 'b'"),
        (pd.DataFrame({"a": [1], "b": [1], "c": [1]}), "answered with 'a', 'b', 'c'"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "and its signature says"),
        (np.zeros((1, 3)), "answered with shape [1, 3], and its signature has 2 columns"),
        ([1], "answered with a list, and its signature has 2 names"),
        ("text", "answered with a str, which is no array or table"),
        (None, "answered with a NoneType, which is no array or table"),
    ],
)
def test_an_answer_that_does_not_fit_is_a_sentence(answer: Any, sentence: str) -> None:
    two = [column("a", "long"), column("b", "double")]
    with pytest.raises(pyfunc_worker.Refused) as caught:
        pyfunc_worker.values_by_output(two, answer, pyfunc_worker.kind_of(answer))
    assert sentence in str(caught.value)


# --- what comes in --------------------------------------------------------------------------------


def texts(*values: str | bytes) -> Any:
    raw = [each if isinstance(each, bytes) else each.encode() for each in values]
    packed = pyfunc_wire.pack_texts(raw)
    return pyfunc_worker.array_of("BYTES", [len(raw), 1], packed)


def test_times_are_read_to_the_nanosecond() -> None:
    given_texts = (
        "2024-02-29",
        "2024-02-29T12:00:00.123456789",
        "2024-02-29T12:00:00+02:00",
        "NaT",
    )
    found = pyfunc_worker.column_of(column("t", "datetime"), texts(*given_texts))
    assert str(found.dtype) == "datetime64[ns]"
    assert found.tolist()[:3] == [
        pd.Timestamp("2024-02-29"),
        pd.Timestamp("2024-02-29T12:00:00.123456789"),
        pd.Timestamp("2024-02-29T10:00:00"),
    ]
    assert found.isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "9999-01-01"])
def test_a_time_that_cannot_be_read_is_a_sentence(text: str) -> None:
    with pytest.raises(pyfunc_worker.Refused, match="'t' holds a time that is not ISO 8601"):
        pyfunc_worker.column_of(column("t", "datetime"), texts(text))


def test_text_that_is_not_utf_8_is_a_sentence() -> None:
    with pytest.raises(pyfunc_worker.Refused, match="'t' holds text that is not UTF-8"):
        pyfunc_worker.column_of(column("t", "string"), texts(b"\xff"))


def test_text_tensors_have_the_types_of_numpy() -> None:
    assert pyfunc_worker.tensor_of(tensor("t", "str", [-1, 1]), texts("ab", "c")).dtype == "<U2"
    assert pyfunc_worker.tensor_of(tensor("t", "object", [-1, 1]), texts("ab")).dtype == object
    with pytest.raises(pyfunc_worker.Refused, match="end with 0"):
        pyfunc_worker.tensor_of(tensor("t", "bytes", [-1, 1]), texts(b"a\0"))


def param(kind: str, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": "p", "type": kind, "default": None, "shape": shape}


@pytest.mark.parametrize(
    ("kind", "given_value", "expected"),
    [
        ("double", 1, 1.0),
        ("double", "0.5", 0.5),
        ("long", "7", 7),
        ("long", 7.0, 7),
        ("boolean", True, True),
        ("boolean", "false", False),
        ("string", "x", "x"),
    ],
)
def test_a_param_has_the_type_of_the_signature(kind: str, given_value: Any, expected: Any) -> None:
    found = pyfunc_worker.param_of(param(kind), given_value)
    assert found == expected and type(found) is type(expected)


def test_a_param_that_is_an_array_is_json() -> None:
    assert pyfunc_worker.param_of(param("double", [-1]), "[0.5, 1]") == [0.5, 1]


@pytest.mark.parametrize(
    ("kind", "given_value"),
    [("long", 1.5), ("long", True), ("double", "much"), ("boolean", "yes"), ("string", 1)],
)
def test_a_param_of_another_type_is_a_sentence(kind: str, given_value: Any) -> None:
    with pytest.raises(pyfunc_worker.Refused, match=f"param 'p' is .* which is no {kind}"):
        pyfunc_worker.param_of(param(kind), given_value)
