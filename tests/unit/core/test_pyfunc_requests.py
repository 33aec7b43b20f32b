# SPDX-License-Identifier: Apache-2.0
"""What is asked of a model that MLflow's pyfunc runs is what MLflow's own schema enforcement lets
through, or is refused; never is a value changed.
"""

from __future__ import annotations

import datetime
import io
import json
import math
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.served_pyfunc import (
    ASKS,
    KINDS,
    PYFUNC_KEY,
    served_pyfunc,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from ansible_collections.mlops.triton.plugins.module_utils._delivery.worker import stub
from hypothesis import given
from hypothesis import strategies as st
from support.pyfunc_interfaces import (
    column,
    in_base64,
    scored,
    seen_by_pyfunc,
    seen_by_worker,
    served_config,
    settings,
    tensor,
)

numpy = pytest.importorskip("numpy")
pandas = pytest.importorskip("pandas")
pytest.importorskip("tritonclient")
pytest.importorskip("mlflow.pyfunc")

from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.inference import (  # noqa: E402
    example_request,
    interface_of,
    kind_and_outputs,
    request_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.pyfunc_requests import (  # noqa: E402
    unknown_params,
)

TABLE = [
    column("age", "long"),
    column("income", "double"),
    column("plan", "string"),
    column("since", "datetime"),
    column("bonus", "double", required=False),
    column("visits", "integer", required=False),
]
ROWS: dict[str, list[Any]] = {
    "age": [41, 17],
    "income": [1.5, 0.25],
    "plan": ["gold", "ä€"],
    "since": ["2026-01-02T03:04:05.123456789", "1999-12-31T00:00:00.000000001"],
}
TYPES = ["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]
PYTHON = {"boolean": bool, "string": str, "binary": bytes}
NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def asked(values: Any, fields: list[dict[str, Any]], **more: Any) -> Any:
    interface = interface_of(served_config(settings(fields, **more)))
    assert interface.pyfunc is not None
    return request_of(values, interface.inputs, interface.pyfunc)


def frame_of(values: Any, fields: Any = None) -> Any:
    fields = TABLE if fields is None else fields
    return seen_by_worker(asked(values, fields).arrays, fields)


def document_of(values: Any, fields: list[dict[str, Any]], **more: Any) -> Any:
    text = asked(values, fields, form="json", **more).arrays["request"][1].ravel()[0]
    return json.loads(text)


def table() -> Any:
    return pandas.DataFrame({**ROWS, "since": pandas.to_datetime(ROWS["since"])})


# -- compared with MLflow --------------------------------------------------------------------------


def series() -> st.SearchStrategy[Any]:
    """Columns of all types that pandas has, and of objects of several."""
    whole = st.integers(-(2**70), 2**70) | st.integers(-3, 3) | st.sampled_from([2**53, 2**53 + 1])
    real = st.floats() | st.integers(-5, 5).map(float)
    text = st.text(st.characters(codec="utf-8"), max_size=3)
    first, last = (datetime.datetime(year, 1, 1) for year in (1680, 2260))  # noqa: DTZ001
    dates = st.datetimes(first, last)
    values = whole | real | text | st.binary(max_size=3) | st.booleans() | dates | st.none()

    def lists(of: Any) -> Any:
        return st.lists(of, min_size=1, max_size=3)

    def typed(dtype: str) -> Any:
        limits = numpy.iinfo(dtype)
        cells = lists(st.integers(int(limits.min), int(limits.max)) | st.integers(0, 1))
        return cells.map(lambda of: pandas.Series(of, dtype=dtype))

    def stamps(unit: str) -> Any:
        return lists(dates).map(
            lambda of: pandas.Series(numpy.array(of, dtype=f"datetime64[{unit}]"))
        )

    zoned = lists(dates).map(lambda of: pandas.Series(pandas.to_datetime(of).tz_localize("UTC")))
    small = st.integers(-9, 9) | st.none()
    return st.one_of(
        st.sampled_from(NUMBERS).flatmap(typed),
        lists(real).map(lambda of: pandas.Series(of, dtype="float64")),
        lists(st.floats(width=32)).map(lambda of: pandas.Series(of, dtype="float32")),
        lists(st.booleans()).map(lambda of: pandas.Series(of, dtype="bool")),
        lists(small).map(lambda of: pandas.Series(of, dtype="Int64")),
        lists(small).map(lambda of: pandas.Series(of, dtype="Float64")),
        lists(st.booleans() | st.none()).map(lambda of: pandas.Series(of, dtype="boolean")),
        st.sampled_from(["s", "ms", "us", "ns"]).flatmap(stamps),
        zoned,
        *[
            lists(of).map(lambda of: pandas.Series(of, dtype=object))
            for of in (values, whole, text, text | st.none(), st.binary(max_size=3), dates)
        ],
        lists(text).map(pandas.Series),
        lists(text).map(lambda of: pandas.Series(of, dtype="category")),
    )


def is_value(value: Any, kind: str) -> bool:
    return isinstance(value, PYTHON.get(kind, object)) and not (
        value is None or value is pandas.NA or (isinstance(value, float) and math.isnan(value))
    )


@given(
    series(),
    st.sampled_from(
        [*["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]]
    ),
)
def test_a_column_is_what_mlflow_makes_of_it_or_is_refused(values: Any, kind: str) -> None:
    fields = [column("x", kind)]
    frame = pandas.DataFrame({"x": values})
    try:
        wanted = seen_by_pyfunc(frame, fields)["x"]
    except Exception:  # MLflow lets pandas' own through
        wanted = None
    found, reason = None, ""
    try:
        found = frame_of(frame, fields)["x"]
    except InvalidOption as error:
        reason = error.message
    if found is None:
        assert "column 'x'" in reason or "input 'x'" in reason
        # Of what MLflow takes only that is refused which is none of the type, or null; and what it
        # makes numbers of though it is none, or rounds, among the objects of a column.
        if kind == "double" and values.dtype == object:
            return
        assert wanted is None or not all(is_value(one, kind) for one in wanted), reason
        return
    if wanted is not None:
        same_type = kind not in ("string", "binary")
        pandas.testing.assert_series_equal(found, wanted, check_dtype=same_type)
        return
    for one, other in zip(found.tolist(), values.tolist()):
        nothing = pandas.isna(other) and pandas.isna(one)
        assert nothing or one == other or one == pandas.Timestamp(other), (one, other)


@given(
    series(),
    st.sampled_from(
        [*["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]]
    ),
)
def test_a_document_says_what_tensors_do(values: Any, kind: str) -> None:
    fields = [column("x", kind)]
    frame = pandas.DataFrame({"x": values})
    try:
        tensors = frame_of(frame, fields)["x"]
    except InvalidOption:
        tensors = None
    try:
        text = asked(frame, fields, form="json").arrays["request"][1].ravel()[0]
    except InvalidOption:
        assert tensors is None
        return
    if tensors is None:  # null, which only a document has
        assert kind in ("string", "binary") and values.isna().any()
        if kind == "binary":
            return  # which MLflow's scoring server does not read
    found = scored(text, fields)["x"]
    if tensors is None:
        assert found.isna().tolist() == values.isna().tolist()
    else:
        pandas.testing.assert_series_equal(found, tensors, check_dtype=kind not in PYTHON)


JSON_VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.integers(-2, 2)
    | st.floats()
    | st.integers(-9, 9).map(float)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)
    | st.sampled_from(["1", "2026-01-02", "2026-01-02T03:04:05.123456789", "AA=="])
)


@given(st.lists(JSON_VALUES, min_size=1, max_size=3), st.sampled_from(TYPES))
def test_a_document_is_read_as_by_mlflows_scoring_server_or_refused(
    values: list[Any], kind: str
) -> None:
    fields = [column("x", kind)]
    document = {"dataframe_split": {"columns": ["x"], "data": [[one] for one in values]}}
    try:
        found = frame_of(document, fields)["x"]
    except InvalidOption:
        return
    try:
        wanted = seen_by_pyfunc(scored(json.dumps(document).encode(), fields), fields)["x"]
    except Exception:
        wanted = None
    if wanted is not None:
        same_type = kind not in ("string", "binary")
        pandas.testing.assert_series_equal(found, wanted, check_dtype=same_type)
    elif kind not in ("binary", "datetime"):
        assert found.tolist() == values or pandas.isna(values).any()


# -- forms -----------------------------------------------------------------------------------------


def rows() -> list[dict[str, Any]]:
    return [dict(zip(ROWS, row)) for row in zip(*ROWS.values())]


def split() -> dict[str, Any]:
    return {"columns": [*ROWS], "data": [list(row) for row in zip(*ROWS.values())]}


@pytest.mark.parametrize(
    "values",
    [
        table(),
        table()[["since", "plan", "age", "income"]].assign(more=[[1], [2]]),
        table().set_index(pandas.Index([7, 9])),
        ROWS,
        {name: numpy.array(of) for name, of in ROWS.items() if name != "since"}
        | {"since": numpy.array(ROWS["since"], dtype="datetime64[ns]")},
        {name: [[one] for one in of] for name, of in ROWS.items()},
        rows(),
        split(),
        {"dataframe_split": split()},
        {"dataframe_records": rows()},
        {"instances": rows()},
        {"inputs": ROWS},
        {"inputs": rows()},
        {"inputs": table()},
        [{"dataframe_split": split()}],
        json.dumps({"dataframe_split": split()}),
    ],
    ids=lambda values: type(values).__name__,
)
def test_one_table_in_all_forms(values: Any) -> None:
    wanted = seen_by_pyfunc(table(), TABLE)
    pandas.testing.assert_frame_equal(frame_of(values), wanted)
    text = asked(values, TABLE, form="json").arrays["request"][1].ravel()[0]
    pandas.testing.assert_frame_equal(scored(text, TABLE), wanted)


@pytest.mark.parametrize(
    "document",
    [
        {"dataframe_split": split()},
        {"dataframe_records": rows()},
        {"instances": rows()},
        {"inputs": ROWS},
        [{"dataframe_split": split(), "params": {"n": 3}}],
    ],
    ids=str,
)
def test_a_file_that_mlflows_command_line_read(document: Any) -> None:
    frame = pandas.read_json(io.StringIO(json.dumps(document)))
    pandas.testing.assert_frame_equal(frame_of(frame), seen_by_pyfunc(table(), TABLE))


def test_one_row_and_one_column_need_no_brackets() -> None:
    one = {name: of[0] for name, of in ROWS.items()}
    assert frame_of(one)["age"].tolist() == [41]
    text = [column("t", "string"), column("n", "double", required=False)]
    for values in ("a b", ["a b"], {"inputs": ["a b"]}, pandas.Series(["a b"], name="t")):
        assert frame_of(values, text)["t"].tolist() == ["a b"]
    with pytest.raises(InvalidOption, match=r"its columns are age, income.*do not say which"):
        asked([1, 2], TABLE)


def test_columns_that_are_missing_doubled_or_uneven_are_refused() -> None:
    cases = {
        "no column plan, since, and has plam, which the model does not know": {
            "age": [1],
            "income": [1.0],
            "plam": ["x"],
        },
        "not equally long: age has 1 rows, and income has 2": {**ROWS, "age": [1]},
        "nothing is given": {},
    }
    for words, values in cases.items():
        with pytest.raises(InvalidOption, match=words):
            asked(values, TABLE)
    twice = pandas.concat([table(), table()[["age"]]], axis=1)
    with pytest.raises(InvalidOption, match="two columns called age"):
        asked(twice, TABLE)


def test_what_is_absent_is_nan_left_out_or_refused_with_its_row() -> None:
    given = {**ROWS, "income": [None, 2.0], "visits": [None, None], "bonus": [None, 1.0]}
    found = frame_of(given)
    assert math.isnan(found["income"][0]) and math.isnan(found["bonus"][0])
    assert "visits" not in found
    assert frame_of({**ROWS, "since": [None, pandas.NaT]})["since"].isna().all()
    for name in ("age", "plan"):
        with pytest.raises(InvalidOption, match=f"column '{name}' has no value in row 1"):
            asked({**ROWS, name: [ROWS[name][0], None]}, TABLE)
    with pytest.raises(InvalidOption, match=r"column 'visits' has no .*signature that says double"):
        asked({**ROWS, "visits": [None, 1]}, TABLE)
    said = [column("visits", "double")]
    assert frame_of({"visits": [None, 1]}, said)["visits"].tolist()[1] == 1.0
    document = document_of({**ROWS, "plan": ["x", None]}, TABLE)["dataframe_split"]
    assert [row[document["columns"].index("plan")] for row in document["data"]] == ["x", None]


def test_numbers_in_documents_are_never_cut() -> None:
    fields = [column("n", "long"), column("x", "double")]
    for values in ([1.5], ["1"], [2**63], [None]):
        for form in ("tensors", "json"):
            with pytest.raises(InvalidOption, match="'n'"):
                asked({"dataframe_split": {"columns": ["n", "x"], "data": [[values[0], 1]]}},
                      fields, form=form)  # fmt: skip
    found = frame_of({"dataframe_records": [{"n": 2.0, "x": 1}]}, fields)
    assert (found["n"][0], found["x"][0]) == (2, 1.0)
    assert str(found["n"].dtype) == "int64" and str(found["x"].dtype) == "float64"


def test_a_time_zone_is_refused_and_its_remedy_is_taken() -> None:
    fields = [column("d", "datetime")]
    zoned = pandas.DataFrame({"d": pandas.to_datetime(["2026-11-30T12:00:00+02:00"])})
    for values in (zoned, {"d": ["2026-11-30T12:00:00Z"]}, {"d": zoned["d"].tolist()}):
        with pytest.raises(InvalidOption, match=r"time zone.*tz_convert\('UTC'\)"):
            asked(values, fields)
    remedied = zoned["d"].dt.tz_convert("UTC").dt.tz_localize(None)
    found = frame_of(pandas.DataFrame({"d": remedied}), fields)["d"][0]
    assert found == pandas.Timestamp("2026-11-30T10:00:00")
    with pytest.raises(InvalidOption, match="no nanoseconds of 64 bits"):
        asked({"d": ["9999-12-31"]}, fields)


def test_bytes_are_base64_where_mlflow_reads_them_so() -> None:
    fields = [column("b", "binary")]
    raw = b"\x00\xff"
    for values in ({"b": [raw]}, {"dataframe_records": [{"b": in_base64(raw)}]}):
        assert asked(values, fields).arrays["b"][1][0, 0] == raw
        text = asked(values, fields, form="json").arrays["request"][1].ravel()[0]
        assert scored(text, fields)["b"][0] == raw
    with pytest.raises(InvalidOption, match="column 'b' is binary and cannot take str"):
        asked({"b": [in_base64(raw)]}, fields)


# -- tensor signatures -----------------------------------------------------------------------------


def test_arrays_of_tensor_signatures() -> None:
    wide = [tensor("x", "float32", [-1, 2])]
    flat = [tensor("x", "int64", [-1])]
    array = numpy.array([[1, 2], [3, 4]], dtype="float32")
    wrapped = [{"inputs": array}, {"inputs": array.tolist()}, {"inputs": {"x": array}}]
    frame = pandas.DataFrame(array, columns=["u", "v"])
    for values in (array, array.tolist(), {"x": array}, *wrapped, frame):
        assert asked(values, wide).arrays["x"][1].tolist() == array.tolist()
    one = numpy.array([5, 6])
    for values in (one, one.tolist(), {"x": one}, {"inputs": one}):
        assert asked(values, flat).arrays["x"][1].tolist() == [[5], [6]]
    # A signature without a name, whose tensor is called as MLflow's document is.
    nameless = [tensor("inputs", "int64", [-1], column=None)]
    for values in (one, one.tolist(), {"inputs": one}, {"inputs": [5, 6], "params": {"k": 1}}):
        assert asked(values, nameless).arrays["inputs"][1].tolist() == [[5], [6]]
    sent = {"name": "inputs", "shape": [2, 1], "datatype": "INT64", "data": [5, 6]}
    assert asked({"inputs": [sent]}, nameless).arrays["inputs"][1].tolist() == [[5], [6]]
    with pytest.raises(InvalidOption, match="cannot take"):
        asked(numpy.array([[0.1, 1]]), wide)
    assert document_of(array, wide) == {"inputs": array.tolist()}
    with pytest.raises(InvalidOption, match="cannot take"):
        document_of(numpy.array([1.5]), flat)


# -- documents for what tensors cannot say ---------------------------------------------------------


def test_nested_columns_and_models_without_a_signature() -> None:
    nested = [column("tokens", {"type": "array", "items": {"type": "long"}}), column("q", "string")]
    frame = pandas.DataFrame({"tokens": [[1, 2], [3]], "q": ["a", "b"]})
    split = {"columns": ["tokens", "q"], "data": [[[1, 2], "a"], [[3], "b"]]}
    assert document_of(frame, nested) == {"dataframe_split": split}
    assert document_of({"tokens": [1, 2], "q": "a"}, nested) == {
        "inputs": {"tokens": [1, 2], "q": "a"}
    }
    table = pandas.DataFrame({"u": [1, 2], "v": [0.5, numpy.nan]})
    assert str(document_of(table, [])) == str(
        {"dataframe_split": {"columns": ["u", "v"], "data": [[1, 0.5], [2, math.nan]]}}
    )
    unnamed = [{**column("", kind), "name": None, "column": None} for kind in ("long", "double")]
    assert document_of(table, unnamed)["dataframe_split"]["data"] == [[1, 0.5], [2, None]]
    with pytest.raises(InvalidOption, match="column '0' is long and cannot take float64"):
        document_of(table[["v", "u"]], unnamed)
    assert document_of({"instances": [1]}, []) == {"instances": [1]}
    assert document_of(numpy.ones((1, 2)), []) == {"inputs": [[1.0, 1.0]]}
    assert document_of("a text", []) == {"inputs": "a text"}
    dates = pandas.DataFrame({"d": pandas.to_datetime(["2026-11-30"])})
    for values in (dates, {"b": b"x"}):
        with pytest.raises(InvalidOption, match="whose signature does not say what it is"):
            document_of(values, [])


# -- params ----------------------------------------------------------------------------------------

PARAMS = [
    {"name": "temperature", "type": "double", "default": 0.5, "shape": None},
    {"name": "top", "type": "long", "default": 1, "shape": None},
    {"name": "greedy", "type": "boolean", "default": True, "shape": None},
    {"name": "stop", "type": "string", "default": "x", "shape": None},
    {"name": "bias", "type": "double", "default": [0.1], "shape": [-1]},
    {"name": "timeout", "type": "long", "default": 1, "shape": None},
]


def test_params_are_request_parameters_or_stand_in_the_document() -> None:
    params = {"temperature": 1, "top": numpy.int64(3), "greedy": False, "stop": "ä", "other": 1}
    given = {"dataframe_split": split(), "params": {**params, "bias": numpy.array([0.5, 2])}}
    found = asked(given, TABLE, params=PARAMS).parameters
    assert found == {
        "temperature": 1.0, "top": 3, "greedy": False, "stop": "ä", "bias": "[0.5, 2.0]"
    }  # fmt: skip
    assert isinstance(found["temperature"], float)
    interface = interface_of(served_config(settings(TABLE, params=PARAMS)))
    assert interface.pyfunc and unknown_params(given, interface.pyfunc) == ["other"]
    assert document_of(given, TABLE, params=PARAMS)["params"] == {**params, "bias": [0.5, 2.0]}


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"top": 1.0}, "the param top is long, and 1.0 .float. cannot be one without loss"),
        ({"top": True}, "the param top is long, and True"),
        ({"top": 2**63}, "the param top is long"),
        ({"greedy": 1}, "the param greedy is boolean"),
        ({"stop": "a\0b"}, r"the param stop has the character \\x00"),
        ({"stop": None}, "the param stop is null.*leave it out"),
        ({"timeout": 3}, "the param timeout has a name that Triton keeps"),
        ([1], "params is not a mapping"),
    ],
)
def test_params_that_no_request_can_carry_are_refused(params: Any, words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        asked({"dataframe_split": split(), "params": params}, TABLE, params=PARAMS)


# -- what the configuration says -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"form": "xml"}',
        '{"form": "tensors", "inputs": 3}',
        '{"form": "tensors", "inputs": [{"name": "x"}]}',
        '{"form": "tensors", "inputs": [{"name": "x", "type": "any"}]}',
        '{"form": "tensors", "inputs": [{"name": null, "type": "long"}]}',
        '{"form": "json", "inputs": [{"name": "x", "type": "long", "kind": "row"}]}',
        '{"form": "json", "inputs": [{"name": "x", "type": "long", "shape": ["a"]}]}',
        '{"form": "json", "inputs": [' + "[]," * 200_000 + "]}",
        '{"form": "json", "params": [{"type": "long"}]}',
    ],
    ids=lambda text: text[:60],
)
def test_a_damaged_document_leaves_the_model_as_any_other(text: str) -> None:
    config = {"parameters": {PYFUNC_KEY: {"string_value": text}}}
    assert served_pyfunc(config) is None
    assert interface_of({**config, "input": []}).pyfunc is None


