# SPDX-License-Identifier: Apache-2.0
"""Each fault that was measured of NVIDIA's mlflow-triton-plugin, through the MLflow plugin that
takes its place.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.mlflow_deployments import TritonDeploymentClient
from mlflow.exceptions import MlflowException
from packaging.requirements import Requirement
from support.bench import NAME, Bench, new_bench
from support.disks import fill, mounted, weights
from support.rows import Row

ASK = {"x": [[1.0, 2.5, -4.0]]}


def client(bench: Bench, url: str = "", seconds: float = 20) -> TritonDeploymentClient:
    return TritonDeploymentClient(
        f"triton://{url or bench.triton.url}?model_repository={bench.repository}&timeout={seconds}"
    )


def refused(code: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(MlflowException) as caught:
        function(*arguments, **options)
    assert caught.value.error_code == code, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def survives(bench: Bench, identity: int) -> None:
    """The deployment answers, is whole, and outlives the server."""
    for _time in range(2):
        bench.check_agreement_of(NAME, identity)
        entry = client(bench).get_deployment(NAME)
        assert (entry["state"], entry["drift"]) == ("READY", [])
        bench.crash()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRITON_URL", "TRITON_MODEL_REPO", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def test_killed_in_an_update(bench: Bench, row: Row) -> None:
    """plugin: killed in the middle of an update, part of the weights written."""
    client(bench).create_deployment(NAME, bench.source(1))
    source = weights(bench, 2, 256 << 20)
    code = (
        f"import sys; from {TritonDeploymentClient.__module__} import TritonDeploymentClient\n"
        "TritonDeploymentClient(sys.argv[1]).update_deployment(*sys.argv[2:])"
    )
    target = f"triton://{bench.triton.url}?model_repository={bench.repository}"
    with subprocess.Popen([sys.executable, "-c", code, target, NAME, source]) as process:
        staged = Path(bench.store.staging(NAME))
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in staged.rglob("weights.bin")):
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    came = sum(path.stat().st_size for path in staged.rglob("weights.bin"))
    bench.crash()
    survives(bench, 1)
    client(bench).update_deployment(NAME, bench.source(3))
    bench.check_agreement(3, retained=1)
    row.saw(
        f"{came} of {256 << 20} bytes lay outside the repository; list and get show the old model,"
        " which a restarted server serves"
    )


def test_update_to_a_broken_model(bench: Bench, row: Row) -> None:
    """plugin: update to a broken model, then a restart."""
    here = client(bench)
    here.create_deployment(NAME, bench.source(1))
    here.create_deployment("other", bench.source(5, "other"))
    said = refused("INVALID_STATE", here.update_deployment, NAME, bench.source(2, fail="broken"))
    survives(bench, 1)
    assert [(entry["name"], entry["state"]) for entry in here.list_deployments()] == [
        (NAME, "READY"),
        ("other", "READY"),
    ]
    row.saw(said)


def test_delete(bench: Bench, row: Row) -> None:
    """plugin: delete, with a neighbour whose name begins alike."""
    here = client(bench)
    for number, name in enumerate(("fraud", "fraud-v2", "fraud.old")):
        here.create_deployment(name, bench.source(number, name))
    here.delete_deployment("fraud")
    assert sorted(path.name for path in bench.repository.iterdir() if path.is_dir()) == [
        "fraud-v2",
        "fraud.old",
    ]
    assert [bench.identity(name) for name in ("fraud", "fraud-v2", "fraud.old")] == [None, 1, 2]
    assert bench.left_behind(models_there=("fraud-v2", "fraud.old")) == []
    row.saw("files, record and memory are gone; fraud-v2 and fraud.old serve on")


def test_two_updates_at_once(bench: Bench, row: Row) -> None:
    """plugin: two updates of one model at once, 12 rounds."""
    client(bench).create_deployment(NAME, bench.source(1))
    sources = {number: bench.source(number) for number in (2, 3)}

    def update(number: int) -> str:
        return str(client(bench).update_deployment(NAME, sources[number])["deploy_id"])

    last = set()
    for _round in range(12):
        with ThreadPoolExecutor(2) as pool:
            ids = list(pool.map(update, sources))
        served = bench.identity()
        assert served in sources
        bench.check_agreement(served, retained=1)
        assert client(bench).get_deployment(NAME)["deploy_id"] in ids
        last.add(served)
    row.saw(
        "both succeed, one after the other, each time; record, disk and server agree (last came"
        f" {sorted(last)})"
    )


@pytest.fixture
def small(base: Path) -> Iterator[Bench]:
    with (
        mounted(base / "tmpfs"),
        new_bench(base / "small", repository=base / "tmpfs" / "models") as bench,
    ):
        yield bench


def test_disk_full(small: Bench, base: Path, row: Row) -> None:
    """plugin: disk full in an update."""
    here = client(small)
    here.create_deployment(NAME, weights(small, 1, 1 << 20))
    filler = fill(base / "tmpfs")
    with pytest.raises(
        MlflowException, match=r"No space left|are needed and|disk is full"
    ) as caught:
        here.update_deployment(NAME, weights(small, 2, 1 << 20))
    assert "\n" not in str(caught.value)
    assert small.identity() == 1
    small.crash()
    assert small.identity() == 1
    filler.unlink()
    here.update_deployment(NAME, small.source(2))
    survives(small, 2)
    row.saw(str(caught.value))


@pytest.mark.parametrize("registry", ["refuses connections", "never answers"])
def test_registry(registry: str, bench: Bench, row: Row) -> None:
    """plugin: MLflow {registry}."""
    here = client(bench, seconds=2)
    here.create_deployment(NAME, bench.source(1))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1] if registry == "never answers" else 9
        started = time.monotonic()
        said = refused(
            "DEADLINE_EXCEEDED" if port != 9 else "TEMPORARILY_UNAVAILABLE",
            here.update_deployment,
            NAME,
            "models:/doubler/2",
            config={"tracking_uri": f"http://127.0.0.1:{port}"},
        )
        seconds = time.monotonic() - started
    assert seconds < 15
    survives(bench, 1)
    row.saw(f"after {seconds:.1f} s: {said}")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("server", ["refuses connections", "never answers"])
def test_triton(server: str, protocol: str, bench: Bench, row: Row) -> None:
    """plugin: Triton {server} ({protocol})."""
    client(bench).create_deployment(NAME, bench.source(1))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1] if server == "never answers" else 9
        there = TritonDeploymentClient(
            f"triton://127.0.0.1:{port}?protocol={protocol}&model_repository={bench.repository}&timeout=2"
        )
        code = "DEADLINE_EXCEEDED" if port != 9 else "TEMPORARILY_UNAVAILABLE"
        said = set()
        for verb in (
            lambda: there.update_deployment(NAME, bench.source(2)),
            there.list_deployments,
            lambda: there.get_deployment(NAME),
            lambda: there.predict(NAME, ASK),
            lambda: there.delete_deployment(NAME),
        ):
            started = time.monotonic()
            said.add(refused(code, verb))
            assert time.monotonic() - started < 15
    survives(bench, 1)
    row.saw(min(said, key=len))


def test_symbolic_link(bench: Bench, row: Row) -> None:
    """plugin: a symbolic link to /etc/passwd in the artifact."""
    sample = bench.sample(1)
    (sample.folder / "1" / "labels.txt").symlink_to("/etc/passwd")
    said = refused(
        "INVALID_PARAMETER_VALUE", client(bench).create_deployment, NAME, str(sample.folder)
    )
    bench.check_agreement(None)
    row.saw(said)


@pytest.mark.parametrize(
    "name", [".", "..", "a b", "a*", "mod\u00e8le", "%2e%2e", "a/b", "", "x" * 300]
)
def test_name(name: str, bench: Bench, row: Row) -> None:
    """plugin: the name '{name:.10}'."""
    here = client(bench)
    here.create_deployment(NAME, bench.source(1))
    for verb in (
        lambda: here.create_deployment(name, bench.source(2)),
        lambda: here.update_deployment(name, bench.source(2)),
        lambda: here.delete_deployment(name),
        lambda: here.get_deployment(name),
    ):
        said = refused("INVALID_PARAMETER_VALUE", verb)
    bench.check_agreement(1)
    row.saw(said)


def test_somebody_elses_model(bench: Bench, row: Row) -> None:
    """plugin: a READY model of the same name that it did not deploy."""
    shutil.copytree(bench.sample(7).folder, bench.repository / NAME)
    assert bench.triton.load(NAME)[0] == 200
    here = client(bench)
    said = refused("RESOURCE_ALREADY_EXISTS", here.create_deployment, NAME, bench.source(1))
    refused("RESOURCE_DOES_NOT_EXIST", here.update_deployment, NAME, bench.source(1))
    refused("RESOURCE_CONFLICT", here.delete_deployment, NAME)
    assert bench.identity() == 7
    row.saw(said)


@pytest.mark.parametrize("beside", ["metadata", "zzz", "aaa"])
def test_second_folder(beside: str, bench: Bench, row: Row) -> None:
    """plugin: artifact with a second folder ({beside}/)."""
    root = bench.sample(1).folder.parent
    (root / beside).mkdir()
    (root / beside / "MLmodel").write_text("not a model")
    (root / "MLmodel").write_text(f"flavors:\n  triton:\n    data: {NAME}\n    triton_version: x\n")
    client(bench).create_deployment(NAME, str(root))
    bench.check_agreement(1)
    row.saw("the model is found")


def test_config(bench: Bench, row: Row) -> None:
    """plugin: config= ."""
    here = client(bench)
    here.create_deployment(NAME, bench.source(1), config={"config": {"max_batch_size": 3}})
    assert bench.served_config()["max_batch_size"] == 3
    said = refused("INVALID_PARAMETER_VALUE", here.update_deployment, NAME, config={"confg": "{}"})
    assert "known are" in said
    survives(bench, 1)
    row.saw(said)


def test_metadata_file_of_the_peer_is_damaged(bench: Bench, row: Row) -> None:
    """plugin: mlflow-meta.json is cut, or is not what it should be."""
    here = client(bench)
    here.create_deployment("good", bench.source(1, "good"))
    for number, text in enumerate(("", "{", "[]", "null", '{"name": 3}', "\udcff")):
        folder = shutil.copytree(
            bench.source(2, f"other{number}"), bench.repository / f"other{number}"
        )
        Path(folder, "mlflow-meta.json").write_bytes(text.encode(errors="surrogateescape"))
    assert [entry["name"] for entry in here.list_deployments()] == ["good"]
    row.saw("list shows what is deployed")


def test_installation(row: Row) -> None:
    """plugin: installed beside MLflow 3, 2.x and 2.11.3."""
    wanted = [
        Requirement(line)
        for line in requires("mlops-triton") or ()
        if re.match(r"mlflow-skinny\b", line)
    ]
    assert len(wanted) == 1
    for version in ("2.11.3", "2.22.4", "3.17.2"):
        assert version in wanted[0].specifier
    row.saw(f"asks for {wanted[0]}, so that pip leaves the MLflow that is there")


def test_a_first_deployment_whose_load_goes_on(bench: Bench, row: Row) -> None:
    """first deployment by the plugin that outlasts load_timeout: what it says to do works."""
    slow = bench.source(1, load_delay=3)
    with pytest.raises(MlflowException, match="was still loading after 1 s"):
        client(bench).create_deployment(NAME, slow, config={"load_timeout": 1})
    for ask in ("get_deployment", "update_deployment"):
        said = refused("RESOURCE_DOES_NOT_EXIST", getattr(client(bench), ask), NAME)
        assert "its load has been pending since" in said and "create it again" in said, said
    client(bench).create_deployment(NAME, slow)
    survives(bench, 1)
    row.saw(said)
