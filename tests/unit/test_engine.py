# SPDX-License-Identifier: Apache-2.0
"""What role triton asks a Docker Engine and a host with GPUs, where none of either is needed."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

FILES = Path(__file__).resolve().parents[2] / "roles/triton/files"
QUESTION = {"image": "name:tag", "container": "triton"}
LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-11111111-aaaa-bbbb-cccc-222222222222)
GPU 1: NVIDIA H200 (UUID: GPU-33333333-aaaa-bbbb-cccc-444444444444)
  MIG 1g.18gb     Device  0: (UUID: MIG-55555555-aaaa-bbbb-cccc-666666666666)
"""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"role_{name}", FILES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


engine, host = load("engine"), load("host")


class Listening(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Answers(http.server.BaseHTTPRequestHandler):
    """What a Docker Engine of API 1.41 answers, as recorded, less what is not read."""

    content: ClassVar[dict[str, tuple[int, Any]]] = {}

    def address_string(self) -> str:
        return "here"

    def do_GET(self) -> None:
        status, body = self.content.get(self.path, (404, {"message": "No such thing"}))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "docker.sock")
    with Listening(path, Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def test_what_the_engine_has(place: str) -> None:
    Answers.content = {
        "/info": (200, {"Runtimes": {"runc": {}, "nvidia": {}}}),
        "/images/name%3Atag/json": (200, {"Id": "sha256:i", "RepoDigests": ["name@sha256:d"]}),
        "/containers/triton/json": (
            200,
            {
                "Image": "sha256:i",
                "Config": {
                    "Image": "name:tag",
                    "Labels": None,
                    "Cmd": ["python3", "x", "--config", "/opt/server.json"],
                },
                "State": {"Running": False},
            },
        ),
    }
    told = engine.answer({**QUESTION, "socket": place, "gpus": True})
    assert told == {
        "name": "name:tag",
        "answers": True,
        "problems": [],
        "needs_toolkit": False,
        "image": {"tags": [], "id": "sha256:i", "digests": ["sha256:d"], "labels": {}},
        "container": {
            "name": "name:tag",
            "image": "sha256:i",
            "labels": {},
            "running": False,
            "settings": "/opt/server.json",
        },
    }


def running(name: str, settings: str = "/opt/server.json") -> dict[str, Any]:
    return {
        "Image": "sha256:i",
        "Config": {"Image": name, "Labels": {}, "Cmd": ["python3", "x", "--config", settings]},
        "State": {"Running": False},
    }


@pytest.mark.parametrize(
    ("container", "note", "name"),
    [
        (running("nvcr.io/nvidia/tritonserver:24.10-py3"), "", "wanted/triton:24.10-py3"),
        (running("host:5000/triton:24.10-py3"), "x:25.01-py3", "wanted/triton:24.10-py3"),
        (running("host:5000/triton"), "", "wanted/triton:latest"),
        (running("other/triton@sha256:abc"), "", "wanted/triton@sha256:abc"),
        (running("sha256:i"), "", "wanted/triton:23.12-py3"),
        (running("x:24.10-py3", "/other/server.json"), "", "wanted/triton:26.11-py3"),
        (None, "", "wanted/triton:26.11-py3"),
        (None, "nvcr.io/nvidia/tritonserver:24.10-py3\n", "wanted/triton:24.10-py3"),
    ],
)
def test_a_container_keeps_the_tag_that_it_was_started_with(
    place: str, tmp_path: Path, container: Any, note: str, name: str
) -> None:
    path = tmp_path / "image"
    if note:
        path.write_text(note)
    Answers.content = {
        "/info": (200, {}),
        "/images/sha256%3Ai/json": (
            200,
            {"Id": "sha256:i", "RepoTags": ["nvcr.io/x:1", "wanted/triton:23.12-py3"]},
        ),
        **({"/containers/triton/json": (200, container)} if container else {}),
    }
    question = {"image": "wanted/triton:26.11-py3", "container": "triton", "socket": place}
    keeps = {"image": "wanted/triton", "settings": "/opt/server.json", "note": str(path)}
    assert engine.answer({**question, "keeps": keeps})["name"] == name
    assert engine.answer({**question, "keeps": None})["name"] == "wanted/triton:26.11-py3"


def test_an_engine_without_nvidias_runtime_is_told_what_installs_it(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    Answers.content = {"/info": (200, {"Runtimes": {"runc": {}}})}
    question = {**QUESTION, "socket": place, "gpus": True}
    (sentence,) = engine.answer(question)["problems"]
    assert (
        "cannot hand GPUs to containers" in sentence
        and "triton_install_nvidia_toolkit: true" in sentence
    )
    assert engine.answer({**question, "gpus": False})["problems"] == []
    told = engine.answer({**question, "installs_toolkit": True})
    assert told["problems"] == [] and told["needs_toolkit"]


def test_an_engine_that_is_not_there_not_running_or_not_well(tmp_path: Path, place: str) -> None:
    (sentence,) = engine.answer({**QUESTION, "socket": str(tmp_path / "none.sock")})["problems"]
    assert (
        "There is no Docker Engine on this host" in sentence
        and "apt-get install docker.io" in sentence
    )
    left = tmp_path / "left.sock"
    with Listening(str(left), Answers):
        pass
    (sentence,) = engine.answer({**QUESTION, "socket": str(left)})["problems"]
    assert "does not run" in sentence and "systemctl enable --now docker" in sentence
    Answers.content = {"/info": (500, {"message": "daemon is broken"})}
    (sentence,) = engine.answer({**QUESTION, "socket": place})["problems"]
    assert sentence == "The Docker Engine answers /info with 500: daemon is broken"


def test_a_user_who_may_not_use_the_socket_is_told_the_group(place: str) -> None:
    os.chmod(place, 0)
    for folder in [Path(place).parent, *list(Path(place).parents)[1:-2]]:
        folder.chmod(folder.stat().st_mode | 0o011)
    # Root may use any socket.
    drop = [] if os.geteuid() else ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run(
        [*drop, "/usr/bin/env", "python3", "-", json.dumps({**QUESTION, "socket": place})],
        input=(FILES / "engine.py").read_text(),
        capture_output=True,
        text=True,
        check=True,
    )
    (sentence,) = json.loads(done.stdout)["problems"]
    assert f"may not use Docker's socket {place}" in sentence and "become: true" in sentence


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver's program, which prints what it printed on a host with two GPUs, one of them
    divided.
    """
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{LISTED}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def test_gpus_by_index_and_uuid(gpus: Path) -> None:
    assert host.gpu_problems("all") == []
    assert (
        host.gpu_problems(
            [
                0,
                "1",
                "GPU-33333333-aaaa-bbbb-cccc-444444444444",
                "MIG-55555555-aaaa-bbbb-cccc-666666666666",
            ]
        )
        == []
    )
    (sentence,) = host.gpu_problems([1, 2])
    assert sentence.startswith(
        "triton_gpus names GPU 2, which this host does not have; it has 0 (NVIDIA H200, GPU-1111"
    )


def test_a_driver_that_does_not_work(gpus: Path) -> None:
    gpus.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    (sentence,) = host.gpu_problems("all")
    assert "no working NVIDIA driver" in sentence
    gpus.unlink()
    assert host.gpu_problems([0]) == [sentence]


def test_drivers_and_compute_capabilities(gpus: Path) -> None:
    """An old driver refuses a question that it does not know."""
    assert [card["driver"] for card in host.cards()] == []
    gpus.write_text(
        "#!/bin/sh\ncase $1 in *compute_cap*) echo 'Field \"compute_cap\" is not a valid field';"
        " exit 2;; esac\necho '0, GPU-1, NVIDIA T4, 450.51'\n"
    )
    old = {"index": "0", "uuid": "GPU-1", "name": "NVIDIA T4", "driver": "450.51"}
    assert host.cards() == [{**old, "compute_capability": ""}]
    gpus.write_text("#!/bin/sh\necho '0, GPU-1, NVIDIA T4, 450.51, 7.5'\n")
    assert host.cards() == [{**old, "compute_capability": "7.5"}]
    assert host.answer({"cards": True})["cards"] == host.cards()
    assert host.answer({})["cards"] == []
    gpus.unlink()
    assert host.cards() == []


def test_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = str(tmp_path / "not" / "yet")
    assert host.disk_problem("triton_home", below, 0) is None
    assert "MiB are free and 999999999 are wanted (triton_min_free)" in host.disk_problem(
        "triton_home", below, 999999999
    )
    real = os.statvfs(tmp_path)
    broken = os.statvfs_result((*real[:8], real.f_flag | os.ST_RDONLY, real.f_namemax))
    monkeypatch.setattr(host.os, "statvfs", lambda path: broken)
    assert "lies on a read-only file system" in host.disk_problem("triton_home", below, 0)


def test_files_that_the_servers_user_cannot_read(tmp_path: Path) -> None:
    key, there = tmp_path / "key.pem", {"triton_grpc_tls.key": str(tmp_path / "key.pem")}
    (sentence,) = host.reading_problems("", there, False)
    assert sentence == f"triton_grpc_tls.key: {key} does not exist on this host."
    key.write_text("key")
    assert host.reading_problems("", there, False) == []
    key.chmod(0)
    user = "nobody" if os.geteuid() == 0 else ""
    (sentence,) = host.reading_problems(user, there, False)
    assert "cannot be read by the server's user" in sentence
    # A container sees the file itself, whatever the folders above it allow.
    key.chmod(0o444)
    tmp_path.chmod(0o700)
    if user:
        assert host.reading_problems(user, there, True) == []
        assert len(host.reading_problems("no-such-user", there, False)) == 1


def test_where_a_repository_says_its_state_is(tmp_path: Path) -> None:
    assert host.marked_state(str(tmp_path / "models")) == ""
    (tmp_path / ".mlops-triton.json").write_text('{"schema": 1, "state_dir": "../state"}')
    assert host.marked_state(str(tmp_path)) == str(tmp_path.parent / "state")
