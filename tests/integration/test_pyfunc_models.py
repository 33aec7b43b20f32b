# SPDX-License-Identifier: Apache-2.0
"""What data scientists train and log: served with the environment of the model, asked as tensors,
as MLflow's documents and through MLflow's deployment client, and compared with what
``mlflow.pyfunc`` answered where the model was made.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import pyfunc_logs
from support.logged_models import values
from support.modules import run_module
from support.other_python import make_other_environment, other_python
from support.pyfunc_environment import make_environment
from support.servers import MLflow, Triton

pytestmark = [pytest.mark.long, pytest.mark.takes(200)]

TENSORS = (
    "churn",
    "svc",
    "knn",
    "isolation",
    "missing",
    "text",
    "pricing",
    "from_code",
    "scaled",
    "frame",
    "series",
    "words",
    "tensors",
    "dates",
    "optional_number",
    "talkative",
)
DOCUMENTS = ("unsigned", "shout", "optional_text")
# What the second version of each is refused with; the first one serves on.
REFUSALS = {
    "contradicting": r"numpy",
    "unloadable": r"No module named 'left_at_home'",
    "exits": r"ended|exited|exit",
    "wrong_shape": r"predictions",
    "fills_memory": r"MemoryError|memory",
    "is_killed": r"killed|SIGKILL|signal 9",
    "never_answers": r"predict_timeout|within 3",
}
# What a model of which they are a good version does when it is asked badly.
MISBEHAVE = ("exits", "fills_memory", "is_killed", "never_answers")
GOOD_REQUEST, BAD_REQUEST = (
    {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [number]}]}
    for number in (1.0, -1.0)
)
OTHER_PYTHON = "other_python"


class Place:
    """Where models are logged and served; they share one folder of environments."""

    def __init__(self, mlflow: MLflow, triton: Triton, folder: Path) -> None:
        self.mlflow, self.triton = mlflow, triton
        self.environments = folder / "environments"
        self.variables = pyfunc_logs.variables_with_uv(folder)
        names = (*TENSORS, *DOCUMENTS, *REFUSALS)
        self.logged = pyfunc_logs.log_models(make_environment(), folder, mlflow.url, names)
        self.used: set[str] = set()
        self.pythons: list[Path] = []
        if other := other_python():
            self.pythons.append(other)
            python = make_other_environment(other)
            self.logged |= pyfunc_logs.log_models(python, folder, mlflow.url, [OTHER_PYTHON])

    def deliver(self, name: str, **options: Any) -> dict[str, Any]:
        return run_module(
            "triton_model",
            {
                "name": name,
                "tracking_uri": self.mlflow.url,
                "triton_url": self.triton.url,
                "model_repository": str(self.triton.repository),
                "environments": pyfunc_logs.environment_options(self.environments, self.pythons),
                **options,
            },
            variables=self.variables,
        )

    def deploy(self, name: str, version: int = 1, **options: Any) -> dict[str, Any]:
        given = {"serve_as": "pyfunc", "model_uri": f"models:/{name}/{version}", **options}
        result = self.deliver(name, **given)
        assert not result["failed"], result["msg"]
        return result

    def predict(self, name: str, inputs: Any) -> Any:
        """As ``mlflow deployments predict -t triton`` does."""
        from mlflow.deployments import get_deploy_client

        target = f"triton://{self.triton.url}?model_repository={self.triton.repository}"
        return get_deploy_client(target).predict(name, inputs)

    def answers(self, name: str) -> None:
        """Whatever way it is asked, the first version answers as MLflow did."""
        version = self.logged[name][0]
        assert version["requests"]
        for request in version["requests"]:
            if name in DOCUMENTS:
                self.answers_document(name, request)
            else:
                self.answers_tensors(name, version, request)
            if not request["params"]:
                answer = self.predict(name, values.read(request["inputs"]))
                assert values.write(answer) == request["answer"]

    def survives_a_bad_request(self, name: str) -> None:
        """Who asks badly is told why, and the next one is answered."""
        status, answer = self.triton.infer(name, BAD_REQUEST)
        assert status != 200, answer
        assert "mlops_triton: " in answer["error"] and "\n" not in answer["error"]
        deadline = time.monotonic() + 60
        while (answer := self.triton.infer(name, GOOD_REQUEST))[0] != 200:
            assert "is started again" in answer[1]["error"], answer
            assert time.monotonic() < deadline, self.triton.log_tail()
            time.sleep(0.1)
        self.answers(name)

    def pythons_of(self, name: str) -> set[str]:
        files = (self.triton.repository / name).glob("*/pyfunc.json")
        return {json.loads(path.read_text(encoding="utf-8"))["python"] for path in files}

    def answers_document(self, name: str, request: dict[str, Any]) -> None:
        scoring = request["scoring"]
        answer = pyfunc_logs.ask_document(self.triton.url, name, scoring["request"])
        # As text, in which no NaN differs from another.
        assert json.dumps(answer) == json.dumps(scoring["response"])

    def answers_tensors(self, name: str, version: dict[str, Any], request: dict[str, Any]) -> None:
        found = pyfunc_logs.ask_tensors(self.triton.url, name, version, request)
        expected = pyfunc_logs.expected_tensors(version, request)
        for spec, (datatype, cells), (wanted, right) in zip(
            version["outputs"], found, expected, strict=True
        ):
            is_moment = spec["type"] == "datetime"
            same = pyfunc_logs.same_moments if is_moment else list
            assert (datatype, same(cells)) == (wanted, same(right)), spec


@pytest.fixture(scope="module")
def place(mlflow: MLflow, triton: Triton) -> Iterator[Place]:
    """In a folder that everybody may enter: root makes environments as nobody."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Place(mlflow, triton, Path(folder))


