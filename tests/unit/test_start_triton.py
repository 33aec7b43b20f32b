# SPDX-License-Identifier: Apache-2.0
"""The start wrapper without a server: settings, records, command, backend folder, sentences."""

from __future__ import annotations

import ast
import contextlib
import http.server
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "triton" / "files"
PROGRAM = FILES / "start_triton"
# As the program itself does, when it is run as a folder.
sys.path[:0] = [str(FILES), str(ROOT / "plugins" / "module_utils")]

import host  # noqa: E402
from _delivery.domain.journal import Move  # noqa: E402
from _delivery.errors import RepositoryError  # noqa: E402
from _delivery.repository import recovery  # noqa: E402
from _delivery.repository.folder import FolderRepository  # noqa: E402
from _delivery.repository.state_store import MARKER, StateStore  # noqa: E402
from start_triton import (  # noqa: E402
    backends,
    checks,
    command,
    failures,
    folder,
    installation,
    leftovers,
    settings,
)

# The core reads journal and marker strictly once they are types; take this away with that change.


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """Settings of a container, which need no PyPI server, with ports of their own."""
    server = tmp_path / "tritonserver"
    server.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nprintf "colour %s\\n" "$COLOUR"\n')
    server.chmod(0o755)
    (tmp_path / "models").mkdir()
    return {
        "runtime": "container",
        "model_repository": str(tmp_path / "models"),
        "tritonserver": str(server),
        "http_port": free_port(),
        "grpc_port": free_port(),
        "metrics_port": False,
    }


