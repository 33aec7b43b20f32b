# SPDX-License-Identifier: Apache-2.0
"""The way to one Triton server over HTTP or gRPC: addresses, TLS, keys and total deadlines.
tritonclient does the talking.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import InvalidOption
from .libraries import needed
from .loopback import is_loopback

_DEFAULT_PORT = {"http": 8000, "https": 8000, "grpc": 8001, "grpcs": 8001}
_ASK_AGAIN = 2.0
# Until a load that was sent has surely been taken up by a thread of the server.
_TAKEN_UP = 0.03
ADMIN_KEY = "admin-key"
"""The name of a key where none is given."""


@dataclass(frozen=True)
class Address:
    """Where a server listens. ``scheme`` is http, https, grpc or grpcs."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.netloc if self.scheme == "http" else f"{self.scheme}://{self.netloc}"


def parse_address(text: str) -> Address:
    """``host:port``, ``http://…``, ``https://…``, ``grpc://…``, ``grpcs://…``.

    Raises:
        InvalidOption: anything else.
    """
    whole = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(whole)
        if (
            parts.scheme not in _DEFAULT_PORT
            or not parts.hostname
            or parts.path.strip("/")
            or parts.username
        ):
            raise ValueError(text)
        return Address(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORT[parts.scheme])
    except ValueError as error:
        raise InvalidOption(
            f"triton_url {text!r} is not host:port, http://, https://, grpc:// or grpcs://",
            step="read triton_url",
            left="nothing was changed",
        ) from error


@dataclass(frozen=True)
class Access:
    """What a server wants to see before it answers.

    Attributes:
        admin_key: ``{"name", "secret"}`` of restricted APIs.
        ca_file: certificates in PEM form to trust instead of the system's, for https and grpcs.
        client_cert, client_key: of this client, in PEM form, for servers that ask for them.
    """

    admin_key: Mapping[str, str] | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Access:
        """Raises InvalidOption for a certificate without its key, or the other way round."""
        key = {"name": ADMIN_KEY, **options["admin_key"]} if options.get("admin_key") else None
        found = cls(
            key,
            *(options.get(option) or None for option in ("ca_file", "client_cert", "client_key")),
        )
        if bool(found.client_cert) != bool(found.client_key):
            raise InvalidOption(
                "client_cert and client_key go together",
                step="read the options",
                left="nothing was changed",
            )
        return found

    def readable(self) -> Access:
        """This, where its files can be read. Raises InvalidOption otherwise."""
        for option in ("ca_file", "client_cert", "client_key"):
            path = getattr(self, option)
            try:
                with open(path, "rb") if path else contextlib.nullcontext():
                    pass
            except OSError as error:
                raise InvalidOption(
                    f"{option} {path} cannot be read ({error.strerror})",
                    step="read the options",
                    left="nothing was changed",
                ) from error
        return self


