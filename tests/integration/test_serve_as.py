# SPDX-License-Identifier: Apache-2.0
"""One task from a registered pipeline to a Triton that answers as MLflow's pyfunc does, with the
environment it was logged with; on a real MLflow and a real Triton.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from support.deliveries import deliver_model, deploy_model, target_of
from support.pyfunc_environment import PINS, make_environment
from support.pyfunc_logs import environment_options
from support.servers import MLflow, Triton, server_python

pytestmark = [pytest.mark.long, pytest.mark.takes(60)]
NAME = "churn"
LOG = """
import json, sys
import mlflow, pandas
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

pins = json.loads(sys.argv[1])
table = pandas.DataFrame({"age": [20, 30, 40, 50], "city": ["Rome", "Oslo", "Rome", "Paris"]})
encoder = ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough")

def log(name, model, asked):
    info = mlflow.sklearn.log_model(
        model, name="model", registered_model_name=name, pip_requirements=pins,
        signature=infer_signature(asked, model.predict(asked)),
        serialization_format="cloudpickle",
    )
    answer = mlflow.pyfunc.load_model(info.model_uri).predict(asked)
    return {"version": int(info.registered_model_version), "answer": answer.tolist()}

def pipeline(slope):
    return make_pipeline(encoder, LinearRegression()).fit(table, slope * table["age"])