@pytest.fixture
def served(place: Place) -> Iterator[Callable[..., dict[str, Any]]]:
    """Deploys models, which are gone after the test: each has a process of its own."""
    names = []

    def deploy(name: str, **options: Any) -> dict[str, Any]:
        names.append(name)
        return place.deploy(name, **options)

    yield deploy
    for name in names:
        place.deliver(name, state="absent")


@pytest.mark.parametrize("name", [*TENSORS, *DOCUMENTS])
def test_a_model_answers_as_mlflow_does_in_the_environment_that_all_share(
    place: Place, served: Callable[..., dict[str, Any]], name: str
) -> None:
    assert served(name)["changed"]
    place.answers(name)
    place.used |= place.pythons_of(name)
    assert len(place.used) == 1


@pytest.mark.skipif(other_python() is None, reason="this machine has one version of Python")
def test_a_model_of_another_python_has_that_python(
    place: Place, served: Callable[..., dict[str, Any]]
) -> None:
    served(OTHER_PYTHON)
    place.answers(OTHER_PYTHON)
    (request,) = place.logged[OTHER_PYTHON][0]["requests"]
    versions = {name: place.logged[name][0]["python"] for name in ("churn", OTHER_PYTHON)}
    assert versions["churn"] != versions[OTHER_PYTHON] == request["answer"]["list"][0]


def test_auto_serves_what_native_refuses(
    place: Place, served: Callable[..., dict[str, Any]]
) -> None:
    refused = place.deliver("churn", model_uri="models:/churn/1", serve_as="native")
    assert refused["failed"] and "convert the model: its class is Pipeline" in refused["msg"]
    served("churn", serve_as="auto")
    place.answers("churn")
    assert not place.deploy("churn", serve_as="auto")["changed"]


@pytest.mark.parametrize("name", REFUSALS)
def test_a_bad_version_is_refused_in_a_sentence_and_the_old_one_serves_on(
    place: Place, served: Callable[..., dict[str, Any]], name: str
) -> None:
    served(name, predict_timeout=3)
    place.answers(name)
    if name in MISBEHAVE:
        place.survives_a_bad_request(name)
    refused = place.deliver(
        name, model_uri=f"models:/{name}/2", serve_as="pyfunc", predict_timeout=3
    )
    assert refused["failed"] and name in refused["msg"]
    assert re.search(REFUSALS[name], refused["msg"]), refused["msg"]
    assert "\n" not in refused["msg"] and "Traceback" not in refused["msg"]
    place.answers(name)
