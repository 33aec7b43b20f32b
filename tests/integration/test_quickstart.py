# SPDX-License-Identifier: Apache-2.0
"""The quickstart from beginning to end, with the environments of this checkout and a home of its
own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import preflight
import pytest
from support import servers
from support.playbooks import ROOT

pytestmark = pytest.mark.takes(90)

host = preflight.load_host()
# As make runs it: with a Python that is in no environment.
PYTHON = getattr(sys, "_base_executable", sys.executable)
PORTS = ("MLFLOW_PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")


@dataclass
class Quickstart:
    home: Path
    ports: dict[str, int]

    def environment(self, **more: str) -> dict[str, str]:
        # What a user's shell may hold, none of which may matter.
        hostile = {
            "http_proxy": "http://127.0.0.1:9",
            "ANSIBLE_STDOUT_CALLBACK": "nonsense",
            "ANSIBLE_CHECK_MODE": "1",
            "LC_ALL": "C",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "TRITON_URL": "127.0.0.1:9",
        }
        ports = {name: str(port) for name, port in self.ports.items()}
        return {**os.environ, **hostile, **ports, "QUICKSTART_HOME": str(self.home), **more}

    def run(self, command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PYTHON, str(ROOT / "tools/quickstart.py"), command],
            env=self.environment(**more),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=400,
            check=False,
        )

    def start(self, command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [PYTHON, str(ROOT / "tools/quickstart.py"), command],
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def base(self) -> Path:
        return (
            (self.home / "servers").resolve() if (self.home / "servers").is_symlink() else self.home
        )

    def pids(self) -> set[int]:
        return {
            pid
            for name in ("mlflow", "triton")
            for pid in host.processes_of(f"{self.base}/{name}:{name}")
        }

    def loads(self) -> int:
        return (self.base / "triton/log/triton.log").read_text().count('] "loading: ')


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    if Path(sys.prefix).resolve() != (ROOT / ".venv/control").resolve():
        pytest.skip(
            "the quickstart would make this checkout's environments again, for another Python"
        )
    # A path that Triton's Python backend cannot use.
    made = Quickstart(
        tmp_path_factory.mktemp("q") / "a b ü", dict(zip(PORTS, servers.free_ports(4), strict=True))
    )
    try:
        yield made
    finally:
        made.run("down")
        if made.base != made.home:
            shutil.rmtree(made.base, ignore_errors=True)


def test_a_taken_port_is_named_with_its_variable_before_anything_starts(
    quickstart: Quickstart,
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        done = quickstart.run("up", TRITON_GRPC_PORT=str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Port {port} on 127.0.0.1 is taken by ")
    assert "set TRITON_GRPC_PORT to a free port" in done.stderr
    assert not quickstart.pids()


@pytest.mark.parametrize("value", ["many", "0", "70000"])
def test_a_wrong_port_is_a_sentence(quickstart: Quickstart, value: str) -> None:
    assert (
        quickstart.run("up", MLFLOW_PORT=value).stderr
        == f"MLFLOW_PORT must be a port number, not {value!r}.\n"
    )


def test_an_interrupted_run_is_completed_by_the_next(quickstart: Quickstart) -> None:
    with quickstart.start("up") as run:
        while not (quickstart.base / "mlflow/server.json").exists():
            assert run.poll() is None
            time.sleep(0.05)
        # Only this process: what it had started goes on, and the next run has to deal with it.
        os.kill(run.pid, signal.SIGKILL)
    done = quickstart.run("up")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\w+) +1 +1 +READY +[0-9a-f]{12} +correct$", done.stdout, re.MULTILINE)
    assert rows == ["doubler", "forest", "network"]
    assert f"MLflow: http://127.0.0.1:{quickstart.ports['MLFLOW_PORT']}/" in done.stdout
    assert f"Triton: http://127.0.0.1:{quickstart.ports['TRITON_HTTP_PORT']}/" in done.stdout


def test_a_second_run_changes_nothing_and_loads_nothing(quickstart: Quickstart) -> None:
    before, loads = quickstart.pids(), quickstart.loads()
    assert loads >= 3
    done = quickstart.run("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"changed=(\d+)", done.stdout) == ["0", "0", "0"]
    assert quickstart.loads() == loads
    assert quickstart.pids() == before


def test_down_stops_what_up_started_and_nothing_else(quickstart: Quickstart) -> None:
    assert quickstart.pids()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert quickstart.run("down").stdout == "stopped\n"
        assert listening.fileno() >= 0
    assert not quickstart.pids()
    assert quickstart.run("down").stdout == "nothing was running\n"


def test_clean_removes_what_was_made_also_when_it_is_half_made(tmp_path: Path) -> None:
    for name in (
        "tools/quickstart.py",
        "tools/preflight.py",
        "tests/support/models.py",
        "roles/triton/files/host.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv/control/bin").mkdir(parents=True)
    (tmp_path / ".quickstart/triton").mkdir(parents=True)
    (tmp_path / ".quickstart/triton/supervisord.pid").write_text("1\n")
    (tmp_path / "kept").write_text("mine")
    made = {".quickstart", ".venv"}
    kept = sorted(
        path.relative_to(tmp_path) for path in tmp_path.rglob("*") if not made & set(path.parts)
    )
    environment = {key: value for key, value in os.environ.items() if key != "QUICKSTART_HOME"}
    for _again in range(2):
        subprocess.run(
            [sys.executable, str(tmp_path / "tools/quickstart.py"), "clean"],
            env=environment,
            check=True,
            timeout=60,
        )
        assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == kept
