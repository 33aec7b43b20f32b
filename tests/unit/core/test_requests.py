# SPDX-License-Identifier: Apache-2.0
"""What becomes a request: the documents of MLflow and Triton, and input examples. No server is
asked.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.verification import (
    judge_example,
)

numpy = pytest.importorskip("numpy")
pytest.importorskip("tritonclient")

from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.inference import (  # noqa: E402
    Interface,
    _options,
    example_request,
    interface_of,
    interface_of_text,
    request_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (  # noqa: E402
    TritonServer,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.tensors import (  # noqa: E402
    Tensor,
    arrays_of,
    read_request,
)

ONE = {"x": Tensor("x", "FP32", (-1, 2), numpy.dtype("float32"))}
TWO = {
    "a": Tensor("a", "FP32", (-1, 1), numpy.dtype("float32")),
    "b": Tensor("b", "BYTES", (-1, 1), numpy.dtype(object)),
}


def found(values: Any, inputs: dict[str, Tensor]) -> dict[str, Any]:
    return {name: array.tolist() for name, (_kind, array) in arrays_of(values, inputs).items()}


def sent(name: str, kind: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape, "data": data}


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": [sent("x", "FP32", [2, 2], [1, 2, 3, 4])]},
        {"inputs": [sent("x", "FP32", [2, 2], [[1, 2], [3, 4]])], "id": "7"},
        {"inputs": [{"name": "x", "data": [[1, 2], [3, 4]]}]},
        {"inputs": [[1, 2], [3, 4]]},
        {"dataframe_split": {"columns": ["x"], "data": [[[1, 2]], [[3, 4]]]}},
        {"dataframe_split": {"columns": ["u", "v"], "data": [[1, 2], [3, 4]]}},
        {"dataframe_split": {"data": [[1, 2], [3, 4]]}},
        {"dataframe_records": [{"u": 1, "v": 2}, {"u": 3, "v": 4}]},
        {"instances": [[1, 2], [3, 4]]},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]},
        {"columns": ["u", "v"], "data": [[1, 2], [3, 4]]},
        {"data": [[1, 2], [3, 4]]},
    ],
)
def test_documents_of_mlflow_and_triton_are_taken(document: dict[str, Any]) -> None:
    assert found(document, ONE) == {"x": [[1.0, 2.0], [3.0, 4.0]]}
    assert found(json.dumps(document), ONE) == {"x": [[1.0, 2.0], [3.0, 4.0]]}
    pandas = pytest.importorskip("pandas")
    # What MLflow's command line makes of a file; pandas has no frame for some of these.
    if {"id", "columns"} & {*document}:
        return
    frame = pandas.read_json(__import__("io").StringIO(json.dumps(document)))
    assert found(frame, ONE) == {"x": [[1.0, 2.0], [3.0, 4.0]]}


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": [sent("a", "FP32", [2, 1], [1, 2]), sent("b", "BYTES", [2, 1], ["u", "v"])]},
        {"inputs": {"a": [[1], [2]], "b": [["u"], ["v"]]}},
        {"dataframe_split": {"columns": ["b", "a"], "data": [["u", 1], ["v", 2]]}},
        {"dataframe_records": [{"a": 1, "b": "u"}, {"a": 2, "b": "v"}]},
        {"instances": [{"a": 1, "b": "u"}, {"a": 2, "b": "v"}]},
    ],
)
def test_documents_of_several_inputs(document: dict[str, Any]) -> None:
    assert found(document, TWO) == {"a": [[1.0], [2.0]], "b": [[b"u"], [b"v"]]}


def test_a_tensor_goes_before_a_document() -> None:
    for name in ("inputs", "instances", "data", "dataframe_split"):
        tensor = Tensor(name, "FP32", (-1,), numpy.dtype("float32"))
        assert found({name: [1, 2]}, {name: tensor}) == {name: [1.0, 2.0]}


def test_parameters_and_wanted_outputs_stand_beside_the_inputs() -> None:
    asked = read_request(
        {
            "id": "q",
            "inputs": [sent("x", "FP32", [1, 2], [1, 2])],
            "outputs": [{"name": "y"}],
            "parameters": {"sequence_id": 7, "sequence_start": True},
        },
        ONE,
    )
    assert (asked.request_id, asked.outputs) == ("q", ("y",))
    assert asked.parameters == {"sequence_id": 7, "sequence_start": True}


def test_classes_of_an_output_are_asked_for() -> None:
    asked = request_of(
        {
            "inputs": [[1, 2]],
            "outputs": [
                {"name": "y", "parameters": {"classification": 2, "binary_data": False}},
                {"name": "z"},
            ],
        },
        ONE,
    )
    assert (asked.outputs, asked.classes) == (("y", "z"), {"y": 2})
    for url in ("http://h:8000", "grpc://h:8001"):
        made: Any = _options(TritonServer(url, 1.0), asked, Interface(ONE))["outputs"]
        shown = [str(one._get_tensor()) for one in made]
        assert "classification" in shown[0] and "classification" not in shown[1]


@pytest.mark.parametrize(
    "parameters",
    [
        {"priority": 1, "timeout": 5000, "mine": "a", "other": 1.5, "more": True, "less": -1},
        {"sequence_id": "a", "sequence_start": True, "sequence_end": False},
        {"sequence_id": numpy.int64(7), "binary_data_output": False},
    ],
)
def test_parameters_that_triton_has_are_taken(parameters: dict[str, Any]) -> None:
    made = request_of({"inputs": [[1, 2]], "parameters": parameters}, ONE).parameters
    assert made == parameters and json.dumps(dict(made))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"timeout": "abc"}, "timeout is 'abc', and has to be a whole number from 0"),
        ({"timeout": -1}, "timeout is -1"),
        ({"timeout": 2**63}, "timeout is 9"),
        ({"priority": 1.5}, "priority is 1.5"),
        ({"priority": True}, "priority is True"),
        ({"priority": None}, "priority is None"),
        ({"sequence_id": 1.5}, "sequence_id is 1.5, .* or a text"),
        ({"sequence_start": 1}, "sequence_start is 1, and has to be true or false"),
        ({"mine": [1]}, r"mine is \[1\], and has to be a text"),
        ({"mine": 2**63}, "mine is 9"),
    ],
)
def test_parameters_that_nobody_can_send_are_refused(
    parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidOption, match=f"the parameter {words}"):
        request_of({"inputs": [[1, 2]], "parameters": parameters}, ONE)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"inputs": [sent("x", "INT64", [1, 2], [1, 2])]},
            "'x' is FP32, and the request says INT6",
        ),
        ({"inputs": [sent("x", "FP32", [2, 2], [1, 2])]}, r"'x' has 2 values, .* \[2, 2\]"),
        ({"inputs": [sent("z", "FP32", [2], [1, 2])]}, r"no input 'z' \(inputs: x; forms"),
        ({"inputs": [{"name": "x", "parameters": {"binary_data_size": 8}}]}, "'x' has no data"),
        ({"inputs": [[1, 2]], "params": {"t": 1}}, "params belong to models that MLflow runs"),
        ({"inputs": [[1, 2]], "parameters": 3}, "parameters is not a mapping"),
        ({"inputs": [[1, 2]], "outputs": "y"}, r"outputs is not a list of \{name"),
        (
            {"inputs": [[1, 2]], "outputs": [{"name": "y", "parameters": {"region": "r"}}]},
            "'y' has the parameter 'region', which is not passed on",
        ),
        (
            {"inputs": [[1, 2]], "outputs": [{"name": "y", "parameters": {"classification": "a"}}]},
            "'y' has the classification 'a', which is no number of classes",
        ),
        (
            {"inputs": [[1, 2]], "outputs": [{"name": "y", "parameters": 1}]},
            "parameters of output 'y' is not a mapping",
        ),
        ({"dataframe_split": [[1]]}, "dataframe_split is not"),
        ({"dataframe_split": {"data": []}}, "no rows"),
        ({"dataframe_records": {"a": 1}}, "dataframe_records is not a list of rows"),
        ({"instances": [{"x": 1}, {"y": 1}]}, "do not have the same columns"),
        ({"images": [[1, 2]]}, "dataframe_split"),
    ],
)
def test_what_is_not_taken_is_said_with_the_form(document: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        arrays_of(document, ONE)


def of_shape(kind: str, *shape: int) -> dict[str, Tensor]:
    dtype = {"BYTES": object, "FP32": "float32"}[kind]
    return {"x": Tensor("x", kind, shape, numpy.dtype(dtype))}


ROWS = [
    ((-1, -1), [1, 2, 3], [[1], [2], [3]]),
    ((-1, 1), [1, 2, 3], [[1], [2], [3]]),
    ((-1,), [1, 2, 3], [1, 2, 3]),
    ((-1, 3), [[1, 2, 3]], [[1, 2, 3]]),
    ((-1, 3, 1), [[1, 2, 3]], [[[1], [2], [3]]]),
    ((-1, 1, 3), [[1, 2, 3]], [[[1, 2, 3]]]),
    ((-1, -1, 3), [[1, 2, 3]], [[[1, 2, 3]]]),
    ((-1, -1, -1), [[[1, 2], [3, 4]]], [[[1, 2], [3, 4]]]),
    ((3,), [[1, 2, 3]], [1, 2, 3]),
    ((-1, 3), [1, 2, 3], None),
    ((-1, -1, -1), [[1, 2, 3]], None),
    ((-1, -1, 2), [1, 2], None),
    ((-1, 2, 2), [[1, 2], [3, 4]], None),
    ((3,), [[1, 2, 3], [4, 5, 6]], None),
]


@pytest.mark.parametrize(("shape", "rows", "expected"), ROWS)
def test_each_entry_of_instances_is_a_row(shape: Any, rows: Any, expected: Any) -> None:
    """As TensorFlow Serving and MLflow have it; also in columns of tables."""
    pandas = pytest.importorskip("pandas")
    by_name = [{"x": row} for row in rows]
    for values in (
        {"instances": rows},
        {"instances": by_name},
        {"dataframe_records": by_name},
        {"dataframe_split": {"columns": ["x"], "data": [[row] for row in rows]}},
        pandas.DataFrame({"x": rows}),
    ):
        if expected is None:
            with pytest.raises(InvalidOption, match=r"takes rows of the shape .* \{inputs: …\}"):
                found(values, of_shape("FP32", *shape))
        else:
            assert found(values, of_shape("FP32", *shape)) == {"x": expected}
    texts = {"instances": ["a", "b"]}
    assert found(texts, of_shape("BYTES", -1, -1)) == {"x": [[b"a"], [b"b"]]}


def test_one_tensor_goes_under_inputs() -> None:
    """The remedy that the refusal of rows names."""
    assert found({"inputs": [1, 2, 3]}, of_shape("FP32", -1, 3)) == {"x": [[1, 2, 3]]}


BESIDE = {"id": "q7", "outputs": [{"name": "y"}], "parameters": {"priority": 1, "mine": "a"}}


@pytest.mark.parametrize(
    "wrapped",
    [
        {"inputs": {"x": [[1, 2]]}},
        {"inputs": [sent("x", "FP32", [1, 2], [1, 2])]},
        {"inputs": [[1, 2]]},
        {"instances": [[1, 2]]},
        {"instances": [{"x": [1, 2]}]},
        {"dataframe_split": {"columns": ["x"], "data": [[[1, 2]]]}},
        {"dataframe_records": [{"u": 1, "v": 2}]},
    ],
)
@pytest.mark.parametrize("beside", [["id"], ["outputs"], ["parameters"], [*BESIDE]])
def test_the_command_line_takes_what_stands_beside_the_inputs(
    wrapped: dict[str, Any], beside: list[str]
) -> None:
    """A document in brackets always; and without them what pandas can read."""
    pandas = pytest.importorskip("pandas")
    document = {**wrapped, **{key: BESIDE[key] for key in beside}}
    asked = [read_request(document, ONE), read_request([document], ONE)]
    asked += [read_request(json.dumps([document]), ONE)]
    for text in (json.dumps(document), json.dumps([document])):
        try:
            frame = pandas.read_json(__import__("io").StringIO(text))
        except ValueError:  # a mapping beside a list
            assert not text.startswith("[")
            continue
        asked.append(read_request(frame, ONE))
    for one in asked:
        assert one.arrays["x"][1].tolist() == [[1.0, 2.0]]
        assert one.request_id == ("q7" if "id" in beside else "")
        assert one.outputs == (("y",) if "outputs" in beside else ())
        assert one.parameters == (BESIDE["parameters"] if "parameters" in beside else {})


def test_whole_numbers_of_a_file_stay_whole() -> None:
    pandas = pytest.importorskip("pandas")

    def read(priority: int) -> Any:
        text = json.dumps({"inputs": {"x": [[1, 2]]}, "parameters": {"priority": priority}})
        frame = pandas.read_json(__import__("io").StringIO(text))
        return read_request(frame, ONE).parameters["priority"]

    assert read(1) == 1 and isinstance(read(1), int)
    table = pandas.DataFrame({"u": [2.0**60, numpy.inf], "v": [None, 1.5]}, index=["p", "q"])
    assert found(table, ONE)["x"][1] == [numpy.inf, 1.5]  # no document
    with pytest.raises(InvalidOption, match=r"put the document in brackets, \[\{…\}\]"):
        read(2**60 + 1)


@pytest.mark.parametrize(
    "values",
    [
        [{"x": [1, 2]}, {"x": [3, 4]}],
        [{"u": 1, "v": 2}, {"v": 4, "u": 3}],
        {"inputs": [{"x": [1, 2]}, {"x": [3, 4]}]},
        [sent("x", "FP32", [2, 2], [1, 2, 3, 4])],
        ({"x": [1, 2]}, {"x": [3, 4]}),
    ],
)
def test_records_and_tensors_need_no_wrapping(values: Any) -> None:
    wanted = {"x": [[1.0, 2.0], [3.0, 4.0]]}
    assert found(values, ONE) == wanted
    assert found(json.dumps(values), ONE) == wanted
    pair = [sent("a", "FP32", [1, 1], [1]), sent("b", "BYTES", [1, 1], ["u"])]
    for form in (pair, [{"a": 1, "b": "u"}], {"inputs": pair}):
        assert found(form, TWO) == {"a": [[1.0]], "b": [[b"u"]]}
    people = {"x": dataclasses.replace(ONE["x"], columns=("name", "age"))}
    assert found([{"age": 2, "name": 1}], people) == {"x": [[1.0, 2.0]]}
    named = {"name": Tensor("name", "BYTES", (-1, 1), numpy.dtype(object))}
    assert found([{"name": "u"}], named) == {"name": [[b"u"]]}
    columns = {"x": dataclasses.replace(ONE["x"], columns=("a", "b"))}
    assert found([{"b": 2, "a": 1}], columns) == {"x": [[1.0, 2.0]]}


@pytest.mark.parametrize("values", [None, {}, [], {"inputs": {}}, {"inputs": []}, "{}", ()])
def test_a_request_without_values_is_refused_with_the_forms(values: Any) -> None:
    for inputs in (ONE, TWO):
        with pytest.raises(InvalidOption, match=r"nothing is given \(forms .*instances"):
            arrays_of(values, inputs)
    optional = {"x": dataclasses.replace(ONE["x"], optional=True)}
    assert found({}, optional) == {}


@pytest.mark.parametrize(
    ("kind", "spelled"),
    [
        ("FP32", ["FP32", "fp32", "float32", "TYPE_FP32", None]),
        ("BYTES", ["BYTES", "string", "TYPE_STRING"]),
    ],
)
def test_datatypes_may_be_spelled_as_numpy_does(kind: str, spelled: list[Any]) -> None:
    for one in spelled:
        (array,) = found(
            {"inputs": [sent("x", one, [1], ["1" if kind == "BYTES" else 1])]}, of_shape(kind, -1)
        ).values()
        assert array == [b"1" if kind == "BYTES" else 1.0]
    with pytest.raises(InvalidOption, match="and the request says float64"):
        found({"inputs": [sent("x", "float64", [1], [1])]}, of_shape(kind, -1))


@pytest.mark.parametrize("key", ["model_name", "model_version", "signature_name"])
def test_the_name_of_the_deployment_alone_says_what_is_asked(key: str) -> None:
    with pytest.raises(InvalidOption, match=f"{key} stands beside the inputs.* leave it out"):
        arrays_of({"inputs": [[1, 2]], key: "2"}, ONE)
    usual = {"inputs": [[1, 2]], "signature_name": "serving_default", "model_version": ""}
    assert found(usual, ONE) == {"x": [[1.0, 2.0]]}


@pytest.mark.parametrize("shape", [(), (1,), (-1,), (-1, 1)])
def test_one_number_has_no_dimension(shape: tuple[int, ...]) -> None:
    """Triton shows a tensor of ONNX without dimensions as one of one value."""
    wanted = numpy.full((1,) * len(shape), 3.0).tolist()
    for values in (
        3,
        numpy.float32(3),
        numpy.array(3.0),
        {"x": 3},
        {"inputs": [sent("x", "FP32", [], [3])]},
        {"inputs": [{"name": "x", "shape": [], "data": 3}]},
    ):
        assert found(values, of_shape("FP32", *shape)) == {"x": wanted}


def test_one_value_is_the_only_input_that_is_needed() -> None:
    second = {**ROW, "name": "mask", "optional": True}
    inputs = interface_of({"max_batch_size": 8, "input": [second, ROW]}).inputs
    for values in (
        [1, 2, 3],
        numpy.array([[1, 2, 3]]),
        "[1, 2, 3]",
        {"inputs": [1, 2, 3]},
        {"instances": [[1, 2, 3]]},
    ):
        assert found(values, dict(inputs)) == {"x": [[1, 2, 3]]}
    both = interface_of({"max_batch_size": 8, "input": [{**second, "optional": False}, ROW]})
    with pytest.raises(InvalidOption, match="does not say which is meant"):
        found([1, 2, 3], dict(both.inputs))


PROMPT = {
    "max_batch_size": 0,
    "input": [
        {"name": "text_input", "data_type": "TYPE_STRING", "dims": [1]},
        {"name": "stream", "data_type": "TYPE_BOOL", "dims": [1], "optional": True},
        {"name": "more", "data_type": "TYPE_STRING", "dims": [1], "optional": True},
    ],
}


@pytest.mark.parametrize(
    ("text", "sent_as"),
    [
        ('{"text_input": ["hi"], "more": ["{}"]}', {"text_input": [b"hi"], "more": [b"{}"]}),
        ('{"inputs": {"text_input": ["hi"]}}', {"text_input": [b"hi"]}),
        ("tell me a story", {"text_input": [b"tell me a story"]}),
        ('{"answer": "in JSON"}', {"text_input": [b'{"answer": "in JSON"}']}),
        ("42", {"text_input": [b"42"]}),
    ],
)
def test_a_text_that_names_inputs_is_json_and_another_is_the_text(
    text: str, sent_as: dict[str, Any]
) -> None:
    assert found(text, dict(interface_of(PROMPT).inputs)) == sent_as


# -- examples --------------------------------------------------------------------------------------

MODEL = DesiredModel("net")
TENSOR = {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 3]}
ROW = {"name": "x", "data_type": "TYPE_FP32", "dims": [3]}
TEXT = {"name": "t", "data_type": "TYPE_STRING", "dims": [1]}
WHOLE = {"name": "n", "data_type": "TYPE_INT64", "dims": [-1]}


@pytest.mark.parametrize(
    ("config", "document", "expected"),
    [
        ({"input": [TENSOR]}, {"data": [[1, 2, 3]]}, {"x": [[1, 2, 3]]}),
        ({"input": [TENSOR]}, {"inputs": [[1, 2, 3]]}, {"x": [[1, 2, 3]]}),
        ({"input": [TENSOR]}, {"columns": [0, 1, 2], "data": [[1, 2, 3]]}, {"x": [[1, 2, 3]]}),
        ({"input": [TENSOR]}, {"dataframe_split": {"data": [[1, 2, 3]]}}, {"x": [[1, 2, 3]]}),
        ({"input": [TENSOR]}, {"inputs": {"x": [1, 2, 3]}, "params": {"a": 1}}, {"x": [[1, 2, 3]]}),
        ({"input": [ROW], "max_batch_size": 2}, {"data": [[1, 2, 3]] * 5}, {"x": [[1, 2, 3]] * 2}),
        (
            {"input": [{**ROW, "dims": ["1"]}, TEXT], "max_batch_size": 8},
            {"columns": ["x", "t"], "data": [[1, "a"], [2, "b"]]},
            {"x": [[1], [2]], "t": [["a"], ["b"]]},
        ),
        ({"input": [ROW, {**TEXT, "optional": True}]}, {"x": [1, 2, 3]}, {"x": [1, 2, 3]}),
    ],
)
def test_an_example_that_fits_becomes_the_tensors(
    config: dict[str, Any], document: dict[str, Any], expected: dict[str, Any]
) -> None:
    made = example_request(document, interface_of(config)).arrays
    found = {
        name: [[v.decode() for v in row] for row in array] if kind == "BYTES" else array.tolist()
        for name, (kind, array) in made.items()
    }
    assert found == expected


def test_nothing_in_an_example_is_nan() -> None:
    made = example_request({"data": [[None, 2, 3]]}, interface_of({"input": [TENSOR]}))
    assert numpy.isnan(made.arrays["x"][1]).tolist() == [[True, False, False]]


@pytest.mark.parametrize(
    ("inputs", "document", "words"),
    [
        ([TENSOR], {"a": [1], "b": [2]}, "no input 'a'"),
        ([TENSOR], {"data": [[1, 2, 3, 4]]}, r"takes the shape \[-1, 3\].* has \[1, 4\]"),
        ([TENSOR], {"data": [["a", "b", "c"]]}, "'x' is FP32 and cannot take texts"),
        ([TENSOR], {"data": [[1, 2], [3]]}, "not a regular array"),
        ([WHOLE], {"inputs": [1.5]}, "'n' is INT64"),
        ([WHOLE], {"inputs": [None]}, "'n' is INT64"),
        ([TENSOR, WHOLE], {"x": [[1, 2, 3]]}, "nothing for the input 'n'"),
        ([TENSOR, WHOLE], {"data": [[1, 2, 3]]}, "columns without names"),
    ],
)
def test_an_example_that_makes_no_request_is_left_out_with_a_warning(
    inputs: list[dict[str, Any]], document: dict[str, Any], words: str
) -> None:
    config = config_pbtxt.apply_overlay(config_pbtxt.new_message(), {"input": inputs})
    layout = Layout("onnx", (), (), b"", (1,), (1,), example=document)
    text, urls = config_pbtxt.render(config), ["localhost:8000"]
    judged = judge_example(layout, text, urls, MODEL)
    assert judged.example is None
    (warning,) = judged.warnings
    assert warning.startswith(
        "it is not verified, as no request can be made of its input example ("
    )
    assert "; verify: {inputs: {" in warning
    with pytest.raises(InvalidOption, match=words):
        example_request(document, interface_of_text(text))
    silent = judge_example(layout, text, urls, dataclasses.replace(MODEL, verify="none"))
    assert (silent.example, silent.warnings) == (None, ())


def test_what_triton_completes_is_judged_when_it_is_served() -> None:
    layout = Layout("onnx", (), (), b"", (1,), (1,), example={"a": [1]})
    assert judge_example(layout, b'backend: "onnxruntime"', [], MODEL) == layout


@pytest.mark.parametrize(("url", "said"), [("h:8000", 1), ("grpc://h:8001", 0)])
def test_a_decoupled_model_is_not_verified_over_http(url: str, said: int) -> None:
    config = config_pbtxt.apply_overlay(
        config_pbtxt.new_message(),
        {"input": [TENSOR], "model_transaction_policy": {"decoupled": True}},
    )
    layout = Layout("triton", (), (), b"", (1,), (1,), example={"x": [[1, 2, 3]]})
    judged = judge_example(layout, config_pbtxt.render(config), [url], MODEL)
    assert judged.example and len(judged.warnings) == said
    assert all("grpc://host:port in triton_url" in warning for warning in judged.warnings)


def test_the_configuration_says_how_a_model_is_asked() -> None:
    control = {"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_STRING"}
    interface = interface_of(
        {
            "sequence_batching": {"control_input": [{"name": "id", "control": [control]}]},
            "model_transaction_policy": {"decoupled": True},
        }
    )
    assert (interface.in_sequences, interface.text_ids, interface.decoupled) == (True,) * 3
    plain = interface_of({"input": [TENSOR]})
    assert not (plain.in_sequences or plain.text_ids or plain.decoupled)
