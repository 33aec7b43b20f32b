# SPDX-License-Identifier: Apache-2.0
"""The command line and the environment of tritonserver.

tritonserver takes the secret of an admin key on its command line and in no other way (no file, no
environment variable), so every user of the host who may list processes can read it there. Mount
/proc with hidepid=2, or keep the host to itself, where that matters. This program never prints it.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import host

from .installation import Installation, find_installation
from .repository import wanted_models
from .settings import CONTAINER_TRITONSERVER, Settings, read_secret

# All that changes the server or shows how it is set up. A server that knows the option knows these
# groups: both came with one change of Triton. Inference, health, metadata and statistics stay open.
RESTRICTED = "model-repository,model-config,shared-memory,trace,logging"
MASK = "********"
# Milliseconds. A delivery waits for the next readings of the GPUs, which Triton takes every two
# seconds otherwise.
METRICS_INTERVAL = 250


class Command(NamedTuple):
    """What is to be executed, and sentences to be said before."""

    argv: list[str]
    environment: dict[str, str]
    warnings: list[str]


def make_command(settings: Settings) -> Command:
    wanted = wanted_models(settings)
    found = find_installation() if settings.native else None
    server = settings.tritonserver or (str(found.server) if found else CONTAINER_TRITONSERVER)
    argv = [
        server,
        f"--model-repository={settings.model_repository}",
        "--model-control-mode=explicit",
        "--strict-readiness=false",
        "--exit-on-error=false",
        *folder_arguments(settings, found),
        *service_arguments(settings),
        *metrics_arguments(settings),
        *protocol_arguments(settings),
    ]
    if settings.exit_timeout is not None:
        argv.append(f"--exit-timeout-secs={int(settings.exit_timeout)}")
    if settings.client_shared_memory:
        argv.append("--allow-client-shm=true")
    if settings.shm_region_prefix:
        argv.append(f"--backend-config=python,shm-region-prefix-name={settings.shm_region_prefix}")
    if settings.admin_key is not None:
        key = f"{settings.admin_key['name']}={read_secret(settings.admin_key)}"
        argv.append(f"--http-restricted-api={RESTRICTED}:{key}")
        argv.append(f"--grpc-restricted-protocol={RESTRICTED}:{key}")
    argv += [f"--load-model={name}" for name in wanted.names]
    argv += [str(item) for item in settings.extra_args]
    return Command(argv, server_environment(settings, found), wanted.warnings)


def folder_arguments(settings: Settings, found: Installation | None) -> list[str]:
    caches = settings.cache_directory or (str(found.caches) if found else "")
    return [
        *([f"--backend-directory={settings.backend_directory}"] if found else []),
        *([f"--cache-directory={caches}"] if caches else []),
    ]


def service_arguments(settings: Settings) -> list[str]:
    argv = []
    for service in settings.services():
        if service.port is None:
            argv.append(f"--allow-{service.name}=false")
        else:
            argv += [
                f"--{service.name}-address={service.address}",
                f"--{service.name}-port={service.port}",
            ]
    return argv


def metrics_arguments(settings: Settings) -> list[str]:
    _http, _grpc, metrics = settings.services()
    return [f"--metrics-interval-ms={METRICS_INTERVAL}"] if metrics.port else []


def protocol_arguments(settings: Settings) -> list[str]:
    http, grpc, _metrics = settings.services()
    argv = []
    if http.port and settings.http_threads:
        argv.append(f"--http-thread-count={settings.http_threads}")
    if grpc.port and settings.grpc_tls:
        tls = settings.grpc_tls
        argv += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={tls['certificate']}",
            f"--grpc-server-key={tls['key']}",
        ]
        if tls.get("client_ca"):
            argv += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls['client_ca']}"]
    return argv


def server_environment(settings: Settings, found: Installation | None) -> dict[str, str]:
    """The environment of the server; ``found`` is given for the native runtime."""
    environment = dict(os.environ)
    if found:
        for name in ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"):
            environment.pop(name, None)
        # The stub embeds Python and finds its environment through the first python3 on PATH.
        environment["PATH"] = os.pathsep.join(
            [str(Path(sys.prefix) / "bin"), environment.get("PATH") or os.defpath]
        )
        # libpython's folder comes last: it may hold system libraries that must not hide the wheel's
        # own.
        folder = host.libpython_folder()
        environment["LD_LIBRARY_PATH"] = ":".join(
            [str(found.libraries)] + ([folder] if folder else [])
        )
    return {**environment, **{key: str(value) for key, value in settings.environment.items()}}


def printable(argv: list[str]) -> str:
    """The command as a shell would take it, secrets masked."""
    words = []
    for word in argv:
        if word.startswith(("--http-restricted-api=", "--grpc-restricted-protocol=")):
            word = word.rpartition("=")[0] + "=" + MASK
        words.append(shlex.quote(word))
    return " ".join(words)
