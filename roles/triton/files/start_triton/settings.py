# SPDX-License-Identifier: Apache-2.0
"""The JSON file that says how the server is to be started.

Its keys (unknown ones are refused, so that a typing error cannot go unnoticed):

    runtime             "native" (default) or "container"
    model_repository    folder of the models, or an s3:// location as Triton spells it; credentials
                        come from where Triton finds them: TRITON_CLOUD_CREDENTIAL_PATH,
                        AWS_ACCESS_KEY_ID and its like, the AWS credentials file, the instance, each
                        of them also as a key of environment
    state_dir           folder with records/ and journals/; default: what the marker file
                        <model_repository>/.mlops-triton.json says
    tritonserver        the program; default: the one of pytriton, or
                        /opt/tritonserver/bin/tritonserver
    backend_sources     folder that holds onnxruntime/ and fil/; default: backends/ beside this
                        program
    backend_directory   folder which this program fills with the Python backend, its stub and
                        backend_sources; native runtime only (in a container Triton has its own)
    cache_directory     folder of Triton's response cache libraries; default: those of pytriton
    http_address, http_port, grpc_address, grpc_port, metrics_address, metrics_port
                        default 127.0.0.1 and 8000, 8001, 8002; a port of 0 or false switches that
                        service off
    extra_args          list of further arguments for tritonserver
    environment         further environment variables of the server
    log_file            file that gets what the server prints, appended; default: stdout and stderr
                        as they are
    admin_key           {"name": header, "secret_file": path}: the interfaces of model-repository,
                        model-config, shared-memory, trace and logging then want that header
    shm_region_prefix   prefix of the Python backend's shared memory, to tell the servers of one
                        host apart
    client_shared_memory
                        true: clients may register shared memory; for releases that know
                        --allow-client-shm (26.04 and later), before which they always may
    exit_timeout        seconds that a stop waits for requests in flight
    http_threads        threads of the HTTP service; a load over HTTP stalls the clients that share
                        a thread with it
    grpc_tls            {"certificate": path, "key": path, "client_ca": path}: gRPC is served with
                        TLS; with client_ca (which may be left out) clients must show a certificate
                        of it
    run_as              [uid, gid] which the server runs as; this program, started as root, takes
                        them on
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, fields
from typing import Any

from _delivery.no_follow import open_to_read

from .failures import StartError

CONTAINER_TRITONSERVER = "/opt/tritonserver/bin/tritonserver"
_LONGEST_SECRET = 1 << 16
SERVICES = ("http", "grpc", "metrics")


@dataclass(frozen=True)
class Service:
    """One listening service of Triton; port None means switched off."""

    name: str
    address: str
    port: int | None


@dataclass(frozen=True)
class Settings:
    """The file's keys, checked by ``make_settings``."""

    model_repository: str
    runtime: str = "native"
    state_dir: str | None = None
    tritonserver: str | None = None
    backend_sources: str | None = None
    backend_directory: str | None = None
    cache_directory: str | None = None
    http_address: str = "127.0.0.1"
    http_port: int = 8000
    grpc_address: str = "127.0.0.1"
    grpc_port: int = 8001
    metrics_address: str = "127.0.0.1"
    metrics_port: int = 8002
    extra_args: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    log_file: str | None = None
    admin_key: dict[str, str] | None = None
    shm_region_prefix: str | None = None
    client_shared_memory: bool = False
    exit_timeout: int | None = None
    http_threads: int | None = None
    grpc_tls: dict[str, str] | None = None
    run_as: list[int] | None = None

    @property
    def native(self) -> bool:
        return self.runtime == "native"

    @property
    def in_s3(self) -> bool:
        return "://" in self.model_repository

    def services(self) -> tuple[Service, Service, Service]:
        """HTTP, gRPC and metrics."""
        http, grpc, metrics = (
            Service(name, getattr(self, f"{name}_address"), getattr(self, f"{name}_port") or None)
            for name in SERVICES
        )
        return http, grpc, metrics


def read_settings(path: str) -> Settings:
    """Raises StartError for a file that cannot be read or used."""
    try:
        with open(path, encoding="utf-8") as stream:
            values = json.load(stream)
    except OSError as err:
        raise StartError(f"{path}: cannot be read ({err.strerror}).") from None
    except ValueError as err:
        raise StartError(f"{path}: is not JSON ({err}).") from None
    return make_settings(values, path)


def make_settings(values: Any, origin: str = "settings") -> Settings:
    """Settings of a JSON object. Raises StartError, with ``origin`` before the sentence."""
    if not isinstance(values, dict):
        raise StartError(f"{origin}: must hold one JSON object.")
    unknown = sorted(set(values) - {item.name for item in fields(Settings)})
    if unknown:
        raise StartError(f"{origin}: unknown key {', '.join(unknown)}.")
    given = {key: value for key, value in values.items() if value is not None}
    if not isinstance(given.get("model_repository"), str) or not given["model_repository"]:
        raise StartError(f"{origin}: model_repository is missing.")
    settings = Settings(**given)
    wrong = _wrong_service(settings) or _wrong_value(settings)
    if wrong:
        raise StartError(f"{origin}: {wrong}.")
    return settings


def _wrong_service(settings: Settings) -> str | None:
    for service in settings.services():
        port: object = service.port
        if port is not None and (
            isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536
        ):
            return f"{service.name}_port must be a port number, 0 or false, not {port!r}"
    http, grpc, _metrics = settings.services()
    if not http.port and not grpc.port:
        return "http_port and grpc_port are both switched off"
    return None


def _wrong_value(settings: Settings) -> str | None:
    if settings.runtime not in ("native", "container"):
        return f"runtime must be native or container, not {settings.runtime!r}"
    if settings.native and not settings.backend_directory:
        return "backend_directory is missing"
    if not isinstance(settings.extra_args, list) or not isinstance(settings.environment, dict):
        return "extra_args must be a list and environment an object"
    if not isinstance(settings.client_shared_memory, bool):
        return "client_shared_memory must be true or false"
    if settings.admin_key is not None and set(settings.admin_key) != {"name", "secret_file"}:
        return "admin_key must have the keys name and secret_file"
    tls = {"certificate", "key", "client_ca"}
    if settings.grpc_tls is not None and {*settings.grpc_tls, "client_ca"} != tls:
        return "grpc_tls must have the keys certificate and key, and may have client_ca"
    if settings.run_as is not None and not (
        len(settings.run_as) == 2 and all(isinstance(number, int) for number in settings.run_as)
    ):
        return "run_as must be the numbers of a user and a group"
    return None


def environment_of(settings: Settings) -> dict[str, str]:
    """This process's environment with the settings' own variables."""
    return {**os.environ, **{key: str(value) for key, value in settings.environment.items()}}


def read_secret(admin_key: dict[str, str]) -> str:
    """Raises StartError for a secret that is not one printable word."""
    path = admin_key["secret_file"]
    try:
        with open_to_read(path) as stream:
            secret = stream.read(_LONGEST_SECRET).decode().strip()
    except OSError as err:
        raise StartError(
            f"The secret file {path} of the admin key cannot be read ({err.strerror})."
        ) from None
    if not re.fullmatch(r"[!-~]+", secret):
        raise StartError(f"The secret file {path} must hold one word of printable ASCII.")
    return secret
