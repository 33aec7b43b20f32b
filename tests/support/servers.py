# SPDX-License-Identifier: Apache-2.0
"""Real servers for the tests: Triton through its start wrapper, and MLflow. Standard library only.

    with triton_server(folder) as triton:
        triton.load("network")
        triton.infer("network", sample.request())

Programs come from the environments that `make venvs` makes; TRITON_SERVER_PYTHON and
MLFLOW_SERVER_PYTHON name others.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

ROOT = Path(__file__).resolve().parents[2]
START_TRITON = ROOT / "roles" / "triton" / "files" / "start_triton"


# A shell starts what runs in the background with SIGINT ignored, and so would everything that a
# test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class ServerError(RuntimeError):
    """A server could not be started, or ended too early; the text ends with its log."""


def server_python(variable: str, environment: str) -> Path:
    path = Path(os.environ.get(variable) or ROOT / ".venv" / environment / "bin" / "python")
    if not path.exists():
        raise ServerError(f"{path} does not exist: run `make venvs` first, or set {variable}.")
    return path


def warm_program(use: str) -> Path | None:
    """A program of tools/warm_python.py, where tests are spread over processes: they share it."""
    if f"WARM_PYTHON_{use.upper()}" not in os.environ:
        return None
    import warm_python

    return warm_python.shared(use)


_HELD: list[IO[str]] = []


def free_ports(count: int, low: int = 18100, high: int = 20000) -> list[int]:
    """Ports for this process alone, as long as it lives, outside the range that the kernel hands
    out to clients.

    Other test processes of this machine look for ports too, and a server may be down for a moment
    while its port is kept for it: each port is a locked file.
    """
    folder = Path(tempfile.gettempdir()) / f"mlops-triton-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    found: list[int] = []
    span = high - low
    start = os.getpid() * 7 % span
    for step in range(span):
        port = low + (start + step) % span
        # Held until the process ends.
        lock = open(folder / str(port), "w", encoding="utf-8")  # noqa: SIM115
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                probe.bind(("127.0.0.1", port))
            except OSError:
                lock.close()
                continue
        _HELD.append(lock)
        found.append(port)
        if len(found) == count:
            return found
    raise ServerError(f"no {count} free ports between {low} and {high}")


def http(
    url: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> tuple[int, Any]:
    """(status, parsed body) of a request; an error status is an answer, not an exception."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {
        **({"Content-Type": "application/json"} if data is not None else {}),
        **(headers or {}),
    }
    request = urllib.request.Request(url, data=data, method=method, headers=given)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            status, raw = response.status, response.read()
    except urllib.error.HTTPError as err:
        status, raw = err.code, err.read()
    try:
        return status, json.loads(raw) if raw else None
    except ValueError:
        return status, raw.decode(errors="replace")


