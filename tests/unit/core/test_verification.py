# SPDX-License-Identifier: Apache-2.0
"""What a verification lets pass, and what it sends. Servers are stand-ins that answer an array."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    InvalidOption,
    VerificationFailed,
)
from hypothesis import given
from hypothesis import strategies as st
from support.memory_triton import CONFIG, MemoryTriton, deliver, make_artifact

numpy = pytest.importorskip("numpy")
pytest.importorskip("tritonclient")

from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution import (  # noqa: E402
    verification,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.address import (  # noqa: E402
    parse_address,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.inference import (  # noqa: E402
    infer,
    interface_of_text,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (  # noqa: E402
    TritonServer,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.tensors import (  # noqa: E402
    Request,
)

PLUGINS = "ansible_collections.mlops.triton.plugins"
BEYOND = 2**53 + 1
LOADED: dict[str, Any] = {"backend": "onnxruntime", "name": "m"}


def asked(
    monkeypatch: pytest.MonkeyPatch, kind: str, values: Any, dims: tuple[int, ...] = (-1,)
) -> Any:
    """The array that is sent for an input of this type."""
    config = {
        **LOADED,
        "input": [{"name": "x", "data_type": f"TYPE_{kind}", "dims": [*dims]}],
    }
    requests = []

    def infer(_server: Any, _step: str, _name: str, request: Any, *_rest: Any) -> Any:
        requests.append(request)
        return {}

    monkeypatch.setattr(verification, "infer", infer)
    verification.verify(server_of(config), "m", 1, {"inputs": {"x": values}})
    return requests[0].arrays["x"][1]


def server_of(config: dict[str, Any]) -> Any:
    return Mock(
        config=Mock(return_value=config), address=parse_address("http://a:1"), url="http://a:1"
    )


def passes(found: Any, expected: Any, **more: Any) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "infer", lambda *_given: {"y": found})
        case = {"inputs": {"x": [1]}, "outputs": {"y": expected}, **more}
        config = {**LOADED, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}]}
        try:
            verification.verify(server_of(config), "m", 1, case)
        except VerificationFailed:
            return False
    return True


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (numpy.array([20001]), [20000]),
        (numpy.array([20001], "int32"), [20000]),
        (numpy.array([1]), [1.5]),
        (numpy.array([1]), [1.00001]),
        (numpy.array([1]), ["1"]),
        (numpy.array([1]), [None]),
        (numpy.array([1]), [float("nan")]),
        (numpy.array([0], "uint8"), [float("inf")]),
        (numpy.array([BEYOND]), [BEYOND - 1]),
        (numpy.array([BEYOND]), [float(BEYOND - 1)]),
        (numpy.array([BEYOND - 1, 1]), [BEYOND, 1.0]),
        (numpy.array([2**64 - 1], "uint64"), [2**64 - 2]),
        (numpy.array([2**63 - 1]), [2**63]),
        (numpy.array([True]), [False]),
        (numpy.array([True]), [2]),
        (numpy.array([True]), ["true"]),
        (numpy.array([1.0, 2.0]), [1.0, 2.001]),
        (numpy.array([1.0]), ["1.0"]),
        (numpy.array([1.0]), [None]),
        (numpy.array([float("nan")]), [0.0]),
        (numpy.array([0.0]), [float("nan")]),
        (numpy.array([float("inf")]), [1e308]),
        (numpy.array([1e38], "float32"), [10**400]),
        (numpy.array([b"a"], object), ["b"]),
        (numpy.array([b"a"], object), ["a\0"]),
        (numpy.array([b"\xff"], object), ["\ufffd"]),
        (numpy.array([b"None"], object), [None]),
    ],
)
def test_another_answer_does_not_pass(found: Any, expected: Any) -> None:
    assert not passes(found, expected)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (numpy.array([20000]), [20000]),
        (numpy.array([20000]), [20000.0]),
        (numpy.array([3, 1]), [numpy.int64(3), numpy.bool_(True)]),
        (numpy.array([3, 1]), numpy.array([3, 1], "int8")),
        (numpy.array([BEYOND, 1]), [BEYOND, 1.0]),
        (numpy.array([2**64 - 1], "uint64"), [2**64 - 1]),
        (numpy.array([True, False]), [True, 0]),
        (numpy.array([1.00005, float("nan"), float("inf")], "float32"), [1, float("nan"), 1e999]),
        (numpy.array([0.1], "float16"), [0.1]),
        (numpy.array([b"a", "b"], object), ["a", b"b"]),
        (numpy.array([b"7"], object), [7]),
        (numpy.array([b"\xff"], object), [b"\xff"]),
        (numpy.zeros((0,)), []),
    ],
)
def test_the_same_answer_passes(found: Any, expected: Any) -> None:
    assert passes(found, expected)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(-2, 2), st.booleans())
def test_whole_numbers_have_to_be_equal(values: list[int], more: int, as_float: bool) -> None:
    last = values[-1] + more
    expected = [*values[:-1], float(last) if as_float else last]
    assert passes(numpy.array(values), expected) == (values == expected)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_no_tolerance_means_the_number_itself_as_the_output_can_have_it(kind: str) -> None:
    found = numpy.array([0.1], kind)
    assert passes(found, [0.1], tolerance=0) and passes(found, [found.item()], tolerance=0)
    assert not passes(numpy.array([0.1001], kind), [0.1], tolerance=0)
    assert not passes(
        numpy.array([2048.0], kind), [2049 if kind == "float16" else BEYOND], tolerance=0
    )
    assert not passes(numpy.array([BEYOND - 1]), [BEYOND], tolerance=0)


def test_a_tolerance_is_absolute_and_relative_for_all_numbers() -> None:
    assert passes(numpy.array([20001]), [20000], tolerance=1e-4)
    assert passes(numpy.array([20001]), [20000], tolerance="1e-4")
    assert passes(numpy.array([1]), [1.5], tolerance=0.3)
    assert passes(numpy.array([2**63 - 1]), [2.0**63], tolerance=1e-9)
    assert not passes(numpy.array([20003]), [20000], tolerance=1e-4)
    assert not passes(numpy.array([20001]), [20000], tolerance=None)
    assert not passes(numpy.array([2**63 - 1]), [10**400], tolerance=0.1)
    assert not passes(numpy.array([1]), [float("inf")], tolerance=0.1)
    assert passes(numpy.array([1.05]), [1], tolerance=0.1)


def test_bfloat16_answers_are_compared_as_numbers() -> None:
    kind = numpy.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    assert passes(numpy.array([1.5], kind), [1.5])
    assert not passes(numpy.array([1.5], kind), [1.75])


def test_expected_outputs_that_are_no_array_are_said_so() -> None:
    with pytest.raises(InvalidOption, match=r"verify\.outputs\.y is not a regular array"):
        passes(numpy.array([[1, 2]]), [[1, 2], [3]])


def test_a_verification_says_where_answers_part() -> None:
    with pytest.raises(VerificationFailed, match=r"'y' is \[20001\].* instead of \[20000\]"):
        verification._compare("y", [20000], numpy.array([20001]), None)
    with pytest.raises(VerificationFailed, match=r"shape \[1\] instead of \[1, 1\]"):
        verification._compare("y", [[20000]], numpy.array([20000]), None)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("INT64", [1.5], "1.5"),
        ("INT64", [[BEYOND, 0.5]], "0.5"),
        ("INT8", [300], "300"),
        ("UINT8", [-1], "-1"),
        ("BOOL", [2], "2"),
        ("FP32", [2**24 + 1], "16777217"),
        ("FP32", ["x"], "texts"),
        ("FP32", [[1, 2], [3]], "regular"),
        ("STRING", [True], "bool"),
        ("FP32", ["1.5", "x"], "texts"),
    ],
)
def test_inputs_that_would_lose_something_are_refused(
    monkeypatch: pytest.MonkeyPatch, kind: str, values: Any, words: str
) -> None:
    shown = "BYTES" if kind == "STRING" else kind
    with pytest.raises(
        InvalidOption, match=rf"verify\.inputs\.x does not fit {shown} \(.*{words}.*\)"
    ):
        asked(monkeypatch, kind, values)


@pytest.mark.parametrize(
    ("kind", "values", "sent"),
    [
        ("FP32", [["1.5", "2", "nan"]], [[1.5, 2, math.nan]]),
        ("INT64", ["9007199254740993"], [BEYOND]),
        ("STRING", [[123, 1.5], ["a", 2]], [[b"123", b"1.5"], [b"a", b"2"]]),
        ("FP32", numpy.array([[0.1, 2]]), [[0.1, 2]]),
    ],
)
def test_what_a_template_or_yaml_makes_of_values_is_sent_as_meant(
    monkeypatch: pytest.MonkeyPatch, kind: str, values: Any, sent: Any
) -> None:
    array = asked(monkeypatch, kind, values, (-1,) * numpy.ndim(sent))
    assert array.shape == numpy.shape(sent)
    if kind == "STRING":
        assert array.tolist() == sent
    else:
        numpy.testing.assert_array_equal(array, numpy.array(sent, array.dtype))


def test_inputs_are_sent_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes a verification writes every dimension, and sees what Triton says of them."""
    for value, shape in (([1, 2], (2,)), ([[[1]]], (1, 1, 1)), (5, ())):
        assert asked(monkeypatch, "INT64", value, (-1, 1)).shape == shape
    assert asked(monkeypatch, "INT64", [BEYOND, 1.0]).tolist() == [BEYOND, 1]
    assert asked(monkeypatch, "STRING", ["a"]).tolist() == [b"a"]


