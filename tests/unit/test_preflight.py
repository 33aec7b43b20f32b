# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine lacks is said in one sentence each: tools/preflight.py and the host questions of
the roles.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import preflight
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / "roles/triton/files/host.py"


@pytest.fixture
def host() -> Any:
    return preflight.load_host()


@pytest.fixture
def listener() -> Any:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def test_another_python_is_the_only_thing_said(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.sys, "version_info", (3, 13, 0))
    monkeypatch.setattr(host, "has_shared_libpython", lambda: False)
    monkeypatch.setattr(host, "wheel_problems", list)
    (sentence,) = host.problems_of_this_host((3, 11), (3, 12), "install one of those", native=True)
    assert (
        sentence
        == f"Python 3.13 ({sys.executable}) does not fit, 3.11 to 3.12 do: install one of those."
    )


def test_the_advice_names_a_python_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "python3.12").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (
        preflight.advice()
        == "this machine has python3.12, so add PYTHON=python3.12 to the make command"
    )


def test_a_shim_without_an_interpreter_behind_it_is_not_advised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install python3.11-venv" in preflight.advice()


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        (
            "glibc_version",
            lambda: (2, 31),
            "needs glibc 2.35 or newer, this host has 2.31: use Debian 12",
        ),
        ("glibc_version", lambda: None, "this host has another C library"),
        ("has_shared_libpython", lambda: False, "apt-get install libpython3."),
    ],
)
def test_a_missing_part_is_named_with_its_remedy(
    host: Any, monkeypatch: pytest.MonkeyPatch, attribute: str, value: Any, words: str
) -> None:
    monkeypatch.setattr(host, attribute, value)
    (sentence,) = host.problems_of_this_host((3, 8), (3, 99), "", native=True)
    assert words in sentence


def test_another_processor_is_named(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.platform, "machine", lambda: "aarch64")
    assert "this is Linux on aarch64" in host.wheel_problems()[0]


def test_a_python_without_venv_is_told_what_to_install(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    (sentence,) = host.python_problems((3, 8), (3, 99), "")
    assert "apt-get install python3." in sentence
    assert "-venv" in sentence


def test_a_taken_port_names_its_holder_and_the_option(host: Any, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    sentence = host.port_problem("127.0.0.1", port, "triton_http_port", "somebody")
    assert sentence.startswith(f"Port {port} on 127.0.0.1 is taken by ")
    assert sentence.endswith(
        f"(process {os.getpid()}): stop that, or set triton_http_port to a free port."
    )


def test_the_own_service_may_hold_its_port(host: Any) -> None:
    code = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1],"
        " flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, host.SERVICE_VARIABLE: "here:mine", host.DIGEST_VARIABLE: "abc"},
    ) as child:
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline())
            assert host.port_problem("127.0.0.1", port, "p", "here:mine") is None
            assert "is taken by" in host.port_problem("127.0.0.1", port, "p", "here:other")
            assert host.running_digests("here:mine") == ["abc"]
            assert host.stop_processes_of("here:mine", 5) == 1
        finally:
            child.kill()


@pytest.mark.parametrize("path", ["/opt/a b", "/opt/ü", "/opt/$x", "/opt/a'b"])
def test_paths_that_the_python_backend_cannot_use(host: Any, path: str) -> None:
    assert not host.is_plain(path)
    assert host.is_plain("/opt/mlops-triton/models_1.0")


def test_roles_ask_through_stdin() -> None:
    question = {
        "service": "nobody",
        "python": {"low": [3, 8], "high": [3, 99], "advice": ""},
        "exists": ["/", "/nowhere"],
        "stamps": ["/nowhere"],
        "plain": {"triton_home": "/a b"},
        "socket": "/" + "x" * 120,
        "socket_option": "some_socket",
    }
    done = subprocess.run(
        [sys.executable, "-", json.dumps(question)],
        input=HOST.read_text(),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["missing"] == ["/nowhere"]
    assert answer["stamps"] == {"/nowhere": None}
    assert [sentence.split(" ")[0] for sentence in answer["problems"]] == ["The", "triton_home"]
    assert answer["running"] == []


def test_numbers_may_be_texts(host: Any, listener: socket.socket) -> None:
    """An Ansible that is too old for the role passes them so, and has to hear that and no
    traceback.
    """
    port = str(listener.getsockname()[1])
    told = host.answer(
        {
            "disks": {"triton_home": "/"},
            "min_free": "999999999",
            "ports": [{"address": "127.0.0.1", "port": port, "option": "triton_http_port"}],
        }
    )
    taken, full = told["problems"]
    assert f"Port {port} on 127.0.0.1 is taken by" in taken
    assert "999999999 are wanted (triton_min_free)" in full


def test_the_first_that_a_role_says_is_that_ansible_is_too_old() -> None:
    tasks = yaml.safe_load((ROOT / "roles/triton/tasks/preflight.yml").read_text(encoding="utf-8"))
    first = tasks[0]
    assert "needs ansible-core 2.19 or newer" in first["ansible.builtin.fail"]["msg"]
    for version, is_refused in (("2.18.11", True), ("2.19.0", False), ("2.21.1", False)):
        templar = Templar(DataLoader(), variables={"ansible_version": {"full": version}})
        text = trust_as_template("{{ " + first["when"] + " }}")
        assert templar.template(text) is is_refused


def test_a_port_of_a_program_that_is_about_to_end_is_waited_for(
    host: Any, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are gone from /proc before its sockets are."""
    port = listener.getsockname()[1]
    monkeypatch.setattr(host, "port_holders", lambda _port: set())
    monkeypatch.setattr(host, "CLOSING", 0.3)
    assert "another program" in host.port_problem("127.0.0.1", port, "triton_http_port", "mine")
    monkeypatch.setattr(host, "CLOSING", 30.0)
    monkeypatch.setattr(host.time, "sleep", lambda _seconds: listener.close())
    assert host.port_problem("127.0.0.1", port, "triton_http_port", "mine") is None
