# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine lacks is said in one sentence each: tools/preflight.py and the host questions of
the roles.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import pwd
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
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


# -- what root is to run, or to write into ---------------------------------------------------------

STRANGER = 64123
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root trusts nobody else")


def trust(host: Any, path: Path, **more: Any) -> list[str]:
    place = {"option": "triton_home", "path": str(path), **more}
    question = {"trusted": [place], "trusted_option": "triton_trusted_users"}
    return list(host.trust_problems(question))


@as_root
def test_a_folder_of_somebody_else_is_no_place_for_what_root_runs(
    host: Any, tmp_path: Path
) -> None:
    """And each remedy that the sentence names helps."""
    home = tmp_path / "above" / "home"
    home.mkdir(parents=True)
    assert trust(host, home) == []
    cases: list[tuple[Callable[[], None], str]] = [
        (lambda: os.chown(home.parent, STRANGER, -1), f"chown root {home.parent}"),
        (lambda: os.chown(home, STRANGER, -1), f"chown root {home}"),
        (lambda: home.parent.chmod(0o777), f"chmod o-w {home.parent}"),
        (lambda: home.chmod(0o1777), f"chmod o-w {home}"),
    ]
    for spoil, remedy in cases:
        spoil()
        (sentence,) = trust(host, home)
        assert f"close it ({remedy})" in sentence
        if "chown" in remedy:
            question = {"trusted": [{"option": "", "path": str(home)}]}
            assert host.trust_problems({**question, "trusted_users": [str(STRANGER)]}) == []
        subprocess.run(remedy.split(), check=True)
        assert trust(host, home) == []


@as_root
def test_what_is_sticky_or_closed_to_others_is_fine_above(host: Any, tmp_path: Path) -> None:
    for mode in (0o1777, 0o1775, 0o775, 0o755):
        above = tmp_path / str(mode)
        (above / "home").mkdir(parents=True)
        above.chmod(mode)  # its group is root's
        assert trust(host, above / "home") == []
        assert trust(host, above / "home" / "not" / "there") == []


@as_root
def test_a_link_of_somebody_else_is_not_followed(host: Any, tmp_path: Path) -> None:
    (tmp_path / "real/home").mkdir(parents=True)
    tmp_path.chmod(0o1777)
    link = tmp_path / "link"
    link.symlink_to("real")
    assert trust(host, link / "home") == []
    os.chown(link, STRANGER, -1, follow_symlinks=False)
    (sentence,) = trust(host, link / "home")
    assert sentence.endswith(
        f"{link} is a link of the user {STRANGER}, who can lead it elsewhere:"
        f" remove it (rm {link})."
    )
    link.unlink()
    assert trust(host, link / "home") == []


@as_root
def test_an_environment_that_somebody_else_can_change_is_not_run(host: Any, tmp_path: Path) -> None:
    packages = tmp_path / "venv/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "venv/bin").mkdir()
    (tmp_path / "venv/bin/python").symlink_to(Path(sys.executable).resolve())
    assert trust(host, tmp_path / "venv", venv=True) == []
    for path in (packages, tmp_path / "venv/bin"):
        os.chown(path, STRANGER, -1)
        (sentence,) = trust(host, tmp_path / "venv", venv=True)
        assert f"chown root {path}" in sentence
        os.chown(path, 0, -1)


