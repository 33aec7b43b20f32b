# SPDX-License-Identifier: Apache-2.0
"""What the MLflow plugin reads: targets, profiles, ``-C key=value``, and what becomes a tensor. No
server is asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from ansible_collections.mlops.triton.plugins import mlflow_deployments
from ansible_collections.mlops.triton.plugins.mlflow_deployments.predict import Predictions
from ansible_collections.mlops.triton.plugins.mlflow_deployments.targets import (
    MODEL,
    PROFILES_VARIABLE,
    TARGET_OPTIONS,
    profiles_path,
    read_options,
    read_target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    DeliveryError,
    InvalidOption,
    NotFound,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.tensors import (
    Tensor,
    arrays_of,
    as_array,
)
from mlflow.exceptions import MlflowException

PROFILES = """\
production:
  servers: {one: 'http://one:8000', two: 'grpcs://two:8001'}
  model_repository: /models
  tracking_uri: http://mlflow:5000
  admin_key: {secret_env: KEY}
  ca_file: /ca.pem
  timeout: 30
plain: {triton_url: 'a:1,b:2'}
paired:
  servers: {one: 'one:8000', two: 'two:8000'}
  load_url: {two: 'grpc://two:8001', one: 'grpc://one:8001'}
  metrics_url: ['one:8002', 'two:8002']
lacking: {servers: {one: 'a:1', two: 'b:1'}, load_url: {one: 'grpc://a:2'}}
short: {servers: {one: 'a:1', two: 'b:1'}, load_url: 'grpc://a:2'}
odd: {servers: {one: 'a:1'}, triton_url: 'b:2'}
typo: {tracking_url: 'x'}
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "profiles.yml"
    path.write_text(PROFILES, encoding="utf-8")
    return {PROFILES_VARIABLE: str(path), "KEY": "secret"}


# -- targets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "urls"),
    [
        ("triton", ["localhost:8000"]),
        ("triton://host:8000", ["host:8000"]),
        ("triton://host:8001?protocol=grpc", ["grpc://host:8001"]),
        ("triton://host?protocol=https", ["https://host"]),
        ("triton://a:1,b:2", ["a:1", "b:2"]),
        ("triton://[::1]:8000", ["[::1]:8000"]),
        ("triton:/plain", ["a:1", "b:2"]),
        ("triton:/production", ["http://one:8000", "grpcs://two:8001"]),
    ],
)
def test_target_names_servers(uri: str, urls: list[str], environment: dict[str, str]) -> None:
    assert read_target(uri, environment).urls(None) == urls


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("triton://host:8000/production", "triton:/<profile>"),
        ("triton://host?protocol=ftp", "http, https, grpc, grpcs"),
        ("triton?protocol=grpc", "no host"),
        ("triton://host?nonsense=1", "known are"),
        ("triton:/nowhere", "odd, typo"),
        ("triton:/lacking", "load_url of the profile .* for each of its servers (one, two)"),
        ("triton:/odd", "both servers and triton_url"),
        ("triton:/typo", "tracking_url"),
        ("triton:/typo", "servers"),
    ],
)
def test_target_that_cannot_be(uri: str, words: str, environment: dict[str, str]) -> None:
    with pytest.raises(DeliveryError, match=words.replace("(", r"\(").replace(")", r"\)")):
        read_target(uri, environment)


def test_environment_is_the_last_to_be_asked(environment: dict[str, str]) -> None:
    environment.update(TRITON_URL="env:1,env:2", TRITON_MODEL_REPO="/env")
    assert read_target("triton", environment).urls(None) == ["env:1", "env:2"]
    assert read_target("triton", environment).options == {"model_repository": "/env"}
    assert read_target("triton://host:8000", environment).urls(None) == ["host:8000"]
    assert read_target("triton:/production", environment).options["model_repository"] == "/models"
    assert (
        read_target("triton:/production?model_repository=/query", environment).options[
            "model_repository"
        ]
        == "/query"
    )
    assert read_target("triton:/plain", environment).options["model_repository"] == "/env"