KEYS = ["form", "inputs", "name", "type", "params", "shape", "kind", PYFUNC_KEY, "parameters"]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda of: (
            st.lists(of, max_size=3)
            | st.dictionaries(st.sampled_from([*KEYS, "string_value"]), of, max_size=4)
        ),
    )
)
def test_nothing_that_a_server_says_makes_a_defect(document: Any) -> None:
    text = json.dumps(document)
    served_pyfunc({"parameters": {PYFUNC_KEY: {"string_value": text}}})
    if isinstance(document, dict):
        served_pyfunc(document)


@pytest.mark.parametrize("form", ["tensors", "json"])
def test_what_pyfunc_returned_is_told_by_shapes(form: str) -> None:
    outputs = [column("label", "string"), tensor("scores", "float32", [-1, 3])]
    interface = interface_of(served_config(settings(TABLE, outputs, form=form)))
    shapes = {name: tensor.shape for name, tensor in interface.outputs.items()}
    plain: dict[str, Any] = {
        name: numpy.ones([1 if size < 0 else size for size in shapes[name]]) for name in shapes
    }
    assert kind_and_outputs(plain, interface) == (plain, None)
    for place, kind in enumerate(KINDS, 1):
        told = {name: one.reshape(*one.shape, *[1] * place) for name, one in plain.items()}
        found, said = kind_and_outputs(told, interface)
        assert said == kind
        assert all(numpy.array_equal(found[name], plain[name]) for name in plain)


def test_stub_and_client_mean_the_same_kinds() -> None:
    assert (stub.ASKS, stub.KINDS) == (ASKS, KINDS)


def test_an_example_of_mlflow_is_a_request_in_both_forms() -> None:
    document = {"dataframe_split": split(), "params": {"top": 2, "gone": 1}}
    for form in ("tensors", "json"):
        interface = interface_of(served_config(settings(TABLE, params=PARAMS, form=form)))
        request = example_request(document, interface)
        assert {*request.arrays} == ({*ROWS} if form == "tensors" else {"request"})
    bad = {"dataframe_split": {"columns": ["age"], "data": [[1]]}}
    with pytest.raises(InvalidOption, match="no column income"):
        example_request(bad, interface_of(served_config(settings(TABLE))))
