# SPDX-License-Identifier: Apache-2.0
"""MLflow's contract for a deployment plugin, on a real MLflow and a real Triton, through Python and
the command line.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from ansible_collections.mlops.triton.plugins import mlflow_deployments
from ansible_collections.mlops.triton.plugins.mlflow_deployments import TritonDeploymentClient
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.state_store import (
    StateStore,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (
    TritonServer,
)
from mlflow.deployments import BaseDeploymentClient, get_deploy_client
from mlflow.deployments.interface import plugin_store
from mlflow.exceptions import MlflowException
from support import models, plugin
from support.deliveries import publish_model
from support.servers import MLflow, Triton, free_ports, mlflow_server, server_python, triton_server

numpy = pytest.importorskip("numpy")
pytest.importorskip("tritonclient.http")

pytestmark = pytest.mark.takes(70)

with_pandas = pytest.mark.skipif(
    importlib.util.find_spec("pandas") is None, reason="MLflow's own command imports pandas"
)
PEER_KEYS = ("name", "version", "state", "triton_model_path", "mlflow_model_uri", "flavor")


@dataclass(frozen=True)
class Stage:
    triton: Triton
    mlflow: MLflow
    site: Path

    @property
    def variables(self) -> dict[str, str]:
        return plugin.environment(
            self.site,
            TRITON_URL=self.triton.url,
            TRITON_MODEL_REPO=str(self.triton.repository),
            MLFLOW_TRACKING_URI=self.mlflow.url,
        )

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return plugin.deployments(self.variables, *words)

    def served(self, name: str) -> int:
        """The number that tells one published version of the doubler from another."""
        status, answer = self.triton.infer(
            name,
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]},
        )
        assert status == 200, answer
        return next(
            int(output["data"][0]) for output in answer["outputs"] if output["name"] == "identity"
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("plugin")
    site = plugin.registered(base / "site")
    complete = ["--disable-auto-complete-config"]  # loads in half the time
    with (
        triton_server(base / "triton", extra_args=complete) as triton,
        mlflow_server(base / "mlflow") as server,
    ):
        registry = Registry(server.url, 60)
        for version in (1, 2):
            publish_model(
                registry,
                "doubler",
                models.make_python(base / f"v{version}", "doubler", identity=version).folder,
            )
        publish_model(
            registry, "doubler", models.make_python(base / "v3", "doubler", fail="no good").folder
        )
        mlflow.MlflowClient(server.url).set_registered_model_alias("doubler", "champion", "1")
        yield Stage(triton, server, site)


@pytest.fixture
def client(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[TritonDeploymentClient]:
    for name in ("TRITON_URL", "TRITON_MODEL_REPO", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, stage.variables[name])
    monkeypatch.setitem(plugin_store.registry, "triton", mlflow_deployments)
    made = get_deploy_client("triton")
    yield made
    for entry in made.list_deployments():
        with contextlib.suppress(MlflowException):  # an ensemble uses it, and goes first
            made.delete_deployment(entry["name"], config={"adopt": "true"})
    for entry in made.list_deployments():
        made.delete_deployment(entry["name"], config={"adopt": "true"})


def refused(
    code: str, words: str, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> MlflowException:
    with pytest.raises(MlflowException, match=words) as caught:
        function(*args, **kwargs)
    assert caught.value.error_code == code, caught.value
    assert "\n" not in str(caught.value)
    return caught.value


SEQUENCE = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        key = request.correlation_id()
        if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            self.sums[key] = 0
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        self.sums[key] += x.sum(axis=1, keepdims=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", self.sums[key])])
"""
SUM = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        xs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        sums = [pb_utils.Tensor("y", x.sum(axis=1, keepdims=True)) for x in xs]
        return [pb_utils.InferenceResponse([one]) for one in sums]
