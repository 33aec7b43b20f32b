# SPDX-License-Identifier: Apache-2.0
"""Whether the server could start: ports, folders and files, one sentence for each that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import host

from .failures import StartError
from .installation import native_problems
from .settings import CONTAINER_TRITONSERVER, Settings, read_secret


def problems(settings: Settings) -> list[str]:
    """What this host lacks, ports apart."""
    found = native_problems() if settings.native else []
    server = settings.tritonserver or (None if settings.native else CONTAINER_TRITONSERVER)
    if server and not os.access(server, os.X_OK):
        found.append(f"The program {server} is missing or cannot be executed.")
    if not settings.in_s3 and not os.path.isdir(settings.model_repository):
        found.append(f"The model repository {settings.model_repository} is not a folder.")
    if settings.admin_key is not None:
        try:
            read_secret(settings.admin_key)
        except StartError as err:
            found.append(str(err))
    return found


def port_problems(settings: Settings) -> list[str]:
    """Which of the server's ports it could not listen on."""
    found = []
    taken: dict[int, str] = {}
    for service in settings.services():
        if service.port is None:
            continue
        key = service.name + "_port"
        if service.port in taken:
            found.append(
                f"{key} and {taken[service.port]} are both {service.port}: give them different"
                " ports."
            )
            continue
        taken[service.port] = key
        sentence = host.port_problem(service.address, service.port, key)
        found += [sentence] if sentence else []
    return found


def unreadable(settings: Settings) -> list[str]:
    """What the server's user could not read; to be called as that user."""
    paths = {f"grpc_tls.{name}": path for name, path in (settings.grpc_tls or {}).items()}
    if not settings.in_s3:
        paths["model_repository"] = settings.model_repository
    if settings.tritonserver or not settings.native:
        paths["tritonserver"] = settings.tritonserver or CONTAINER_TRITONSERVER
    return [
        f"{path} ({name}) cannot be read by the server's user (uid {os.geteuid()})"
        f"{_closed_above(path)}."
        for name, path in paths.items()
        if not os.access(path, os.R_OK)
    ]


def _closed_above(path: str) -> str:
    closed = next(
        (above for above in reversed(Path(path).parents) if not os.access(str(above), os.X_OK)),
        None,
    )
    return f", to whom the folder {closed} is closed" if closed else ""