ages = table[["age"]]
forest = RandomForestClassifier(2, random_state=0).fit(ages, [0, 1, 1, 0])
print(json.dumps({
    "churn": [log("churn", pipeline(slope), table) for slope in (1.0, 3.0)],
    "classes": [log("classes", forest, ages), log("classes", pipeline(2.0), table)],
}))
"""
TABLE: dict[str, list[Any]] = {"age": [20, 30, 40, 50], "city": ["Rome", "Oslo", "Rome", "Paris"]}


@pytest.fixture(scope="module")
def environments() -> Iterator[dict[str, Any]]:
    """The option of this name: a folder that the user who builds may enter, and this machine's
    index.
    """
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patched:
        uv = server_python("UV_PYTHON_OF_TESTS", "uv").parent
        patched.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{uv}")
        # As pip has it: the best version of all indexes.
        patched.setenv("UV_INDEX_STRATEGY", "unsafe-best-match")
        yield environment_options(folder / "environments")
    shutil.rmtree(folder)


class Line:
    """One model from MLflow to Triton."""

    def __init__(self, mlflow: MLflow, triton: Triton, environments: dict[str, Any]) -> None:
        self.mlflow, self.triton = mlflow, triton
        self.target = target_of(triton, mlflow, environments=environments)

    def deploy(self, version: int, name: str = NAME, **options: Any) -> Result:
        return deploy_model(self.target, name, model_uri=f"models:/{name}/{version}", **options)

    def answers(self, version: int | None = None) -> list[float]:
        data = [
            {"name": "age", "datatype": "INT64", "shape": [4, 1], "data": TABLE["age"]},
            {"name": "city", "datatype": "BYTES", "shape": [4, 1], "data": TABLE["city"]},
        ]
        status, answer = self.triton.infer(NAME, {"inputs": data}, version=version)
        assert status == 200, answer
        found: list[float] = answer["outputs"][0]["data"]
        return found


@pytest.fixture(scope="module")
def line(mlflow: MLflow, triton: Triton, environments: dict[str, Any]) -> Line:
    return Line(mlflow, triton, environments)


@pytest.fixture(scope="module")
def logged(mlflow: MLflow) -> dict[str, list[dict[str, Any]]]:
    """Of each model its versions, with what pyfunc answers."""
    kept = {key: one for key, one in os.environ.items() if not key.startswith("PYTHON")}
    told = subprocess.run(
        [str(make_environment()), "-c", LOG, json.dumps(PINS)],
        env={**kept, "MLFLOW_TRACKING_URI": mlflow.url},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, list[dict[str, Any]]] = json.loads(told.stdout.strip().splitlines()[-1])
    return found


def test_a_pipeline_is_one_task_away_from_an_answer_as_of_pyfunc(
    line: Line, logged: dict[str, list[dict[str, Any]]]
) -> None:
    first, second = logged[NAME]
    uri = f"models:/{NAME}/{first['version']}"
    planned = deliver_model(line.target, NAME, check=True, model_uri=uri)
    assert planned.plan and planned.error is None, str(planned.error)
    assert planned.plan.actions[0].startswith("environment: ")
    assert not Path(str((line.target.environments or {})["folder"])).exists()

    made = line.deploy(first["version"])
    assert made.record and (made.record.served_as, made.record.flavor) == ("pyfunc", "sklearn")
    assert line.answers() == pytest.approx(first["answer"])
    assert not line.deploy(first["version"]).changed
    assert not line.deploy(first["version"], serve_as="pyfunc").changed

    brought = line.deploy(second["version"])
    assert brought.plan and not brought.plan.actions[0].startswith("environment")
    assert line.answers() == pytest.approx(second["answer"])
    assert brought.record and brought.record.environment == made.record.environment
    deploy_model(line.target, NAME, state="rolled_back")
    assert line.answers() == pytest.approx(first["answer"])

    with Delivery(line.target) as delivery:
        (told,) = delivery.status([NAME])
        (environment,) = delivery.describe_environments()
    assert told["drift"] == [] and told["pyfunc"]["form"] == "tensors"
    assert environment["models"] == [NAME] and environment["packages"] >= len(PINS)


def test_versions_of_a_pipeline_answer_side_by_side(
    line: Line, logged: dict[str, list[dict[str, Any]]]
) -> None:
    for one in logged[NAME]:
        line.deploy(one["version"], serve_versions=2)
    for one in logged[NAME]:
        assert line.answers(one["version"]) == pytest.approx(one["answer"])


def test_an_environment_that_is_gone_is_drift_and_is_built_with_the_next_deployment(
    line: Line, logged: dict[str, list[dict[str, Any]]]
) -> None:
    with Delivery(line.target) as delivery:
        record = delivery.record(NAME)
    assert record and record.environment and record.registry_version
    uri = f"models:/{NAME}/{record.registry_version}"
    folder = Path(str((line.target.environments or {})["folder"])) / record.environment
    folder.rename(folder.with_name("moved"))
    try:
        with Delivery(line.target) as delivery:
            (told,) = delivery.status([NAME])
        assert any("is gone" in said for said in told["drift"])
        planned = deliver_model(line.target, NAME, check=True, model_uri=uri, serve_versions=2)
        assert planned.plan and planned.plan.actions[0].startswith("environment: ")
        refused = deliver_model(line.target, NAME, state="rolled_back")
        assert refused.error and "a rollback does not build it" in str(refused.error)
    finally:
        folder.with_name("moved").rename(folder)
    deploy_model(line.target, NAME, state="absent")


def test_what_is_served_natively_does_not_change_its_way_silently(
    line: Line, logged: dict[str, list[dict[str, Any]]]
) -> None:
    name = "classes"
    forest, pipeline = logged[name]
    wrong: dict[str, Any] = {
        "inputs": {"input__0": [[20.0]]},
        "outputs": {"output__0": [[9.0, 9.0]]},
    }
    uri = f"models:/{name}/{forest['version']}"
    differs = deliver_model(line.target, name, model_uri=uri, serve_as="native", verify=wrong)
    assert differs.error and "serve_as: pyfunc" in str(differs.error)
    native = line.deploy(forest["version"], name, serve_as="native")
    assert native.record and native.record.served_as == "native"

    uri = f"models:/{name}/{pipeline['version']}"
    refused = deliver_model(line.target, name, model_uri=uri)
    assert refused.error and "serve_as: pyfunc" in str(refused.error)
    assert native.record.pinned_uri in str(refused.error)
    forced = deliver_model(line.target, name, model_uri=uri, serve_as="native")
    assert forced.error and "serve_as: pyfunc" not in str(forced.error)

    # What both errors say to do: pyfunc's own answers.
    rows: list[Any] = [[one] for one in TABLE["age"]]
    right = {
        "inputs": {"age": rows},
        "outputs": {"predictions": [[one] for one in forest["answer"]]},
    }
    line.deploy(forest["version"], name, serve_as="pyfunc", verify=right)
    done = line.deploy(pipeline["version"], name, serve_as="pyfunc")
    assert done.record and done.record.served_as == "pyfunc"
    deploy_model(line.target, name, state="absent")
