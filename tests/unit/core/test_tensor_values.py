# SPDX-License-Identifier: Apache-2.0
"""Whatever numbers a user writes, a tensor holds exactly these, or they are refused by name."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from hypothesis import given
from hypothesis import strategies as st

numpy = pytest.importorskip("numpy")
pytest.importorskip("tritonclient")

from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.tensors import (  # noqa: E402
    Tensor,
    arrays_of,
    as_array,
)

TYPES = {
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT64": "uint64",
    "BOOL": "bool",
    "FP32": "float32",
    "FP64": "float64",
}
BEYOND = 2**53 + 1
"""The first whole number that is no float64."""
NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-3, 300),
    st.integers(-(2**65), 2**65),
    st.sampled_from([BEYOND, -BEYOND, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 1 << 70]),
    st.integers(-3, 300).map(float),
    st.floats(),
    st.sampled_from([2.0**53, 2.0**63, 2.0**64, -(2.0**63)]),
)
SCALARS = st.one_of(
    NUMBERS,
    st.integers(-(2**63), 2**63 - 1).map(numpy.int64),
    st.integers(0, 255).map(numpy.uint8),
    st.floats(width=32).map(numpy.float32),
    st.booleans().map(numpy.bool_),
)


def tensor(kind: str, *shape: int) -> Tensor:
    return Tensor("x", kind, shape, numpy.dtype(TYPES.get(kind, "object")))


def rows_of(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Any]]]:
    return st.integers(1, 3).flatmap(
        lambda width: st.lists(
            st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=3
        )
    )


def is_same(given_value: Any, held: Any, kind: str) -> bool:
    """Compared as Python does, to whose whole numbers and floats nothing is lost. A float may be
    rounded to the floats of its tensor.
    """
    value = given_value.item() if isinstance(given_value, numpy.generic) else given_value
    if isinstance(value, float) and TYPES[kind].startswith("float"):
        value = numpy.float64(value).astype(TYPES[kind]).item()
        return bool(value == held or (math.isnan(value) and math.isnan(held)))
    return bool(value == held)


@given(rows_of(SCALARS), st.sampled_from([one for one in TYPES if one != "FP32"]))
def test_a_tensor_holds_exactly_what_was_given_or_it_is_refused(
    rows: list[list[Any]], kind: str
) -> None:
    try:
        array = as_array(tensor(kind, -1, -1), rows)
    except InvalidOption:
        return
    assert array.dtype == TYPES[kind] and array.shape == (len(rows), len(rows[0]))
    for row, held in zip(rows, array.tolist()):
        assert all(is_same(one, other, kind) for one, other in zip(row, held)), (rows, array)


@given(rows_of(st.integers(-(2**63), 2**63 - 1).flatmap(lambda i: st.sampled_from([i, float(i)]))))
def test_what_fits_is_not_refused(rows: list[list[Any]]) -> None:
    fits = all(-(2**63) <= one < 2**63 for row in rows for one in row)
    try:
        held = as_array(tensor("INT64", -1, -1), rows).tolist()
    except InvalidOption:
        assert not fits
    else:
        assert held == rows


@given(st.lists(st.floats(0, 2**66), min_size=1, max_size=40), st.sampled_from(["INT64", "UINT64"]))
def test_an_array_of_floats_is_cast_exactly_or_refused(values: list[float], kind: str) -> None:
    """Processors disagree on what a float beyond the largest whole number becomes."""
    try:
        array = as_array(tensor(kind, -1), numpy.array([*values, 2.0**53]))
    except InvalidOption:
        return
    assert array.tolist() == [*values, 2.0**53]


@pytest.mark.parametrize(
    "values",
    [
        [[BEYOND, 1.0], [3, 4]],
        [[BEYOND, numpy.float32(1)], [3, 4]],
        [numpy.array([BEYOND, 1]), [3.0, 4.0]],
        [numpy.array([BEYOND, 1], object), [3.0, 4]],
        [[numpy.array(BEYOND), numpy.array(1.0)], [3, 4]],
        [(BEYOND, 1.0), (3, 4)],
        {"dataframe_split": {"columns": ["u", "v"], "data": [[BEYOND, 1.0], [3, 4]]}},
        {"dataframe_records": [{"u": BEYOND, "v": 1.0}, {"u": 3, "v": 4.0}]},
        {"inputs": [{"name": "x", "shape": [2, 2], "data": [BEYOND, 1.0, 3, 4]}]},
        [[BEYOND, True], [3.0, 4]],
    ],
)
def test_whole_numbers_beside_floats_stay_what_they_are(values: Any) -> None:
    found = arrays_of(values, {"x": tensor("INT64", -1, 2)})["x"][1]
    assert found.tolist() == [[BEYOND, 1], [3, 4]]
    with pytest.raises(InvalidOption, match=f"'x' is FP64 .* whole number {BEYOND}"):
        arrays_of(values, {"x": tensor("FP64", -1, 2)})


def test_floats_beside_them_are_judged() -> None:
    for value in (1.5, float("nan"), float("inf"), 2.0**63, 2**63):
        with pytest.raises(InvalidOption, match="'x' is INT64 and cannot take"):
            as_array(tensor("INT64", -1), [BEYOND, 2.0, value])
    with pytest.raises(InvalidOption, match="'x' is BOOL and cannot take"):
        as_array(tensor("BOOL", -1), [True, BEYOND, 1.0])
    assert as_array(tensor("FP64", -1), [2**60, 0.5]).tolist() == [2.0**60, 0.5]
    assert as_array(tensor("FP32", -1), [2**60, 0.1]).tolist() == [2.0**60, numpy.float32(0.1)]
    for beside in ([], [0.1]):
        with pytest.raises(InvalidOption, match="'x' is FP32 and cannot take"):
            as_array(tensor("FP32", -1), [2**53 + 2, *beside])
    assert as_array(tensor("UINT64", -1), [2**64 - 1, 1.0, True]).tolist() == [2**64 - 1, 1, 1]


@pytest.mark.parametrize(
    "value",
    [
        decimal.Decimal("1.5"),
        decimal.Decimal(2),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
        numpy.datetime64("2026-01-01"),
        numpy.timedelta64(1, "s"),
        1j,
        "1",
    ],
)
@pytest.mark.parametrize("beside", [[], [1], [BEYOND, 1.0]])
@pytest.mark.parametrize("kind", ["INT64", "FP32"])
def test_what_is_no_number_is_refused(value: Any, beside: list[Any], kind: str) -> None:
    with pytest.raises(InvalidOption, match=f"input 'x' is {kind} and cannot take"):
        as_array(tensor(kind, -1), [value, *beside])


@pytest.mark.parametrize(
    "value",
    [
        numpy.array([[b"a"]]),
        [numpy.bytes_(b"a")],
        [[numpy.str_("a")]],
        numpy.char.encode([["a"]]),
        numpy.array([[numpy.bytes_(b"a")]], object),
        numpy.bytes_(b"a"),
    ],
)
def test_numpy_s_bytes_are_sent_as_bytes(value: Any) -> None:
    array = as_array(tensor("BYTES", -1, 1), value)
    assert array.tolist() == [[b"a"]] and not isinstance(array[0, 0], numpy.generic)


@given(rows_of(st.integers(0, 2**64 - 1)))
def test_unsigned_numbers_keep_all_their_digits(rows: list[list[int]]) -> None:
    """In lists, in Triton's requests and in tables; numpy takes some of them for floats."""
    pandas = pytest.importorskip("pandas")
    sent = {"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "UINT64", "data": rows}
    frame = pandas.DataFrame(numpy.array(rows, "uint64"))
    for values in ({"x": rows}, {"inputs": [sent]}, json.dumps({"inputs": [sent]}), frame):
        found = arrays_of(values, {"x": tensor("UINT64", -1, -1)})["x"][1]
        assert found.dtype == "uint64" and found.tolist() == rows


@pytest.mark.parametrize("kind", ["FP32", "FP64"])
def test_null_is_nan_for_floats(kind: str) -> None:
    pandas = pytest.importorskip("pandas")
    table = {"columns": ["u", "v", "w"], "data": [[1, None, 3]]}
    column = pandas.DataFrame({"u": [1], "v": pandas.array([None], "Int64"), "w": [3.0]})
    for values in (
        [[1, None, 3]],
        {"inputs": [[1, None, 3]]},
        '{"inputs": [[1, null, 3]]}',
        {"inputs": [{"name": "x", "shape": [1, 3], "data": [1, None, 3]}]},
        {"dataframe_split": table},
        pandas.DataFrame(table["data"], columns=table["columns"], dtype=object),
        pandas.DataFrame({"u": [1], "v": [None], "w": [3]}),
        column,
    ):
        found = arrays_of(values, {"x": tensor(kind, -1, 3)})["x"][1]
        assert found.shape == (1, 3) and numpy.isnan(found[0, 1]) and found[0, 0] == 1


@pytest.mark.parametrize("kind", ["INT64", "UINT8", "BOOL", "BYTES"])
def test_null_is_refused_where_nothing_means_it(kind: str) -> None:
    beside = "a" if kind == "BYTES" else 1
    for values in ([None, beside], [beside, None], numpy.array([None, beside], object)):
        with pytest.raises(InvalidOption, match=f"input 'x' is {kind} and cannot take null"):
            as_array(tensor(kind, -1), values)
    for of_any in (kind, "FP32"):
        with pytest.raises(InvalidOption, match="input 'x' is null: give it a value"):
            as_array(tensor(of_any, -1), None)


def test_an_array_of_objects_is_read_as_a_list() -> None:
    for kind in ("FP32", "INT64", "UINT64"):
        for values in ([[1, 2, 3]], [1, 2, 3]):
            made = as_array(tensor(kind, -1, 3), numpy.array(values, dtype=object))
            assert made.tolist() == [[1, 2, 3]] and made.dtype == TYPES[kind]
    assert as_array(tensor("FP32", -1), numpy.array([0.1], object))[0] == numpy.float32(0.1)
    with pytest.raises(InvalidOption, match=r"'x' is INT64 and cannot take .*1\.5"):
        as_array(tensor("INT64", -1), numpy.array([1.5], object))


@pytest.mark.parametrize("kind", [*TYPES, "FP16", "BF16"])
def test_what_a_refused_array_says_is_meant_is_taken(kind: str) -> None:
    """The remedy of the sentence, carried out with numpy alone."""
    dtype = {"FP16": "float16", "BF16": "float32"}.get(kind) or TYPES[kind]
    one = Tensor("x", kind, (-1,), numpy.dtype(dtype))
    for values in (numpy.array([2**60 + 1, 257]), numpy.array([1 / 3, 1.1])):
        if kind == "FP16":
            values = values.clip(0, 1000)  # what is larger is none, and stays refused
        try:
            as_array(one, values)
        except InvalidOption as error:
            remedy = error.message.partition("; ")[2].partition(" says that")[0]
            assert remedy.startswith(".astype(")
            meant = as_array(one, eval(f"values{remedy}", {"values": values}))
            assert meant.dtype == dtype and meant.shape == (2,)
        else:
            assert kind in ("FP16", "FP64", "INT64", "UINT64")


def test_tables_lose_nothing() -> None:
    pandas = pytest.importorskip("pandas")
    one = {"x": tensor("INT64", -1, 2)}

    def held(frame: Any) -> Any:
        return arrays_of(frame, one)["x"][1].tolist()

    wanted = [[BEYOND, 1], [3, 4]]
    whole, floats = [BEYOND, 3], [1.0, 4.0]
    assert held(pandas.DataFrame({"u": whole, "v": floats})) == wanted
    assert held(pandas.DataFrame({"u": pandas.array(whole, "Int64"), "v": floats})) == wanted
    assert held(pandas.DataFrame({"u": pandas.Categorical(whole), "v": floats})) == wanted
    assert held(pandas.DataFrame([[BEYOND, 1.0], [3, 4.0]], columns=["u", "u"])) == wanted
    assert held(pandas.DataFrame({"u": [True, False], "v": [2.0, 3.0]})) == [[1, 2], [0, 3]]
    with pytest.raises(InvalidOption, match="two columns called x"):
        held(pandas.DataFrame([[1, 2]], columns=["x", "x"]))
    for column in (
        pandas.array([1, None], "Int64"),
        [1, None],
        [1, float("nan")],
        pandas.to_datetime(["2026-01-01", "2026-01-02"]),
        pandas.to_datetime(["2026-01-01", "2026-01-02"]).as_unit("ns"),
        pandas.to_timedelta([1, 2], "s").as_unit("ns"),
        pandas.Categorical(["a", "b"]),
    ):
        for frame in (
            pandas.DataFrame({"u": column, "v": floats}),
            pandas.DataFrame({"u": column, "v": column}),
        ):
            with pytest.raises(InvalidOption, match="'x' is INT64 and cannot take"):
                held(frame)