"""
DECOUPLED = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            sender = request.get_response_sender()
            if x[0, 0] < 0:
                error = pb_utils.TritonError("no negative numbers")
                sender.send(pb_utils.InferenceResponse([], error=error))
            for number in range(3):
                sum = x.sum(axis=1, keepdims=True) + number
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("y", sum)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def special(base: Path, name: str, more: str, code: str | None, example: Any) -> str:
    """A model folder with an input example as MLflow keeps it; y is a sum over x."""
    folder = base / name
    (folder / "1").mkdir(parents=True)
    tensors = [f'{{ name: "{one}" data_type: TYPE_FP32 dims: [ {size} ] }}' for one, size in XY]
    backend = 'backend: "python"\n' if code else 'platform: "ensemble"\n'
    (folder / "config.pbtxt").write_text(
        f"{backend}max_batch_size: 8\ninput [ {tensors[0]} ]\noutput [ {tensors[1]} ]\n{more}\n"
    )
    if code:
        (folder / "1/model.py").write_text(code)
    (folder / "input_example.json").write_text(json.dumps(example))
    return str(folder)


XY = (("x", 3), ("y", 1))
ROW = {"x": [[1, 2, 3]]}
START = (
    'sequence_batching { control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START'
    " fp32_false_true: [ 0, 1 ] } ] } ] }"
)
STREAM = "model_transaction_policy { decoupled: true }"


# -- the plugin as MLflow sees it ------------------------------------------------------------------


def test_plugin_has_one_client_class() -> None:
    classes = [
        one
        for one in vars(mlflow_deployments).values()
        if isinstance(one, type) and issubclass(one, BaseDeploymentClient)
    ]
    assert classes == [TritonDeploymentClient]
    assert callable(mlflow_deployments.run_local)
    assert "triton:/<profile>" in mlflow_deployments.target_help()


def test_help_imports_nothing_heavy(stage: Stage) -> None:
    code = (
        "import sys; from mlflow.deployments.interface import _target_help; before ="
        " set(sys.modules); text = _target_help('triton');assert 'triton://host:8001?protocol=grpc'"
        " in text;print(sorted({'tritonclient', 'gevent', 'grpc', 'pandas', 'numpy'} &"
        " (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=stage.variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
    assert "triton" in stage.cli("--help").stdout


def test_other_plugin_of_the_same_name_is_said(stage: Stage, tmp_path: Path) -> None:
    site = plugin.registered(tmp_path / "other", "mlflow-triton-plugin", plugin.OTHER)
    variables = {
        **stage.variables,
        "PYTHONPATH": os.pathsep.join([str(site), stage.variables["PYTHONPATH"]]),
    }
    code = (
        "from ansible_collections.mlops.triton.plugins.mlflow_deployments import"
        " TritonDeploymentClient, target_help;print(target_help());"
        " TritonDeploymentClient('triton')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    for text in (done.stdout, done.stderr):
        assert "pip uninstall mlflow-triton-plugin" in text
    assert "pip uninstall" not in stage.cli("help", "-t", "triton").stdout


# -- the verbs -------------------------------------------------------------------------------------


def test_whole_life(stage: Stage, client: TritonDeploymentClient) -> None:
    created = client.create_deployment("doubler", "models:/doubler/1", flavor="triton")
    assert (created["name"], created["flavor"], stage.served("doubler")) == ("doubler", "triton", 1)
    listed = client.list_deployments()
    assert [{key: entry[key] for key in PEER_KEYS} for entry in listed] == [
        {
            "name": "doubler",
            "version": "1",
            "state": "READY",
            "triton_model_path": str(stage.triton.repository / "doubler"),
            "mlflow_model_uri": "models:/doubler/1",
            "flavor": "triton",
        }
    ]
    described = client.get_deployment("doubler")
    assert {key: described[key] for key in PEER_KEYS} == {key: listed[0][key] for key in PEER_KEYS}
    assert (described["registry_version"], described["drift"]) == (1, [])
    assert described["code"] == "the program 1/model.py"
    assert described["servers"][0]["deploy_id"] == created["deploy_id"]
    assert (
        json.loads((stage.triton.repository / "doubler" / "mlflow-meta.json").read_text())[
            "mlflow_model_uri"
        ]
        == "models:/doubler/1"
    )
    updated = client.update_deployment("doubler", "models:/doubler/2", flavor="triton")
    assert (updated["flavor"], updated["version"], stage.served("doubler")) == ("triton", "2", 2)
    client.delete_deployment("doubler")
    assert client.list_deployments() == []
    assert not (stage.triton.repository / "doubler").exists()


def test_flavor_is_found(client: TritonDeploymentClient, tmp_path: Path) -> None:
    folder = tmp_path / "logged"
    shutil.copytree(models.make_onnx(tmp_path / "made").folder / "1", folder)
    (folder / "MLmodel").write_text(
        "flavors:\n  onnx: {data: model.onnx, onnx_version: 1.17.0}\n", encoding="utf-8"
    )
    for flavor in (None, "onnx"):
        assert client.create_deployment("network", str(folder), flavor=flavor)["flavor"] == "onnx"
        answer = client.predict("network", {"x": numpy.ones((1, 3), "float32")})
        assert answer["outputs"]["y"].tolist() == [[9.5, 11.5]]
        client.delete_deployment("network")
    refused(
        "INVALID_PARAMETER_VALUE",
        "triton, onnx",
        client.create_deployment,
        "other",
        str(folder),
        flavor="keras",
    )


def test_create_raises_on_any_existing_name(stage: Stage, client: TritonDeploymentClient) -> None:
    client.create_deployment("doubler", "models:/doubler/1")
    refused(
        "RESOURCE_ALREADY_EXISTS",
        "already is a deployment",
        client.create_deployment,
        "doubler",
        "models:/doubler/1",
    )
    refused(
        "RESOURCE_ALREADY_EXISTS",
        "already is",
        client.create_deployment,
        "doubler",
        "models:/doubler/2",
        config={"adopt": True},
    )
    assert stage.served("doubler") == 1
    foreign = models.make_python(stage.triton.repository, "foreign")
    try:
        refused(
            "RESOURCE_ALREADY_EXISTS",
            "a folder of this name",
            client.create_deployment,
            "foreign",
            "models:/doubler/1",
        )
        assert stage.triton.load("foreign")[0] == 200
        shutil.move(foreign.folder, stage.triton.folder / "aside")
        shutil.move(stage.triton.folder / "aside", foreign.folder)
        refused(
            "RESOURCE_ALREADY_EXISTS",
            "already is",
            client.create_deployment,
            "foreign",
            "models:/doubler/1",
        )
    finally:
        stage.triton.unload("foreign")
        shutil.rmtree(foreign.folder)


def test_of_two_creates_at_once_one_succeeds(stage: Stage, client: TritonDeploymentClient) -> None:
    def create(version: int) -> str:
        try:
            return str(
                get_deploy_client("triton").create_deployment(
                    "doubler", f"models:/doubler/{version}"
                )["version"]
            )
        except MlflowException as error:
            return str(error.error_code)

    with ThreadPoolExecutor(2) as pool:
        came = sorted(pool.map(create, (1, 2)))
    assert came[1] == "RESOURCE_ALREADY_EXISTS"
    assert stage.served("doubler") == int(came[0])


def test_delete_of_an_absent_one_is_no_error(client: TritonDeploymentClient) -> None:
    client.delete_deployment("never-was")
    refused("RESOURCE_DOES_NOT_EXIST", "no such deployment", client.get_deployment, "never-was")
    refused(
        "RESOURCE_DOES_NOT_EXIST",
        "no such deployment",
        client.update_deployment,
        "never-was",
        "models:/doubler/1",
    )


def test_delete_spares_what_is_not_ours(stage: Stage, client: TritonDeploymentClient) -> None:
    foreign = models.make_python(stage.triton.repository, "foreign")
    assert stage.triton.load("foreign")[0] == 200
    refused("RESOURCE_CONFLICT", "adopt", client.delete_deployment, "foreign")
    assert stage.triton.infer("foreign", foreign.request())[0] == 200
    assert client.list_deployments() == []
    client.delete_deployment("foreign", config={"adopt": "true"})
    assert not foreign.folder.exists()


def test_update_without_model_uri_changes_the_configuration_only(
    stage: Stage, client: TritonDeploymentClient
) -> None:
    client.create_deployment("doubler", "models:/doubler@champion", config={"instance_kind": "cpu"})
    registry = mlflow.MlflowClient(stage.mlflow.url)
    registry.set_registered_model_alias("doubler", "champion", "2")
    try:
        updated = client.update_deployment("doubler", config={"config": "{max_batch_size: 4}"})
        assert (updated["registry_version"], updated["model_uri"], updated["alias"]) == (
            1,
            "models:/doubler@champion",
            "champion",
        )
        assert (
            stage.served("doubler"),
            stage.triton.model_config("doubler")["max_batch_size"],
        ) == (1, 4)
        client.update_deployment("doubler", "models:/doubler@champion")
        assert (
            stage.served("doubler"),
            stage.triton.model_config("doubler")["max_batch_size"],
        ) == (2, 4)
        client.update_deployment("doubler", config={"config": "null"})
        assert stage.triton.model_config("doubler")["max_batch_size"] == 8
        refused(
            "INVALID_PARAMETER_VALUE",
            "needs model_uri",
            client.update_deployment,
            "doubler",
            flavor="onnx",
        )
    finally:
        registry.set_registered_model_alias("doubler", "champion", "1")


def test_update_to_the_same_version_reloads_nothing(
    stage: Stage, client: TritonDeploymentClient
) -> None:
    client.create_deployment("doubler", "models:/doubler/1")
    before, processes = stage.triton.loads("doubler"), stage.triton.stub_pids("doubler")
    client.update_deployment("doubler", "models:/doubler/1", flavor="triton")
    assert (stage.triton.loads("doubler"), stage.triton.stub_pids("doubler")) == (before, processes)


def test_update_to_a_broken_model_leaves_the_good_one(
    stage: Stage, client: TritonDeploymentClient
) -> None:
    client.create_deployment("doubler", "models:/doubler/1")
    error = refused(
        "INVALID_STATE", "no good", client.update_deployment, "doubler", "models:/doubler/3"
    )
    assert "models:/doubler/1 is in place as before" in str(error)
    assert f"{stage.triton.url} serves version 1" in str(error)
    assert (stage.served("doubler"), client.get_deployment("doubler")["mlflow_model_uri"]) == (
        1,
        "models:/doubler/1",
    )


def test_create_of_a_broken_model_leaves_nothing(
    stage: Stage, client: TritonDeploymentClient
) -> None:
    refused("INVALID_STATE", "no good", client.create_deployment, "doubler", "models:/doubler/3")
    assert client.list_deployments() == []
    assert not (stage.triton.repository / "doubler").exists()


@pytest.mark.parametrize(
    ("code", "words", "name", "uri", "config"),
    [
        ("RESOURCE_DOES_NOT_EXIST", "no model 'nothing'", "m", "models:/nothing/1", {}),
        ("RESOURCE_DOES_NOT_EXIST", "versions there: 3, 2, 1", "m", "models:/doubler/9", {}),
        ("RESOURCE_DOES_NOT_EXIST", "aliases there: champion", "m", "models:/doubler@nobody", {}),
        (
            "INVALID_PARAMETER_VALUE",
            "models:/<name>@<alias>",
            "m",
            "models:/doubler/Production",
            {},
        ),
        ("INVALID_PARAMETER_VALUE", "URLs cannot carry", "a b", "models:/doubler/1", {}),
        ("INVALID_PARAMETER_VALUE", "Path traversal is not", ".", "models:/doubler/1", {}),
        (
            "INVALID_PARAMETER_VALUE",
            "known are .*verify",
            "m",
            "models:/doubler/1",
            {"nonsense": "1"},
        ),
        (
            "INVALID_PARAMETER_VALUE",
            "cpu, gpu, auto",
            "m",
            "models:/doubler/1",
            {"instance_kind": "tpu"},
        ),
        (
            "TEMPORARILY_UNAVAILABLE",
            "cannot be reached",
            "m",
            "models:/doubler/1",
            {"triton_url": "127.0.0.1:9"},
        ),
        (
            "INVALID_STATE",
            "does not exist on this host",
            "m",
            "models:/doubler/1",
            {"model_repository": "/nowhere/models"},
        ),
    ],
)
def test_errors_have_a_code_and_a_sentence(
    client: TritonDeploymentClient,
    code: str,
    words: str,
    name: str,
    uri: str,
    config: dict[str, str],
) -> None:
    refused(code, words, client.create_deployment, name, uri, config=config)
    assert client.list_deployments() == []


def test_registry_that_refuses_connections_is_said_at_once(client: TritonDeploymentClient) -> None:
    begin = time.monotonic()
    with pytest.raises(MlflowException, match="cannot be reached"):
        client.create_deployment(
            "doubler", "models:/doubler/1", config={"tracking_uri": "http://127.0.0.1:9"}
        )
    assert time.monotonic() - begin < 10


def test_repository_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_MODEL_REPO", raising=False)
    refused(
        "INVALID_PARAMETER_VALUE",
        "TRITON_MODEL_REPO",
        TritonDeploymentClient("triton").list_deployments,
    )


def test_lock_of_another_run_is_respected(stage: Stage, client: TritonDeploymentClient) -> None:
    client.create_deployment("doubler", "models:/doubler/1")
    with StateStore(str(stage.triton.repository)).lock("doubler", 1):
        refused(
            "RESOURCE_CONFLICT",
            str(os.getpid()),
            client.update_deployment,
            "doubler",
            "models:/doubler/2",
            config={"lock_timeout": "0.2"},
        )
    assert stage.served("doubler") == 1


def test_registry_of_the_notebook_is_used(
    stage: Stage, client: TritonDeploymentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    mlflow.set_tracking_uri(stage.mlflow.url)
    try:
        client.create_deployment("doubler", "models:/doubler/1")
    finally:
        mlflow.set_tracking_uri(None)


def test_deployment_of_nvidia_s_plugin_is_seen_and_taken_over(
    stage: Stage, client: TritonDeploymentClient
) -> None:
    folder = models.make_python(stage.triton.repository, "doubler", identity=7).folder
    meta = {
        "name": "doubler",
        "triton_model_path": str(folder),
        "mlflow_model_uri": "models:/doubler/1",
        "flavor": "triton",
    }
    (folder / "mlflow-meta.json").write_text(json.dumps(meta))
    assert stage.triton.load("doubler")[0] == 200
    assert client.list_deployments() == [{**meta, "version": "1", "state": "READY"}]
    assert client.get_deployment("doubler")["mlflow_model_uri"] == "models:/doubler/1"
    refused(
        "RESOURCE_DOES_NOT_EXIST",
        "adopt=true",
        client.update_deployment,
        "doubler",
        "models:/doubler/2",
    )
    client.update_deployment("doubler", "models:/doubler/2", config={"adopt": "true"})
    assert stage.served("doubler") == 2


# -- endpoints and other targets -------------------------------------------------------------------


@pytest.fixture
def pair(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TritonDeploymentClient, Triton]]:
    """A profile of two servers on one repository, the second over gRPC."""
    with triton_server(tmp_path / "second", repository=stage.triton.repository) as second:
        profiles = tmp_path / "profiles.yml"
        profiles.write_text(
            json.dumps(
                {
                    "both": {
                        "servers": {"one": stage.triton.url, "two": f"grpc://{second.grpc_url}"},
                        "model_repository": str(stage.triton.repository),
                        "tracking_uri": stage.mlflow.url,
                    }
                }
            )
        )
        monkeypatch.setenv("MLOPS_TRITON_PROFILES", str(profiles))
        monkeypatch.setenv("TRITON_URL", "127.0.0.1:9")
        monkeypatch.setitem(plugin_store.registry, "triton", mlflow_deployments)
        client = get_deploy_client("triton:/both")
        yield client, second
        # Not through the profile: a test may have stopped the second.
        get_deploy_client(
            f"triton://{stage.triton.url}?model_repository={stage.triton.repository}"
        ).delete_deployment("doubler")


def test_one_call_updates_every_replica(
    stage: Stage, pair: tuple[TritonDeploymentClient, Triton]
) -> None:
    client, second = pair
    ids: list[str] = []
    for call in (client.create_deployment, client.update_deployment):
        call("doubler", f"models:/doubler/{len(ids) + 1}")
        served = {
            server["url"]: server["deploy_id"]
            for server in client.get_deployment("doubler")["servers"]
        }
        assert len(served) == 2
        assert len(set(served.values())) == 1
        ids.append(served.popitem()[1])
    assert ids[0] != ids[1]
    values = {"x": [[1, 2, 3]]}
    for endpoint in ("one", "two", None):
        assert client.predict("doubler", values, endpoint=endpoint)["outputs"][
            "identity"
        ].tolist() == [[2]]
    assert [(entry["name"], entry["live"]) for entry in client.list_endpoints()] == [
        ("one", True),
        ("two", True),
    ]
    assert client.get_endpoint("two")["url"] == f"grpc://{second.grpc_url}"


def test_endpoint_is_accepted_everywhere(
    stage: Stage, pair: tuple[TritonDeploymentClient, Triton]
) -> None:
    client, _second = pair
    client.create_deployment("doubler", "models:/doubler/1", endpoint="one")
    assert [entry["name"] for entry in client.list_deployments(endpoint="one")] == ["doubler"]
    assert client.get_deployment("doubler", endpoint="two")["state"] != "READY"
    client.update_deployment("doubler", "models:/doubler/1")
    assert client.get_deployment("doubler", endpoint="two")["state"] == "READY"
    client.update_deployment("doubler", "models:/doubler/2", endpoint="two")
    assert client.predict("doubler", [[1, 2, 3]], endpoint="two")["outputs"][
        "identity"
    ].tolist() == [[2]]
    assert client.predict("doubler", [[1, 2, 3]], endpoint="one")["outputs"][
        "identity"
    ].tolist() == [[1]]
    assert any("instead of" in sentence for sentence in client.get_deployment("doubler")["drift"])
    refused(
        "RESOURCE_DOES_NOT_EXIST",
        "one, two",
        client.update_deployment,
        "doubler",
        "models:/doubler/1",
        endpoint="three",
    )
    refused(
        "INVALID_PARAMETER_VALUE",
        "leave endpoint out",
        client.delete_deployment,
        "doubler",
        endpoint="one",
    )
    assert client.predict(inputs=[[1, 2, 3]], endpoint="two")["outputs"]["y"].tolist() == [
        [2, 4, 6]
    ]
    client.delete_deployment("doubler")
    assert client.list_deployments(endpoint="one") == []


def test_update_stops_at_the_first_replica_that_fails(
    stage: Stage, pair: tuple[TritonDeploymentClient, Triton]
) -> None:
    client, second = pair
    client.create_deployment("doubler", "models:/doubler/1")
    refused("INVALID_STATE", "no good", client.update_deployment, "doubler", "models:/doubler/3")
    for endpoint in ("one", "two"):
        assert client.predict("doubler", [[1, 2, 3]], endpoint=endpoint)["outputs"][
            "identity"
        ].tolist() == [[1]]
    second.stop()
    refused(
        "TEMPORARILY_UNAVAILABLE",
        second.grpc_url,
        client.update_deployment,
        "doubler",
        "models:/doubler/2",
    )
    assert stage.served("doubler") == 1
    client.update_deployment("doubler", "models:/doubler/2", endpoint="one")
    assert stage.served("doubler") == 2


def test_endpoints_are_those_of_the_profile(stage: Stage, client: TritonDeploymentClient) -> None:
    for verb in (client.create_endpoint, client.update_endpoint, client.delete_endpoint):
        refused("NOT_IMPLEMENTED", "servers of a profile", verb, "other")
    refused("NOT_IMPLEMENTED", "explanations", client.explain, "doubler", None)
    for command in (
        "update-endpoint",
        "delete-endpoint",
    ):  # create-endpoint of MLflow 3.17 fails before it asks any plugin
        done = stage.cli(command, "-t", "triton", "--endpoint", "other")
        assert (
            done.returncode,
            "Traceback" in done.stderr,
            "servers of a profile" in done.stderr,
        ) == (1, False, True), done.stderr
    assert (
        f"'url': '{stage.triton.url}', 'live': True"
        in stage.cli("list-endpoints", "-t", "triton").stdout
    )
    assert (
        f"url: {stage.triton.url}"
        in stage.cli("get-endpoint", "-t", "triton", "--endpoint", stage.triton.url).stdout
    )


@pytest.mark.parametrize("target", ["triton://{http}", "triton://{grpc}?protocol=grpc"])
def test_targets(stage: Stage, client: TritonDeploymentClient, target: str) -> None:
    other = get_deploy_client(target.format(http=stage.triton.url, grpc=stage.triton.grpc_url))
    other.create_deployment("doubler", "models:/doubler/1")
    assert other.predict("doubler", {"x": [[1, 2, 3]]})["outputs"]["y"].tolist() == [[2, 4, 6]]
    refused("RESOURCE_DOES_NOT_EXIST", "does not serve it", other.predict, "nothing", [[1]])
    other.delete_deployment("doubler")
    assert client.list_deployments() == []


# -- predict ---------------------------------------------------------------------------------------


def test_predict_refuses_by_the_tensor_s_name(client: TritonDeploymentClient) -> None:
    client.create_deployment("doubler", "models:/doubler/1")
    assert client.predict("doubler", numpy.array([[1.0, 2.0, 3.0]]))["outputs"]["y"].tolist() == [
        [2, 4, 6]
    ]
    assert (
        client.predict("doubler", df={"x": [0.1, 0.2, 0.3]})["outputs"]["y"].dtype == numpy.float32
    )
    refused(
        "INVALID_PARAMETER_VALUE",
        "'x' is FP32",
        client.predict,
        "doubler",
        {"x": numpy.array([[0.1, 2.0, 3.0]])},
    )
    refused("INVALID_PARAMETER_VALUE", "no input 'z'", client.predict, "doubler", {"z": [1]})
    refused("INVALID_PARAMETER_VALUE", "doubler", client.predict, "doubler", {"x": [[1, 2]]})
    refused("RESOURCE_DOES_NOT_EXIST", "unknown model", client.predict, "nothing", {"x": [1]})


def test_predict_judges_a_name_as_create_does(client: TritonDeploymentClient) -> None:
    client.create_deployment("doubler", "models:/doubler/1")
    for name in ("a/b", "doubler/versions/1", "..", "", "doubler ", 5):
        said = {
            str(refused("INVALID_PARAMETER_VALUE", "name", verb, name, ROW))
            for verb in (client.create_deployment, client.predict)
        }
        assert len(said) == 1, said


def test_bytes_of_numpy_reach_the_model_as_they_are(
    stage: Stage, client: TritonDeploymentClient, tmp_path: Path
) -> None:
    """And a bare value is the one input that the model needs."""
    echo = SUM.replace("x.sum(axis=1, keepdims=True)", "x")
    more = 'input [ { name: "mask" data_type: TYPE_FP32 dims: [ 1 ] optional: true } ]'
    folder = Path(special(tmp_path, "echo", more, echo, {"x": [["a", "b", "c"]]}))
    config = (folder / "config.pbtxt").read_text().replace("TYPE_FP32", "TYPE_STRING", 2)
    (folder / "config.pbtxt").write_text(config.replace("dims: [ 1 ]", "dims: [ 3 ]", 1))
    client.create_deployment("echo", str(folder))
    over_grpc = get_deploy_client(f"triton://{stage.triton.grpc_url}?protocol=grpc")
    for which in (client, over_grpc):
        for values in (
            numpy.array([[b"a", b"b", b"c"]]),
            {"x": [numpy.bytes_(b"a"), "b", numpy.str_("c")]},
            numpy.char.encode([["a", "b", "c"]]),
            {"instances": [["a", "b", "c"]]},
        ):
            answer = which.predict("echo", values)["outputs"]["y"]
            assert answer.tolist() == [[b"a", b"b", b"c"]]
        refused("INVALID_PARAMETER_VALUE", "nothing is given", which.predict, "echo", {})


def test_the_best_classes_of_an_output_are_answered(
    stage: Stage, client: TritonDeploymentClient, tmp_path: Path
) -> None:
    folder = Path(
        special(tmp_path, "labelled", "", SUM.replace("x.sum(axis=1, keepdims=True)", "x"), ROW)
    )
    config = (folder / "config.pbtxt").read_text()
    labelled = config.replace('name: "y"', 'name: "y" label_filename: "labels.txt"')
    (folder / "config.pbtxt").write_text(labelled.replace("dims: [ 1 ]", "dims: [ 3 ]"))
    (folder / "labels.txt").write_text("cat\ndog\ncow\n")
    client.create_deployment("labelled", str(folder))
    wanted = [{"name": "y", "parameters": {"classification": 2}}]
    over_grpc = get_deploy_client(f"triton://{stage.triton.grpc_url}?protocol=grpc")
    for which in (client, over_grpc):
        answer = which.predict("labelled", {"inputs": {"x": [[1, 5, 3]]}, "outputs": wanted})
        assert answer["outputs"]["y"].tolist() == [[b"5.000000:1:dog", b"3.000000:2:cow"]]
        words = "the parameter timeout is 'abc'"
        asked = {"inputs": ROW, "parameters": {"timeout": "abc"}}
        refused("INVALID_PARAMETER_VALUE", words, which.predict, "labelled", asked)


@with_pandas
def test_predict_keeps_the_shape_that_scripts_know(client: TritonDeploymentClient) -> None:
    import pandas

    client.create_deployment("doubler", "models:/doubler/1")
    answer = client.predict("doubler", {"x": numpy.array([[1, 2, 3]], "float32")})
    assert isinstance(answer, pandas.DataFrame)
    assert list(answer.columns) == ["outputs"]
    assert json.loads(answer.to_json()) == {"outputs": {"y": [[2, 4, 6]], "identity": [[1]]}}
    by_name = pandas.DataFrame({"any": [numpy.array([[1, 2, 3]], "float32")]}, index=["x"])
    by_row = pandas.DataFrame({"x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]})
    assert client.predict("doubler", by_name)["outputs"]["y"].tolist() == [[2, 4, 6]]
    assert client.predict("doubler", by_row)["outputs"]["y"].tolist() == [[2, 4, 6], [8, 10, 12]]


def test_a_model_in_sequences_is_verified_and_asked_in_sequences(
    stage: Stage, client: TritonDeploymentClient, tmp_path: Path
) -> None:
    """One request is a sequence of its own, unless its parameters say another thing. An ensemble
    has the sequences of its members.
    """
    client.create_deployment("sums", special(tmp_path, "sums", START, SEQUENCE, ROW))
    step = 'step [ { model_name: "sums" model_version: -1 input_map { key: "x" value: "x" }'
    steps = f'ensemble_scheduling {{ {step} output_map {{ key: "y" value: "y" }} }} ] }}'
    client.create_deployment("whole", special(tmp_path, "whole", steps, None, ROW))
    for name in ("whole", "sums"):
        assert client.get_deployment(name)["verified"]
        assert client.predict(name, ROW)["outputs"]["y"].tolist() == [[6]]
    over_grpc = get_deploy_client(f"triton://{stage.triton.grpc_url}?protocol=grpc")
    for which in (client, over_grpc):
        sums = [
            which.predict("sums", {"inputs": ROW, "parameters": {"sequence_id": 5, **more}})
            for more in ({"sequence_start": True}, {}, {"sequence_end": True})
        ]
        assert [one["outputs"]["y"].tolist() for one in sums] == [[[6]], [[12]], [[18]]]


def test_a_decoupled_model_is_asked_over_grpc(
    stage: Stage,
    client: TritonDeploymentClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Over HTTP it is deployed and not verified, and the way that each sentence names works."""
    folder = special(tmp_path, "stream", STREAM, DECOUPLED, ROW)
    client.create_deployment("stream", folder)
    assert client.get_deployment("stream")["verified"] is None
    (warning,) = [one for one in caplog.messages if "not verified" in one]
    assert "grpc://host:port in triton_url" in warning
    words = r"triton://host:8001\?protocol=grpc"
    refused("INVALID_PARAMETER_VALUE", words, client.predict, "stream", ROW)
    refused(
        "INVALID_PARAMETER_VALUE",
        "grpc://host:port in triton_url .* or say verify: none",
        client.update_deployment,
        "stream",
        config={"verify": {"inputs": ROW}},
    )
    over_grpc = get_deploy_client(f"triton://{stage.triton.grpc_url}?protocol=grpc")
    over_grpc.update_deployment("stream", config={"verify": "auto"})
    assert client.get_deployment("stream")["verified"]
    assert over_grpc.predict("stream", ROW)["outputs"]["y"].tolist() == [[6], [7], [8]]
    verify = {"inputs": ROW, "outputs": {"y": [[6], [7], [8]]}}
    over_grpc.update_deployment("stream", config={"verify": verify, "keep": 2})
    refused("INVALID_STATE", "no negative", over_grpc.predict, "stream", {"x": [[-1, 2, 3]]})
    bad = special(tmp_path, "bad", STREAM, DECOUPLED, {"x": [[-1, 2, 3]]})
    refused(
        "INVALID_STATE",
        "does not answer: .*no negative numbers.* no server serves it",
        over_grpc.create_deployment,
        "bad",
        bad,
    )