@as_root
def test_a_folder_that_is_taken_back_is_judged_by_what_is_above(host: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    os.chown(log, STRANGER, -1)
    assert len(trust(host, log)) == 1
    assert trust(host, log, above=True) == []


def test_no_link_and_no_pipe_is_read_for_what_it_says(host: Any, tmp_path: Path) -> None:
    """The note of a repository is shown to the user: it must not be root's secret."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / "secret").write_text("secret")
    (theirs / "note").symlink_to(tmp_path / "secret")
    os.mkfifo(theirs / "pipe")
    (theirs / "long").write_text("x" * (1 << 20))
    assert host.read_or_none(str(theirs / "note")) == "secret"  # one's own link
    assert host.read_or_none(str(theirs / "pipe")) is None
    assert len(host.read_or_none(str(theirs / "long"))) == host.SMALL
    if os.geteuid() == 0:
        os.chown(theirs, STRANGER, -1)
        assert host.read_or_none(str(theirs / "note")) is None


@as_root
def test_a_marker_of_somebody_else_leads_root_nowhere(host: Any, tmp_path: Path) -> None:
    marker = tmp_path / ".mlops-triton.json"
    marker.write_text('{"schema": 1, "state_dir": "/root"}')
    assert host.marked_state(str(tmp_path)) == "/root"
    assert host.marker_problem(str(tmp_path)) is None
    os.chown(marker, STRANGER, -1)
    assert host.marked_state(str(tmp_path)) == ""
    sentence = host.marker_problem(str(tmp_path))
    assert f"(chown root {marker})" in sentence and "/root" in sentence
    assert host.marker_problem(str(tmp_path), [str(STRANGER)]) is None
    assert host.marked_state(str(tmp_path), [str(STRANGER)]) == "/root"
    os.chown(marker, 0, -1)
    assert host.marker_problem(str(tmp_path)) is None
    os.chown(marker, STRANGER, -1)
    marker.write_text('{"schema": 1, "state_dir": ".mlops-triton"}')
    assert host.marker_problem(str(tmp_path)) is None


@as_root
def test_a_neighbours_process_is_not_taken_for_the_server(host: Any) -> None:
    """It would be asked with the admin key."""
    code = (
        "import os, socket, time; os.setgid(64123); os.setuid(64123);"
        " s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True);"
        " time.sleep(60)"
    )
    # Apart from this process, as its child would be root's.
    apart = f"import os; os.fork() and os._exit(0); os.setsid(); {code}"
    with subprocess.Popen(
        [sys.executable, "-I", "-c", apart],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, host.SERVICE_VARIABLE: "here:theirs", host.DIGEST_VARIABLE: "abc"},
    ) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        (pid,) = host.port_holders(port)
        try:
            assert host.environment_of(pid)[host.SERVICE_VARIABLE] == "here:theirs"
            assert "is taken by" in host.port_problem("127.0.0.1", port, "p", "here:theirs")
            assert host.running_digests("here:theirs") == []
        finally:
            os.kill(pid, signal.SIGKILL)


# -- what older releases gave to the server's user -------------------------------------------------


@pytest.fixture
def take_back() -> Any:
    path = HOST.with_name("take_back.py")
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))
    specification = importlib.util.spec_from_file_location("take_back", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@as_root
def test_what_the_servers_user_owned_is_roots_and_his_links_lead_nowhere(
    host: Any, take_back: Any, tmp_path: Path
) -> None:
    user = pwd.getpwnam("nobody")
    canary = tmp_path / "canary"
    canary.write_text("canary")
    os.chown(canary, user.pw_uid, -1)
    models, log = tmp_path / "models", tmp_path / "log"
    (models / "network/1").mkdir(parents=True)
    log.mkdir()
    program = models / "network/1/model.py"
    program.write_text("program")
    program.chmod(0o4777)
    (models / "link").symlink_to(tmp_path)
    (models / ".mlops-triton.json").write_text("forged")
    (models / "network/canary").symlink_to(canary)
    (log / "triton.log").symlink_to(canary)
    (log / "triton.log.1").mkdir()
    (log / "other.log").write_text("theirs")
    (log / "supervisord.log").write_text("root's")
    for top, names, files in [*os.walk(models), *os.walk(log)]:
        for path in (top, *(os.path.join(top, name) for name in names + files)):
            if not path.endswith("supervisord.log"):
                os.chown(path, user.pw_uid, -1, follow_symlinks=False)
    program.chmod(0o4777)
    names = ["supervisord.log", "triton.log"]
    logs = {"folder": str(log), "names": names}
    request = {"user": "nobody", "folders": [str(models), str(log)], "logs": logs}
    assert host.given_of(str(models), "nobody") == "folder"
    assert host.planted_logs(logs) == [str(log / "triton.log"), str(log / "triton.log.1")]

    foretold = take_back.carry_out({**request, "check": True})
    assert os.stat(models).st_uid == user.pw_uid and (log / "triton.log").is_symlink()
    assert take_back.carry_out({**request, "check": False}) == foretold
    assert take_back.carry_out({**request, "check": False}) == []
    assert host.given_of(str(models), "nobody") == "" == host.given_of(str(log), "nobody")
    assert host.planted_logs(logs) == []

    # A marker of root's would be believed.
    assert (models / ".mlops-triton.json").stat().st_uid == user.pw_uid
    assert canary.stat().st_uid == user.pw_uid and canary.read_text() == "canary"
    assert program.stat().st_uid == 0 and program.stat().st_mode & 0o6002 == 0
    assert sorted(path.name for path in log.iterdir()) == ["other.log", "supervisord.log"]
    assert (log / "supervisord.log").read_text() == "root's"


@as_root
def test_what_has_a_second_name_elsewhere_does_not_become_roots(
    take_back: Any, tmp_path: Path
) -> None:
    user = pwd.getpwnam("nobody")
    models, elsewhere = tmp_path / "models", tmp_path / "theirs"
    models.mkdir()
    elsewhere.mkdir()
    (models / "forged.json").write_text("{}")
    (models / "link").symlink_to("/etc")
    for name in ("forged.json", "link"):
        os.link(models / name, elsewhere / name, follow_symlinks=False)
        os.chown(models / name, user.pw_uid, -1, follow_symlinks=False)
    os.chown(models, user.pw_uid, -1)
    take_back.carry_out({"user": "nobody", "folders": [str(models)], "check": False})
    assert models.stat().st_uid == 0
    assert {path.lstat().st_uid for path in elsewhere.iterdir()} == {user.pw_uid}


@as_root
def test_folders_without_end_stop_the_taking_back_in_a_sentence(
    take_back: Any, tmp_path: Path
) -> None:
    deep = tmp_path.joinpath(*["d"] * 1000)
    here = os.open(tmp_path, os.O_RDONLY)
    for _level in deep.relative_to(tmp_path).parts:
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    request = {"user": "nobody", "folders": [str(tmp_path)], "check": True}
    with pytest.raises(OSError, match="more than 100 deep") as caught:
        take_back.carry_out(request)
    assert caught.value.filename == str(tmp_path)
    subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)
    assert take_back.carry_out(request) == []


@as_root
def test_an_access_control_list_opens_a_folder_of_roots_group(host: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    os.chown(tmp_path, 0, 0)
    assert host._open_to_others(str(tmp_path), {0}, sticky=True) is None
    user = pwd.getpwnam("nobody").pw_uid
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 7, user), (4, 5, nobody), (16, 7, nobody), (32, 5, nobody)]
    listed = b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(tmp_path, "system.posix_acl_access", struct.pack("<I", 2) + listed)
    said = host._open_to_others(str(tmp_path), {0}, sticky=True)
    assert said and "access control list" in said and "chmod g-w" in said
    subprocess.run(["chmod", "g-w", str(tmp_path)], check=True)
    assert host._open_to_others(str(tmp_path), {0}, sticky=True) is None


def test_programs_of_the_roles_import_nothing_from_where_the_connection_begins() -> None:
    """Python reads modules from that folder, root's or another user's, unless it is isolated."""
    for path in HOST.parents[2].glob("*/tasks/*.yml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"""python }}["'], ["']-m?["']""", line), f"{path}: {line}"


def test_a_host_without_the_user_has_given_nothing(take_back: Any, tmp_path: Path) -> None:
    request = {"user": "no-such-user", "folders": [str(tmp_path)], "logs": None, "check": False}
    assert take_back.carry_out(request) == []
