# SPDX-License-Identifier: Apache-2.0
"""The way to one MLflow, with deadlines. No other file calls it."""

from __future__ import annotations

import contextvars
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from ..artifacts.mlflow_downloader import DownloaderRoot
from ..artifacts.mlflow_proxy import ENDPOINT, ProxyStore, origin
from ..artifacts.places import ArtifactPlaces, check_remote, is_local
from ..artifacts.roots import ArtifactRoot, LocalRoot, RemoteRoot
from ..artifacts.transfer import Broken
from ..deadline import Deadline, call_within
from ..effects import effect
from ..errors import (
    ArtifactError,
    DeadlineExceeded,
    DeliveryError,
    InvalidOption,
    MissingLibrary,
    NotFound,
    RegistryError,
    RegistryRefused,
    RegistryTimeout,
    RegistryUnreachable,
)
from ..libraries import require
from ..loopback import is_loopback, spare_loopback
from ..outside import HttpAnswer, JsonDict, MlflowObject
from ..redact import hide_secrets_of, mask, reason
from .credentials import current_credentials, remedy_for

T = TypeVar("T")
UNKNOWN_ENDPOINT = "ENDPOINT_NOT_FOUND"
"""What MLflow's client makes of a question that the server is too old for."""
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_STORES = threading.Lock()
"""Of the process, as is MLflow's table of stores."""


