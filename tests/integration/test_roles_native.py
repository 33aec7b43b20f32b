# SPDX-License-Identifier: Apache-2.0
"""Roles triton and mlflow on this machine: without Docker, under supervisord."""

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
from typing import Any

import preflight
import pytest
import yaml
from support import models, servers
from support.native_roles import ready_made, variables
from support.playbooks import ansible_playbook, environment

pytestmark = [pytest.mark.long, pytest.mark.takes(100)]

host = preflight.load_host()


@dataclass
class Provisioned:
    """A host of both groups, everything of it in one folder."""

    folder: Path
    variables: dict[str, Any]

    def command(
        self, playbook: str, *arguments: str, only: str = "", **overrides: Any
    ) -> list[str]:
        inventory = self.folder / "inventory.yml"
        groups = {
            name: {"hosts": {"here": None}} for name in ("mlflow", "triton") if only in ("", name)
        }
        inventory.write_text(
            yaml.safe_dump({"all": {"vars": {**self.variables, **overrides}}, **groups})
        )
        return [
            *ansible_playbook(),
            "-i",
            str(inventory),
            f"mlops.triton.{playbook}",
            *arguments,
        ]

    def play(
        self, playbook: str, *arguments: str, **overrides: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(playbook, *arguments, **overrides),
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, playbook: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(playbook, only="triton"),
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def service(self, name: str) -> str:
        return f"{self.folder}/{name}:{name}"

    def pids(self, name: str) -> set[int]:
        return set(host.processes_of(self.service(name)))

    def program(self, name: str) -> int:
        """The server itself, not its supervisor and not its children."""
        (pid,) = {
            pid
            for pid in self.pids(name)
            if b"--port" in command(pid) or b"--http-port" in command(pid)
        } - self.children(name)
        return pid

    def children(self, name: str) -> set[int]:
        return {
            pid
            for pid in self.pids(name)
            if b"uvicorn" in command(pid) or b"python_backend_stub" in command(pid)
        }

    def supervisor(self, name: str) -> int:
        return int((self.folder / name / "supervisord.pid").read_text())


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def changes(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stdout + done.stderr
    return sum(
        int(number)
        for number in re.findall(r"changed=(\d+)", done.stdout.rpartition("PLAY RECAP")[2])
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provisioned]:
    folder = tmp_path_factory.mktemp("r")
    provisioned = Provisioned(folder, {**variables(folder), **ready_made()})
    try:
        assert changes(provisioned.play("provision")) > 0
        yield provisioned
    finally:
        for name in ("triton", "mlflow"):
            host.stop_processes_of(provisioned.service(name), 10)


def test_check_mode_on_a_bare_host_changes_nothing(tmp_path: Path) -> None:
    bare = Provisioned(tmp_path, variables(tmp_path))
    assert changes(bare.play("provision", "--check", "--diff")) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["inventory.yml"]


def test_without_the_listed_files_the_role_names_the_way_out(tmp_path: Path) -> None:
    """That the listed files are what an index has, Molecule's native scenarios show."""
    bare = Provisioned(tmp_path, variables(tmp_path))
    nothing = {"triton_pip_args": ["--no-index", "--find-links", str(tmp_path)]}
    command = bare.command("provision", only="triton", **nothing)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert done.returncode != 0
    assert f"The virtual environment {tmp_path}/triton/client of here could not be filled" in said
    assert "pip said: " in said and "No matching distribution" in said
    assert "set triton_locked_packages to false" in said
    assert not list((tmp_path / "triton").glob("*/.mlops-triton-complete"))
    assert "--hash=sha256:" in (tmp_path / "triton/requirements-client.txt").read_text()


def test_a_changed_variable_restarts_its_server_also_when_the_run_was_killed_in_between(
    here: Provisioned,
) -> None:
    here.variables["triton_extra_args"] = [
        "--disable-auto-complete-config",
        "--model-load-thread-count=2",
    ]
    triton, mlflow, settings = (
        here.program("triton"),
        here.program("mlflow"),
        here.folder / "triton/server.json",
    )
    written = settings.stat().st_mtime_ns
    with here.start("provision") as run:
        while settings.stat().st_mtime_ns == written:
            assert run.poll() is None
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
    assert here.program("triton") == triton
    assert changes(here.play("provision")) > 0
    assert here.program("triton") != triton
    assert here.program("mlflow") == mlflow


def test_both_servers_answer_and_a_second_run_changes_nothing(here: Provisioned) -> None:
    before = here.pids("triton") | here.pids("mlflow")
    assert changes(here.play("provision")) == 0
    assert here.pids("triton") | here.pids("mlflow") == before
    assert (
        servers.http(f"http://127.0.0.1:{here.variables['triton_http_port']}/v2/health/live")[0]
        == 200
    )
    assert servers.http(f"http://127.0.0.1:{here.variables['mlflow_port']}/health")[0] == 200


def test_check_mode_on_a_host_that_is_as_wanted_reports_no_change(here: Provisioned) -> None:
    assert changes(here.play("provision", "--check", "--diff", only="triton")) == 0


def test_the_store_uri_is_in_no_command_line_and_no_readable_file(here: Provisioned) -> None:
    settings = here.folder / "mlflow/server.json"
    assert "mlflow.db" in settings.read_text()
    assert settings.stat().st_mode & 0o077 == 0
    assert not [pid for pid in here.pids("mlflow") if b"mlflow.db" in command(pid)]


def test_a_server_that_was_killed_comes_back_with_what_was_deployed(here: Provisioned) -> None:
    sample = models.make_python(here.folder / "source")
    here.variables["triton_models"] = [{"name": sample.name, "model_uri": str(sample.folder)}]
    assert changes(here.play("deploy_models")) == 1
    assert changes(here.play("deploy_models")) == 0
    before = here.program("triton")
    os.kill(before, signal.SIGKILL)
    url = f"http://127.0.0.1:{here.variables['triton_http_port']}/v2/models/{sample.name}/infer"
    status, answer = answer_within(60, url, sample.request())
    assert status == 200
    assert sample.differences(answer) == []
    assert here.program("triton") != before
    removed = here.play("remove_models", triton_models_to_remove=[sample.name])
    assert changes(removed) == 1
    assert re.search(rf"here +{sample.name} +- +absent +changed", removed.stdout)


def answer_within(seconds: float, url: str, body: Any) -> tuple[int, Any]:
    end = time.monotonic() + seconds
    while True:
        try:
            status, answer = servers.http(url, body)
        except OSError:
            status, answer = 0, None
        if status == 200 or time.monotonic() > end:
            return status, answer
        time.sleep(0.2)


def test_a_stop_after_a_failed_reload_ends_before_the_supervisor_kills(here: Provisioned) -> None:
    url = f"http://127.0.0.1:{here.variables['triton_http_port']}"
    model = here.folder / "models/leaks"
    try:
        for fail, status in ((None, 200), ("broken", 400)):
            models.make_python(model.parent, model.name, fail=fail)
            assert servers.http(f"{url}/v2/repository/models/{model.name}/load", {})[0] == status
        control(here, "triton", "restart", "triton")
    finally:
        shutil.rmtree(model)
    logs = here.folder / "triton/log"
    # Otherwise Triton does not leak any more, and the role's page says too much.
    assert "Exit timeout expired" in (logs / "triton.log").read_text()
    said = (logs / "supervisord.log").read_text()
    assert "stopped: triton (exit status 1" in said and "killing 'triton'" not in said


def test_what_a_killed_supervisor_left_is_replaced(here: Provisioned) -> None:
    before = here.program("triton")
    os.kill(here.supervisor("triton"), signal.SIGKILL)
    assert changes(here.play("provision", only="triton")) > 0
    assert here.program("triton") != before
    assert not host.is_alive(before)


def test_workers_that_outlived_mlflow_do_not_keep_it_from_starting(here: Provisioned) -> None:
    before, workers = here.program("mlflow"), here.children("mlflow")
    os.kill(before, signal.SIGKILL)
    assert workers
    # Until then it is they who answer.
    end = time.monotonic() + 60
    while any(host.is_alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in workers if host.is_alive(pid)]
    url = f"http://127.0.0.1:{here.variables['mlflow_port']}/health"
    assert answer_within(60, url, None)[0] == 200
    assert changes(here.play("provision", only="mlflow")) == 0
    assert here.program("mlflow") != before


def test_a_taken_port_is_named_with_its_variable(here: Provisioned) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        done = here.play("provision", only="triton", triton_http_port=port)
    assert done.returncode != 0
    assert f"Port {port} on 127.0.0.1 is taken by" in done.stdout + done.stderr
    assert "set triton_http_port to a free port" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"triton_runtime": "docker", "triton_docker_host": "unix:///nowhere/docker.sock"},
            "There is no Docker Engine on this host",
        ),
        ({"triton_gpus": [99]}, "triton_gpus"),
        ({"triton_gpus": "0"}, "triton_gpus is a text or a number, and must be a list"),
        (
            {"triton_extra_args": "--log-verbose=1"},
            "triton_extra_args is a text or a number, and must be a list",
        ),
        ({"triton_min_free": 999999999}, "MiB are free and 999999999 are wanted"),
        (
            {"triton_grpc_tls": {"certificate": "/nowhere/cert.pem"}},
            "triton_grpc_tls.certificate: /nowhere/cert.pem does not exist",
        ),
        (
            {"triton_manage_venvs": True, "triton_python": "/nowhere/python3"},
            "/nowhere/python3 cannot be run",
        ),
        ({"triton_model_repository": "/tmp/a b"}, "triton_model_repository is '/tmp/a b'"),
        (
            {"triton_service_manager": "systemd"},
            "triton_service_manager: systemd needs a host that systemd started",
        ),
        (
            {"triton_supervisor_socket": "/tmp/" + "x" * 110},
            "set triton_supervisor_socket to a shorter one",
        ),
    ],
)
def test_what_cannot_work_is_one_sentence_and_changes_nothing(
    here: Provisioned, overrides: dict[str, Any], words: str
) -> None:
    if "systemd" in words and Path("/run/systemd/system").is_dir() and os.geteuid() == 0:
        pytest.skip("this machine has systemd")
    done = here.play("provision", only="triton", **overrides)
    assert done.returncode != 0
    assert words in re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert "Traceback" not in done.stdout + done.stderr


