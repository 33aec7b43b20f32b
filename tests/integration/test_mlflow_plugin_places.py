# SPDX-License-Identifier: Apache-2.0
"""The MLflow plugin where it is used: servers behind TLS and an admin key, several replicas, a
notebook's event loop, a playbook beside.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import numpy
import pytest
from ansible_collections.mlops.triton.plugins.mlflow_deployments import (
    TritonDeploymentClient,
    embedded,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (
    TritonServer,
)
from mlflow.exceptions import MlflowException
from support import models, plugin
from support.certificates import Authority
from support.playbooks import environment
from support.servers import ROOT, Triton, triton_server

pytestmark = pytest.mark.long

FAST = ("--disable-auto-complete-config",)
SECRET = "open-sesame"
ASK = {"x": [[1, 2, 3]]}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Model folders that answer with their number; 9 does not load where a file says so."""
    base = tmp_path_factory.mktemp("sources")
    made = {
        number: models.make_python(base / str(number), "doubler", identity=number).folder
        for number in (1, 2, 9)
    }
    with open(made[9] / "1" / "model.py", "a", encoding="utf-8") as stream:
        # A server's stub is told by the name of its shared memory.
        stream.write(
            f"if open({str(base / 'bad')!r}).read() in open('/proc/self/cmdline').read():\n   "
            " raise RuntimeError('no memory')\n"
        )
    return {number: str(folder) for number, folder in made.items()}


def profiles(folder: Path, monkeypatch: pytest.MonkeyPatch, **profile: Any) -> None:
    path = folder / "profiles.yml"
    path.write_text(json.dumps({"there": profile}), encoding="utf-8")
    monkeypatch.setenv("MLOPS_TRITON_PROFILES", str(path))
    for name in ("TRITON_URL", "TRITON_MODEL_REPO", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


# -- replicas --------------------------------------------------------------------------------------


@pytest.fixture
def replicas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TritonDeploymentClient, list[Triton]]]:
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                triton_server(
                    tmp_path / f"t{number}",
                    repository=tmp_path / "models",
                    metrics_port=0,
                    backend_directory=tmp_path / "backends",
                    extra_args=FAST,
                )
            )
            for number in range(3)
        ]
        profiles(
            tmp_path,
            monkeypatch,
            servers={f"gpu-{number}": one.url for number, one in enumerate(running)},
            model_repository=str(tmp_path / "models"),
        )
        yield TritonDeploymentClient("triton:/there"), running


def identities(client: TritonDeploymentClient) -> list[int]:
    return [
        int(client.predict("doubler", ASK, endpoint=f"gpu-{number}")["outputs"]["identity"][0][0])
        for number in range(3)
    ]


def test_update_goes_through_the_replicas_and_stops_at_the_first_that_fails(
    replicas: tuple[TritonDeploymentClient, list[Triton]], sources: dict[int, str]
) -> None:
    client, running = replicas
    client.create_deployment("doubler", sources[1])
    created = client.get_deployment("doubler")
    assert {one["deploy_id"] for one in created["servers"]} == {created["deploy_id"]}
    assert identities(client) == [1, 1, 1]
    before = [one.loads("doubler") for one in running]

    bad = Path(sources[9]).parents[1] / "bad"
    bad.write_text(running[1].settings["shm_region_prefix"], encoding="utf-8")
    with pytest.raises(MlflowException, match="no memory") as caught:
        client.update_deployment("doubler", sources[9])
    assert caught.value.error_code == "INVALID_STATE"
    assert running[1].url in str(caught.value)
    assert identities(client) == [1, 1, 1]
    first, second, third = (one.loads("doubler") - was for one, was in zip(running, before))
    assert (first, second >= 1, third) == (2, True, 0)  # there and back, tried, never reached
    assert client.get_deployment("doubler")["drift"] == []

    bad.write_text("none of them", encoding="utf-8")
    client.update_deployment("doubler", sources[9])
    updated = client.get_deployment("doubler")
    assert (
        {one["deploy_id"] for one in updated["servers"]}
        == {updated["deploy_id"]}
        != {created["deploy_id"]}
    )
    assert identities(client) == [9, 9, 9]


