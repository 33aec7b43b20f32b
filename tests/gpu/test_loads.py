# SPDX-License-Identifier: Apache-2.0
"""Long loads on a GPU: which way they go, what a time-out leaves, and who notices a wrong model."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from support import servers
from support.deliveries import deliver_model
from support.gpu_host import ROOT, Here, host
from support.servers import count_loads

NAME = "slow"
GIB = 1 << 30
SIZE = 4 * GIB
CONFIG = """backend: "python"
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_GPU count: 1 } ]
"""


def make(folder: Path, number: int, seconds: float = 0) -> str:
    """A model that adds ``number`` and takes so many seconds to load."""
    place = folder / str(number) / NAME
    (place / "1").mkdir(parents=True)
    code = (ROOT / "benchmarks/gpu_model.py").read_text(encoding="utf-8")
    code = code.replace("\nNUMBER = 0\n", f"\nNUMBER = {number}\n")
    (place / "1/model.py").write_text(code, encoding="utf-8")
    parameters = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in (("bytes", SIZE), ("seconds", seconds), ("place", "gpu"))
    )
    (place / "config.pbtxt").write_text(CONFIG + parameters, encoding="utf-8")
    return str(place)


def answers(number: int) -> dict[str, Any]:
    return {"inputs": {"x": [1.0]}, "outputs": {"y": [1.0 + number]}}


def deliver(here: Here, load_timeout: float | None = None, **options: Any) -> Result:
    place = Target(
        str(here.folder / "models"),
        servers=(here.url,),
        load_servers=(f"grpc://127.0.0.1:{here.ports[1]}",),
        metrics_servers=(f"127.0.0.1:{here.ports[2]}",),
        timeout=60,
        load_timeout=load_timeout,
    )
    return deliver_model(place, NAME, **options)


def good(here: Here, **options: Any) -> Result:
    done = deliver(here, **options)
    assert done.error is None, str(done.error)
    return done


def answer(here: Here) -> float:
    return float(here.infer(NAME, [1.0])["y"][0])


@pytest.fixture
def removed(here: Here) -> Iterator[None]:
    yield
    good(here, state="absent")
    here.wait_until_ended(NAME)


@pytest.fixture
def verbose(here: Here) -> Iterator[None]:
    """The server's log has each request over HTTP."""
    place = f"http://{here.url}/v2/logging"
    assert servers.http(place, {"log_verbose_level": 1})[0] == 200
    yield
    assert servers.http(place, {"log_verbose_level": 0})[0] == 200


@pytest.mark.usefixtures("removed", "verbose")
def test_a_playbook_loads_over_grpc_by_what_the_role_knows(here: Here, tmp_path: Path) -> None:
    models = [{"name": NAME, "model_uri": make(tmp_path, 1), "verify": answers(1)}]
    assert here.changes("deploy_models", triton_models=models) == 1
    assert answer(here) == 2.0
    paths = re.findall(r"HTTP request: \d+ ([^\s\"]+)", here.log())
    asked = [path for path in paths if NAME in path]
    assert [path for path in asked if path.endswith("/infer")], asked
    assert not [path for path in asked if path.endswith("/load")], asked


@pytest.mark.usefixtures("removed")
@pytest.mark.parametrize("load_timeout", [0.2, 3])
def test_a_load_that_outlasts_its_time_out_is_proven_by_the_next_run(
    here: Here, tmp_path: Path, load_timeout: float
) -> None:
    """Whether or not the backend has read the files by then; by the same server, with one load."""
    service = f"{here.folder}/triton:triton"
    good(here, model_uri=make(tmp_path, 1), verify=answers(1))
    server, loads = host.processes_of(service), count_loads(here.log(), NAME)
    slow = {"model_uri": make(tmp_path, 2, 8), "verify": answers(2)}
    late = deliver(here, load_timeout=load_timeout, **slow)
    assert "stay while the load goes on" in str(late.error), str(late.error)
    good(here, **slow)
    assert answer(here) == 3.0
    assert count_loads(here.log(), NAME) == loads + 1
    assert set(server) & set(host.processes_of(service)) and not good(here, **slow).changed


@pytest.mark.usefixtures("removed")
def test_no_client_gets_an_answer_of_what_fails_aside_and_its_memory_is_released(
    here: Here, tmp_path: Path
) -> None:
    def used() -> int:
        return sum(used for used, _free in here.gpu_memory().values())

    good(here, model_uri=make(tmp_path, 1), verify=answers(1))
    before, over, seen = used(), threading.Event(), set()

    def ask() -> None:
        while not over.wait(0.01):
            seen.add(answer(here))

    client = threading.Thread(target=ask)
    client.start()
    try:
        wrong = {"model_uri": make(tmp_path, 2, 2), "verify": answers(4), "verify_aside": True}
        failed = deliver(here, **wrong)
    finally:
        over.set()
        client.join()
    assert "before it served" in str(failed.error), str(failed.error)
    assert seen == {2.0}
    assert used() - before < SIZE / 2
    names = {row["name"] for row in servers.http(f"http://{here.url}/v2/repository/index", {})[1]}
    assert not [name for name in names if name.startswith(f"{NAME}.")]
    aside = good(here, **{**wrong, "verify": answers(2)})
    assert aside.changed and answer(here) == 3.0
    assert used() - before < SIZE / 2
