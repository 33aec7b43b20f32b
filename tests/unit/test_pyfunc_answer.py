# SPDX-License-Identifier: Apache-2.0
"""What a served pyfunc model answered comes back as pyfunc returns it."""

from __future__ import annotations

import json
from typing import Any

import pytest

numpy = pytest.importorskip("numpy")
pandas = pytest.importorskip("pandas")
pytest.importorskip("mlflow")
pytest.importorskip("tritonclient")

from ansible_collections.mlops.triton.plugins.mlflow_deployments import (  # noqa: E402
    pyfunc_answer,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.served_pyfunc import (  # noqa: E402
    served_pyfunc,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (  # noqa: E402
    ServerError,
)
from support.pyfunc_interfaces import column, served_config, settings, tensor  # noqa: E402

INPUTS = [column("x", "double")]
ONE = [column("predictions", "double", column=None)]
NAMED = [column("predictions", "double", column="score")]
TWO = [column("a", "long", column="a b"), column("t", "string", column="t")]
TYPES = {
    "boolean": ([True, False], "bool"),
    "integer": ([1, -2], "int32"),
    "long": ([1, 2**62], "int64"),
    "float": ([0.5, 2.0], "float32"),
    "double": ([0.1, float("inf")], "float64"),
}


def returned(outputs: Any, fields: Any, kind: str | None = None, form: str = "tensors") -> Any:
    served = served_pyfunc(served_config(settings(INPUTS, fields, form=form)))
    assert served is not None
    return pyfunc_answer.returned_by_pyfunc(outputs, served, kind)


def document(predictions: Any, fields: Any, kind: str | None = None) -> Any:
    body = json.dumps({"predictions": predictions}).encode()
    return returned({"response": numpy.array([body], dtype=object)}, fields, kind, "json")


def upright(values: Any, dtype: Any) -> Any:
    return numpy.array(values, dtype=dtype).reshape(-1, 1)


@pytest.mark.parametrize("kind", TYPES)
def test_a_column_has_the_type_of_the_signature(kind: str) -> None:
    values, dtype = TYPES[kind]
    fields = [column("p", kind, column="p")]
    wanted = pandas.DataFrame({"p": numpy.array(values, dtype=dtype)})
    pandas.testing.assert_frame_equal(returned({"p": upright(values, dtype)}, fields), wanted)
    pandas.testing.assert_frame_equal(document(wanted.to_dict("records"), fields), wanted)


def test_texts_dates_and_bytes_are_columns_of_those() -> None:
    fields = [
        column("t", "string", column="t"),
        column("d", "datetime", column="d"),
        column("b", "binary", column="b"),
    ]
    stamp = "2026-01-02T03:04:05.123456789"
    found = returned(
        {
            "t": upright(["ä".encode(), b"x"], object),
            "d": upright([stamp.encode(), b"NaT"], object),
            "b": upright([b"\xff", b""], object),
        },
        fields,
    )
    wanted = pandas.DataFrame(
        {
            "t": ["ä", "x"],
            "d": numpy.array([stamp, "NaT"], dtype="datetime64[ns]"),
            "b": pandas.Series([b"\xff", b""], dtype=object),
        }
    )
    pandas.testing.assert_frame_equal(found, wanted)


def test_the_server_says_what_pyfunc_returned_or_the_signature_does() -> None:
    values = {"predictions": upright([0.5, 1.5], "float64")}
    plain = numpy.array([0.5, 1.5])
    assert returned(values, ONE, "list") == [0.5, 1.5]
    assert isinstance(returned(values, ONE, "array"), numpy.ndarray)
    pandas.testing.assert_series_equal(returned(values, ONE), pandas.Series(plain))
    pandas.testing.assert_series_equal(
        returned(values, NAMED, "series"), pandas.Series(plain, name="score")
    )
    pandas.testing.assert_frame_equal(returned(values, NAMED), pandas.DataFrame({"score": plain}))
    assert returned(values, ONE, "what nobody knows").tolist() == [0.5, 1.5]
    two = {"a": upright([1], "int64"), "t": upright([b"x"], object)}
    assert [*returned(two, TWO).columns] == ["a b", "t"]
    found = returned(two, TWO, "dict")
    assert {name: one.tolist() for name, one in found.items()} == {"a b": [1], "t": ["x"]}
    with pytest.raises(ServerError, match="said to be one series, and the signature has 2"):
        returned(two, TWO, "series")


def test_arrays_have_the_shape_of_the_signature() -> None:
    flat = [tensor("predictions", "int64", [-1], column=None)]
    wide = [tensor("predictions", "float32", [-1, 1], column=None)]
    texts = [tensor("predictions", "str", [-1], column=None)]
    assert returned({"predictions": upright([1, 2], "int64")}, flat).tolist() == [1, 2]
    found = returned({"predictions": upright([1, 2], "float32")}, wide)
    assert (found.tolist(), found.dtype) == ([[1], [2]], numpy.dtype("float32"))
    found = returned({"predictions": upright([b"ab", b"c"], object)}, texts)
    assert (found.tolist(), found.dtype.kind) == (["ab", "c"], "U")
    raw = [tensor("predictions", "bytes", [-1], column=None)]
    assert returned({"predictions": upright([b"\xff"], object)}, raw).tolist() == [b"\xff"]
    named = [tensor("a", "int64", [-1], column="a"), tensor("b", "int64", [-1, 2], column="b")]
    both = {"a": upright([1], "int64"), "b": numpy.array([[2, 3]])}
    assert {key: one.tolist() for key, one in returned(both, named).items()} == {
        "a": [1], "b": [[2, 3]]
    }  # fmt: skip


def test_documents_are_typed_by_the_signature() -> None:
    records = [{"a b": 1, "t": None}, {"a b": 2, "t": "x"}]
    frame = document(records, TWO)
    assert (frame["a b"].dtype, frame["t"][1]) == (numpy.dtype("int64"), "x")
    assert pandas.isna(frame["t"][0])
    assert [*document([{"t": "x", "more": 1}], TWO).columns] == ["t", "more"]
    assert document([], TWO).dtypes["a b"] == numpy.dtype("int64")
    flat = [tensor("predictions", "float32", [-1], column=None)]
    assert document([1, 2], flat).dtype == numpy.dtype("float32")
    assert document([0.5, 1], ONE) == [0.5, 1]
    pandas.testing.assert_series_equal(
        document([{"0": 0.5}, {"0": 1}], ONE), pandas.Series([0.5, 1.0])
    )
    assert document({"any": [1, None]}, []) == {"any": [1, None]}
    assert document([{"a": 1}], []) == [{"a": 1}]
    pandas.testing.assert_frame_equal(
        document([{"a": 1}], [], "frame"), pandas.DataFrame({"a": [1]})
    )
    assert document([1, 2], [], "array").tolist() == [1, 2]
    dates = [column("d", "datetime", column="d")]
    assert document([{"d": "2026-01-02T00:00:00"}, {"d": None}], dates)["d"].isna().tolist() == [
        False, True
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("outputs", "fields", "form", "words"),
    [
        ({}, ONE, "tensors", "no output 'predictions'"),
        ({"predictions": upright([b"\xff"], object)}, [column("predictions", "string")], "tensors",
         "no UTF-8"),
        ({"predictions": upright([b"soon"], object)}, [column("predictions", "datetime")],
         "tensors", "no date"),
        ({}, ONE, "json", "no document"),
        ({"response": numpy.array([b"{"], dtype=object)}, ONE, "json", "no document"),
        ({"response": numpy.array([b'{"predictions": [{"a b": "x", "t": 1}]}'], dtype=object)},
         TWO, "json", "not what its signature says"),
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_an_error(
    outputs: Any, fields: Any, form: str, words: str
) -> None:
    with pytest.raises(ServerError, match=words):
        returned(outputs, fields, form=form)


def test_without_pandas_columns_come_in_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    two = {"a": upright([1], "int64"), "t": upright([b"x"], object)}
    found = returned(two, TWO)
    assert {name: one.tolist() for name, one in found.items()} == {"a b": [1], "t": ["x"]}
    assert returned({"predictions": upright([0.5], "float64")}, ONE).tolist() == [0.5]
