# SPDX-License-Identifier: Apache-2.0
"""Which way a model is served, and the model folder of one for which MLflow's own code answers:
both are known from metadata, before anything is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import (
    Artifact,
    Layout,
    Numbering,
    Serving,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.servable import (
    refuse_layout,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    DeliveryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.layouts import (
    layout_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy import Policy

PYFUNC = {"python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl"}}
COLUMNS = [
    {"type": "long", "name": "age", "required": True},
    {"type": "double", "name": "income", "required": False},
    {"type": "string", "name": "city", "required": True},
]
LABELS = [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]
IMAGES = [{"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]


def artifact(
    flavors: Mapping[str, Any],
    *files: str,
    inputs: Any = ...,
    outputs: Any = ...,
    with_pyfunc: bool = True,
) -> Artifact:
    inputs = COLUMNS if inputs is ... else inputs
    outputs = LABELS if outputs is ... else outputs
    signature = {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs)}
    known = {**(PYFUNC if with_pyfunc else {}), **flavors}
    mlmodel = {"flavors": known, "signature": signature if inputs else None}
    return Artifact(dict.fromkeys((*files, "MLmodel"), 5), (), mlmodel, None, lambda _path: b"")


def laid_out(found: Artifact, **asked: Any) -> Layout:
    return layout_of(
        found, asked.pop("flavor", None), Numbering("auto", 7, False), Serving(**asked)
    )


SKLEARN = artifact({"sklearn": {"pickled_model": "model.pkl"}}, "model.pkl")
CLASSES = {
    "svc": "sklearn.svm._classes.SVC",
}
NUMBERS = [{"type": "double", "name": "income", "required": True}]
SCORES = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]


def forest(kind: str) -> dict[str, str]:
    name = f"sklearn.ensemble._forest.RandomForest{kind}"
    return {"pickled_model": "a", "model_class": name}


XGBOOST = {"data": "model.ubj", "model_class": "xgboost.sklearn.XGBClassifier"}
AUTO: dict[str, tuple[Artifact, str, str]] = {
    "triton": (
        artifact({"triton": {"data": "m"}}, "m/config.pbtxt", "m/1/model.onnx"),
        "native", "a backend of Triton runs flavor triton",
    ),
    "onnx": (artifact({"onnx": {"data": "a.onnx"}}, "a.onnx"), "native", "runs flavor onnx"),
    "xgboost": (artifact({"xgboost": XGBOOST}, "model.ubj"), "native", "runs flavor xgboost"),
    "xgboost of another class": (
        artifact({"xgboost": {**XGBOOST, "model_class": "mine.Booster"}}, "model.ubj"),
        "pyfunc", "mine.Booster is not XGBoost's own",
    ),
    "lightgbm": (
        artifact({"lightgbm": {"data": "model.lgb"}}, "model.lgb"),
        "native", "runs flavor lightgbm",
    ),
    "sklearn": (SKLEARN, "pyfunc", "does not say that it is a forest"),
    "sklearn forest": (
        artifact({"sklearn": forest("Regressor")}, "a", inputs=NUMBERS, outputs=SCORES),
        "native", "runs RandomForestRegressor",
    ),
    "sklearn forest of probabilities": (
        artifact({"sklearn": forest("Classifier")}, "a", inputs=NUMBERS, outputs=SCORES),
        "native", "runs RandomForestClassifier",
    ),
    "sklearn forest of labels": (
        artifact({"sklearn": forest("Classifier")}, "a", inputs=NUMBERS), "pyfunc", "with labels",
    ),
    "sklearn forest without signature": (
        artifact({"sklearn": forest("Classifier")}, "a", inputs=[], outputs=[]),
        "pyfunc", "with labels",
    ),
    "sklearn forest of texts": (
        artifact({"sklearn": forest("Regressor")}, "a", outputs=SCORES),
        "pyfunc", "columns that are no numbers",
    ),
    "sklearn svc": (
        artifact({"sklearn": {"pickled_model": "m.pkl", "model_class": CLASSES["svc"]}}, "m.pkl"),
        "pyfunc", "no backend of Triton runs SVC",
    ),
    "pytorch": (
        artifact({"pytorch": {}}, "data/model.pth", inputs=IMAGES, outputs=IMAGES),
        "native", "runs flavor pytorch",
    ),
    "pytorch by torch.export": (
        artifact({"pytorch": {}}, "data/model.pt2", inputs=IMAGES, outputs=IMAGES),
        "pyfunc", "torch.export",
    ),
    "pytorch of columns": (
        artifact({"pytorch": {}}, "data/model.pth"), "pyfunc", "does not name the tensors",
    ),
    "pytorch with a scalar": (
        artifact(
            {"pytorch": {}}, "data/model.pth", inputs=IMAGES,
            outputs=[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": []}}],
        ),
        "pyfunc", "no dimension",
    ),
    "catboost": (
        artifact({"catboost": {"data": "m.cb"}}, "m.cb"), "pyfunc", "no backend of Triton runs",
    ),
    "transformers": (artifact({"transformers": {}}, "model/x"), "pyfunc", "transformers"),
    "pyfunc alone": (artifact({}, "python_model.pkl"), "pyfunc", "only MLflow runs"),
    "pyfunc beside a Triton folder": (
        artifact({"keras": {}}, "config.pbtxt", "1/model.onnx"), "native", "it has a config.pbtxt",
    ),
    "without python_function": (
        artifact({"onnx": {"data": "a.onnx"}}, "a.onnx", with_pyfunc=False),
        "native", "no flavor python_function",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AUTO)
def test_auto_is_decided_from_metadata(case: str) -> None:
    found, way, why = AUTO[case]
    layout = laid_out(found)
    assert layout.served_as == way
    assert why in (layout.why or "")
    assert (layout.pyfunc is not None) == (way == "pyfunc")


@pytest.mark.parametrize("case", AUTO)
def test_pyfunc_is_consent_for_whatever_mlflow_can_run(case: str) -> None:
    found = AUTO[case][0]
    if case == "without python_function":
        with pytest.raises(ArtifactError, match="leave serve_as out"):
            laid_out(found, serve_as="pyfunc")
        return
    layout = laid_out(found, serve_as="pyfunc")
    assert (layout.served_as, layout.why) == ("pyfunc", "serve_as says so")


@pytest.mark.parametrize("case", AUTO)
def test_native_is_what_it_was(case: str) -> None:
    """The same layout, or the same refusal, as of a model that MLflow could not run."""
    found = AUTO[case][0]
    flavors = dict(found.mlmodel["flavors"])  # type: ignore[index]

    def outcome(**asked: Any) -> Any:
        try:
            made = laid_out(found, **asked)
        except DeliveryError as error:
            return str(error)
        return made.flavor, made.files, made.author_config, made.conversion

    native = outcome(serve_as="native")
    flavors.pop("python_function", None)
    if flavors:
        found.mlmodel["flavors"].pop("python_function", None)  # type: ignore[index]
        try:
            assert native == outcome()
        finally:
            found.mlmodel["flavors"].update(PYFUNC)  # type: ignore[index]


def test_what_is_served_natively_goes_on_so() -> None:
    assert laid_out(SKLEARN, native_now="sklearn").served_as == "native"
    assert laid_out(SKLEARN, native_now="onnx").served_as == "pyfunc"


def test_where_no_code_may_run_auto_is_native_where_that_may_be() -> None:
    layout = laid_out(SKLEARN, no_pyfunc="the repository is in S3")
    assert (layout.served_as, layout.why) == ("native", "the repository is in S3")
    assert laid_out(SKLEARN).has_pyfunc and not layout.has_pyfunc  # so that no error offers it
    catboost = artifact({"catboost": {}}, "m.cb")
    assert laid_out(catboost, no_pyfunc="the repository is in S3").served_as == "pyfunc"


def test_a_named_flavor_is_native() -> None:
    assert laid_out(SKLEARN, flavor="sklearn").served_as == "native"
    forced = laid_out(SKLEARN, flavor="sklearn", serve_as="pyfunc")
    assert (forced.served_as, forced.flavor) == ("pyfunc", "sklearn")


def test_all_of_it_lies_in_the_version_folder() -> None:
    found = artifact(
        {"sklearn": {}}, "model.pkl", "code/mine/__init__.py", "requirements.txt",
        "input_example.json", "model.sig", "triton-manifest.json",
    )  # fmt: skip
    layout = laid_out(found)
    assert [target for _source, target, _size in layout.files] == [
        "7/model/MLmodel",
        "7/model/code/mine/__init__.py",
        "7/model/input_example.json",
        "7/model/model.pkl",
        "7/model/requirements.txt",
    ]
    assert {*layout.paths} >= {
        "7/model.py",
        "7/pyfunc_worker.py",
        "7/pyfunc_wire.py",
        "7/pyfunc.json",
    }
    assert layout.versions == (7,)
    refuse_layout(layout.author_config, "m", layout)


def test_the_configuration_is_whole_before_anything_is_here() -> None:
    layout = laid_out(SKLEARN)
    message = config_pbtxt.parse(layout.author_config)
    shown = config_pbtxt.as_json(message)
    parameters = shown.pop("parameters")
    assert shown == {
        "backend": "python",
        "max_batch_size": 1 << 20,
        "input": [
            {"name": "age", "data_type": "TYPE_INT64", "dims": ["1"]},
            {"name": "income", "data_type": "TYPE_FP64", "dims": ["1"], "optional": True},
            {"name": "city", "data_type": "TYPE_STRING", "dims": ["1"]},
        ],
        "output": [{"name": "predictions", "data_type": "TYPE_INT64", "dims": ["1"]}],
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "dynamic_batching": {},
    }
    told = json.loads(parameters["mlops_triton_pyfunc"]["string_value"])
    assert {*told} == {"form", "inputs", "outputs", "params"}
    assert not layout.is_configured_later


def test_a_model_without_a_signature_takes_one_document() -> None:
    layout = laid_out(artifact({}, "m.pkl", inputs=None))
    message = config_pbtxt.as_json(config_pbtxt.parse(layout.author_config))
    assert message["input"] == [{"name": "request", "data_type": "TYPE_STRING", "dims": ["1"]}]
    assert message["output"] == [{"name": "response", "data_type": "TYPE_STRING", "dims": ["1"]}]
    assert "max_batch_size" not in message and "dynamic_batching" not in message
    assert layout.pyfunc and layout.pyfunc.reason == "it has no signature"


@pytest.mark.parametrize(
    ("flavor", "asked", "joins"),
    [
        ("sklearn", None, True),
        ("catboost", None, True),
        ("prophet", None, False),
        ("python_function", None, False),
        ("sklearn", False, False),
        ("prophet", True, True),
    ],
)
def test_requests_are_joined_where_rows_are_independent_or_the_user_says_so(
    flavor: str, asked: bool | None, joins: bool
) -> None:
    found = artifact({} if flavor == "python_function" else {flavor: {}}, "m.pkl")
    layout = laid_out(found, serve_as="pyfunc", batch_requests=asked)
    assert layout.joins_requests is joins
    assert (b"dynamic_batching" in layout.author_config) is joins


def test_joining_what_cannot_be_joined_is_a_warning() -> None:
    found = artifact({}, "m.pkl", inputs=None)
    layout = laid_out(found, batch_requests=True)
    assert not layout.joins_requests
    (said,) = layout.warnings
    assert said == (
        "batch_requests: true changes nothing, as its requests cannot be joined (it has no"
        " signature)"
    )


REFUSED = {
    "model_code: refused is set: set model_code: allowed, or": Policy(model_code="refused"),
    "allowed_backends has onnxruntime: add python to allowed_backends, or": Policy(
        allowed_backends=("onnxruntime",)
    ),
    "set model_code: allowed and add python to allowed_backends, or": Policy(
        model_code="refused", allowed_backends=("fil", "onnxruntime")
    ),
}


@pytest.mark.parametrize("said", REFUSED)
@pytest.mark.parametrize("asked", ["auto", "pyfunc"])
def test_policy_judges_it_as_code_and_names_both_ways_out(said: str, asked: str) -> None:
    catboost = artifact({"catboost": {"data": "m.cb"}}, "m.cb")
    policy = REFUSED[said]
    layout = laid_out(catboost, serve_as=asked, no_pyfunc="the rules say so")
    with pytest.raises(DeliveryError) as refused:
        policy.check_new(layout, layout.author_config, {})
    assert said in str(refused.value)
    assert "publish it as ONNX or another model that is data" in str(refused.value)
    # Each of the ways, as it is named.
    opened = Policy(allowed_backends=(*(policy.allowed_backends or ()), "python"))
    opened.check_new(layout, layout.author_config, {})
    data = laid_out(artifact({"onnx": {"data": "a.onnx"}}, "a.onnx"))
    policy.check_new(data, data.author_config, {})
