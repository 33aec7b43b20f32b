# SPDX-License-Identifier: Apache-2.0
"""``client.predict`` and ``mlflow deployments predict`` return what ``pyfunc.predict`` returns, on
a real Triton over HTTP and gRPC. The models are written by hand: they answer as the contract
between the configuration and its clients says.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.mlflow_deployments import TritonDeploymentClient
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
    Example,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import (
    Layout,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    InvalidOption,
    VerificationFailed,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.verification import (
    judge_case,
    judge_example,
    verify,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (
    TritonServer,
)
from mlflow.exceptions import MlflowException
from support import plugin
from support.pyfunc_interfaces import column, pbtxt, served_config, settings, tensor
from support.servers import Triton

numpy = pytest.importorskip("numpy")
pytest.importorskip("tritonclient.http")
pandas = pytest.importorskip("pandas")

pytestmark = pytest.mark.takes(15)

TABLE = [
    column("age", "long"),
    column("plan", "string"),
    column("since", "datetime"),
    column("bonus", "double", required=False),
]
ANSWER = [
    column("label", "string", column="label"),
    column("next", "long", column="next"),
    column("when", "datetime", column="when"),
    column("bonus", "double", column="bonus"),
]
PARAMS = [
    {"name": "plus", "type": "long", "default": 1, "shape": None},
    {"name": "scale", "type": "double", "default": 1.0, "shape": None},
    {"name": "loud", "type": "boolean", "default": False, "shape": None},
    {"name": "mark", "type": "string", "default": "", "shape": None},
    {"name": "bias", "type": "double", "default": [0.0], "shape": [-1]},
]
# Answers with what it was sent, so that nothing is proven by the client alone.
TABLE_MODEL = """
import json
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [self.one(request) for request in requests]

    def one(self, request):
        given = json.loads(request.parameters() or "{}")
        get = lambda name: pb.get_input_tensor_by_name(request, name)
        age, plan = get("age").as_numpy(), get("plan").as_numpy()
        bonus = get("bonus")
        bonus = np.full(age.shape, -1.0) if bonus is None else bonus.as_numpy()
        bonus = bonus * given.get("scale", 1.0) + sum(json.loads(given.get("bias", "[]")))
        mark = given.get("mark", "").encode()
        label = [[(t.upper() if given.get("loud") else t) + mark for t in row] for row in plan]
        return pb.InferenceResponse([
            pb.Tensor("label", np.array(label, dtype=object)),
            pb.Tensor("next", age + given.get("plus", 1)),
            pb.Tensor("when", get("since").as_numpy()),
            pb.Tensor("bonus", bonus),
        ])
"""
ARRAY_MODEL = """
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        found = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            total = pb.Tensor("predictions", x.sum(axis=1, keepdims=True))
            found.append(pb.InferenceResponse([total]))
        return found
"""
JSON_MODEL = """
import json
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        found = []
        for request in requests:
            text = pb.get_input_tensor_by_name(request, "request").as_numpy()[0].decode()
            document = json.loads(text)
            table = document["dataframe_split"]
            rows = [dict(zip(table["columns"], row)) for row in table["data"]]
            plus = document.get("params", {}).get("plus", 1)
            answer = [
                {"n": row["age"] + plus, "plan": row["plan"], "x": float("nan") if row["plan"] is None else 0.5}
                for row in rows
            ]
            body = json.dumps({"predictions": answer}).encode()
            found.append(pb.InferenceResponse([pb.Tensor("response", np.array([body], dtype=object))]))
        return found