def test_options_of_a_call_go_first(environment: dict[str, str]) -> None:
    target = read_target("triton:/production", environment)
    other = target.with_options(
        {"triton_url": ["host:1"], "timeout": 5.0, "keep": 3, "state_dir": None}
    )
    assert other.servers == {"host:1": "host:1"}
    assert other.options == {**target.options, "timeout": 5.0}


def test_addresses_stay_with_their_server(environment: dict[str, str]) -> None:
    target = read_target("triton:/paired", environment)
    for endpoint in ("one", "two"):
        assert target.addresses(endpoint) == {
            "triton_url": [f"{endpoint}:8000"],
            "load_url": [f"grpc://{endpoint}:8001"],
            "metrics_url": [f"{endpoint}:8002"],
        }
    assert target.addresses(None)["load_url"] == ["grpc://one:8001", "grpc://two:8001"]
    url = "triton://a:1,b:1?load_url=grpc://a:2,grpc://b:2"
    assert read_target(url, environment).addresses("b:1")["load_url"] == ["grpc://b:2"]
    # Those of a profile are not another server's.
    assert target.with_options({"triton_url": ["c:1"]}).addresses(None) == {"triton_url": ["c:1"]}
    elsewhere = read_target("triton:/paired?triton_url=c:1", environment)
    assert elsewhere.addresses(None) == {"triton_url": ["c:1"]}
    with pytest.raises(InvalidOption, match="load_url has 1 addresses"):
        read_target("triton:/short", environment).addresses("one")


def test_profile_has_endpoints_and_a_secret_of_the_environment(environment: dict[str, str]) -> None:
    target = read_target("triton:/production", environment)
    assert target.urls("two") == ["grpcs://two:8001"]
    assert target.options["admin_key"] == {"name": "admin-key", "secret": "secret"}
    assert (target.options["timeout"], target.options["ca_file"]) == (30.0, "/ca.pem")
    with pytest.raises(NotFound, match="one, two"):
        target.urls("three")
    with pytest.raises(InvalidOption, match="KEY, which is not set"):
        read_target("triton:/production", {PROFILES_VARIABLE: environment[PROFILES_VARIABLE]})


def test_place_of_the_profiles(tmp_path: Path) -> None:
    assert profiles_path({"XDG_CONFIG_HOME": "/config"}) == "/config/mlops-triton/profiles.yml"
    assert profiles_path({}).endswith("/.config/mlops-triton/profiles.yml")
    with pytest.raises(NotFound, match=PROFILES_VARIABLE):
        read_target("triton:/any", {PROFILES_VARIABLE: str(tmp_path / "none.yml")})
    broken = tmp_path / "broken.yml"
    broken.write_text("a: [", encoding="utf-8")
    with pytest.raises(InvalidOption, match=r"broken\.yml"):
        read_target("triton:/any", {PROFILES_VARIABLE: str(broken)})


# -- options ---------------------------------------------------------------------------------------


