# SPDX-License-Identifier: Apache-2.0
"""Asks the running server as a health check of a container does: it lives, and every model that a
record wants loaded is ready.

/v2/health/ready is not asked: it is 400 while any model loads or unloads, and stays so after a
failed load of a new model, whereas a model which is reloaded stays ready, because its old version
answers until the new one does; and a new model has no record before it has been loaded. Where HTTP
is off, only the port of gRPC is tried.
"""

from __future__ import annotations

import http.client
import socket

from .repository import wanted_models
from .settings import Settings

HEALTH_SECONDS = 5


def health_problems(settings: Settings) -> list[str]:
    """Why the running server is not healthy, one sentence each."""
    web, grpc, _metrics = settings.services()
    service = web if web.port else grpc
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(service.address, service.address)
    try:
        if not web.port:
            socket.create_connection((host, int(service.port or 0)), HEALTH_SECONDS).close()
            return []
        if _status(host, web.port, "/v2/health/live") != 200:
            return ["The server is not alive."]
        return [
            f"Model {name} is not ready."
            for name in wanted_models(settings).names
            if _status(host, web.port, f"/v2/models/{name}/ready") != 200
        ]
    except OSError as err:
        return [f"The server does not answer on {host}:{service.port} ({err})."]


def _status(host: str, port: int, path: str) -> int:
    connection = http.client.HTTPConnection(host, port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except http.client.HTTPException as err:
        raise OSError(str(err)) from None
    finally:
        connection.close()