def test_what_fails_in_the_hosts_python_is_not_called_a_missing_python(
    here: Provisioned, tmp_path: Path
) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 'Traceback: no such thing as 16 MiB' >&2; exit 1\n")
    python.chmod(0o755)
    done = here.play(
        "provision", only="triton", triton_manage_venvs=True, triton_python=str(python)
    )
    assert done.returncode != 0
    assert "no such thing as 16 MiB" in done.stdout and "Report this" in done.stdout
    assert "install Python" not in done.stdout


def test_an_interpreter_that_wins_over_the_client_environment_is_named(here: Provisioned) -> None:
    words = ["-e", f"ansible_python_interpreter={sys.executable}"]
    elsewhere = {"triton_client_venv": "/nowhere/client"}
    done = here.play("provision", *words, only="triton", triton_runtime="docker", **elsewhere)
    assert done.returncode != 0
    assert "ansible_python_interpreter is set as an extra variable" in done.stdout
    assert "Set it in the inventory" in re.sub(r"\s+", " ", done.stdout)


def test_the_admin_key_is_in_no_output(here: Provisioned) -> None:
    done = here.play(
        "provision", "-vvv", "--diff", only="triton", triton_admin_key={"secret": "Sesame-4714"}
    )
    assert changes(done) > 0
    assert (
        "TASK [mlops.triton.triton : Check that models are loaded on request only]" in done.stdout
    )
    assert "Sesame-4714" not in done.stdout + done.stderr