@pytest.mark.parametrize("tolerance", [-1, "x", float("nan"), float("inf"), True, "nan", [1]])
def test_a_tolerance_that_is_none_is_refused_before_anything(tolerance: Any) -> None:
    with pytest.raises(InvalidOption, match=r"tolerance .* is not a number from 0 up"):
        wanted({"inputs": {"x": [1]}, "tolerance": tolerance})


@pytest.mark.parametrize("tolerance", [None, 0, 1e-3, "1e-3", "0"])
def test_a_tolerance_may_be_a_text(tolerance: Any) -> None:
    """YAML reads 1e-3 as one, and a template makes one."""
    wanted({"inputs": {"x": [1]}, "tolerance": tolerance})


@pytest.mark.parametrize("verify", [{"inputs": [1]}, {"inputs": {"x": 1}, "outputs": [1]}])
def test_inputs_and_outputs_are_named(verify: Any) -> None:
    with pytest.raises(InvalidOption, match="verify is none, auto, or a dictionary"):
        wanted(verify)


def wanted(verify: Any) -> DesiredModel:
    return DesiredModel.from_options({"name": "m", "model_uri": "models:/m/1", "verify": verify})


def test_inputs_may_be_those_of_tritons_own_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []

    def infer(_server: Any, _step: str, _name: str, request: Any, *_rest: Any) -> Any:
        requests.append(request)
        return {}

    monkeypatch.setattr(verification, "infer", infer)
    config = {**LOADED, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 2]}]}
    sent = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
    verify = wanted({"inputs": [sent]}).verify
    assert isinstance(verify, dict)
    verification.verify(server_of(config), "m", 1, verify)
    assert requests[0].arrays["x"][1].tolist() == [[1, 2], [3, 4]]
    for wrong, words in (
        ({**sent, "shape": [3]}, "verify: input 'x' has 4 values, and the request says shape"),
        ({**sent, "name": "z"}, "verify: it has no input 'z'"),
        ({**sent, "data": ["\ud800"] * 4}, "verify: input 'x' is FP32"),
    ):
        with pytest.raises(InvalidOption, match=words):
            verification.verify(server_of(config), "m", 1, {"inputs": [wrong]})


