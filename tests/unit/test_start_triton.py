# SPDX-License-Identifier: Apache-2.0
"""The start wrapper without a server: settings, records, command, backend folder, sentences."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles" / "triton" / "files" / "start_triton.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("start_triton", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up while the class is made.
    sys.modules["start_triton"] = module
    spec.loader.exec_module(module)
    return module


start = load()


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
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
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
    return start.find_installation()


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
    with pytest.raises(start.StartError, match=word):
        start.make_settings({**values, **change})


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_unreadable_configuration_is_one_sentence(tmp_path: Path, content: str) -> None:
    config = tmp_path / "server.json"
    config.write_text(content)
    with pytest.raises(start.StartError, match=r"server\.json"):
        start.read_settings(config)


# ---- records -------------------------------------------------------------------------------------


def test_records_decide_what_is_loaded(values: dict[str, Any], tmp_path: Path) -> None:
    state = tmp_path / "state"
    for name in ("a", "b", "c", "newer", "foreign"):
        (tmp_path / "models" / name).mkdir()
    record(state, "a", {"schema": 1, "name": "a", "wanted": "loaded", "more": []})
    record(state, "b", {"schema": 1, "name": "b", "wanted": "unloaded"})
    record(state, "c", {"schema": 1, "name": "c", "wanted": "loaded"})
    record(state, "gone", {"schema": 1, "name": "gone", "wanted": "loaded"})
    record(state, "newer", {"schema": 2, "name": "newer", "wanted": "loaded"})
    record(state, "broken", "{")
    record(state, "list", [])
    record(state, "star", {"schema": 1, "name": "*", "wanted": "loaded"})
    record(state, "wish", {"schema": 1, "name": "foreign", "wanted": "maybe"})
    record(state, "short", {"schema": 1, "wanted": "loaded"})
    command = start.make_command(start.make_settings({**values, "state_dir": str(state)}))
    assert [word for word in command.argv if word.startswith("--load-model")] == [
        "--load-model=a",
        "--load-model=c",
    ]
    assert len(command.warnings) == 7
    for name in ("gone", "newer", "broken", "list", "star", "wish", "short"):
        assert sum(f"{name}" in warning for warning in command.warnings) >= 1


def test_marker_says_where_the_state_is(values: dict[str, Any], tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "a").mkdir()
    record(tmp_path / "state", "a", {"schema": 1, "name": "a", "wanted": "loaded"})
    settings = start.make_settings(values)
    assert start.find_state_dir(settings) == (None, [])
    (models / start.MARKER).write_text(json.dumps({"schema": 1, "state_dir": "../state"}))
    assert start.find_state_dir(settings) == (tmp_path / "state", [])
    assert "--load-model=a" in start.make_command(settings).argv


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"schema": 1}',
        '{"schema": 9, "state_dir": "x"}',
        '{"schema": 1, "state_dir": 3}',
    ],
)
def test_unusable_marker_is_a_warning(values: dict[str, Any], tmp_path: Path, content: str) -> None:
    (tmp_path / "models" / start.MARKER).write_text(content)
    place, warnings = start.find_state_dir(start.make_settings(values))
    assert place is None
    assert len(warnings) == 1


def test_store_that_does_not_answer_is_asked_by_another_start(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values.update(model_repository="s3://http://127.0.0.1:9/bucket/models")
    assert not any(
        "model repository" in sentence for sentence in start.problems(start.make_settings(values))
    )
    done = run(values, tmp_path)
    assert done.returncode == start.EXIT_LATER
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
    command = start.make_command(start.make_settings(values))
    assert command.argv == [
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
    assert command.environment["N"] == "3"


def test_admin_key_is_masked(values: dict[str, Any], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    values["admin_key"] = {"name": "admin", "secret_file": str(secret)}
    command = start.make_command(start.make_settings(values))
    assert (
        "--http-restricted-api=model-repository,model-config,shared-memory:admin=hunter2"
        in command.argv
    )
    assert (
        "--grpc-restricted-protocol=model-repository,model-config,shared-memory:admin=hunter2"
        in command.argv
    )
    done = run(values, tmp_path, "--print")
    assert done.returncode == 0
    assert "hunter2" not in done.stdout + done.stderr
    assert done.stdout.count(start.MASK) == 2


@pytest.mark.parametrize("content", [None, "", "two words"])
def test_unusable_secret(values: dict[str, Any], tmp_path: Path, content: Any) -> None:
    if content is not None:
        (tmp_path / "secret").write_text(content)
    values["admin_key"] = {"name": "admin", "secret_file": str(tmp_path / "secret")}
    done = run(values, tmp_path, "--check")
    assert done.returncode == start.EXIT_CONFIG
    assert "secret" in done.stderr


def test_native_environment(
    installation: Any, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr(start, "libpython_folder", lambda: Path("/opt/lib"))
    del values["tritonserver"]
    values.update(runtime="native", backend_directory=str(tmp_path / "backends"))
    command = start.make_command(start.make_settings(values))
    assert command.argv[0] == str(installation.server)
    assert f"--backend-directory={tmp_path / 'backends'}" in command.argv
    assert command.environment["PATH"] == f"{sys.prefix}/bin:/usr/bin"
    assert command.environment["LD_LIBRARY_PATH"] == f"{installation.libraries}:/opt/lib"
    assert "PYTHONHOME" not in command.environment


# ---- host ----------------------------------------------------------------------------------------


def test_taken_port_is_named(values: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        port = values["grpc_port"] = holder.getsockname()[1]
        done = run(values, tmp_path)
        # A new container is checked while the old one holds its ports.
        assert run(values, tmp_path, "--check").returncode == 0
    assert done.returncode == start.EXIT_CONFIG
    assert f"Port {port} on 127.0.0.1 (grpc_port) is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_port_given_twice(values: dict[str, Any]) -> None:
    values["grpc_port"] = values["http_port"]
    assert any(
        "grpc_port and http_port" in sentence
        for sentence in start.port_problems(start.make_settings(values))
    )


def test_address_of_another_host(values: dict[str, Any]) -> None:
    values["http_address"] = "192.0.2.1"
    (sentence,) = start.port_problems(start.make_settings(values))
    assert "http_port" in sentence
    assert "does not have the address" in sentence


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("glibc_version", lambda: (2, 31), "glibc 2.35 or newer, this host has 2.31"),
        ("glibc_version", lambda: None, "another C library"),
        ("libpython_folder", lambda: None, "shared library libpython"),
        ("installed_version", lambda name: "2.1.0", "it has 2.1.0"),
        ("installed_version", lambda name: None, "numpy<2"),
        ("PYTHONS", ((3, 3), (3, 5)), "needs Python"),
    ],
)
def test_what_the_host_lacks(
    installation: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, word: str
) -> None:
    monkeypatch.setattr(start, "glibc_version", lambda: (2, 36))
    monkeypatch.setattr(start, "libpython_folder", lambda: Path("/opt/lib"))
    monkeypatch.setattr(start, "installed_version", lambda name: "1.26.4")
    monkeypatch.setattr(start, "PYTHONS", ((3, 0), (4, 0)))
    monkeypatch.setattr(start.platform, "machine", lambda: "x86_64")
    assert start.native_problems() == []
    monkeypatch.setattr(start, name, value)
    (sentence,) = start.native_problems()
    assert word in sentence


def test_other_processor(installation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start.platform, "machine", lambda: "aarch64")
    assert any(
        "x86_64 only" in sentence and "aarch64" in sentence for sentence in start.native_problems()
    )


def test_missing_pytriton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(start.StartError, match="nvidia-pytriton is not installed"):
        start.find_installation()


# ---- backend folder ------------------------------------------------------------------------------


@pytest.fixture
def native(values: dict[str, Any], tmp_path: Path) -> Any:
    return start.make_settings(
        {**values, "runtime": "native", "backend_directory": str(tmp_path / "new" / "backends")}
    )


def test_backend_folder(installation: Any, native: Any) -> None:
    assert start.prepare_backends(native) is True
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
    assert os.access(installation.server, os.X_OK)
    assert start.prepare_backends(native) is False


def test_interrupted_backend_folder_is_repaired(installation: Any, native: Any) -> None:
    start.prepare_backends(native)
    target = Path(native.backend_directory)
    stub = target / "python" / "triton_python_backend_stub"
    (target / "fil" / "model.py").unlink()
    (target / "python" / "libtriton_python.so").write_bytes(b"libra")
    left = target / "python" / f".{stub.name}.1.new"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    stub.write_bytes(b"st")
    stub.chmod(0o600)
    assert start.prepare_backends(native) is True
    assert (target / "python" / "libtriton_python.so").read_bytes() == b"library"
    assert (target / "fil" / "model.py").exists()
    assert not left.exists()
    assert os.access(stub, os.X_OK)
    assert start.prepare_backends(native) is False


def test_no_byte_code_in_isolated_interpreters_only(installation: Any, native: Any) -> None:
    """The stub runs isolated; a user's own programs in that environment keep their byte code."""
    start.prepare_backends(native)
    line = (installation.libraries.parent / start.NO_BYTECODE_NAME).read_text()
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
    assert done.returncode == start.EXIT_CONFIG
    assert "The program /nowhere/tritonserver is missing" in done.stderr
    assert "/nowhere/models is not a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_grpc_with_tls_and_threads_of_http(values: dict[str, Any]) -> None:
    tls = {"certificate": "/c", "key": "/k"}
    settings = start.make_settings({**values, "grpc_tls": tls, "http_threads": 32})
    assert start.protocol_arguments(settings) == [
        "--http-thread-count=32",
        "--grpc-use-ssl=true",
        "--grpc-server-cert=/c",
        "--grpc-server-key=/k",
    ]
    settings = start.make_settings(
        {**values, "grpc_tls": {**tls, "client_ca": "/a"}, "http_port": 0, "http_threads": 32}
    )
    assert start.protocol_arguments(settings)[-2:] == [
        "--grpc-use-ssl-mutual=true",
        "--grpc-root-cert=/a",
    ]
    assert "--http-thread-count=32" not in start.protocol_arguments(settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on another user")
def test_root_becomes_the_servers_user_and_names_what_that_cannot_read(
    values: dict[str, Any], tmp_path: Path
) -> None:
    server = Path(values["tritonserver"])
    server.write_text("#!/bin/sh\nid -u; id -g; id -G\n")
    for folder in [tmp_path, *list(tmp_path.parents)[:-2]]:
        folder.chmod(folder.stat().st_mode | 0o011)
    key = tmp_path / "key.pem"
    key.write_text("key")
    key.chmod(0o600)
    values.update(run_as=[65534, 65533], grpc_tls={"certificate": str(server), "key": str(key)})
    assert (
        f"{key} (grpc_tls.key) cannot be read by the server's user (uid 65534)."
        in run(values, tmp_path, "--check").stderr
    )
    assert run(values, tmp_path, "--check").returncode == start.EXIT_CONFIG
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
        f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import start_triton as s;"
        f" s.become({values['run_as']})"
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


def test_an_interrupted_swap_is_undone_before_the_start(tmp_path: Path) -> None:
    from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository import recovery
    from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.state_store import (  # noqa: E501
        StateStore,
    )

    repository = tmp_path / "models"
    (repository / "fraud").mkdir(parents=True)
    (repository / "fraud" / "which").write_text("old", encoding="utf-8")
    store = StateStore(str(repository))
    store.ensure()
    staged = Path(store.staging("fraud", "id")) / "model"
    staged.mkdir(parents=True)
    (staged / "which").write_text("new", encoding="utf-8")
    journal = recovery.journal_of_moves(
        store, [(str(repository / "fraud"), str(staged))], "id", None, 1
    )
    store.write_journal("fraud", journal)
    recovery.make_moves(store, journal)
    assert (repository / "fraud" / "which").read_text(encoding="utf-8") == "new"

    with store.lock("fraud", 0):
        said = start.settle_journals(Path(store.path), str(repository))
        assert "has been changing it" in said[0]
        assert (repository / "fraud" / "which").read_text(encoding="utf-8") == "new"
    assert start.settle_journals(Path(store.path), str(repository)) == [
        "model 'fraud': an interrupted deployment was undone"
    ]
    assert (repository / "fraud" / "which").read_text(encoding="utf-8") == "old"
    assert not Path(store.staging("fraud")).exists() and store.journal("fraud") is None