@pytest.mark.usefixtures("client")
def test_answers_of_a_decoupled_model_may_vary_in_length(stage: Stage, tmp_path: Path) -> None:
    longer = "sum = (x.sum(axis=1, keepdims=True) + number).repeat(number + 1, axis=1)"
    code = DECOUPLED.replace("sum = x.sum(axis=1, keepdims=True) + number", longer)
    over_grpc = get_deploy_client(f"triton://{stage.triton.grpc_url}?protocol=grpc")
    over_grpc.create_deployment("growing", special(tmp_path, "growing", STREAM, code, ROW))
    assert over_grpc.get_deployment("growing")["verified"]
    pieces = over_grpc.predict("growing", ROW)["outputs"]["y"]
    assert [one.tolist() for one in pieces] == [[[6]], [[7, 7]], [[8, 8, 8]]]


def test_an_example_that_makes_no_request_stops_no_deployment(
    stage: Stage,
    client: TritonDeploymentClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is left out before the load, with what to do instead; a verification that the user wrote
    wrong is an error as ever.
    """
    for name, example in (("columns", {"a": [1], "b": [2]}), ("wide", {"data": [[1, 2, 3, 4]]})):
        folder = special(tmp_path, name, "", SUM, example)
        client.create_deployment(name, folder)
        assert client.get_deployment(name)["verified"] is None
        assert any("verify: {inputs: {x: …}} says what to ask it" in one for one in caplog.messages)
        caplog.clear()
        client.update_deployment(name, config={"verify": {"inputs": ROW}})
        assert client.get_deployment(name)["verified"]
        words = "verify names the input 'data', and the model has x"
        verify = {"verify": {"inputs": {"data": [[1, 2, 3]]}}}
        refused("INVALID_PARAMETER_VALUE", words, client.update_deployment, name, config=verify)
    rows = special(tmp_path, "rows", "", SUM, {"data": [[1, 2, 3], [4, 5, 6]]})
    client.create_deployment("rows", rows)
    assert client.get_deployment("rows")["verified"]


def named_columns(folder: Path, flavor: dict[str, Any], *names: str) -> Path:
    """A logged model whose signature has columns, and an example that has them in another order."""
    specs = [{"type": "double", "name": name, "required": True} for name in names]
    document = {"flavors": flavor, "signature": {"inputs": json.dumps(specs)}}
    (folder / "MLmodel").write_text(json.dumps(document), encoding="utf-8")
    order = [*names[1:], names[0]]
    example = {"columns": order, "data": [[names.index(name) for name in order]]}
    (folder / "input_example.json").write_text(json.dumps(example), encoding="utf-8")
    return folder


def test_a_table_is_asked_in_the_order_of_the_model_s_columns(
    stage: Stage, client: TritonDeploymentClient, tmp_path: Path
) -> None:
    """Over both ways, for forests and for an ONNX model with one input; the example of a version
    that has another order is one of them.
    """
    pandas = pytest.importorskip("pandas")
    forest = tmp_path / "forest"
    forest.mkdir()
    (forest / "model.json").write_text(json.dumps(models.xgboost_document(objective="reg:linear")))
    named_columns(forest, {"xgboost": {"data": "model.json"}}, "a", "b", "c", "d")
    network = tmp_path / "network"
    shutil.copytree(models.make_onnx(tmp_path / "made").folder / "1", network)
    named_columns(network, {"onnx": {"data": "model.onnx"}}, "a", "b", "c")
    over_grpc = get_deploy_client(f"triton://{stage.triton.grpc_url}?protocol=grpc")
    for name, folder in (("forest", forest), ("network", network)):
        client.create_deployment(name, str(folder))
        assert client.get_deployment(name)["verified"]
        record = StateStore(str(stage.triton.repository)).record(name)
        assert record is not None and record.example is not None
        width = 4 if name == "forest" else 3
        assert [*record.example.values()] == [[[*range(width)]]]
        rows = numpy.array([[3, 1, 2, 0], [0, 5, 1, -2]], "float32")[:, :width]
        frame = pandas.DataFrame(rows, columns=[*"abcd"][:width])
        for ask in (client, over_grpc):
            wanted = ask.predict(name, rows)["outputs"].iloc[0].tolist()
            for table in (frame, frame[frame.columns[::-1]], frame.assign(e=1.0)):
                assert ask.predict(name, table)["outputs"].iloc[0].tolist() == wanted
            others = frame.rename(columns={"b": "B"})
            words = "no column b, and has B, .* frame.to_numpy"
            refused("INVALID_PARAMETER_VALUE", words, ask.predict, name, others)
            assert ask.predict(name, others.to_numpy())["outputs"].iloc[0].tolist() == wanted
        client.delete_deployment(name)


def test_the_configuration_is_asked_once_for_each_deployment(
    stage: Stage, client: TritonDeploymentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    plain = TritonServer.config

    def config(server: TritonServer, name: str) -> Any:
        asked.append(name)
        return plain(server, name)

    monkeypatch.setattr(TritonServer, "config", config)
    other = TritonDeploymentClient("triton")
    for deploy, version in ((other.create_deployment, 1), (other.update_deployment, 2)):
        deploy("doubler", f"models:/doubler/{version}")
        asked.clear()
        for _number in range(5):
            client.predict("doubler", [[1, 2, 3]])
        assert asked == ["doubler"]


def test_another_model_is_noticed_where_the_repository_is_out_of_sight(
    stage: Stage, client: TritonDeploymentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_deployment("model", "models:/doubler/1", config={"config": {"name": "model"}})
    monkeypatch.delenv("TRITON_MODEL_REPO")
    far = TritonDeploymentClient("triton")
    assert far.predict("model", {"x": [[1, 2, 3]]})["outputs"]["y"].tolist() == [[2, 4, 6]]
    client.delete_deployment("model")
    wide = models.make_onnx(
        stage.triton.folder / "wide", "model", weights=((1.0,), (1.0,)), bias=(0.0,)
    )
    client.create_deployment("model", str(wide.folder))
    assert far.predict("model", {"x": [[1, 2]]})["outputs"]["y"].tolist() == [[3]]


def test_threads_share_a_client(client: TritonDeploymentClient) -> None:
    client.create_deployment("doubler", "models:/doubler/1")

    def ask(thread: int) -> list[bool]:
        return [
            client.predict("doubler", {"x": numpy.full((1, 3), thread * 100 + call, "float32")})[
                "outputs"
            ]["y"].tolist()
            == [[2.0 * (thread * 100 + call)] * 3]
            for call in range(100)
        ]

    with ThreadPoolExecutor(8) as pool:
        answers = [right for one in pool.map(ask, range(8)) for right in one]
    assert answers == [True] * 800


def test_server_that_was_restarted_is_found_again(
    stage: Stage, client: TritonDeploymentClient
) -> None:
    client.create_deployment("doubler", "models:/doubler/1")
    client.predict("doubler", [[1, 2, 3]])
    stage.triton.restart()
    client.update_deployment("doubler", "models:/doubler/1")
    assert client.predict("doubler", [[1, 2, 3]])["outputs"]["y"].tolist() == [[2, 4, 6]]


# -- the command line ------------------------------------------------------------------------------


def test_command_line(stage: Stage, client: TritonDeploymentClient) -> None:
    done = stage.cli(
        "create",
        "-t",
        "triton",
        "--flavor",
        "triton",
        "--name",
        "doubler",
        "-m",
        "models:/doubler/1",
        "-C",
        "instance_kind=cpu",
    )
    assert (done.returncode, done.stdout.strip()) == (
        0,
        "triton deployment doubler is created",
    ), done
    done = stage.cli(
        "update",
        "-t",
        f"triton://{stage.triton.url}",
        "--name",
        "doubler",
        "-m",
        "models:/doubler/2",
    )
    assert "Deployment doubler is updated (with flavor triton)" in done.stdout
    listed = stage.cli("list", "-t", "triton").stdout
    assert (
        "List of all deployments:\n[{'name': 'doubler', 'version': '2', 'state': 'READY'" in listed
    )
    lines = dict(
        line.split(": ", 1)
        for line in stage.cli("get", "-t", "triton", "--name", "doubler").stdout.splitlines()
        if ": " in line
    )
    assert (lines["name"], lines["version"], lines["mlflow_model_uri"]) == (
        "doubler",
        "2",
        "models:/doubler/2",
    )
    assert (
        stage.cli("delete", "-t", "triton", "--name", "doubler").stdout.strip()
        == "Deployment doubler is deleted"
    )
    assert stage.cli("delete", "-t", "triton", "--name", "doubler").returncode == 0


@with_pandas
def test_command_line_predicts(
    stage: Stage, client: TritonDeploymentClient, tmp_path: Path
) -> None:
    client.create_deployment("doubler", "models:/doubler/1")
    for content in (
        {"x": [[1, 2, 3]]},
        {"inputs": {"x": [[1, 2, 3]]}},
        {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]},
        {"dataframe_split": {"columns": ["x"], "data": [[[1, 2, 3]]]}},
        {"inputs": {"x": [[1, 2, 3]]}, "parameters": {"priority": 1}},
        [{"id": "q", "inputs": [[1, 2, 3]], "parameters": {"priority": 1}}],
    ):
        question = tmp_path / "question.json"
        question.write_text(json.dumps(content))
        done = stage.cli("predict", "-t", "triton", "--name", "doubler", "-I", str(question))
        assert json.loads(done.stdout) == {"outputs": {"y": [[2, 4, 6]], "identity": [[1]]}}, done
    answer = tmp_path / "answer.json"
    stage.cli(
        "predict", "-t", "triton", "--name", "doubler", "-I", str(question), "-O", str(answer)
    )
    assert json.loads(answer.read_text())["outputs"]["y"] == [[2, 4, 6]]


@pytest.mark.parametrize(
    "words",
    [
        ("create", "-t", "triton", "--name", "m", "-m", "models:/nothing/1"),
        ("create", "-t", "triton", "--name", "m", "-m", "models:/doubler/1", "-C", "nonsense=1"),
        ("get", "-t", "triton", "--name", "nothing"),
        ("list", "-t", "triton:/nowhere"),
    ],
)
def test_command_line_says_one_sentence(stage: Stage, words: tuple[str, ...]) -> None:
    done = stage.cli(*words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("Error: ")], done.stderr


# -- run-local -------------------------------------------------------------------------------------


def test_run_local_without_the_server_says_so(stage: Stage) -> None:
    if importlib.util.find_spec("pytriton"):
        pytest.skip("this environment has the server")
    http, grpc = free_ports(2)
    done = stage.cli(
        "run-local",
        "-t",
        "triton",
        "--name",
        "doubler",
        "-m",
        "models:/doubler/1",
        "-C",
        f"http_port={http}",
        "-C",
        f"grpc_port={grpc}",
    )
    assert done.returncode == 1
    assert "nvidia-pytriton is not installed" in done.stderr
    assert "server_python" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_run_local_serves_until_it_is_interrupted(stage: Stage, stop: signal.Signals) -> None:
    http, grpc = free_ports(2)
    words = [
        "run-local",
        "-t",
        "triton",
        "--name",
        "doubler",
        "-m",
        "models:/doubler/2",
        "-C",
        f"http_port={http}",
        "-C",
        f"grpc_port={grpc}",
        "-C",
        f"server_python={server_python('TRITON_SERVER_PYTHON', 'triton-server')}",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "deployments", *words],
        env=stage.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(90, process.kill)
    watchdog.start()
    try:
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline() if process.stdout else ""
            assert line, process.communicate()[1]
            said += line
        command = re.search(r"^  curl -s .*$", said, re.MULTILINE)
        assert command, said
        answer = json.loads(
            subprocess.run(
                command[0], shell=True, check=True, capture_output=True, timeout=30
            ).stdout
        )
        assert {output["name"]: output["data"] for output in answer["outputs"]} == {
            "y": [0, 0, 0],
            "identity": [2],
        }
        process.send_signal(stop)
        out, err = process.communicate(timeout=180)
    finally:
        watchdog.cancel()
        process.kill()
    assert (process.returncode, "Traceback" in err) == (0, False)
    assert "over HTTP" not in err  # its server's gRPC is known
    assert out.strip() == "Triton is stopped, and its temporary repository is removed."
    with pytest.raises(MlflowException, match="cannot be reached"):
        TritonDeploymentClient(f"triton://127.0.0.1:{http}").predict("doubler", [[1, 2, 3]])
