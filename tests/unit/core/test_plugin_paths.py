# SPDX-License-Identifier: Apache-2.0
"""Where the plugin takes a path, it takes what Python calls one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")
pytest.importorskip("tritonclient")

from ansible_collections.mlops.triton.plugins.mlflow_deployments.client import (
    TritonDeploymentClient,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton import (
    server,
)
from mlflow.exceptions import MlflowException
from support.memory_triton import MemoryTriton, make_model


class Place(os.PathLike[str]):
    """A path of another library than pathlib."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return self.path


@pytest.mark.parametrize("kind", [Path, Place])
def test_models_and_options_may_be_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    old, new = make_model(tmp_path / "old"), make_model(tmp_path / "new")
    (tmp_path / "models").mkdir()
    triton = MemoryTriton(tmp_path / "models")
    monkeypatch.setattr(server, "HttpTransport", lambda *_given: triton)
    monkeypatch.chdir(tmp_path)
    client = TritonDeploymentClient("triton")
    options = {
        "model_repository": kind(str(triton.repository)),
        "state_dir": kind(str(tmp_path / "state")),
    }
    made = client.create_deployment("net", kind("old"), config=options)
    assert made["model_uri"] == old and (tmp_path / "state").is_dir()
    assert client.update_deployment("net", kind(new), config=options)["model_uri"] == new


@pytest.mark.parametrize("wrong", [5, ["models:/net/1"], b"models:/net/1"])
def test_what_is_neither_a_text_nor_a_path_is_told(wrong: Any) -> None:
    with pytest.raises(MlflowException, match="is neither a text nor a path") as caught:
        TritonDeploymentClient("triton").create_deployment("net", wrong)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