# -- TLS and keys ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """gRPC with TLS that asks for a certificate, and an admin key on both protocols."""
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder)
    certificate, key = authority.issue("server")
    authority.issue("client")
    (folder / "secret").write_text(SECRET, encoding="utf-8")
    tls = {"certificate": certificate, "key": key, "client_ca": authority.ca_file}
    with triton_server(
        folder,
        extra_args=FAST,
        grpc_tls=tls,
        metrics_port=0,
        admin_key={"name": "admin-key", "secret_file": str(folder / "secret")},
    ) as running:
        yield running


@pytest.mark.parametrize("scheme", ["http", "grpcs"])
def test_profile_has_the_key_and_the_authority(
    scheme: str,
    guarded: Triton,
    sources: dict[int, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"grpcs://{guarded.grpc_url}" if scheme == "grpcs" else guarded.url
    options: dict[str, Any] = {
        "servers": {"here": url},
        "model_repository": str(guarded.repository),
        "timeout": 30,
        "admin_key": {"secret_env": "KEY_OF_THE_TEST"},
        "ca_file": str(guarded.folder / "ca.pem"),
        "client_cert": str(guarded.folder / "client.pem"),
        "client_key": str(guarded.folder / "client.key"),
    }
    profiles(tmp_path, monkeypatch, **options)
    with pytest.raises(MlflowException, match="KEY_OF_THE_TEST, which is not set"):
        TritonDeploymentClient("triton:/there")
    monkeypatch.setenv("KEY_OF_THE_TEST", "wrong")
    with pytest.raises(MlflowException, match="wants another secret in admin_key") as caught:
        TritonDeploymentClient("triton:/there").create_deployment("doubler", sources[1])
    assert caught.value.error_code == "PERMISSION_DENIED"
    monkeypatch.setenv("KEY_OF_THE_TEST", SECRET)
    client = TritonDeploymentClient("triton:/there")
    client.create_deployment("doubler", sources[1])
    assert client.predict("doubler", ASK)["outputs"]["identity"].tolist() == [[1]]
    client.update_deployment("doubler", sources[2])
    assert client.predict("doubler", ASK)["outputs"]["identity"].tolist() == [[2]]
    assert SECRET not in repr(client.get_deployment("doubler")) + repr(client.list_endpoints())
    client.delete_deployment("doubler")
    assert client.list_deployments() == []
    if scheme == "grpcs":
        profiles(tmp_path, monkeypatch, **{**options, "ca_file": None})
        with pytest.raises(MlflowException, match="cannot be reached"):
            TritonDeploymentClient("triton:/there").list_deployments()


@pytest.mark.parametrize("scheme", ["http", "grpcs"])
def test_the_command_line_has_the_key_and_the_authority(
    scheme: str, guarded: Triton, sources: dict[int, str], tmp_path: Path
) -> None:
    """MLflow passes each -C on as a text."""
    url = f"grpcs://{guarded.grpc_url}" if scheme == "grpcs" else guarded.url
    options = {
        "model_repository": str(guarded.repository),
        "triton_url": url,
        "timeout": "30",
        "ca_file": str(guarded.folder / "ca.pem"),
        "client_cert": str(guarded.folder / "client.pem"),
        "client_key": str(guarded.folder / "client.key"),
    }
    words = [word for key, text in options.items() for word in ("-C", f"{key}={text}")]
    key = ("-C", "admin_key={name: admin-key, secret_env: KEY_OF_THE_TEST}")
    create = ("create", "-t", "triton", "--name", "doubler", "-m", sources[1])
    site = plugin.registered(tmp_path / "site")

    def run(secret: str, *more: str) -> subprocess.CompletedProcess[str]:
        done = plugin.deployments(plugin.environment(site, KEY_OF_THE_TEST=secret), *more, *words)
        assert "Traceback" not in done.stderr and SECRET not in done.stdout + done.stderr
        return done

    refused = run(SECRET, *create)
    assert refused.returncode == 1
    assert "wants an admin_key with the name 'admin-key'" in refused.stderr
    for secret, sentence in (("", "which is not set"), ("wrong", "wants another secret")):
        refused = run(secret, *create, *key)
        assert refused.returncode == 1 and sentence in refused.stderr, refused.stderr
    created = run(SECRET, *create, *key)
    assert created.returncode == 0, created.stderr
    assert (
        guarded.infer(
            "doubler",
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1] * 3}]},
        )[0]
        == 200
    )
    deleted = run(SECRET, "delete", "-t", "triton", "--name", "doubler", *key)
    assert deleted.returncode == 0, deleted.stderr