@pytest.fixture
def pytriton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The shape of nvidia-pytriton in site-packages."""
    site = tmp_path / "site-packages"
    base = site / "pytriton" / "tritonserver"
    stub = (
        base
        / "python_backend_stubs"
        / "{}.{}".format(*sys.version_info[:2])
        / "triton_python_backend_stub"
    )
    files = {
        site / "pytriton" / "__init__.py": b"",
        base / "bin" / "tritonserver": b"server",
        base / "backends" / "python" / "libtriton_python.so": b"library",
        base / "backends" / "python" / "triton_python_backend_utils.py": b"utilities",
        base / "caches" / "local" / "libtritoncache_local.so": b"cache",
        stub: b"stub",
        site / "nvidia_pytriton.libs" / "libx.so": b"x",
    }
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return installation.find_installation()


def run(
    values: dict[str, Any], tmp_path: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "server.json"
    config.write_text(json.dumps(values))
    return subprocess.run(
        [sys.executable, str(PROGRAM), "--config", str(config), *arguments],
        check=False,
        text=True,
        capture_output=True,
        timeout=30,
    )


def record(state: Path, name: str, content: Any) -> None:
    folder = state / "records"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(
        content if isinstance(content, str) else json.dumps(content)
    )


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_repository": None}, "model_repository is missing"),
        ({"modelrepository": "x"}, "unknown key modelrepository"),
        ({"runtime": "podman"}, "native or container"),
        ({"http_port": 70000}, "http_port"),
        ({"http_port": "8000"}, "http_port"),
        ({"metrics_port": True}, "metrics_port"),
        ({"http_port": 0, "grpc_port": False}, "both switched off"),
        ({"runtime": "native"}, "backend_directory is missing"),
        ({"extra_args": "--x"}, "extra_args"),
        ({"admin_key": {"name": "k"}}, "secret_file"),
        ({"grpc_tls": {"certificate": "c"}}, "certificate and key"),
        ({"run_as": ["triton", "triton"]}, "numbers of a user"),
    ],
)
def test_settings_that_are_refused(
    values: dict[str, Any], change: dict[str, Any], word: str
) -> None:
    with pytest.raises(failures.StartError, match=word):
        settings.make_settings({**values, **change})


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_unreadable_configuration_is_one_sentence(tmp_path: Path, content: str) -> None:
    config = tmp_path / "server.json"
    config.write_text(content)
    with pytest.raises(failures.StartError, match=r"server\.json"):
        settings.read_settings(str(config))


# ---- records -------------------------------------------------------------------------------------


def test_records_decide_what_is_loaded(values: dict[str, Any], tmp_path: Path) -> None:
    state = tmp_path / "state"
    for name in ("a", "b", "c", "newer", "foreign"):
        (tmp_path / "models" / name).mkdir()
    record(state, "a", {"schema": 1, "name": "a", "wanted": "loaded", "more": []})
    record(state, "b", {"schema": 1, "name": "b", "wanted": "unloaded"})
    record(state, "c", {"schema": 1, "name": "c", "wanted": "loaded"})
    record(state, "gone", {"schema": 1, "name": "gone", "wanted": "loaded"})
    newer = {"schema": 99, "name": "newer", "wanted": "loaded", "manifest": 3, "lanes": [{}]}
    record(state, "newer", newer)
    record(state, "broken", "{")
    record(state, "list", [])
    record(state, "star", {"schema": 1, "name": "*", "wanted": "loaded"})
    record(state, "wish", {"schema": 1, "name": "foreign", "wanted": "maybe"})
    record(state, "short", {"schema": 1, "wanted": "loaded"})
    made = command.make_command(settings.make_settings({**values, "state_dir": str(state)}))
    assert [word for word in made.argv if word.startswith("--load-model")] == [
        "--load-model=a",
        "--load-model=c",
        "--load-model=newer",
    ]
    assert len(made.warnings) == 6
    for name in ("gone", "broken", "list", "star", "wish", "short"):
        assert sum(f"{name}" in warning for warning in made.warnings) >= 1


PYTHON = 'backend: "python"  # in Python\n'


@pytest.mark.parametrize(
    ("config", "files", "lacks"),
    [
        (PYTHON, ["1/model.py"], None),
        (PYTHON, ["1/main.py"], "version folder 1 has no model.py"),
        (PYTHON, ["1/model.py", "2/main.py"], "version folder 2 has no model.py"),
        (PYTHON, ["1/main.py", "2/model.py"], None),
        (PYTHON + 'default_model_filename: "main" ".py"', ["1/main.py"], None),
        (PYTHON + "default_model_filename: 'x.py'", ["1/model.py"], "has no x.py"),
        (PYTHON + "version_policy: { all {} }", ["1/main.py", "2/model.py"], "folder 1 has no"),
        (
            PYTHON + "version_policy { specific { versions: [ 1, 0x2 ] } }",
            ["1/main.py", "2/model.py", "3/main.py"],
            "folder 1 has no",
        ),
        (PYTHON + "version_policy { latest { num_versions: 2 } }", ["1/a.py", "2/model.py"], "1"),
        (PYTHON + "version_policy { latest { } }", ["1/main.py"], None),
        ("# python\nbackend: 'onnxruntime'", ["1/main.py"], None),
        ("# gr\udcf6\udcdfe\n" + PYTHON, ["1/main.py"], "version folder 1 has no model.py"),
        ("backend: { python", ["1/main.py"], None),
        ('parameters { key: "backend" value { string_value: "python" } }', ["1/main.py"], None),
    ],
)
def test_a_model_for_whose_python_file_triton_would_wait_without_end_is_left_out(
    values: dict[str, Any], tmp_path: Path, config: str, files: list[str], lacks: str | None
) -> None:
    state = tmp_path / "state"
    for name in ("lacking", "other"):
        for path in files if name == "lacking" else ["1/model.py"]:
            (tmp_path / "models" / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "models" / name / path).write_text("")
        (tmp_path / "models" / name / "config.pbtxt").write_bytes(
            (config if name == "lacking" else PYTHON).encode(errors="surrogateescape")
        )
        record(state, name, {"schema": 1, "name": name, "wanted": "loaded", "author": "python"})
    made = command.make_command(settings.make_settings({**values, "state_dir": str(state)}))
    assert "--load-model=other" in made.argv
    assert ("--load-model=lacking" in made.argv) is (lacks is None)
    assert [lacks in said for said in made.warnings if lacks] == ([True] if lacks else [])
    assert all(said.startswith("Model lacking is left out: ") for said in made.warnings)


def test_marker_says_where_the_state_is(values: dict[str, Any], tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "a").mkdir()
    record(tmp_path / "state", "a", {"schema": 1, "name": "a", "wanted": "loaded"})
    chosen = settings.make_settings(values)
    assert "--load-model=a" not in command.make_command(chosen).argv
    (models / MARKER).write_text(json.dumps({"schema": 1, "state_dir": "../state"}))
    assert folder.find_state(chosen) == (tmp_path / "state", [])
    assert "--load-model=a" in command.make_command(chosen).argv


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"schema": 1}',
        '{"schema": 9, "state_dir": "x"}',
        pytest.param('{"schema": 1, "state_dir": 3}'),
    ],
)
def test_unusable_marker_is_a_warning(values: dict[str, Any], tmp_path: Path, content: str) -> None:
    (tmp_path / "models" / MARKER).write_text(content)
    place, warnings = folder.find_state(settings.make_settings(values))
    assert place is None
    assert len(warnings) == 1


def test_store_that_does_not_answer_is_asked_by_another_start(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values.update(model_repository="s3://http://127.0.0.1:9/bucket/models")
    assert not any(
        "model repository" in sentence
        for sentence in checks.problems(settings.make_settings(values))
    )
    done = run(values, tmp_path)
    assert done.returncode == failures.EXIT_LATER
    assert (
        "The model repository cannot be read: " in done.stderr and "does not answer" in done.stderr
    )
    assert "Traceback" not in done.stderr


# ---- command -------------------------------------------------------------------------------------


def test_command(values: dict[str, Any]) -> None:
    values.update(
        exit_timeout=7,
        shm_region_prefix="mine",
        extra_args=["--log-verbose=1"],
        environment={"N": 3},
    )
    made = command.make_command(settings.make_settings(values))
    assert made.argv == [
        values["tritonserver"],
        f"--model-repository={values['model_repository']}",
        "--model-control-mode=explicit",
        "--strict-readiness=false",
        "--exit-on-error=false",
        "--http-address=127.0.0.1",
        f"--http-port={values['http_port']}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={values['grpc_port']}",
        "--allow-metrics=false",
        "--exit-timeout-secs=7",
        "--backend-config=python,shm-region-prefix-name=mine",
        "--log-verbose=1",
    ]
    assert made.environment["N"] == "3"


def test_clients_share_memory_on_request_only(values: dict[str, Any]) -> None:
    """A release that does not know the flag would not start with it."""
    for value, passed in ((None, 0), (False, 0), (True, 1)):
        made = command.make_command(
            settings.make_settings({**values, "client_shared_memory": value})
        )
        assert made.argv.count("--allow-client-shm=true") == passed
        assert len([word for word in made.argv if "client-shm" in word]) == passed
    with pytest.raises(failures.StartError, match="client_shared_memory must be true or false"):
        settings.make_settings({**values, "client_shared_memory": "yes"})


def test_admin_key_is_masked(values: dict[str, Any], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    values["admin_key"] = {"name": "admin", "secret_file": str(secret)}
    made = command.make_command(settings.make_settings(values))
    assert (
        "--http-restricted-api=model-repository,model-config,shared-memory,trace,logging:admin=hunter2"
        in made.argv
    )
    assert (
        "--grpc-restricted-protocol=model-repository,model-config,shared-memory,trace,logging:admin=hunter2"
        in made.argv
    )
    done = run(values, tmp_path, "--print")
    assert done.returncode == 0
    assert "hunter2" not in done.stdout + done.stderr
    assert done.stdout.count(command.MASK) == 2


@pytest.mark.parametrize("content", [None, "", "two words"])
def test_unusable_secret(values: dict[str, Any], tmp_path: Path, content: Any) -> None:
    if content is not None:
        (tmp_path / "secret").write_text(content)
    values["admin_key"] = {"name": "admin", "secret_file": str(tmp_path / "secret")}
    done = run(values, tmp_path, "--check")
    assert done.returncode == failures.EXIT_CONFIG
    assert "secret" in done.stderr


def test_native_environment(
    pytriton: Any, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr(host, "libpython_folder", lambda: "/opt/lib")
    del values["tritonserver"]
    values.update(runtime="native", backend_directory=str(tmp_path / "backends"))
    made = command.make_command(settings.make_settings(values))
    assert made.argv[0] == str(pytriton.server)
    assert f"--backend-directory={tmp_path / 'backends'}" in made.argv
    assert made.environment["PATH"] == f"{sys.prefix}/bin:/usr/bin"
    assert made.environment["LD_LIBRARY_PATH"] == f"{pytriton.libraries}:/opt/lib"
    assert "PYTHONHOME" not in made.environment


# ---- host ----------------------------------------------------------------------------------------


def test_taken_port_is_named(values: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        port = values["grpc_port"] = holder.getsockname()[1]
        done = run(values, tmp_path)
        # A new container is checked while the old one holds its ports.
        assert run(values, tmp_path, "--check").returncode == 0
    assert done.returncode == failures.EXIT_CONFIG
    assert f"Port {port} on 127.0.0.1 is taken by " in done.stderr
    assert "set grpc_port to a free port" in done.stderr
    assert "Traceback" not in done.stderr


def test_port_given_twice(values: dict[str, Any]) -> None:
    values["grpc_port"] = values["http_port"]
    assert any(
        "grpc_port and http_port" in sentence
        for sentence in checks.port_problems(settings.make_settings(values))
    )


def test_address_of_another_host(values: dict[str, Any]) -> None:
    values["http_address"] = "192.0.2.1"
    (sentence,) = checks.port_problems(settings.make_settings(values))
    assert "http_port" in sentence
    assert "does not have the address" in sentence


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("glibc_version", lambda: (2, 31), "glibc 2.35 or newer, this host has 2.31"),
        ("glibc_version", lambda: None, "another C library"),
        ("libpython_folder", lambda: None, "has no shared libpython"),
        ("installed_version", lambda name: "2.1.0", "it has 2.1.0"),
        ("installed_version", lambda name: None, "numpy<2"),
        ("PYTHONS", ((3, 3), (3, 5)), "does not fit, 3.3 to 3.5 do"),
    ],
)
def test_what_the_host_lacks(
    pytriton: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, word: str
) -> None:
    monkeypatch.setattr(host, "glibc_version", lambda: (2, 36))
    monkeypatch.setattr(host, "libpython_folder", lambda: "/opt/lib")
    monkeypatch.setattr(installation, "installed_version", lambda name: "1.26.4")
    monkeypatch.setattr(installation, "PYTHONS", ((3, 0), (4, 0)))
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")
    assert installation.native_problems() == []
    monkeypatch.setattr(host if hasattr(host, name) else installation, name, value)
    (sentence,) = installation.native_problems()
    assert word in sentence


def test_other_processor(pytriton: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.platform, "machine", lambda: "aarch64")
    assert any(
        "x86_64 only" in sentence and "aarch64" in sentence
        for sentence in installation.native_problems()
    )


def test_missing_pytriton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(failures.StartError, match="nvidia-pytriton is not installed"):
        installation.find_installation()


# ---- backend folder ------------------------------------------------------------------------------


@pytest.fixture
def native(values: dict[str, Any], tmp_path: Path) -> Any:
    return settings.make_settings(
        {**values, "runtime": "native", "backend_directory": str(tmp_path / "new" / "backends")}
    )


def test_backend_folder(pytriton: Any, native: Any) -> None:
    assert backends.prepare_backends(native) is True
    target = Path(native.backend_directory)
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert found == [
        "fil/model.py",
        "onnxruntime/model.py",
        "python/libtriton_python.so",
        "python/triton_python_backend_stub",
        "python/triton_python_backend_utils.py",
    ]
    assert os.access(target / "python" / "triton_python_backend_stub", os.X_OK)
    assert os.access(pytriton.server, os.X_OK)
    assert backends.prepare_backends(native) is False


def test_interrupted_backend_folder_is_repaired(pytriton: Any, native: Any) -> None:
    backends.prepare_backends(native)
    target = Path(native.backend_directory)
    stub = target / "python" / "triton_python_backend_stub"
    (target / "fil" / "model.py").unlink()
    (target / "python" / "libtriton_python.so").write_bytes(b"libra")
    left = target / "python" / f".{stub.name}.1.new"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    stub.write_bytes(b"st")
    stub.chmod(0o600)
    assert backends.prepare_backends(native) is True
    assert (target / "python" / "libtriton_python.so").read_bytes() == b"library"
    assert (target / "fil" / "model.py").exists()
    assert not left.exists()
    assert os.access(stub, os.X_OK)
    assert backends.prepare_backends(native) is False


def test_no_byte_code_in_isolated_interpreters_only(pytriton: Any, native: Any) -> None:
    """The stub runs isolated; a user's own programs in that environment keep their byte code."""
    backends.prepare_backends(native)
    line = (pytriton.libraries.parent / backends.NO_BYTECODE_NAME).read_text()
    for flags, expected in (([], "False"), (["-I"], "True")):
        code = f"{line}print(sys.dont_write_bytecode)"
        environment = {
            name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
        }
        done = subprocess.run(
            [sys.executable, *flags, "-c", code],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert done.stdout.strip() == expected


# ---- the program ---------------------------------------------------------------------------------


def test_program_becomes_the_server(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "models" / "a").mkdir()
    record(tmp_path / "state", "a", {"schema": 1, "name": "a", "wanted": "loaded"})
    record(tmp_path / "state", "bad", "{")
    log = tmp_path / "triton.log"
    done = run(
        {
            **values,
            "state_dir": str(tmp_path / "state"),
            "log_file": str(log),
            "environment": {"COLOUR": "red"},
        },
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "bad.json is skipped" in done.stderr
    assert "--load-model=a" in log.read_text()
    assert "colour red" in log.read_text()


def test_prepare_and_check_do_not_start(values: dict[str, Any], tmp_path: Path) -> None:
    assert run(values, tmp_path, "--prepare").stdout == ""
    assert run(values, tmp_path, "--check").stdout == ""


def test_missing_program_and_repository(values: dict[str, Any], tmp_path: Path) -> None:
    done = run(
        {**values, "tritonserver": "/nowhere/tritonserver", "model_repository": "/nowhere/models"},
        tmp_path,
    )
    assert done.returncode == failures.EXIT_CONFIG
    assert "The program /nowhere/tritonserver is missing" in done.stderr
    assert "/nowhere/models is not a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_metrics_are_of_now_where_there_are_metrics(values: dict[str, Any]) -> None:
    """Deliveries wait for readings of the GPUs; an interval of one's own comes after."""
    asked = {**values, "metrics_port": 8002, "extra_args": ["--metrics-interval-ms=9000"]}
    argv = command.make_command(settings.make_settings(asked)).argv
    assert argv.index("--metrics-interval-ms=250") < argv.index("--metrics-interval-ms=9000")
    assert not command.metrics_arguments(settings.make_settings(values))


def test_grpc_with_tls_and_threads_of_http(values: dict[str, Any]) -> None:
    tls = {"certificate": "/c", "key": "/k"}
    chosen = settings.make_settings({**values, "grpc_tls": tls, "http_threads": 32})
    assert command.protocol_arguments(chosen) == [
        "--http-thread-count=32",
        "--grpc-use-ssl=true",
        "--grpc-server-cert=/c",
        "--grpc-server-key=/k",
    ]
    chosen = settings.make_settings(
        {**values, "grpc_tls": {**tls, "client_ca": "/a"}, "http_port": 0, "http_threads": 32}
    )
    assert command.protocol_arguments(chosen)[-2:] == [
        "--grpc-use-ssl-mutual=true",
        "--grpc-root-cert=/a",
    ]
    assert "--http-thread-count=32" not in command.protocol_arguments(chosen)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on another user")
def test_root_becomes_the_servers_user_and_names_what_that_cannot_read(
    values: dict[str, Any], tmp_path: Path
) -> None:
    server = Path(values["tritonserver"])
    server.write_text("#!/bin/sh\nid -u; id -g; id -G\n")
    for above in [tmp_path, *list(tmp_path.parents)[:-2]]:
        above.chmod(above.stat().st_mode | 0o011)
    key = tmp_path / "key.pem"
    key.write_text("key")
    key.chmod(0o600)
    values.update(run_as=[65534, 65533], grpc_tls={"certificate": str(server), "key": str(key)})
    assert (
        f"{key} (grpc_tls.key) cannot be read by the server's user (uid 65534)."
        in run(values, tmp_path, "--check").stderr
    )
    assert run(values, tmp_path, "--check").returncode == failures.EXIT_CONFIG
    key.chmod(0o644)
    assert run(values, tmp_path, "--check").returncode == 0
    assert run(values, tmp_path).stdout.split() == ["65534", "65533", "65533"]
    closed = tmp_path / "closed"
    (closed / "below" / "models").mkdir(parents=True)
    closed.chmod(0o700)
    said = run(
        {**values, "model_repository": str(closed / "below" / "models")}, tmp_path, "--check"
    ).stderr
    assert (
        "models (model_repository) cannot be read by the server's user (uid 65534), to whom the"
        f" folder {closed} is closed." in said
    )


def test_a_user_that_cannot_be_taken_on_is_one_sentence(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values["run_as"] = [os.getuid() + 1, os.getgid() + 1]
    drop = [] if os.geteuid() else ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    config = tmp_path / "server.json"
    config.write_text(json.dumps(values))
    code = (
        f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import start_triton.privileges;"
        f" start_triton.privileges.become({values['run_as']})"
    )
    done = subprocess.run(
        [*drop, "/usr/bin/env", "python3", "-c", code], capture_output=True, text=True, check=False
    )
    assert "StartError: The server cannot run as user" in done.stderr


class _Health(http.server.BaseHTTPRequestHandler):
    ready: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        self.send_response(self.ready.get(self.path, 400))
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


def test_health_asks_for_life_and_for_what_records_want_and_not_for_the_servers_readiness(
    values: dict[str, Any], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    for name, wanted in (("a", "loaded"), ("b", "unloaded")):
        (tmp_path / "models" / name).mkdir()
        record(state, name, {"schema": 1, "name": name, "wanted": wanted})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        values.update(http_port=server.server_port, http_address="0.0.0.0", state_dir=str(state))
        _Health.ready = {"/v2/health/live": 200, "/v2/models/a/ready": 200}
        assert run(values, tmp_path, "--health").stdout == "healthy\n"
        _Health.ready = {"/v2/health/live": 200, "/v2/health/ready": 200, "/v2/models/b/ready": 200}
        sick = run(values, tmp_path, "--health")
        assert (sick.returncode, sick.stdout) == (1, "Model a is not ready.\n")
        # With gRPC alone the port is all that can be tried without its library.
        assert (
            run(
                {**values, "http_port": 0, "grpc_port": server.server_port}, tmp_path, "--health"
            ).returncode
            == 0
        )
        server.shutdown()
    gone = run(values, tmp_path, "--health")
    assert gone.returncode == 1 and "does not answer" in gone.stdout


# ---- recovery ------------------------------------------------------------------------------------


def interrupt(repository: Path, name: str) -> StateStore:
    """A deployment that was killed after it had swapped the new model in."""
    (repository / name).mkdir(parents=True)
    (repository / name / "which").write_text("old", encoding="utf-8")
    models = FolderRepository(str(repository))
    models.store.ensure()
    staged = Path(models.store.staging(name, "id")) / "model"
    staged.mkdir(parents=True)
    (staged / "which").write_text("new", encoding="utf-8")
    journal = models.begin(name, [Move(str(repository / name), str(staged))], "id", None, 1)
    models.put(name, journal)
    assert which(repository, name) == "new"
    return models.store


def which(repository: Path, name: str) -> str:
    return (repository / name / "which").read_text(encoding="utf-8")


def test_an_interrupted_swap_is_undone_before_the_start(values: dict[str, Any]) -> None:
    repository = Path(values["model_repository"])
    state = interrupt(repository, "fraud")
    chosen = settings.make_settings(values)
    with state.lock("fraud", 0):
        said = folder.recover(chosen)
        assert "has been changing it" in said[0]
        assert which(repository, "fraud") == "new"
    assert folder.recover(chosen) == ["model 'fraud': an interrupted deployment was undone"]
    assert which(repository, "fraud") == "old"
    assert not Path(state.staging("fraud")).exists() and state.journal("fraud") is None


def test_a_model_that_cannot_be_recovered_is_said_and_the_others_are_recovered(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the core refuses, the server starts with what is there."""
    repository = Path(values["model_repository"])
    for name in ("a", "b", "c"):
        state = interrupt(repository, name)
    (Path(state.path) / "journals" / "a.json").write_text('{"schema": 1, "op": "sw')
    recover = recovery.recover

    def refuse(kept: StateStore, name: str, *, server_starts: bool = False) -> str | None:
        if name == "b":
            raise RepositoryError("its journal has schema 2", model=name)
        return recover(kept, name, server_starts=server_starts)

    monkeypatch.setattr(recovery, "recover", refuse)
    first, second, third = folder.recover(settings.make_settings(values))
    assert first.startswith("model 'a': what an interrupted run left is not recovered (")
    assert "journals/a.json" in first
    assert second.startswith("model 'b': what an interrupted run left is not recovered (")
    assert "its journal has schema 2" in second
    assert third == "model 'c': an interrupted deployment was undone"
    assert [which(repository, name) for name in ("a", "b", "c")] == ["new", "new", "old"]
    assert Path(state.staging("a")).exists() and Path(state.staging("b")).exists()


@pytest.mark.parametrize(
    "journal",
    [
        pytest.param({"schema": 2, "op": "swap v2"}, id="newer"),
        pytest.param(
            {"schema": 2, "op": "swap", "deploy_id": "id", "keep": 1, "moves": []},
            id="newer swap",
        ),
        pytest.param({"schema": 1, "op": "swap", "moves": "all"}, id="wrong shape"),
        pytest.param({"schema": 1}, id="nothing in it"),
        pytest.param([], id="a list"),
    ],
)
def test_a_journal_that_is_not_understood_stays_as_it_is(
    values: dict[str, Any], tmp_path: Path, journal: Any
) -> None:
    repository = Path(values["model_repository"])
    state = interrupt(repository, "fraud")
    path = Path(state.path) / "journals" / "fraud.json"
    path.write_text(json.dumps(journal))
    record(Path(state.path), "fraud", {"schema": 1, "name": "fraud", "wanted": "loaded"})
    done = run(values, tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "fraud" in line]
    assert "model 'fraud': what an interrupted run left is not recovered (" in line
    assert "journal" in line
    assert "--load-model=fraud" in done.stdout
    assert json.loads(path.read_text()) == journal
    assert Path(state.staging("fraud", "id"), "model", "which").read_text() == "old"


@pytest.mark.parametrize("content", ["{", '{"schema": 9, "state_dir": "models.mlops-triton"}'])
def test_a_damaged_marker_keeps_no_model_from_being_served(
    values: dict[str, Any], tmp_path: Path, content: str
) -> None:
    repository = Path(values["model_repository"])
    state = interrupt(repository, "fraud")
    record(Path(state.path), "fraud", {"schema": 1, "name": "fraud", "wanted": "loaded"})
    (repository / MARKER).write_text(content)
    done = run(values, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--load-model=fraud" in done.stdout
    assert f"the records in {state.path} are used" in done.stderr
    assert "model 'fraud': what an interrupted run left is not recovered (" in done.stderr
    assert which(repository, "fraud") == "new"
    assert Path(state.staging("fraud", "id")).exists() and state.journal("fraud")


def test_records_of_another_folder_than_the_marker_names_are_not_used(
    values: dict[str, Any], tmp_path: Path
) -> None:
    """A state folder that was moved, or is not mounted: what lies at the usual place is of old."""
    repository = Path(values["model_repository"])
    (repository / "fraud").mkdir(parents=True)
    old = Path(f"{repository}.mlops-triton")
    record(old, "fraud", {"schema": 1, "name": "fraud", "wanted": "loaded"})
    (repository / MARKER).write_text('{"schema": 1, "state_dir": "../elsewhere"}')
    done = run(values, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--load-model=fraud" not in done.stdout
    assert "cannot be reached from here" in done.stderr
    assert "no model is loaded at the start" in done.stderr


@pytest.mark.parametrize("inside", [False, True])
def test_state_is_found_where_it_lies_though_no_marker_says_so(
    values: dict[str, Any], tmp_path: Path, inside: bool
) -> None:
    """Whoever starts the server: a user who cannot write next to the repository, or root."""
    repository = Path(values["model_repository"])
    (repository / "fraud").mkdir(parents=True)
    state = repository / ".mlops-triton" if inside else Path(f"{repository}.mlops-triton")
    record(state, "fraud", {"schema": 1, "name": "fraud", "wanted": "loaded"})
    done = run(values, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--load-model=fraud" in done.stdout


# ---- Python --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(3, 8, 20), (3, 6, 0), (2, 7, 18)])
def test_an_older_python_is_told_which_one_is_needed(version: tuple[int, ...]) -> None:
    """Nothing but ``sys`` and ``os`` is imported before."""
    code = (
        "import os, sys\n"
        f"sys.version_info, path = {version}, {str(PROGRAM / '__main__.py')!r}\n"
        "program, known = compile(open(path).read(), path, 'exec'), set(sys.modules)\n"
        "try:\n"
        "    exec(program, {'__name__': '__main__', '__file__': path})\n"
        "finally:\n"
        "    assert set(sys.modules) == known, set(sys.modules) - known"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (failures.EXIT_CONFIG, "")
    assert done.stderr == (
        f"start_triton: Python 3.9 or newer is needed, and {sys.executable} is Python"
        f" {version[0]}.{version[1]}.\n"
    )


def test_the_first_file_parses_on_every_python_and_the_rest_on_the_oldest() -> None:
    ast.parse((PROGRAM / "__main__.py").read_text(encoding="utf-8"), feature_version=(3, 4))
    ast.parse((FILES / "host.py").read_text(encoding="utf-8"), feature_version=(3, 6))
    core = ROOT / "plugins/module_utils/_delivery"
    shipped = [*core.glob("*.py"), *PROGRAM.glob("*.py")]
    for package in ("domain", "repository"):
        shipped += (core / package).rglob("*.py")
    assert len(shipped) > 40
    for path in shipped:
        found = ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 9))
        assert not list(newer_than_the_oldest(found)), path


def newer_than_the_oldest(found: ast.Module) -> Iterator[str]:
    """What Python 3.9 reads, and cannot do when it imports a file."""
    for node in found.body:
        if isinstance(node, ast.ImportFrom) and node.module == "typing":
            names = {alias.name for alias in node.names}
            yield from names & {"Concatenate", "ParamSpec", "TypeAlias", "TypeGuard"}
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and any(
            isinstance(part, ast.BitOr) for part in ast.walk(node)
        ):
            # Flags of the system are numbers; anything else may be a type.
            yield from [text for text in [ast.unparse(node)] if "os.O_" not in text]


def test_a_copy_without_the_core_is_one_sentence(values: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "roles/triton/files/start_triton"
    place.mkdir(parents=True)
    for path in PROGRAM.glob("*.py"):
        (place / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "server.json"
    config.write_text(json.dumps(values))
    arguments = [sys.executable, "-I", "-S", str(place), "--config", str(config)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == failures.EXIT_CONFIG
    assert done.stderr.startswith(f"start_triton: {place} is incomplete (")
    assert len(done.stderr.splitlines()) == 1


# ---- what a former server left -------------------------------------------------------------------

SERVER = 200
STUB = "/opt/backends/python/triton_python_backend_stub"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes processes as the kernel shows them."""
    folder = tmp_path / "proc"
    monkeypatch.setattr(leftovers, "PROC", folder)

    def process(pid: int, parent: int, *words: str, inside: str = "", state: str = "S") -> None:
        (folder / str(pid)).mkdir(parents=True)
        (folder / str(pid) / "cmdline").write_bytes(b"".join(f"{w}\0".encode() for w in words))
        (folder / str(pid) / "status").write_text(
            f"Name:\tx\nState:\t{state} (x)\nPPid:\t{parent}\nNSpid:\t{pid}{inside}\n"
        )

    process(1, 0, "init")
    process(50, 1, "supervisord")
    return process


def stub_words(model_file: str, server: int = SERVER, program: str = STUB) -> list[str]:
    """As Triton 2.51 starts it."""
    shared = "shm8d17a6e7-0d3c-4b0c-a7c4-4ac1e6a8ef5d"
    backend = "/opt/backends/python"
    return [
        *(program, model_file, shared, "1048576", "1048576", str(server), backend),
        *("336", "doubler_0_0", "DEFAULT"),
    ]


def found_leftovers(repository: str = "/models", **given: Any) -> list[int]:
    made = settings.make_settings({"runtime": "container", "model_repository": repository, **given})
    return [stub.pid for stub in leftovers.find_leftovers(made)]


@pytest.mark.parametrize("parent", [1, 50], ids=["init", "subreaper"])
def test_a_stub_of_a_server_that_is_gone_is_found(proc: Any, parent: int) -> None:
    proc(300, parent, *stub_words("/models/doubler/1/model.py"))
    assert found_leftovers() == [300]
    assert found_leftovers("/models/") == [300]


def test_the_number_of_a_server_that_is_gone_may_be_another_process_now(proc: Any) -> None:
    proc(SERVER, 50, "/opt/tritonserver/bin/tritonserver", "--model-repository=/models")
    proc(300, 1, *stub_words("/models/doubler/1/model.py"))
    assert found_leftovers() == [300]


def test_a_stub_of_a_living_server_is_spared(proc: Any) -> None:
    """Of the same repository, also where a shell stands between both."""
    proc(SERVER, 50, "/opt/tritonserver/bin/tritonserver", "--model-repository=/models")
    proc(300, SERVER, *stub_words("/models/doubler/1/model.py"))
    proc(310, SERVER, "bash", "-c", "source activate && stub")
    proc(311, 310, *stub_words("/models/doubler/1/model.py"))
    assert found_leftovers() == []


@pytest.mark.parametrize(
    "words",
    [
        stub_words("/others/doubler/1/model.py"),
        stub_words("/models/nested/doubler/1/model.py"),
        stub_words("models/doubler/1/model.py"),
        stub_words("/models/doubler/1/model.py", program="/usr/bin/python3"),
        stub_words("/models/doubler/1/model.py")[:5],
        ["vi", "/models/doubler/1/model.py"],
        [],
    ],
    ids=["another", "a repository in ours", "relative", "program", "short", "editor", "kernel"],
)
def test_what_is_no_stub_of_this_repository_is_spared(proc: Any, words: list[str]) -> None:
    proc(300, 1, *words)
    assert found_leftovers() == []


def test_a_stub_in_a_container_is_spared(proc: Any) -> None:
    """It names its server by the number that this has in the container."""
    proc(4000, 50, "tritonserver")
    proc(4001, 4000, *stub_words("/models/doubler/1/model.py", 1), inside="\t33")
    assert found_leftovers() == []


def test_a_stub_of_another_user_is_spared(proc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proc(300, 1, *stub_words("/models/doubler/1/model.py"))
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert found_leftovers() == []


def test_a_link_to_the_repository_is_followed(proc: Any, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "link").symlink_to("models")
    proc(300, 1, *stub_words(f"{tmp_path}/link/doubler/1/model.py"))
    assert found_leftovers(f"{tmp_path}/models") == [300]


def test_a_stub_of_a_repository_in_s3_is_known_by_its_backend(proc: Any) -> None:
    """Its file lies in a copy that Triton made."""
    proc(300, 1, *stub_words("/tmp/folderYIjtqP/1/model.py"))
    given = {"runtime": "native", "repository": "s3://bucket/models"}
    assert found_leftovers(**given, backend_directory="/opt/backends") == [300]
    assert found_leftovers(**given, backend_directory="/opt/other/backends") == []
    assert found_leftovers("s3://bucket/models") == []


def test_a_host_without_proc_is_none_of_its_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "PROC", tmp_path / "nothing")
    assert found_leftovers() == []


def test_one_that_cannot_be_ended_does_not_keep_the_server_from_starting(
    proc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc(300, 1, *stub_words("/models/doubler/1/model.py"))
    proc(301, 1, *stub_words("/models/doubler/1/model.py"), state="Z")
    proc(302, 1, *stub_words("/models/doubler/1/model.py"))
    asked = []

    def kill(pid: int, number: int) -> None:
        asked.append((pid, number))
        if pid == 300:
            raise PermissionError(1, "Operation not permitted")
        if pid == 302:
            raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(leftovers, "SHARED", tmp_path)
    shared = stub_words("")[2]
    (tmp_path / shared).touch()
    (tmp_path / f"{shared}-of-another").touch()
    made = settings.make_settings({"runtime": "container", "model_repository": "/models"})
    said = leftovers.end_leftovers(made)
    assert sorted(asked) == [(pid, signal.SIGKILL) for pid in (300, 301, 302)]
    left = "which a server that is gone had left,"
    assert sorted(said) == [
        f"process 300 of doubler_0_0, {left} cannot be ended (Operation not permitted)",
        f"process 301 of doubler_0_0, {left} is ended",
    ]
    assert not (tmp_path / shared).exists()
    assert (tmp_path / f"{shared}-of-another").exists()


PARENT = """
import os, subprocess, sys
stub = ["triton_python_backend_stub", sys.argv[1], "shm", "1", "1", str(os.getpid())]
stub += ["/backends/python", "336", "m_0", "DEFAULT"]
child = subprocess.Popen(stub, executable=sys.executable, stdin=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_the_server_starts_when_what_a_former_one_left_has_ended(
    values: dict[str, Any], tmp_path: Path
) -> None:
    """Real processes: a living server keeps its own, of a dead one they are ended."""
    script = tmp_path / "models" / "m" / "1" / "model.py"
    script.parent.mkdir(parents=True)
    script.write_text("import time\ntime.sleep(60)\n")
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", PARENT, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _number in range(2)
    ]
    stubs = [int(server.stdout.readline()) for server in servers if server.stdout]
    try:
        servers[0].kill()
        servers[0].wait()
        done = run(values, tmp_path)
        left = f"process {stubs[0]} of m_0, which a server that is gone had left, is ended"
        assert done.returncode == 0
        assert "--model-repository" in done.stdout
        assert [line for line in done.stderr.splitlines() if "is ended" in line] == [
            f"start_triton: {left}"
        ]
        assert leftovers.read_stub(stubs[1]) is not None
    finally:
        for server in servers:
            server.kill()
        for pid in stubs:
            with contextlib.suppress(OSError):
                if leftovers.read_stub(pid):
                    os.kill(pid, signal.SIGKILL)
        for server in servers:  # whose output the stubs hold open
            server.communicate()