class Connection:
    """MLflow's client and its artifact stores, for several threads. Making it does no I/O and
    imports nothing.

    Args:
        timeout: seconds that any one question may take.
        once: an MLflow that did not answer one question is not waited for again.
        places: folders of this host that MLflow may name. Those below a folder that the user named
            as tracking server or registry are the user's own.
    """

    def __init__(
        self,
        tracking_uri: str | None,
        timeout: float,
        registry_uri: str | None = None,
        *,
        once: bool = False,
        places: ArtifactPlaces | None = None,
    ) -> None:
        self._once = once
        self._places = places or ArtifactPlaces()
        self._silent: str | None = None
        self._making = threading.Lock()
        self._tracking_uri = tracking_uri
        self._registry_uri = registry_uri
        self._credentials = current_credentials()
        for address in (tracking_uri, registry_uri):
            hide_secrets_of(address or "")
        self.timeout = timeout
        self._made: object = None

    @property
    def masked_uri(self) -> str:
        """The registry's address, for messages."""
        return mask(self._registry_uri or self.tracking_uri)

    @property
    def tracking_uri(self) -> str:
        """The option, or what MLflow's environment says.

        Raises:
            InvalidOption: neither; MLflow's own default would make a database in the current
                folder.
        """
        if self._tracking_uri is None:
            with require("mlflow", "to ask the model registry"):
                import mlflow
            named: Callable[[], bool] = mlflow.is_tracking_uri_set
            if not named():
                raise InvalidOption(
                    "no MLflow server is named: set tracking_uri or MLFLOW_TRACKING_URI"
                )
            self._tracking_uri = str(mlflow.get_tracking_uri())
        return self._tracking_uri

    @property
    def registry_uri(self) -> str:
        return self._registry_uri or self.tracking_uri

    @property
    def client(self) -> MlflowObject:
        """MLflow's client. Its calls go through ``ask`` or ``change``, which keep the deadline."""
        with self._making:
            if self._made is None:
                with require("mlflow", "to ask the model registry"):
                    from mlflow import MlflowClient

                def make() -> MlflowObject:
                    address = self._credentials.store_uri
                    client: MlflowObject = MlflowClient(
                        address(self.tracking_uri),
                        address(self._registry_uri) if self._registry_uri else None,
                    )
                    # MLflow does this at the first question to the registry, and fills the table of
                    # its stores meanwhile: another thread finds only those that are in it already.
                    with _STORES:
                        client._get_registry_client()
                    return client

                self._made = self.ask("connect", make)
            return self._made

    def ask(
        self,
        step: str,
        function: Callable[..., T],
        *args: object,
        deadline: Deadline | None = None,
        **kwargs: object,
    ) -> T:
        """Call a function of MLflow, at most until the deadline.

        Raises:
            NotFound: MLflow does not have it.
            RegistryError: refused, silent, slow, or any other answer.
        """
        with require("mlflow", "to ask the model registry"):
            from mlflow.exceptions import MlflowException
        if self._silent:
            raise RegistryUnreachable(
                f"MLflow at {self.masked_uri} did not answer within {self.timeout:g} s before"
                f" ({self._silent})",
                step=step,
            )
        limit = deadline or Deadline(self.timeout)

        spare_loopback()

        def ask_servers() -> T:
            for uri in dict.fromkeys((self.tracking_uri, self._registry_uri or self.tracking_uri)):
                connect_first(uri, limit)
            return function(*args, **kwargs)

        try:
            # MLflow keeps the workspace in a context variable, which a new thread would not see.
            return call_within(
                limit.remaining() or 0, "MLflow", contextvars.copy_context().run, ask_servers
            )
        except DeadlineExceeded as error:
            self._silent = step if self._once else None
            raise RegistryTimeout(
                f"MLflow at {self.masked_uri} did not answer within {limit.seconds:g} s", step=step
            ) from error
        except MlflowException as error:
            raise self._translate(error, step) from error
        except ImportError as error:
            raise MissingLibrary(
                f"MLflow cannot use {self.masked_uri} without the library {error.name}", step=step
            ) from error
        except OSError as error:
            raise RegistryUnreachable(
                f"MLflow at {self.masked_uri} cannot be reached: {reason(error)}", step=step
            ) from error
        except DeliveryError:
            raise
        except Exception as error:
            # MLflow's client takes the shape of answers for granted.
            raise RegistryError(
                f"MLflow at {self.masked_uri} does not answer as an MLflow server does"
                f" ({type(error).__name__}: {reason(error)})",
                step=step,
            ) from error

    def change(
        self, kind: str, subject: str, function: Callable[..., T], *args: Any, **kwargs: Any
    ) -> T:
        """``ask`` for a call that changes something; ``kind`` and ``subject`` name the effect."""
        with effect(kind, subject):
            return self.ask(kind, function, *args, **kwargs)

    def post_once(
        self, kind: str, subject: str, endpoint: str, body: dict[str, object]
    ) -> JsonDict:
        """``change`` for what must not be done twice: MLflow's client asks again where an answer is
        lost, though the server has done it.

        Args:
            endpoint: below ``/api/2.0/mlflow/``, of a server that is reached by HTTP.
        """
        with require("mlflow", "to ask the model registry"):
            from mlflow.utils.rest_utils import http_request, verify_rest_response

        def post() -> JsonDict:
            credentials = self._credentials.for_questions(self.registry_uri)
            path = f"/api/2.0/mlflow/{endpoint}"
            answer = http_request(credentials, path, "POST", max_retries=0, json=body)
            return dict(verify_rest_response(answer, path).json())

        return self.change(kind, subject, post)

    def _translate(self, error: MlflowObject, step: str) -> NotFound | RegistryError:
        code = str(getattr(error, "error_code", ""))
        if code in _ABSENT:
            return NotFound(
                f"MLflow at {self.masked_uri}: {_one_line(error)}",
                step=step,
                mlflow_error_code=code,
            )
        if code in ("", "INTERNAL_ERROR") and error.__context__ is not None:
            said = reason(error)
            remedy = remedy_for(said, self.masked_uri)
            return RegistryError(f"MLflow at {self.masked_uri} failed: {said}{remedy}", step=step)
        said = _one_line(error)
        remedy = remedy_for(said, self.masked_uri)
        return RegistryRefused(
            f"MLflow at {self.masked_uri} refused: {said}{remedy}", step=step, code=code
        )

    def files_at(self, root: str) -> ArtifactRoot:
        """The files under an artifact location of MLflow.

        Raises:
            PlaceRefused: a folder of this host that the operator did not name, or a kind of store
                that is not known.
        """
        spare_loopback()
        hide_secrets_of(root)
        if is_local(root):
            return LocalRoot(self.local_place(root), self.timeout, links=False)
        if is_behind_server(root):
            return RemoteRoot(mask(root), self.timeout, self.store(root))
        return DownloaderRoot(mask(root), self.timeout, self.repository(root))

    def local_place(self, root: str) -> str:
        """The folder of this host that MLflow named, with all links resolved. Raises
        PlaceRefused.
        """
        named = [self.tracking_uri, self.registry_uri]
        stores = tuple(filter(None, map(_store_folder, named)))
        places = replace(
            self._places,
            folders=(*self._places.folders, *stores),
            beside_mlflow=self._places.beside_mlflow and all(map(_is_on_this_host, named)),
        )
        return places.permit(root)

    def repository(self, root: str) -> MlflowObject:
        """MLflow's own artifact repository for a location, with MLflow's ways to find
        credentials. Raises PlaceRefused.
        """
        check_remote(root)
        with require("mlflow", "to reach artifacts"):
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        return get_artifact_repository(root)

    @property
    def mlflow_version(self) -> str:
        with require("mlflow", "to ask the model registry"):
            from mlflow.version import VERSION
        return str(VERSION)

    def store(self, root: str) -> ProxyStore:
        """The endpoints of an MLflow server for an artifact location that is behind one."""
        if root.startswith("mlflow-artifacts:"):
            with require("mlflow", "to read artifacts"):
                from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
            address: Callable[[str, str], str] = MlflowArtifactsRepository.resolve_uri
            root = address(root, self.tracking_uri)
        if ENDPOINT not in root:
            raise ArtifactError(f"{mask(root)} is not an artifact location of an MLflow server")
        return ProxyStore(root, self.timeout, self._request)

    def _request(
        self,
        base: str,
        method: str,
        endpoint: str,
        headers: dict[str, str],
        *,
        stranger: bool = False,
        **options: object,
    ) -> HttpAnswer:
        """One HTTP request; MLflow's credentials go to the servers that the user named and to no
        other, and not even there where another server chose the request (``stranger``).
        """
        with require("mlflow", "to read artifacts"):
            from mlflow.exceptions import MlflowException
            from mlflow.utils.rest_utils import http_request
        if stranger or origin(base) not in {
            origin(uri) for uri in (self.tracking_uri, self._registry_uri or "")
        }:
            return request_without_credentials(base, method, endpoint, headers, **options)
        send: Callable[..., object] = http_request
        try:
            return send(
                self._credentials.for_host(base),
                endpoint,
                method,
                max_retries=0,
                raise_on_status=False,
                extra_headers=headers,
                allow_redirects=False,
                **options,
            )
        except MlflowException as error:
            raise Broken(f"{mask(base)} cannot be reached: {reason(error)}") from error