def test_options_are_those_of_the_modules() -> None:
    pytest.importorskip("ansible")
    from ansible_collections.mlops.triton.plugins.module_utils import _options

    by_verb = {"name", "model_uri", "state", "rollback_to", "undo"}
    assert set(MODEL) == set(_options.MODEL) - by_verb
    place = {
        **_options.REGISTRY,
        **_options.SERVER,
        **_options.REPOSITORY,
        **_options.ENVIRONMENTS,
        **_options.POLICY,
        **_options.STATUS,
        **_options.TRAFFIC,
        **_options.WAIT,
    }
    assert set(TARGET_OPTIONS) == set(place)
    for name, option in {**MODEL, **TARGET_OPTIONS}.items():
        spec: dict[str, Any] = {**_options.MODEL, **place}.get(name, {})
        assert tuple(spec.get("choices", ())) == option.choices, name


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("config", "{max_batch_size: 8}", {"max_batch_size": 8}),
        ("config", "null", None),
        ("instance_kind", "cpu", "cpu"),
        ("verify", "none", "none"),
        ("verify", "{inputs: {x: [[1, 2]]}}", {"inputs": {"x": [[1, 2]]}}),
        ("keep", "2", 2),
        ("adopt", "true", True),
        ("timeout", "1.5", 1.5),
        ("mode", "0644", "0644"),
        ("mode", 0o644, "0644"),
        ("owner", "1000", "1000"),
        ("triton_url", "a:1, b:2", ["a:1", "b:2"]),
        ("triton_url", "[a:1, b:2]", ["a:1", "b:2"]),
    ],
)
def test_value_of_an_option(key: str, text: Any, value: Any) -> None:
    assert read_options({key: text}, {**TARGET_OPTIONS, **MODEL}, "a deployment") == {key: value}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nonsense": "1"}, "nonsense; known are .*instance_kind.*verify"),
        ({"name": "x"}, "--name"),
        ({"state": "absent"}, "commands of their own"),
        ({"keep": "many"}, "whole number"),
        ({"keep": "1.5"}, "whole number"),
        ({"adopt": "perhaps"}, "true or false"),
        ({"config": "[1]"}, "mapping"),
        ({"config": "{"}, "mapping"),
        ({"flavor": "keras"}, "triton, onnx"),
        ({"instance_kind": "tpu"}, "cpu, gpu, auto"),
    ],
)
def test_value_that_cannot_be(given: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        read_options(given, {**TARGET_OPTIONS, **MODEL}, "a deployment")


def test_secret_is_never_shown() -> None:
    with pytest.raises(InvalidOption) as caught:
        read_options({"admin_key": "hush"}, TARGET_OPTIONS, "a deployment")
    assert "hush" not in str(caught.value)


def test_help_names_every_option() -> None:
    text = mlflow_deployments.target_help()
    assert not [name for name in (*MODEL, *TARGET_OPTIONS) if f"\n  {name} " not in text]


# -- tensors ---------------------------------------------------------------------------------------


def tensor(datatype: str, *shape: int, name: str = "x") -> Tensor:
    types = {
        "FP32": "float32",
        "FP64": "float64",
        "FP16": "float16",
        "INT32": "int32",
        "INT64": "int64",
        "UINT8": "uint8",
        "UINT64": "uint64",
        "BOOL": "bool",
        "BYTES": "object",
    }
    return Tensor(name, datatype, shape, numpy.dtype(types[datatype]))


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP32", numpy.array([1.5, 2.0], "float64")),
        ("FP32", numpy.array([float("nan"), float("inf")], "float64")),
        ("FP32", numpy.array([16777216], "int64")),
        ("INT32", numpy.array([1.0, -2.0], "float64")),
        ("INT64", numpy.array([1, 2], "int32")),
        ("UINT8", numpy.array([0, 255], "int64")),
        ("UINT64", numpy.array([0, 5], "int64")),
        ("FP64", numpy.array([True, False])),
        ("FP32", numpy.array([1.5], ">f4")),
    ],
)
def test_array_is_cast_where_nothing_is_lost(datatype: str, array: Any) -> None:
    cast = as_array(tensor(datatype, 2), array)
    assert cast.dtype == tensor(datatype).dtype
    numpy.testing.assert_array_equal(cast.astype(array.dtype), array)


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP32", numpy.array([0.1], "float64")),
        ("FP32", numpy.array([1e300], "float64")),
        ("FP32", numpy.array([16777217], "int64")),
        ("INT32", numpy.array([1.5], "float64")),
        ("INT32", numpy.array([float("nan")], "float32")),
        ("INT32", numpy.array([2**40], "int64")),
        ("UINT8", numpy.array([256], "int64")),
        ("UINT64", numpy.array([-1], "int64")),
        ("FP64", numpy.array([2**53 + 1], "int64")),
        ("BOOL", numpy.array([2], "int64")),
        ("FP32", numpy.array(["1.0"])),
        ("BYTES", numpy.array([1.0], "float32")),
    ],
)
def test_array_that_would_lose_is_refused_by_name(datatype: str, array: Any) -> None:
    with pytest.raises(InvalidOption, match=f"input 'x' is {datatype}"):
        as_array(tensor(datatype, 1), array)


