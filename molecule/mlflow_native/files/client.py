# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client does with the registry, whichever MLflow it is of.

python client.py publish|check|delete NAME
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient

CONTENT = "y = 2 x\n"


def publish(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name, description="Doubles")
    run = client.create_run("0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "formula.txt"
        path.write_text(CONTENT)
        client.log_artifact(run.info.run_id, str(path), "model")
    client.set_terminated(run.info.run_id)
    client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias(name, "champion", "1")


def check(client: MlflowClient, name: str) -> None:
    version = client.get_model_version_by_alias(name, "champion")
    assert client.get_registered_model(name).description == "Doubles"
    with tempfile.TemporaryDirectory() as folder:
        place = mlflow.artifacts.download_artifacts(artifact_uri=version.source, dst_path=folder)
        assert (Path(place) / "formula.txt").read_text() == CONTENT


def delete(client: MlflowClient, name: str) -> None:
    client.delete_registered_model(name)


if __name__ == "__main__":
    {"publish": publish, "check": check, "delete": delete}[sys.argv[1]](MlflowClient(), sys.argv[2])
