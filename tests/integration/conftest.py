# SPDX-License-Identifier: Apache-2.0
"""Real servers, started once for a test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import pyfunc_environment, servers


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MLflow]:
    """An MLflow server with SQLite and proxied artifacts."""
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Triton]:
    """A Triton in EXPLICIT mode with an empty repository of its own; complete configurations only,
    which load much faster.
    """
    repository = tmp_path_factory.mktemp("repository") / "models"
    repository.mkdir()
    with servers.triton_server(
        tmp_path_factory.mktemp("triton"),
        repository=repository,
        extra_args=["--disable-auto-complete-config"],
    ) as server:
        yield server


@pytest.fixture(scope="session")
def pyfunc_python() -> Path:
    """The Python of an environment with MLflow, pandas and scikit-learn, as a model brings it."""
    return pyfunc_environment.make_environment()
