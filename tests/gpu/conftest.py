# SPDX-License-Identifier: Apache-2.0
"""This machine's GPUs, an MLflow server, and the Triton server that role triton starts here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import servers
from support.gpu_host import Gpu, Here, host, listed_gpus


@pytest.fixture(scope="session")
def gpus() -> list[Gpu]:
    found = listed_gpus()
    assert found, "these tests need an NVIDIA GPU, and nvidia-smi -L lists none here"
    print("\n" + "\n".join(map(str, found)))
    return found


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory, gpus: list[Gpu]) -> Iterator[Here]:
    """A Triton that role triton has started with the last GPU alone, number 0 to it."""
    folder = tmp_path_factory.mktemp("r")
    made = Here(folder, servers.free_ports(3))
    try:
        assert made.changes("provision", triton_gpus=[gpus[-1].index]) > 0
        yield made
    finally:
        host.stop_processes_of(f"{folder}/triton:triton", 10)


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MLflow]:
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
