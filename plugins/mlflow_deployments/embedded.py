# SPDX-License-Identifier: Apache-2.0
"""``mlflow deployments run-local``: Triton from PyPI with one model in a repository of its own,
until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..module_utils._delivery.deadline import Deadline
from ..module_utils._delivery.errors import ServerError
from ..module_utils._delivery.triton.server import TritonServer
from .client import TritonDeploymentClient
from .failures import report_failures
from .targets import MODEL, TARGET_OPTIONS, Option, read_options

START = Path(__file__).resolve().parents[2] / "roles" / "triton" / "files" / "start_triton"
LOCAL_OPTIONS = {
    "server_python": Option("path"),
    "http_port": Option("int"),
    "grpc_port": Option("int"),
}
_TARGET_OPTIONS = (
    "tracking_uri",
    "registry_uri",
    "mlflow_username",
    "mlflow_password",
    "mlflow_token",
    "mlflow_ca_file",
    "mlflow_client_cert",
    "mlflow_client_key",
    "artifact_folders",
    "timeout",
    "load_timeout",
    # Code of a model runs on this host as it would on a server.
    "allowed_backends",
    "allowed_paths",
    "model_code",
    "max_size",
    "require_digest",
    "require_signature",
    "revoked_digests",
    "revoked_keys",
)
_STEP = "start Triton"
_LONGEST_LINE = 64
_ZERO: Mapping[str, Any] = {"BYTES": "", "BOOL": False, "FP32": 0.0, "FP64": 0.0}
_ONLY_BINARY = ("FP16", "BF16")  # Triton has no JSON for them
_BYTES = {
    "BOOL": 1,
    "UINT8": 1,
    "INT8": 1,
    "UINT16": 2,
    "INT16": 2,
    "FP16": 2,
    "BF16": 2,
    "UINT64": 8,
    "INT64": 8,
    "FP64": 8,
}
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


def run_local(
    name: str,
    model_uri: str | os.PathLike[str],
    flavor: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Serve one model on this host until Ctrl-C.

    Args:
        config: options of the model, and ``server_python``, ``http_port``, ``grpc_port``,
            those of the registry, ``timeout``, ``load_timeout``.

    Raises:
        MlflowException: Triton cannot be started here, or the model cannot be deployed.
    """
    known = {**MODEL, **LOCAL_OPTIONS, **{key: TARGET_OPTIONS[key] for key in _TARGET_OPTIONS}}
    with (
        report_failures(),
        contextlib.suppress(KeyboardInterrupt),
        _interrupt_at_sigterm(),
        tempfile.TemporaryDirectory(prefix="mlops-triton-", ignore_cleanup_errors=True) as folder,
    ):
        options = read_options(
            {**({"flavor": flavor} if flavor else {}), **(config or {})}, known, "run-local"
        )
        port = int(options.pop("http_port", None) or 8000)
        grpc_port = int(options.pop("grpc_port", None) or 8001)
        settings = _settings(Path(folder), port, grpc_port)
        with _run_triton(
            Path(folder), settings, options.pop("server_python", None) or sys.executable
        ) as server:
            target_options = {
                "model_repository": settings["model_repository"],
                **{key: options.pop(key) for key in _TARGET_OPTIONS if key in options},
            }
            client = TritonDeploymentClient(
                f"triton://127.0.0.1:{port}?load_url=grpc://127.0.0.1:{grpc_port}"
            )
            client.create_deployment(name, model_uri, config={**options, **target_options})
            _say_ready(Path(folder), TritonServer(f"127.0.0.1:{port}", 60.0), name)
            server.wait()
            raise _explain_end(Path(folder))
    print("Triton is stopped, and its temporary repository is removed.", flush=True)


def _settings(folder: Path, port: int, grpc_port: int) -> dict[str, Any]:
    repository = folder / "models"
    repository.mkdir()
    return {
        "model_repository": str(repository),
        "backend_directory": str(folder / "backends"),
        "http_port": port,
        "grpc_port": grpc_port,
        "metrics_port": 0,
        "shm_region_prefix": f"mlops_triton_{os.getpid()}",
        "exit_timeout": 5,
    }


