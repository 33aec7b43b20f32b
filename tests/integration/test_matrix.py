# SPDX-License-Identifier: Apache-2.0
"""What frameworks log or save: published, delivered, asked through Triton, and compared with the
framework's own prediction.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy import Policy
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.batch import (
    Publication,
    publish,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.deliveries import deliver_models, deploy_model, target_of
from support.playbooks import environment
from support.servers import ROOT, MLflow, Triton, server_python

pytestmark = [pytest.mark.long, pytest.mark.takes(80)]

# Triton's tensors are FP32: frameworks that compute in double precision agree to its last digits.
TOLERANCE = 2e-6
LOGGED = {
    "xgboost_booster": "xgboost",
    "xgboost_classes": "xgboost",
    "xgboost_stopped_early": "xgboost",
    "lightgbm_booster": "lightgbm",
    "lightgbm_skops": "lightgbm",
    "lightgbm_pickle": "lightgbm",
    "sklearn_forest": "sklearn",
    "sklearn_pickle": "sklearn",
    "sklearn_histogram": "sklearn",
    "sklearn_of_xgboost": "sklearn",
    "sklearn_of_lightgbm": "sklearn",
    "sklearn_columns": "sklearn",
    "onnx_logged": "onnx",
}
# What this collection makes of frameworks' files is allowed where its backend is, and is no code.
DATA = Policy(("onnxruntime", "fil"), model_code="refused")
PYTHON = Policy(("python",))
# What is refused, and what the refusal says to do: the second version is logged so.
REMEDIES = {
    "instead_of_a_search": "log its best_estimator_",
    "instead_of_a_pipeline": r"skl2onnx \(options=\{'zipmap': False\} for a classifier\)",
    "instead_of_several_outputs": "convert it with skl2onnx and log that with the onnx flavor",
    "instead_of_a_pickle_with_a_function": "log the model with serialization_format='skops'",
    "instead_of_a_zipmap": r"skl2onnx: options=\{'zipmap': False\}",
    "instead_of_anothers_zipmap": "take the node ZipMap out and make its input the output",
    "instead_of_a_pipeline_of_xgboost": r"pipeline\[-1\], with mlflow.xgboost.log_model",
    "instead_of_a_number_for_what_is_missing": r"missing=float\('nan'\)",
    "instead_of_an_objective_of_ones_own": r"mlflow.xgboost.log_model\(model.get_booster\(\)\)",
}
SAVED = (
    "xgboost_json",
    "xgboost_ubj",
    "lightgbm_text",
    "treelite_file",
    "onnx_file",
    "python_file",
)


@pytest.fixture(scope="session")
def trained(mlflow: MLflow, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trained")
    done = subprocess.run(
        [
            str(server_python("FRAMEWORKS_PYTHON", "frameworks")),
            str(ROOT / "tests/support/train.py"),
            str(folder),
            mlflow.url,
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((folder / "index.json").read_text(encoding="utf-8")))


class Line:
    """One model on its way from the registry to Triton."""

    def __init__(self, mlflow: MLflow, triton: Triton, name: str) -> None:
        self.mlflow, self.triton, self.name = mlflow, triton, name

    def deliver(self, **options: Any) -> Result:
        policy = PYTHON if self.name.startswith("python") else DATA
        return deploy_model(
            target_of(self.triton, self.mlflow, policy=policy), self.name, **options
        )

    def answers(self, entry: dict[str, Any]) -> None:
        """Compare with what the framework said when it was trained."""
        config = self.triton.model_config(self.name)
        output = next(one["name"] for one in config["output"] if one["data_type"] == "TYPE_FP32")
        rows = entry["rows"]
        data = [value for row in rows for value in row]
        status, answer = self.triton.infer(
            self.name,
            {
                "inputs": [
                    {
                        "name": config["input"][0]["name"],
                        "datatype": "FP32",
                        "shape": [len(rows), len(rows[0])],
                        "data": data,
                    }
                ]
            },
        )
        assert status == 200, answer
        found = next(one["data"] for one in answer["outputs"] if one["name"] == output)
        expected = [value for row in entry["expected"] for value in row]
        assert found == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)

    def publish(self, entry: dict[str, Any]) -> Publication:
        return publish(
            Registry(self.mlflow.url, 60),
            [{"name": self.name, "path": entry["path"], **entry["options"]}],
        )[0]


def there_and_back(
    line: Line, first: dict[str, Any], second: dict[str, Any], versions: tuple[int, int]
) -> None:
    made = line.deliver(model_uri=f"models:/{line.name}/{versions[0]}")
    line.answers(first)
    assert not line.deliver(model_uri=f"models:/{line.name}/{versions[0]}").changed
    assert line.deliver(model_uri=f"models:/{line.name}/{versions[1]}").changed
    line.answers(second)
    back = line.deliver(state="rolled_back")
    line.answers(first)
    assert (
        back.record and made.record and back.record.manifest_digest == made.record.manifest_digest
    )
    line.deliver(state="absent")


@pytest.mark.parametrize("name", LOGGED)
def test_logged(mlflow: MLflow, triton: Triton, trained: dict[str, Any], name: str) -> None:
    first, second = trained[name]
    line = Line(mlflow, triton, name)
    there_and_back(line, first, second, (first["version"], second["version"]))


@pytest.mark.parametrize("name", REMEDIES)
def test_what_a_refusal_says_to_do_is_served(
    mlflow: MLflow, triton: Triton, trained: dict[str, Any], name: str
) -> None:
    first, second = trained[name]
    line = Line(mlflow, triton, name)
    uri = f"models:/{name}/{first['version']}"
    wanted = {"name": name, "model_uri": uri, "serve_as": "native"}
    (refused,) = deliver_models(target_of(triton, mlflow), [wanted])
    assert re.search(REMEDIES[name], str(refused.error))
    line.deliver(model_uri=f"models:/{name}/{second['version']}")
    line.answers(second)
    line.deliver(state="absent")


def test_the_same_artifact_becomes_the_same_bytes(
    mlflow: MLflow, triton: Triton, trained: dict[str, Any]
) -> None:
    for name in ("sklearn_pickle", "onnx_logged"):
        line, made = Line(mlflow, triton, name), set()
        for _time in range(2):
            record = line.deliver(model_uri=f"models:/{name}/{trained[name][0]['version']}").record
            assert record is not None
            made.add((record.flavor, record.manifest_digest, record.config_digest))
            line.deliver(state="absent")
        assert [flavor for flavor, _files, _config in made] == [LOGGED[name]]


@pytest.mark.parametrize("name", SAVED)
def test_saved(mlflow: MLflow, triton: Triton, trained: dict[str, Any], name: str) -> None:
    line, (first, second) = Line(mlflow, triton, name), trained[name]
    for entry, number in ((first, 1), (second, 2)):
        done, again = line.publish(entry), line.publish(entry)
        assert done.error is None, str(done.error)
        assert (done.changed, again.changed) == (True, False)
        assert (
            done.published
            and again.published
            and (done.published.version, again.published.version) == (number, number)
        )
    there_and_back(line, first, second, (1, 2))


def test_published_twice_by_different_random_names(mlflow: MLflow, tmp_path: Path) -> None:
    """MLflow draws the name of external data anew each time it saves a model."""
    from support.models import make_onnx

    for name in ("0f8e.data", "77ab.data"):
        make_onnx(tmp_path / name, "drawn", external_data=name)
    registry = Registry(mlflow.url, 60)
    first, second = (
        publish(registry, [{"name": "drawn", "path": str(tmp_path / name / "drawn/1/model.onnx")}])[
            0
        ]
        for name in ("0f8e.data", "77ab.data")
    )
    assert first.changed and not second.changed
    assert first.published and second.published
    assert first.published.digest == second.published.digest
    other = make_onnx(
        tmp_path / "other",
        "drawn",
        external_data="0f8e.data",
        weights=((9.0, 2.0), (3.0, 4.0), (5.0, 6.0)),
    )
    assert publish(registry, [{"name": "drawn", "path": str(other.folder / "1/model.onnx")}])[
        0
    ].changed