"""  # noqa: E501
NULLABLE = [column("age", "long"), column("plan", "string", required=False)]
RECORDS = [
    column("n", "integer", column="n"),
    column("plan", "string", required=False, column="plan"),
    column("x", "double", column="x"),
]
MODELS = {
    "table": (TABLE_MODEL, settings(TABLE, ANSWER, PARAMS)),
    "array": (
        ARRAY_MODEL,
        settings(
            [tensor("x", "float32", [-1, 2])],
            [tensor("predictions", "float32", [-1], column=None)],
        ),
    ),
    "document": (JSON_MODEL, settings(NULLABLE, RECORDS, PARAMS, form="json")),
}
ROWS = pandas.DataFrame(
    {
        "age": [41, 17],
        "plan": ["gold", "ä"],
        "since": pandas.to_datetime(["2026-01-02T03:04:05.123456789", None]),
        "bonus": [0.5, numpy.nan],
    }
)
WANTED = pandas.DataFrame(
    {"label": ROWS["plan"], "next": [42, 18], "when": ROWS["since"], "bonus": ROWS["bonus"]}
)


@pytest.fixture(scope="module")
def served(triton: Triton) -> Iterator[Triton]:
    for name, (source, text) in MODELS.items():
        folder = triton.repository / f"pyfunc-{name}" / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(source, encoding="utf-8")
        config = pbtxt(f"pyfunc-{name}", served_config(text))
        (folder.parent / "config.pbtxt").write_text(config, encoding="utf-8")
        assert triton.load(f"pyfunc-{name}") == (200, None)
    yield triton
    for name in MODELS:
        triton.unload(f"pyfunc-{name}")


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, served: Triton) -> TritonDeploymentClient:
    over_http = request.param == "http"
    target = served.url if over_http else f"{served.grpc_url}?protocol=grpc"
    return TritonDeploymentClient(f"triton://{target}")


def url_of(served: Triton, scheme: str = "http") -> str:
    return f"http://{served.url}" if scheme == "http" else f"grpc://{served.grpc_url}"


def test_a_dataframe_is_answered_by_a_dataframe(client: TritonDeploymentClient) -> None:
    found = client.predict("pyfunc-table", ROWS)
    pandas.testing.assert_frame_equal(found, WANTED)
    # Columns in another order, further ones, and an index, which no tensor has.
    other = ROWS[["since", "bonus", "plan", "age"]].assign(more=1).set_index(pandas.Index([7, 9]))
    pandas.testing.assert_frame_equal(client.predict("pyfunc-table", other), WANTED)
    without = client.predict("pyfunc-table", ROWS.drop(columns="bonus"))
    assert without["bonus"].tolist() == [-1.0, -1.0]


def test_params_reach_the_model_as_they_are(client: TritonDeploymentClient) -> None:
    params = {"plus": 10, "scale": 3, "loud": True, "mark": "é!", "bias": [0.25, 1], "none": 1}
    found = client.predict("pyfunc-table", {"inputs": ROWS, "params": params})
    assert found["next"].tolist() == [51, 27]
    assert found["label"].tolist()[0] == "GOLDé!"
    assert found["bonus"].tolist()[0] == 0.5 * 3 + 1.25
    with pytest.raises(MlflowException, match=r"pyfunc-table.*param plus is long"):
        client.predict("pyfunc-table", {"inputs": ROWS, "params": {"plus": 1.5}})


def test_an_array_is_answered_by_an_array(client: TritonDeploymentClient) -> None:
    given = numpy.array([[1, 2], [3, 4]], dtype="float32")
    found = client.predict("pyfunc-array", given)
    assert isinstance(found, numpy.ndarray)
    assert (found.dtype, found.shape, found.tolist()) == (numpy.dtype("float32"), (2,), [3.0, 7.0])


def test_null_in_a_text_goes_in_a_document(client: TritonDeploymentClient) -> None:
    given = pandas.DataFrame({"age": [1, 2], "plan": ["ä", None]})
    wanted = pandas.DataFrame(
        {"n": numpy.array([2, 3], dtype="int32"), "plan": ["ä", None], "x": [0.5, numpy.nan]}
    )
    pandas.testing.assert_frame_equal(client.predict("pyfunc-document", given), wanted)
    with_params = client.predict("pyfunc-document", {"inputs": given, "params": {"plus": 5}})
    assert with_params["n"].tolist() == [6, 7]


def test_what_cannot_be_said_names_model_column_and_row(client: TritonDeploymentClient) -> None:
    with pytest.raises(MlflowException, match=r"pyfunc-table.*column 'plan' .*row 1"):
        client.predict("pyfunc-table", ROWS.assign(plan=["x", None]))
    with pytest.raises(MlflowException, match=r"pyfunc-table.*no column plan"):
        client.predict("pyfunc-table", ROWS.drop(columns="plan"))


@pytest.mark.skipif(
    importlib.util.find_spec("pandas") is None, reason="MLflow's own command imports pandas"
)
def test_the_command_line_takes_mlflows_documents(served: Triton, tmp_path: Path) -> None:
    site = plugin.registered(tmp_path / "site")
    split = {
        "columns": ["age", "plan", "since"],
        "data": [[41, "gold", "2026-01-02T03:04:05.123456789"]],
    }
    file = tmp_path / "input.json"
    file.write_text(json.dumps([{"dataframe_split": split, "params": {"plus": 3}}]), "utf-8")
    variables = plugin.environment(
        site, TRITON_URL=served.url, TRITON_MODEL_REPO=str(served.repository)
    )
    words = ("predict", "-t", "triton", "--name", "pyfunc-table", "-I", str(file))
    done = plugin.deployments(variables, *words)
    assert done.returncode == 0, done.stderr
    assert '"next":{"0":44}' in done.stdout and '"label":{"0":"gold"}' in done.stdout


# -- verification ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize("name", ["table", "document"])
def test_an_input_example_verifies_both_forms(served: Triton, name: str, scheme: str) -> None:
    columns = ["age", "plan"] + (["since"] if name == "table" else [])
    row = [41, "gold", "2026-01-02"][: len(columns)]
    document = {"dataframe_split": {"columns": columns, "data": [row]}, "params": {"plus": 2}}
    config = (served.repository / f"pyfunc-{name}" / "config.pbtxt").read_bytes()
    layout = dataclasses.replace(_layout(), example=document)
    judged = judge_example(layout, config, [url_of(served, scheme)], DesiredModel(f"pyfunc-{name}"))
    assert (judged.example, judged.warnings) == (document, layout.warnings)
    with TritonServer(url_of(served, scheme), 20.0) as server:
        assert verify(server, f"pyfunc-{name}", 1, Example(document)) is None
        bad = {"dataframe_split": {"columns": ["age"], "data": [[1]]}}
        if name == "table":
            assert "no column plan" in str(verify(server, "pyfunc-table", 1, Example(bad)))


def _layout() -> Layout:
    return Layout("python_function", (), (), b"", (1,), (1,))


CASES: list[tuple[str, Any, Any]] = [
    (
        "table",
        {"age": [41], "plan": ["x"], "since": ["2026-01-02"]},
        {"next": [42], "label": ["x"]},
    ),
    ("table", {"age": [["41"]], "plan": [[7]], "since": ["2026-01-02"]}, {"next": [[42]]}),
    (
        "table",
        {
            "dataframe_records": [{"age": 1, "plan": "x", "since": "2026-01-02"}],
            "params": {"plus": 4},
        },
        {"next": [5], "bonus": [-1.0]},
    ),
    ("array", {"x": [[1, 2]]}, {"predictions": [3.0]}),
    ("array", {"x": [[1, 2]]}, {"predictions": [[3.0]]}),
    ("document", {"age": [1, 2], "plan": ["a", "b"]}, {"n": [2, 3], "plan": ["a", "b"]}),
    (
        "document",
        {"dataframe_split": {"columns": ["age", "plan"], "data": [[1, None]]}},
        {"n": [2]},
    ),
]


@pytest.mark.parametrize(("name", "inputs", "outputs"), CASES, ids=lambda value: str(value)[:30])
def test_what_a_user_says_to_verify_with(
    served: Triton, name: str, inputs: Any, outputs: Any
) -> None:
    case = {"inputs": inputs, "outputs": outputs}
    given = {"name": f"pyfunc-{name}", "model_uri": "models:/m/1", "verify": case}
    desired = DesiredModel.from_options(given)
    config = (served.repository / f"pyfunc-{name}" / "config.pbtxt").read_bytes()
    judge_case(config, [url_of(served)], desired)
    with TritonServer(url_of(served), 20.0) as server:
        assert verify(server, f"pyfunc-{name}", 1, case) is None
        for output, values in outputs.items():
            flat = values[0] if isinstance(values[0], list) else values
            wrong = {**case, "outputs": {output: ["no"] if isinstance(flat[0], str) else [999]}}
            if isinstance(values[0], list):
                wrong["outputs"] = {output: [[999]]}
            with pytest.raises(VerificationFailed, match=f"output '{output}'"):
                verify(server, f"pyfunc-{name}", 1, wrong)


@pytest.mark.parametrize(
    ("name", "case", "words"),
    [
        ("table", {"inputs": {"age": [1]}}, "no column plan, since"),
        ("table", {"inputs": {"age": ["x"], "plan": ["x"], "since": ["2026-01-02"]}}, "'age'"),
        ("document", {"inputs": {"age": [1]}, "outputs": {"m": [1]}}, "output 'm', and .*n, plan"),
    ],
)
def test_a_case_that_no_such_model_answers_is_refused_before(
    served: Triton, name: str, case: Any, words: str
) -> None:
    given = {"name": f"pyfunc-{name}", "model_uri": "models:/m/1", "verify": case}
    config = (served.repository / f"pyfunc-{name}" / "config.pbtxt").read_bytes()
    with pytest.raises(InvalidOption, match=words):
        judge_case(config, [url_of(served)], DesiredModel.from_options(given))