@contextlib.contextmanager
def _interrupt_at_sigterm() -> Iterator[None]:
    """End in the same way whoever asks for it; signals can only be had in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _run_triton(
    folder: Path, settings: Mapping[str, Any], python: str
) -> Iterator[subprocess.Popen[bytes]]:
    config = folder / "server.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [python, str(START), "--config", str(config)]
    with open(folder / "triton.log", "wb") as log:
        # Checked first: a server of somebody else on the same port would be taken for ours.
        if subprocess.run(
            [*command, "--check"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        ).returncode:
            raise _explain_end(folder)
        # A session of its own: Ctrl-C in the terminal would reach the server before it reaches us.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(process, folder, settings)
        yield process
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], folder: Path, settings: Mapping[str, Any]) -> None:
    deadline = Deadline(_START_SECONDS)
    with TritonServer(f"127.0.0.1:{settings['http_port']}", 2.0) as server:
        while not server.wait_live(Deadline(0.2)):
            if process.poll() is not None:
                raise _explain_end(folder)
            if deadline.passed:
                raise ServerError(f"it did not answer within {_START_SECONDS:g} s", step=_STEP)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        if process.poll() is None:
            process.terminate()
        process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _explain_end(folder: Path) -> ServerError:
    lines = (folder / "triton.log").read_text(encoding="utf-8", errors="replace").splitlines()
    said = [
        line.removeprefix("start_triton: ") for line in lines if line.startswith("start_triton: ")
    ] or lines[-3:]
    hint = (
        " Option server_python names another Python."
        if any("nvidia-pytriton is not installed" in line for line in said)
        else ""
    )
    return ServerError(f"{' '.join(said) or 'it ended without a word.'}{hint}", step=_STEP)


def _say_ready(folder: Path, server: TritonServer, name: str) -> None:
    model = server.metadata(name)
    binary = any(
        entry["datatype"] in _ONLY_BINARY for side in ("inputs", "outputs") for entry in model[side]
    )
    words = (_binary_request if binary else _json_request)(folder, model["inputs"])
    more = " -o answer.bin" if binary else ""  # which curl does not print on a terminal
    url = f"http://{server.url}/v2/models/{name}"
    print(
        f"Triton serves {name} at {url}\n\n  curl -s {url}/infer {words}{more}\n\nCtrl-C stops it.",
        flush=True,
    )


def _json_request(folder: Path, entries: Sequence[Mapping[str, Any]]) -> str:
    request = {
        "inputs": [
            {**_describe_input(entry), "data": [_ZERO.get(entry["datatype"], 0)] * _count(entry)}
            for entry in entries
        ]
    }
    body = json.dumps(request)
    if sum(len(entry["data"]) for entry in request["inputs"]) > _LONGEST_LINE:
        path = folder / "request.json"
        path.write_text(body, encoding="utf-8")
        body = f"@{path}"
    return f"-d {shlex.quote(body)}"


def _binary_request(folder: Path, entries: Sequence[Mapping[str, Any]]) -> str:
    """Zeros after a JSON header; the answer to it has its numbers in binary, too."""
    described, zeros = [], b""
    for entry in entries:
        data = bytes(_count(entry) * _BYTES.get(entry["datatype"], 4))  # of a text: its length
        described.append({**_describe_input(entry), "parameters": {"binary_data_size": len(data)}})
        zeros += data
    header = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    path = folder / "request.bin"
    path.write_bytes(header + zeros)
    return (
        f"-H 'Inference-Header-Content-Length: {len(header)}' --data-binary"
        f" {shlex.quote(f'@{path}')}"
    )


def _describe_input(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": entry["name"],
        "datatype": entry["datatype"],
        "shape": [max(1, int(size)) for size in entry["shape"]],
    }


def _count(entry: Mapping[str, Any]) -> int:
    return math.prod(max(1, int(size)) for size in entry["shape"])
