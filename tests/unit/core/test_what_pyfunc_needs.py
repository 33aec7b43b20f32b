# SPDX-License-Identifier: Apache-2.0
"""What a model for which MLflow's own code answers needs is read when it is planned, of files that
are compared with what is claimed of them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.roots import (
    LocalRoot,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.artifact_reader import (  # noqa: E501
    ArtifactReader,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy import Policy

URI = "models:/churn/2"
REQUIREMENTS = "mlflow-skinny==3.17.2\nscikit-learn==1.9.1\n"


class Planned:
    """Environments of which it is known what they would be."""

    def __init__(self, is_ready: bool) -> None:
        self.is_ready = is_ready

    def look(self, wanted: Any) -> Any:
        said = f"environment: {wanted.in_words}; 41 packages"
        return SimpleNamespace(packages=41, is_ready=self.is_ready, sentence=said)


def read(folder: Path, place: str = "/models", environments: Any = None, **asked: Any) -> Layout:
    reader = ArtifactReader(
        None, Policy(), None, [], place=place, environments=lambda: environments
    )
    source = Source(parse_model_uri(URI), "churn", 2, None, "models:/m-2", "x", None, None)
    desired = DesiredModel.from_options({"name": "churn", "model_uri": URI, **asked})
    return reader.read(LocalRoot(str(folder), 30), source, desired)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    columns = json.dumps([{"type": "long", "name": "age", "required": True}])
    labels = json.dumps([{"type": "long", "name": "label", "required": True}])
    (tmp_path / "MLmodel").write_text(
        "flavors: {python_function: {loader_module: m, python_version: 3.11.7}, sklearn: {}}\n"
        "mlflow_version: 3.17.2\n"
        f"signature: {{inputs: '{columns}', outputs: '{labels}'}}\n"
    )
    (tmp_path / "model.pkl").write_bytes(b"pickle")
    (tmp_path / "requirements.txt").write_text(REQUIREMENTS)
    return tmp_path


def test_its_requirements_are_read_and_looked_up(artifact: Path) -> None:
    layout = read(artifact, environments=Planned(is_ready=False))
    assert layout.requirements and layout.requirements.python == "3.11.7"
    assert "scikit-learn==1.9.1" in layout.requirements.lines
    assert (layout.packages, layout.builds_environment) == (41, True)
    assert (layout.environment or "").endswith("; 41 packages")
    assert not read(artifact, environments=Planned(is_ready=True)).builds_environment


def test_what_was_read_is_what_is_brought(artifact: Path) -> None:
    """A publisher may change a file between plan and deployment."""
    judged = read(artifact).judged
    wanted = hashlib.sha256(REQUIREMENTS.encode()).hexdigest()
    assert judged["requirements.txt"] == wanted


def test_a_line_that_says_where_packages_come_from_is_refused(artifact: Path) -> None:
    (artifact / "requirements.txt").write_text(f"--index-url http://evil\n{REQUIREMENTS}")
    with pytest.raises(ArtifactError, match=r"requirements\.txt"):
        read(artifact)


def test_nothing_is_read_for_what_a_backend_runs(artifact: Path) -> None:
    (artifact / "requirements.txt").write_text("--index-url http://evil\n")
    layout = read(artifact, serve_as="native")
    assert (layout.served_as, layout.requirements) == ("native", None)


def test_a_repository_in_s3_is_refused_with_what_to_do(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as refused:
        read(artifact, place="s3://models", serve_as="pyfunc")
    said = str(refused.value)
    assert "make model_repository a folder, or publish it as ONNX" in said
    assert read(artifact, place="/models").served_as == "pyfunc"
    # What may be a forest is tried as one there, as it always was.
    assert read(artifact, place="s3://models").served_as == "native"
    (artifact / "MLmodel").write_text("flavors: {onnx: {data: model.onnx}}\n")
    (artifact / "model.onnx").write_bytes(b"onnx")
    assert read(artifact, place="s3://models").served_as == "native"