def code_of(error: DeliveryError) -> str:
    """MLflow's own code for what it refused; empty for anything else."""
    return error.code if isinstance(error, RegistryRefused) else ""


def _store_folder(uri: str) -> str | None:
    """The folder of a file store that the user named."""
    parts = urlsplit(uri)
    folder = unquote(parts.path) if parts.scheme == "file" else "" if parts.scheme else uri
    # "databricks" is a name that MLflow's client knows, and no folder.
    return os.path.abspath(folder) if folder and not folder.startswith("databricks") else None


def _is_on_this_host(uri: str) -> bool:
    """An MLflow that a loopback address reaches, or a database that is a file."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return is_loopback(parts.hostname or "")
    return parts.scheme in ("", "file", "sqlite")


def is_behind_server(root: str) -> bool:
    return urlsplit(root).scheme in ("mlflow-artifacts", "http", "https")


def _one_line(error: MlflowObject) -> str:
    text = mask(" ".join(str(getattr(error, "message", error)).split())).removeprefix(
        f"{error.error_code}: "
    )
    return text if len(text) <= 300 else text[:300] + "…"


def connect_first(uri: str, deadline: Deadline) -> None:
    """Say at once that nobody listens: MLflow's client would try again for minutes.

    Raises:
        OSError: refused, no such host, no route.
        DeadlineExceeded: it had passed already.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    left = deadline.remaining()
    if left == 0:  # a socket would take it for "do not wait", and fail with words about that
        raise DeadlineExceeded(f"{parts.hostname}:{port} was not asked in time")
    socket.create_connection((parts.hostname, port), timeout=left).close()


def request_without_credentials(
    base: str, method: str, endpoint: str, headers: dict[str, str], **options: Any
) -> HttpAnswer:
    """A request to a host that the user did not name."""
    import requests

    try:
        # An auth function of one's own keeps requests from asking ~/.netrc.
        return requests.request(
            method,
            base + endpoint,
            headers=headers,
            allow_redirects=False,
            auth=lambda sent: sent,
            **options,
        )
    except requests.RequestException as error:
        raise Broken(f"{mask(base)} cannot be reached: {reason(error)}") from error