@pytest.mark.parametrize(
    ("shape", "value", "shaped"),
    [
        ((-1, 3), [[1, 2, 3]], (1, 3)),
        ((-1, 3), [1, 2, 3], (1, 3)),
        ((-1, 1), [1, 2, 3], (3, 1)),
        ((-1, 1), 5, (1, 1)),
        ((3,), [[1, 2, 3]], (3,)),
        ((-1,), 5.0, (1,)),
    ],
)
def test_lists_get_the_dimension_that_they_leave_out(
    shape: tuple[int, ...], value: Any, shaped: tuple[int, ...]
) -> None:
    assert as_array(tensor("FP32", *shape), value).shape == shaped


def test_numbers_without_a_type_are_read_as_the_tensor_s() -> None:
    assert as_array(tensor("FP32", -1), [0.1]).dtype == numpy.float32
    with pytest.raises(InvalidOption, match="'x' is INT32"):
        as_array(tensor("INT32", -1), [1.5])
    with pytest.raises(InvalidOption, match="'x' is FP16"):
        as_array(tensor("FP16", -1), [1e6])
    with pytest.raises(InvalidOption, match="regular"):
        as_array(tensor("FP32", -1, 2), [[1, 2], [3]])


@pytest.mark.parametrize(
    "value",
    ["text", b"text", ["text"], [["text"]], numpy.array([["text"]]), numpy.array([[b"text"]])],
)
def test_text_becomes_bytes(value: Any) -> None:
    array = as_array(tensor("BYTES", -1, 1), value)
    assert (array.shape, array.tolist(), array.dtype) == ((1, 1), [[b"text"]], numpy.dtype(object))


def bfloat16() -> list[Any]:
    """What releases of tritonclient take for BF16."""
    return [numpy.dtype("float32"), numpy.dtype(pytest.importorskip("ml_dtypes").bfloat16)]


def test_bfloat16_loses_nothing_in_arrays_and_is_rounded_in_lists() -> None:
    for dtype in bfloat16():
        place = Tensor("x", "BF16", (-1,), dtype)
        for kind in ("float32", "float64", "int32", dtype):
            exact = as_array(
                place,
                (
                    numpy.array([1.5, -2.0, 0.0]).astype(kind)
                    if kind != "int32"
                    else numpy.array([1, -2, 0], kind)
                ),
            )
            assert exact.dtype == dtype
        for lossy in (
            numpy.array([0.1], "float32"),
            numpy.array([257], "int64"),
            numpy.array([1e300]),
        ):
            with pytest.raises(InvalidOption, match="input 'x' is BF16"):
                as_array(place, lossy)
        rounded = as_array(place, [0.1, 3.0, float("inf"), 1.00390625, 1.01171875]).astype(
            "float64"
        )
        assert rounded.tolist() == [0.10009765625, 3.0, float("inf"), 1.0, 1.015625]
        assert numpy.isnan(as_array(place, [float("nan")]).astype("float32")).all()
        with pytest.raises(InvalidOption, match="input 'x' is BF16"):
            as_array(place, [1e39])
    assert as_array(tensor("FP32", -1), numpy.array([1.5], bfloat16()[1])).tolist() == [1.5]


ONE = {"x": tensor("FP32", -1, 2)}
TWO = {"a": tensor("FP32", -1, 2, name="a"), "b": tensor("INT64", -1, 1, name="b")}


def found(values: Any, inputs: dict[str, Tensor]) -> dict[str, Any]:
    return {name: array.tolist() for name, (_datatype, array) in arrays_of(values, inputs).items()}


@pytest.mark.parametrize(
    "values",
    [
        [[1, 2]],
        {"x": [[1, 2]]},
        {"inputs": [[1, 2]]},
        {"inputs": {"x": [[1, 2]]}},
        json.dumps({"inputs": {"x": [[1, 2]]}}),
        b"[[1, 2]]",
        numpy.array([[1, 2]]),
    ],
)
def test_forms_of_one_input(values: Any) -> None:
    assert found(values, ONE) == {"x": [[1.0, 2.0]]}