# -- notebooks, types, a playbook ------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with triton_server(
        tmp_path_factory.mktemp("plain"), extra_args=FAST, metrics_port=0
    ) as running:
        yield running


@pytest.fixture
def client(plain: Triton, monkeypatch: pytest.MonkeyPatch) -> Iterator[TritonDeploymentClient]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = TritonDeploymentClient(f"triton://{plain.url}?model_repository={plain.repository}")
    yield made
    made.delete_deployment("doubler")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_in_a_running_event_loop(
    protocol: str, plain: Triton, client: TritonDeploymentClient, sources: dict[int, str]
) -> None:
    """As in a notebook: the kernel's loop runs in the thread that calls."""
    url = plain.grpc_url if protocol == "grpc" else plain.url
    here = TritonDeploymentClient(
        f"triton://{url}?protocol={protocol}&model_repository={plain.repository}"
    )

    async def cells() -> list[int]:
        ticks: list[int] = []

        async def tick() -> None:
            while True:
                ticks.append(1)
                await asyncio.sleep(0.01)

        beside = asyncio.create_task(tick())
        here.create_deployment("doubler", sources[1])
        seen = [int(here.predict("doubler", ASK)["outputs"]["identity"][0][0])]
        await asyncio.to_thread(here.update_deployment, "doubler", sources[2])
        answers = await asyncio.gather(
            *(asyncio.to_thread(here.predict, "doubler", ASK) for _number in range(8))
        )
        beside.cancel()
        assert ticks
        return seen + [int(answer["outputs"]["identity"][0][0]) for answer in answers]

    assert asyncio.run(cells()) == [1] + [2] * 8


ECHO = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([echo(tensor) for tensor in request.inputs()]) for request in requests]


def echo(tensor):
    name = "y" + tensor.name()[1:]
    if name == "y_BF16":  # which numpy has not
        return pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack())
    return pb_utils.Tensor(name, tensor.as_numpy())
"""  # noqa: E501
TYPES = ("BF16", "FP16", "FP64", "BOOL", "UINT8", "INT64", "STRING")


@pytest.fixture(scope="module")
def echo(plain: Triton, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A model that gives back each input that a request has."""
    folder = tmp_path_factory.mktemp("echo") / "echo"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(ECHO, encoding="utf-8")
    inputs = ", ".join(
        f'{{ name: "x_{one}" data_type: TYPE_{one} dims: [ -1 ] optional: true }}' for one in TYPES
    )
    outputs = ", ".join(
        f'{{ name: "y_{one}" data_type: TYPE_{one} dims: [ -1 ] }}' for one in TYPES
    )
    (folder / "config.pbtxt").write_text(
        f'backend: "python"\ninput [ {inputs} ]\noutput [ {outputs} ]\n'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n",
        encoding="utf-8",
    )
    target = f"triton://{plain.url}?model_repository={plain.repository}"
    TritonDeploymentClient(target).create_deployment("echo", str(folder))


@pytest.mark.parametrize(
    ("datatype", "given", "answered"),
    [
        ("BF16", [0.5, -2.0], [0.5, -2.0]),
        ("FP16", numpy.array([0.5, -2.0], "float64"), [0.5, -2.0]),
        ("BOOL", [True, False], [True, False]),
        ("UINT8", numpy.array([0, 255], "int64"), [0, 255]),
        ("INT64", [2**62, -1], [2**62, -1]),
        ("FP64", 0.1, [0.1]),
        ("STRING", ["gr\u00fc\u00df", b"\xff\x00"], ["gr\u00fc\u00df".encode(), b"\xff\x00"]),
        ("STRING", "one text", [b"one text"]),
    ],
)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.usefixtures("echo")
def test_types_come_back_as_they_were_sent(
    protocol: str, datatype: str, given: Any, answered: list[Any], plain: Triton
) -> None:
    url = plain.grpc_url if protocol == "grpc" else plain.url
    answer = TritonDeploymentClient(f"triton://{url}?protocol={protocol}").predict(
        "echo", {f"x_{datatype}": given}
    )
    assert answer["outputs"][f"y_{datatype}"].tolist() == answered