def control(here: Provisioned, name: str, *words: str) -> None:
    configuration = here.folder / name / "supervisord.conf"
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(configuration), *words]
    subprocess.run(command, check=True, timeout=60)


def shut_down(here: Provisioned, name: str) -> None:
    control(here, name, "shutdown")
    end = time.monotonic() + 30
    while here.pids(name) and time.monotonic() < end:
        time.sleep(0.1)


def test_stopping_the_supervisor_stops_everything(here: Provisioned) -> None:
    for name in ("triton", "mlflow"):
        shut_down(here, name)
        assert not here.pids(name)


def test_the_command_of_the_roles_pages_starts_what_a_reboot_ended(here: Provisioned) -> None:
    health = {
        "triton": ("triton_http_port", "/v2/health/live"),
        "mlflow": ("mlflow_port", "/health"),
    }
    for name, (port, path) in health.items():
        here.play("provision", only=name)  # whatever the tests before left
        shut_down(here, name)
        page = (Path(__file__).parents[2] / f"roles/{name}/README.md").read_text(encoding="utf-8")
        (line,) = set(re.findall(r"`(<\w+>/bin/supervisord -c <\w+>/supervisord.conf)`", page))
        words = [
            re.sub(r"<(\w+)>", lambda match: str(here.variables[match.group(1)]), word)
            for word in line.split()  # before: folders may have spaces
        ]
        subprocess.run(words, check=True, timeout=60, cwd="/")
        try:
            url = f"http://127.0.0.1:{here.variables[port]}{path}"
            assert answer_within(60, url, None)[0] == 200
            done = here.play("provision", only=name)
            assert changes(done) == 0, done.stdout
        finally:
            shut_down(here, name)