# -- models that answer any number of times --------------------------------------------------------

STREAM = CONFIG + "model_transaction_policy { decoupled: true }\n"
OVER_GRPC = "grpc://localhost:8001"


def stream(tmp_path: Path, *shapes: tuple[int, ...]) -> MemoryTriton:
    """A server whose models answer so, each array filled with its number."""
    (tmp_path / "models").mkdir()
    answers = [{"y": numpy.full(shape, number)} for number, shape in enumerate(shapes)]
    return MemoryTriton(tmp_path / "models", lambda _tensors: answers)


def test_any_answer_proves_that_a_model_answers(tmp_path: Path) -> None:
    triton = stream(tmp_path, (1, 1), (1, 2))
    model = make_artifact(tmp_path / "new", '{"inputs": {"x": [[1, 2, 3]]}}', STREAM)
    (result,) = deliver(triton, {"name": "net", "model_uri": model}, url=OVER_GRPC)
    assert result.error is None and result.record and result.record.verified
    verify: dict[str, Any] = {"inputs": {"x": [[1, 2, 3]]}}
    options = {"name": "net", "model_uri": model}
    (result,) = deliver(triton, {**options, "verify": verify}, url=OVER_GRPC)
    assert result.error is None
    verify["outputs"] = {"y": [[0]]}
    (result,) = deliver(triton, {**options, "verify": verify}, url=OVER_GRPC)
    assert "in shapes that do not go together ([1, 1], [1, 2])" in str(result.error)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(1, 1), (1, 2)], [[[0]], [[1, 1]]]),
        ([(1,), (1, 1)], [[0], [[1]]]),
        ([(1, 2), (2, 2)], [[0, 0], [1, 1], [1, 1]]),
        ([(1, 2)], [[0, 0]]),
        ([(), ()], [0, 1]),
    ],
)
def test_answers_are_joined_or_a_list(
    tmp_path: Path, shapes: list[tuple[int, ...]], expected: Any
) -> None:
    triton = stream(tmp_path, *shapes)
    server = TritonServer(OVER_GRPC, 5)
    server.transport = cast(Any, triton)
    interface = interface_of_text(STREAM.encode())
    found: Any = infer(server, "predict", "net", Request({}), interface)["y"]
    plain = [one.tolist() for one in found] if isinstance(found, list) else found.tolist()
    assert plain == expected
    predict = pytest.importorskip(f"{PLUGINS}.mlflow_deployments.predict")
    frame = predict._to_frame({"y": found})
    assert frame["outputs"]["y"] is found
    assert json.loads(frame.to_json()) == {"outputs": {"y": plain}}
    assert json.loads(predict.Predictions(outputs={"y": found}).to_json())["outputs"]["y"] == plain
