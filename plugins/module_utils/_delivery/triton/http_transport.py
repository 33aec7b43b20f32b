# SPDX-License-Identifier: Apache-2.0
"""The way to one server over HTTP: TLS, keys and total deadlines around tritonclient."""

from __future__ import annotations

import contextlib
import struct
import sys
import threading
import time
from collections.abc import Sequence

from ..libraries import require
from .address import Access, Address
from .bounded import Meter, meter_client
from .transport import ASK_AGAIN, Answer, Gone, Nonsense, Refused, Silent, ThreadClients
from .watch import Watch

# Until a load that was sent has surely been taken up by a thread of the server.
_TAKEN_UP = 0.03
# What tritonclient raises where an answer has another shape than it takes for granted.
_MISREAD = (KeyError, IndexError, TypeError, AttributeError, ArithmeticError, struct.error)
# What may take minutes, and whose answer a server that is up again does not give. Other questions
# are asked again soon, or of models that are loaded. gRPC's connections are not inherited.
_WATCHED = ("load_model", "unload_model")


class HttpTransport:
    """tritonclient.http under a total deadline, which gevent counts: tritonclient's own time-outs
    are those of a connection, which serves calls that may take 2 s and calls that may take minutes.

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
        self._own = ThreadClients()
        self._lock = threading.Lock()
        self._loads = 0
        self._load_sent = -1.0

    def call(self, seconds: float, method: str, /, *args: object, **kwargs: object) -> Answer:
        end = time.monotonic() + seconds
        if method == "load_model":
            self._begin_load()
        elif self._own.loads != self._loads:
            self.close()
        if method in ("load_model", "infer"):
            return self._call(seconds, method, *args, **kwargs)
        with contextlib.suppress(Silent):
            return self._call(min(ASK_AGAIN, seconds / 2), method, *args, **kwargs)
        return self._call(end - time.monotonic(), method, *args, **kwargs)

    def stream(self, seconds: float, /, *args: object, **kwargs: object) -> Sequence[Answer]:
        """Refused: Triton answers decoupled models over gRPC."""
        raise Refused(
            501, "HTTP end point doesn't support models with decoupled transaction policy"
        )

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

    def _call(self, seconds: float, method: str, *args: object, **kwargs: object) -> Answer:
        with require("tritonclient", "to ask a Triton server"):
            import gevent
            from geventhttpclient.response import HTTPParseError
            from tritonclient.utils import InferenceServerException
        timer = gevent.Timeout(max(seconds, 0.001))
        timer.start()
        try:
            if self._own.client is None:
                if method != "load_model":
                    self._wait_until_taken_up()
                self._own.client, self._own.loads = self._connected(), self._loads
            self._own.meter.begin(seconds)
            with Watch(self._address) if method in _WATCHED else contextlib.nullcontext():
                return getattr(self._own.client, method)(*args, headers=self._headers, **kwargs)
        except (Gone, Nonsense, Silent):
            self.close()
            raise
        except gevent.Timeout as error:
            self.close()
            if error is not timer:
                raise
            raise Silent from error
        except InferenceServerException as error:
            raise Refused(int(error.status() or 0), str(error.message() or "")) from error
        except TimeoutError as error:
            self.close()
            raise Silent from error
        except (*_MISREAD, RecursionError) as error:
            has_answer = self._own.meter is not None and self._own.meter.has_answer
            self.close()
            if not has_answer:
                raise
            raise Nonsense(f"it has another shape ({type(error).__name__}: {error})") from error
        # An answer that is cut short, or that never begins, is a parse error to gevent's client.
        except (OSError, EOFError, RuntimeError, ValueError, HTTPParseError) as error:
            self.close()
            raise Gone(str(error) or type(error).__name__) from error
        finally:
            timer.close()

    def _connected(self) -> Answer:
        from tritonclient.http import InferenceServerClient

        access = self._access.readable()
        files = {
            "ca_certs": access.ca_file,
            "certfile": access.client_cert,
            "keyfile": access.client_key,
        }
        client = InferenceServerClient(
            self._address.netloc,
            ssl=self._address.scheme == "https",
            ssl_options={key: path for key, path in files.items() if path},
            connection_timeout=None,
            network_timeout=None,
        )
        self._own.meter = Meter()
        meter_client(client, self._own.meter)
        return client

    def close(self) -> None:
        """Close the connection of the calling thread."""
        if self._own.client is not None:
            # Here and now: errors that are kept hold it too, and another thread must not close it.
            self._own.client.close()
        self._own.client = None

    def index(self, seconds: float) -> Answer:
        return self.call(seconds, "get_model_repository_index")

    def config(self, seconds: float, name: str) -> Answer:
        return self.call(seconds, "get_model_config", name)

    def metadata(self, seconds: float, name: str, version: str = "") -> Answer:
        return self.call(seconds, "get_model_metadata", name, version)

    def release(self, seconds: float) -> Answer:
        return self.call(seconds, "get_server_metadata")

    def statistics(self, seconds: float) -> Answer:
        return self.call(seconds, "get_inference_statistics")

    @property
    def spelling(self) -> str:
        return ""  # JSON as the server wrote it


def leave_thread() -> None:
    """To be called at the end of a thread that asked servers over HTTP: gevent keeps file
    descriptors for each.
    """
    if "gevent" in sys.modules:
        import gevent

        gevent.get_hub().destroy()