def test_input_may_be_called_inputs() -> None:
    assert found({"inputs": [[1, 2]]}, {"inputs": tensor("FP32", -1, 2, name="inputs")}) == {
        "inputs": [[1.0, 2.0]]
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [([[1, 2]], "inputs a, b"), ({"a": [[1, 2]], "c": 1}, "no input 'c'"), ("no json", "not JSON")],
)
def test_inputs_that_are_not_the_model_s(values: Any, words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        arrays_of(values, TWO)


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    wanted = {"a": [[1.0, 2.0], [3.0, 4.0]], "b": [[5], [6]]}
    by_name = pandas.DataFrame(
        {"values": [numpy.array([[1, 2], [3, 4]], "float32"), [[5], [6]]]}, index=["a", "b"]
    )
    by_row = pandas.DataFrame({"a": [[1, 2], [3, 4]], "b": [5, 6]})
    assert found(by_name, TWO) == found(by_row, TWO) == wanted
    assert found(pandas.DataFrame({"inputs": [[1, 2], [3, 4]]}), ONE) == {"x": wanted["a"]}
    assert found(pandas.DataFrame({"inputs": wanted}), TWO) == wanted
    assert found(pandas.DataFrame({"x": [[0.1, 2.0]]}), ONE)["x"][0][0] == pytest.approx(0.1)
    for frame, words in (
        (pandas.DataFrame({"a": [1], "c": [2]}), "column c"),
        (pandas.DataFrame(), "empty"),
        (pandas.DataFrame({"a": [], "b": []}), "empty"),
        (pandas.DataFrame({"a": [["x", "y"]]}), "'a' .* texts"),
        (pandas.DataFrame({"a": [[1, "y"]]}), "'a' .* texts"),
        (pandas.DataFrame({"b": [[1, None]]}), "'b' is INT64 and cannot take null"),
        (pandas.DataFrame({"b": [pandas.Timestamp(0)]}), "'b' is INT64"),
    ):
        with pytest.raises(InvalidOption, match=words):
            arrays_of(frame, TWO)


def test_predictions_without_pandas(tmp_path: Path) -> None:
    answer = Predictions(
        outputs={"y": numpy.ones((1, 2), "float32"), "t": numpy.array([b"hi"], object)}
    )
    text = '{"outputs":{"y":[[1.0,1.0]],"t":["hi"]}}'
    answer.to_json(tmp_path / "out.json")
    assert answer.to_json() == (tmp_path / "out.json").read_text() == text
    assert answer["outputs"]["y"].shape == (1, 2)


def test_bytes_that_json_cannot_hold_are_one_sentence() -> None:
    pytest.importorskip("pandas")
    from ansible_collections.mlops.triton.plugins.mlflow_deployments import predict

    with pytest.raises(MlflowException, match="no UTF-8 text") as caught:
        predict._to_frame({"t": numpy.array([b"\xff"], object)}).to_json()
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_predictions_are_the_frame_that_scripts_know() -> None:
    pandas = pytest.importorskip("pandas")
    from ansible_collections.mlops.triton.plugins.mlflow_deployments import predict

    outputs = {"y": numpy.ones((1, 2), "float32"), "t": numpy.array([b"hi"], object)}
    known = pandas.DataFrame.from_dict({"outputs": outputs})
    for use in (
        repr,
        len,
        list,
        lambda frame: frame.to_json(),
        lambda frame: frame["outputs"]["y"].tolist(),
        lambda frame: frame.shape,
        lambda frame: frame.T.to_json(),
        lambda frame: frame.copy().to_json(),
        lambda frame: frame.outputs.t.tolist(),
    ):
        made = predict._to_frame(dict(outputs))
        assert isinstance(made, pandas.DataFrame)
        assert use(made) == use(known.copy())
        assert made.__class__ is pandas.DataFrame