class Process:
    """A child in a process group of its own, with a log; stopped as a group."""

    name = "server"

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / f"{self.name}.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._deserted: list[int] = []

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ServerError(f"{self.name} is not running")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        if self._child is not None:
            if self.running:
                raise ServerError(f"{self.name} is running already")
            self.desert()
        with open(self.log, "ab") as log:
            self._child = subprocess.Popen(
                list(command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
            )

    def _wait_until_healthy(self, url: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.running:
                code = self._child.returncode if self._child else None
                raise ServerError(f"{self.name} ended with code {code}:\n{self.log_tail()}")
            with contextlib.suppress(OSError):
                if http(url, timeout=2)[0] == 200:
                    return
            time.sleep(0.02)
        self.kill()
        raise ServerError(
            f"{self.name} did not answer {url} within {seconds} s:\n{self.log_tail()}"
        )

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def stop(self, seconds: float = 20) -> int | None:
        """SIGTERM, and SIGKILL for the whole group if that is not enough; returns the exit code."""
        if self._child is None:
            return None
        if self.running:
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
        return self.kill()

    def kill(self) -> int | None:
        code = None
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            code = self._child.wait()
            self._child = None
        for leader in self._deserted:
            for pid in group_members(leader):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._deserted.clear()
        return code

    def desert(self) -> None:
        """SIGKILL for the server alone, as the kernel does when memory is short; what the server
        started lives on until ``kill`` or ``stop``.
        """
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._deserted.append(self._child.pid)
            self._child = None


def group_members(leader: int) -> list[int]:
    """Processes of the session that ``leader`` made, which itself has ended. Nobody else gets its
    number while one of them lives.
    """
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            if os.getsid(pid) == leader and pid != leader:
                found.append(pid)
    return found


class Triton(Process):
    name = "triton"

    def __init__(
        self, folder: Path, python: Path | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(folder)
        self.python = (
            Path(python) if python else server_python("TRITON_SERVER_PYTHON", "triton-server")
        )
        given = dict(settings or {})
        ports = free_ports(3)
        self.settings: dict[str, Any] = {
            "runtime": "native",
            "model_repository": str(self.folder / "models"),
            # Shared by the servers of one run: it holds nothing of a single one.
            "backend_directory": str(self.folder / "backends"),
            "http_port": ports[0],
            "grpc_port": ports[1],
            "metrics_port": ports[2],
            "shm_region_prefix": f"mlops_triton_{ports[0]}",
            "exit_timeout": 5,
            **given,
        }
        self.repository = Path(self.settings["model_repository"])
        if "://" not in self.settings["model_repository"]:
            self.repository.mkdir(parents=True, exist_ok=True)
        self.url = f"127.0.0.1:{self.settings['http_port']}"
        self.grpc_url = f"127.0.0.1:{self.settings['grpc_port']}"
        self.metrics_url = f"127.0.0.1:{self.settings['metrics_port']}"
        self.config = self.folder / "server.json"
        self._became: tuple[list[str], dict[str, str]] = ([], {})

    def start(self, seconds: float = 60) -> Triton:
        self.config.write_text(json.dumps(self.settings, indent=2))
        self._spawn([str(self.python), str(START_TRITON), "--config", str(self.config)])
        self._wait_until_healthy(f"http://{self.url}/v2/health/live", seconds)
        self._became = _command_line(self.pid), _environment(self.pid)
        return self

    def start_without_wrapper(
        self, seconds: float = 60, more: Mapping[str, str] | None = None
    ) -> Triton:
        """As somebody else's supervisor would: what the wrapper became at the last start."""
        command, environment = self._became
        self._spawn(command, {**environment, **(more or {})})
        self._wait_until_healthy(f"http://{self.url}/v2/health/live", seconds)
        return self

    def kill(self) -> int | None:
        code = super().kill()
        # The Python backend's memory, of 1 MiB and more for each model, outlives what is killed.
        prefix = self.settings["shm_region_prefix"]
        for path in Path("/dev/shm").glob(f"{prefix}????????-*-*-*-*") if prefix else ():
            path.unlink(missing_ok=True)
        return code

    def restart(self) -> Triton:
        self.stop()
        return self.start()

    # -- the server's interface --

    def call(self, path: str, body: Any = None, **kwargs: Any) -> tuple[int, Any]:
        return http(f"http://{self.url}/{path}", body, **kwargs)

    def load(self, name: str, timeout: float = 60) -> tuple[int, Any]:
        return self.call(f"v2/repository/models/{name}/load", {}, timeout=timeout)

    def unload(self, name: str) -> tuple[int, Any]:
        return self.call(f"v2/repository/models/{name}/unload", {})

    def model_config(self, name: str) -> dict[str, Any]:
        status, body = self.call(f"v2/models/{name}/config")
        if status != 200:
            raise ServerError(f"config of {name}: {status} {body}")
        return dict(body)

    def infer(
        self, name: str, request: Mapping[str, Any], version: int | None = None
    ) -> tuple[int, Any]:
        place = f"v2/models/{name}" + (f"/versions/{version}" if version else "")
        return self.call(f"{place}/infer", dict(request))

    def index(self) -> list[dict[str, Any]]:
        return list(self.call("v2/repository/index", {})[1])

    # -- evidence --

    def loads(self, name: str) -> int:
        """How many times the server has (re-)initialised the model, over all starts that wrote this
        log.
        """
        return count_loads(self.log_text(), name)

    def stub_pids(self, name: str | None = None) -> list[int]:
        """Processes of the Python backend that serve this model, or any."""
        found = []
        for pid in _descendants(self.pid):
            words = _command_line(pid)
            is_stub = bool(words) and words[0].endswith("triton_python_backend_stub")
            if is_stub and (name is None or _stub_model(words, self.repository) == name):
                found.append(pid)
        return sorted(found)


def count_loads(log: str, name: str) -> int:
    """Initialisations of a model (one per version), failed ones included, that a log of Triton
    proves.

    "loading: X" and "successfully loaded 'X'" are no proof: both are logged when a load changes
    nothing. Only instances that the server made say so, and the first of a model is called X_0, or
    X_0_0 when the configuration has an instance_group (which must not have a name of its own here).
    An instance added in place, X_0_1, is no load.
    """
    return len(
        re.findall(rf"TRITONBACKEND_ModelInstanceInitialize: {re.escape(name)}_0(?:_0)? \(", log)
    )


def _command_line(pid: int) -> list[str]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [word.decode(errors="replace") for word in raw.split(b"\0")[:-1]]


def _environment(pid: int) -> dict[str, str]:
    raw = Path(f"/proc/{pid}/environ").read_bytes()
    pairs = (item.decode(errors="replace").partition("=") for item in raw.split(b"\0") if item)
    return {name: value for name, _sign, value in pairs}


def is_alive(pid: int) -> bool:
    """Also of what is not this process's child; one that has ended may wait for its parent."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _stub_model(words: Sequence[str], repository: Path) -> str:
    """The stub's first argument is the model's file in the repository:
    <repository>/<name>/<version>/<file>.
    """
    with contextlib.suppress(ValueError, IndexError):
        return Path(words[1]).relative_to(repository).parts[0]
    return ""


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    todo = [pid]
    while todo:
        current = todo.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{current}/task"):
                children = Path(f"/proc/{current}/task/{task}/children").read_text().split()
                found += map(int, children)
                todo += map(int, children)
    return found


@contextlib.contextmanager
def triton_server(
    folder: Path | str,
    *,
    python: Path | str | None = None,
    repository: Path | str | None = None,
    state_dir: Path | str | None = None,
    extra_args: Sequence[str] = (),
    port: int | None = None,
    backend_directory: Path | str | None = None,
    **settings: Any,
) -> Iterator[Triton]:
    """A running Triton; `settings` are further keys of start_triton's configuration."""
    given = dict(settings, extra_args=list(extra_args))
    for key, value in (
        ("model_repository", repository),
        ("state_dir", state_dir),
        ("http_port", port),
        ("backend_directory", backend_directory),
    ):
        if value is not None:
            given[key] = value if isinstance(value, int) else str(value)
    server = Triton(Path(folder), Path(python) if python else None, given)
    try:
        yield server.start()
    finally:
        server.stop()


class MLflow(Process):
    name = "mlflow"

    def __init__(self, folder: Path, python: Path | None = None, port: int | None = None) -> None:
        super().__init__(folder)
        self.python = (
            Path(python) if python else server_python("MLFLOW_SERVER_PYTHON", "mlflow-server")
        )
        self.warm = None if python else warm_program("mlflow")
        self.database = self.folder / "mlflow.db"
        self.port = port or free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.artifacts = self.folder / "artifacts"
        self.extra_args: list[str] = []
        self.environment: dict[str, str] = {}

    def start(self, seconds: float = 120) -> MLflow:
        if not self.warm or self.database.exists():
            return self._start(seconds)
        # Making the tables of a new database takes a second: the first server does it for all.
        empty = self.warm.with_name("empty.db")
        with open(self.warm.with_name("lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not empty.exists():
                self._start(seconds)
                shutil.copyfile(self.database, empty)
                return self
        shutil.copyfile(empty, self.database)
        return self._start(seconds)

    def _start(self, seconds: float) -> MLflow:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")
        }
        # The job runner costs 15 processes and 1.6 GB.
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        environment["PATH"] = f"{self.python.parent}:{environment.get('PATH', os.defpath)}"
        environment.update(self.environment)
        self._spawn(
            [
                str(self.warm or self.python),
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                "-w",
                "1",
                "--backend-store-uri",
                f"sqlite:///{self.database}",
                "--serve-artifacts",
                "--artifacts-destination",
                str(self.artifacts),
                *self.extra_args,
            ],
            environment,
        )
        self._wait_until_healthy(f"{self.url}/health", seconds)
        return self

    def kill(self) -> int | None:
        """Until its port is free: a warm Python's processes end after the one that stands for
        them.
        """
        code = super().kill()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)):
                    break
            time.sleep(0.01)
        return code

    def restart(self) -> MLflow:
        self.stop()
        return self.start()


@contextlib.contextmanager
def mlflow_server(
    folder: Path | str,
    *,
    python: Path | str | None = None,
    port: int | None = None,
    extra_args: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[MLflow]:
    server = MLflow(Path(folder), Path(python) if python else None, port)
    server.extra_args = list(extra_args)
    server.environment = dict(environment or {})
    try:
        yield server.start()
    finally:
        server.stop()


class S3(Process):
    """moto's server as an S3 store on loopback, all in memory; it checks no signatures."""

    name = "s3"
    environment: ClassVar[dict[str, str]] = {
        "AWS_ACCESS_KEY_ID": "AKIATESTKEY",
        "AWS_SECRET_ACCESS_KEY": "test-secret-access-key",
        "AWS_DEFAULT_REGION": "us-east-1",
    }

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder)
        self.port = port or free_ports(1)[0]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def start(self, seconds: float = 60) -> S3:
        program = Path(__file__).with_name("s3_store.py")
        self._spawn(
            [sys.executable, "-P", str(program), str(self.port)],
            {**os.environ, **self.environment},
        )
        self._wait_until_healthy(f"{self.endpoint}/moto-api/", seconds)
        return self

    @functools.cached_property
    def client(self) -> Any:
        """Takes a tenth of a second to make."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )


@contextlib.contextmanager
def s3_server(folder: Path | str, *buckets: str) -> Iterator[S3]:
    """A running S3 store with these buckets."""
    server = S3(Path(folder))
    try:
        server.start()
        for bucket in buckets:
            server.client.create_bucket(Bucket=bucket)
        yield server
    finally:
        server.kill()