def test_beside_a_running_playbook(
    plain: Triton, client: TritonDeploymentClient, sources: dict[int, str], tmp_path: Path
) -> None:
    """A playbook and a client change the same model in turn and at once: neither fails, and nobody
    sees a model that is not whole.
    """
    client.create_deployment("doubler", sources[1])
    target = {"triton_url": plain.url, "model_repository": str(plain.repository)}
    task = {
        "mlops.triton.triton_model": {**target, "name": "doubler", "model_uri": "{{ item }}"},
        "loop": [sources[1], sources[2]] * 2,
    }
    playbook = tmp_path / "beside.yml"
    playbook.write_text(
        json.dumps(
            [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}]
        )
    )
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        "localhost,",
        "-e",
        json.dumps({"ansible_python_interpreter": sys.executable}),
        str(playbook),
    ]
    with (
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        said = pool.submit(running.communicate)
        updates, seen = 0, set()
        while running.poll() is None:
            client.update_deployment("doubler", sources[1 + updates % 2])
            updates += 1
            for _number in range(20):
                answer = client.predict("doubler", ASK)["outputs"]
                assert answer["y"].tolist() == [[2, 4, 6]]
                seen.add(int(answer["identity"][0][0]))
        assert running.returncode == 0, said.result()[0]
    assert updates > 1
    assert seen == {1, 2}
    last = client.get_deployment("doubler")
    assert (last["state"], last["drift"]) == ("READY", [])


def test_folder_is_known_from_everywhere(
    client: TritonDeploymentClient,
    plain: Triton,
    sources: dict[int, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Path(sources[1])
    monkeypatch.chdir(source.parent)
    assert client.create_deployment("doubler", source.name)["model_uri"] == str(source)
    monkeypatch.chdir(tmp_path)
    client.update_deployment("doubler", config={"config": {"max_batch_size": 2}})
    assert plain.model_config("doubler")["max_batch_size"] == 2
    with pytest.raises(MlflowException, match="not a mapping"):
        client.update_deployment("doubler", config=["max_batch_size"])


def test_both_plugins_are_said_on_the_command_line(tmp_path: Path) -> None:
    """Whichever of the two MLflow took, where it is ours that it took."""
    for first in ("mlflow-triton-plugin", "mlflow-tritonserver"):
        site = plugin.registered(tmp_path / first / "ours")
        other = plugin.registered(tmp_path / first / "other", first, plugin.OTHER)
        variables = plugin.environment(site)
        variables["PYTHONPATH"] = os.pathsep.join([str(other), variables["PYTHONPATH"]])
        done = plugin.deployments(variables, "help", "-t", "triton")
        assert f"pip uninstall {first}" in done.stdout, done.stdout + done.stderr


def test_curl_line_for_numbers_that_json_cannot_hold(plain: Triton, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(ECHO, encoding="utf-8")
    tensors = {
        side: ", ".join(
            f'{{ name: "{side}_{one}" data_type: TYPE_{one} dims: [ {2 if one == "FP16" else -1}'
            " ] }"
            for one in ("FP16", "STRING")
        )
        for side in "xy"
    }
    (folder / "config.pbtxt").write_text(
        f'backend: "python"\ninput [ {tensors["x"]} ]\noutput [ {tensors["y"]} ]\n'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n",
        encoding="utf-8",
    )
    client = TritonDeploymentClient(f"triton://{plain.url}?model_repository={plain.repository}")
    client.create_deployment("half", str(folder))
    with redirect_stdout(io.StringIO()) as said:
        embedded._say_ready(tmp_path, TritonServer(plain.url, 30), "half")
    line = next(line for line in said.getvalue().splitlines() if "curl" in line)
    assert (
        subprocess.run(
            ["bash", "-euc", line.replace("curl -s", "curl -s --fail")], cwd=tmp_path, check=False
        ).returncode
        == 0
    )
    assert (tmp_path / "answer.bin").read_bytes().endswith(bytes(2 * 2 + 4))
