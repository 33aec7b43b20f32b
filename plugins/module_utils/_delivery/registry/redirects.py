# SPDX-License-Identifier: Apache-2.0
"""MLflow's client follows redirects, and what it shows of itself to the other server (a client
certificate, the headers of plugins, an entry of ~/.netrc) is nobody's choice: a redirect to another
server is refused.

Its sessions are made deep inside MLflow. What authenticates a request is asked for each of them,
and is where the guard stands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

from ..artifacts.mlflow_proxy import origin
from ..outside import MlflowObject
from ..redact import mask
from .answers import ENCODINGS, read_within_bounds

_NAME = "mlops-triton"
_KNOWN: dict[str, str] = {}
_REGISTERING = threading.Lock()
# MLflow compares these names itself before it asks who has them.
_KUBERNETES = ("kubernetes", "kubernetes-namespaced")


class RedirectRefused(Exception):
    """Becomes a sentence about the registry where it is caught."""


def guard_redirects(auth: str | None) -> str | None:
    """The name under which MLflow finds what authenticates requests as ``auth`` does, and refuses
    to be sent to another server.
    """
    if auth in _KUBERNETES:
        return auth
    with _REGISTERING:
        if (auth or "") not in _KNOWN:
            from mlflow.tracking.request_auth.registry import _request_auth_provider_registry

            name = f"{_NAME} {auth}" if auth else _NAME
            _request_auth_provider_registry.register(lambda: _Provider(name, auth))
            _KNOWN[auth or ""] = name
    return _KNOWN[auth or ""]


class _Provider:
    """As MLflow wants one."""

    def __init__(self, name: str, auth: str | None) -> None:
        self._name, self._auth = name, auth

    def get_name(self) -> str:
        return self._name

    def get_auth(self) -> Callable[[MlflowObject], MlflowObject]:
        inner = None
        if self._auth:
            from mlflow.tracking.request_auth.registry import fetch_auth

            inner = fetch_auth(self._auth)

        def authenticate(request: MlflowObject) -> MlflowObject:
            request = (inner or _as_requests_does)(request)
            request.headers["Accept-Encoding"] = ENCODINGS
            request.register_hook("response", _refuse_other_servers)
            request.register_hook("response", read_within_bounds)
            return request

        return authenticate


def _as_requests_does(request: MlflowObject) -> MlflowObject:
    """What requests itself would do without a function of ours: ~/.netrc, then the address."""
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_auth_from_url, get_netrc_auth

    found = get_netrc_auth(request.url) or get_auth_from_url(request.url)
    return HTTPBasicAuth(*found)(request) if any(found) else request


def _refuse_other_servers(answer: MlflowObject, **_options: Any) -> None:
    if not answer.is_redirect:
        return
    target = urljoin(answer.url, answer.headers["location"])
    here, there = origin(answer.url), origin(target)
    # The same server over TLS, where both have their usual ports.
    upgraded = (here[0], here[2], there[0], there[2]) == ("http", 80, "https", 443)
    if here != there and not (upgraded and here[1] == there[1]):
        raise RedirectRefused(
            "it redirects to another server, which is not followed; name that address, if it is the"
            f" right one: {mask(target.partition('?')[0])}"
        )