class Refused(Exception):
    """An answer of the server that is an error: HTTP-like status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Silent(Exception):
    """No answer before the deadline."""


class Gone(Exception):
    """The connection was refused or broke."""


class _OfThreads(threading.local):
    """tritonclient's client of each thread: gevent's belong to the thread that made them, and
    gRPC's are closed when they break.
    """

    client: Any = None
    loads: int = 0


class HttpTransport:
    """tritonclient.http under a total deadline: its own time-outs count per read, gevent's count
    altogether.

    A thread of the server answers several connections, none of them while it loads a model, and a
    new connection goes to a thread that is free. So each load has a connection of its own, one that
    is older than a load is not used after it, and what is not answered soon is asked again on a new
    one.
    """

    def __init__(self, address: Address, access: Access) -> None:
        self._address = address
        self._access = access
        self._headers = (
            {access.admin_key["name"]: access.admin_key["secret"]} if access.admin_key else {}
        )
        self._own = _OfThreads()
        self._lock = threading.Lock()
        self._loads = 0
        self._load_sent = -1.0

    def call(self, seconds: float, method: str, *args: Any, **kwargs: Any) -> Any:
        end = time.monotonic() + seconds
        if method == "load_model":
            self._begin_load()
        elif self._own.loads != self._loads:
            self.close()
        if method in ("load_model", "infer"):
            return self._call(seconds, method, *args, **kwargs)
        with contextlib.suppress(Silent):
            return self._call(min(_ASK_AGAIN, seconds / 2), method, *args, **kwargs)
        return self._call(end - time.monotonic(), method, *args, **kwargs)

    def _begin_load(self) -> None:
        self.close()
        with self._lock:
            self._wait_until_taken_up()
            self._loads += 1
            self._load_sent = time.monotonic()

    def _wait_until_taken_up(self) -> None:
        """A connection that is made while a load is on its way could go to the thread that takes it
        up.
        """
        time.sleep(max(0.0, self._load_sent + _TAKEN_UP - time.monotonic()))

    def _call(self, seconds: float, method: str, *args: Any, **kwargs: Any) -> Any:
        with needed("tritonclient", "to ask a Triton server"):
            import gevent
            from geventhttpclient.response import HTTPParseError
            from tritonclient.utils import InferenceServerException
        timer = gevent.Timeout(max(seconds, 0.001))
        timer.start()
        try:
            if self._own.client is None:
                if method != "load_model":
                    self._wait_until_taken_up()
                self._own.client, self._own.loads = self._connected(seconds), self._loads
            return getattr(self._own.client, method)(*args, headers=self._headers, **kwargs)
        except gevent.Timeout as error:
            self.close()
            if error is not timer:
                raise
            raise Silent from error
        except InferenceServerException as error:
            raise Refused(int(error.status() or 0), error.message() or "") from error
        except TimeoutError as error:
            self.close()
            raise Silent from error
        # An answer that is cut short, or that never begins, is a parse error to gevent's client.
        except (OSError, EOFError, RuntimeError, ValueError, HTTPParseError) as error:
            self.close()
            raise Gone(str(error) or type(error).__name__) from error
        finally:
            timer.close()

    def _connected(self, seconds: float) -> Any:
        from tritonclient.http import InferenceServerClient

        access = self._access.readable()
        files = {
            "ca_certs": access.ca_file,
            "certfile": access.client_cert,
            "keyfile": access.client_key,
        }
        return InferenceServerClient(
            self._address.netloc,
            ssl=self._address.scheme == "https",
            ssl_options={key: path for key, path in files.items() if path},
            connection_timeout=seconds,
            network_timeout=seconds,
        )

    def close(self) -> None:
        """Close the connection of the calling thread."""
        if self._own.client is not None:
            # Here and now: errors that are kept hold it too, and another thread must not close it.
            self._own.client.close()
        self._own.client = None

    def index(self, seconds: float) -> list[Mapping[str, Any]]:
        return self.call(seconds, "get_model_repository_index")

    def config(self, seconds: float, name: str) -> Mapping[str, Any]:
        return self.call(seconds, "get_model_config", name)

    def metadata(self, seconds: float, name: str, version: str = "") -> Mapping[str, Any]:
        return self.call(seconds, "get_model_metadata", name, version)


_GRPC_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "UNAVAILABLE": 503,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 403,
}
# What gRPC itself says where it has no answer. Triton's own answers can have the same code,
# UNAVAILABLE.
_BROKEN = (
    "failed to connect",
    "connection re",
    "socket closed",
    "recvmsg",
    "sendmsg",
    "goaway",
    "resolution",
    "broken pipe",
    "stream removed",
    "handshak",
    "transport",
    "endpoint",
    "deadline",
)


def _is_broken(text: str) -> bool:
    return any(sign in text.lower() for sign in _BROKEN)


class GrpcTransport:
    """tritonclient.grpc, whose deadlines are total."""

    def __init__(self, address: Address, access: Access) -> None:
        self._address = address
        self._access = access
        self._headers = (
            {f"triton-grpc-protocol-{access.admin_key['name']}": access.admin_key["secret"]}
            if access.admin_key
            else {}
        )
        self._own = _OfThreads()

    def call(self, seconds: float, method: str, *args: Any, **kwargs: Any) -> Any:
        with needed("tritonclient", "to ask a Triton server"):
            from tritonclient.utils import InferenceServerException
        try:
            if self._own.client is None:
                self._own.client = self._connected()
            return getattr(self._own.client, method)(
                *args, headers=self._headers, client_timeout=max(seconds, 0.001), **kwargs
            )
        except InferenceServerException as error:
            code = (error.status() or "").rpartition(".")[2]
            text = error.message() or ""
            if code == "DEADLINE_EXCEEDED" or text == "Deadline Exceeded":
                raise Silent from error
            if code == "UNAVAILABLE" and not self._answered(text, seconds):
                # A new connection begins without the waits between attempts of the old one.
                self.close()
                raise Gone(" ".join(text.split())) from error
            raise Refused(
                403 if "restricted" in text else _GRPC_STATUS.get(code, 500), text
            ) from error

    def _answered(self, text: str, seconds: float) -> bool:
        """True where the server said so itself: a model that is not available, a key that is
        missing, a server that is shutting down.
        """
        from tritonclient.utils import InferenceServerException

        if "restricted" in text or "explicit model load" in text:
            return True
        if _is_broken(text):
            return False
        try:
            self._own.client.is_server_live(
                headers=self._headers, client_timeout=min(seconds, _ASK_AGAIN)
            )
        except InferenceServerException as error:  # one that shuts down refuses this too
            return not _is_broken(error.message() or "deadline")
        return True

    def _connected(self) -> Any:
        from tritonclient.grpc import InferenceServerClient

        access = self._access.readable()
        # gRPC obeys http_proxy for loopback addresses too. The connections of threads are apart, so
        # that one can be given up alone.
        channel = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            *([("grpc.enable_http_proxy", 0)] if is_loopback(self._address.host) else []),
        ]
        return InferenceServerClient(
            self._address.netloc,
            ssl=self._address.scheme == "grpcs",
            root_certificates=access.ca_file,
            private_key=access.client_key,
            certificate_chain=access.client_cert,
            channel_args=channel,
        )

    def close(self) -> None:
        """Close the connection of the calling thread."""
        if self._own.client is not None:
            self._own.client.close()
        self._own.client = None

    def index(self, seconds: float) -> list[Mapping[str, Any]]:
        return self.call(seconds, "get_model_repository_index", as_json=True).get("models", [])

    def config(self, seconds: float, name: str) -> Mapping[str, Any]:
        return self.call(seconds, "get_model_config", name, as_json=True)["config"]

    def metadata(self, seconds: float, name: str, version: str = "") -> Mapping[str, Any]:
        return self.call(seconds, "get_model_metadata", name, version, as_json=True)


def leave_thread() -> None:
    """To be called at the end of a thread that asked servers over HTTP: gevent keeps file
    descriptors for each.
    """
    if "gevent" in sys.modules:
        import gevent

        gevent.get_hub().destroy()
