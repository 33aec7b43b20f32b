# SPDX-License-Identifier: Apache-2.0
"""The way to one server over gRPC: TLS, keys and total deadlines around tritonclient."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from typing import Any

from ..domain.config_pbtxt import as_json, message_release
from ..libraries import require
from ..loopback import is_loopback
from .address import Access, Address
from .transport import (
    ASK_AGAIN,
    LARGEST_ANSWER,
    LARGEST_INFERENCE,
    Answer,
    Gone,
    Nonsense,
    Refused,
    Silent,
    ThreadClients,
)

_GRPC_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "UNAVAILABLE": 503,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 403,
}
# A stream's own time-out says more than the end of the wait for it.
_SPARE = 1.0
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
        self._own = ThreadClients()

    def call(self, seconds: float, method: str, /, *args: object, **kwargs: object) -> Answer:
        with require("tritonclient", "to ask a Triton server"):
            from tritonclient.utils import InferenceServerException
        try:
            if self._own.client is None:
                self._own.client = self._connected()
            return getattr(self._own.client, method)(
                *args, headers=self._headers, client_timeout=max(seconds, 0.001), **kwargs
            )
        except InferenceServerException as error:
            raise self._failure(error, seconds) from error

    def stream(self, seconds: float, /, *args: object, **kwargs: object) -> Sequence[Answer]:
        """All answers of a decoupled model to one inference, of which the last may be none."""
        with require("tritonclient", "to ask a Triton server"):
            from tritonclient.utils import InferenceServerException
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        found, size, is_silent = [], 0, False
        try:
            if self._own.client is None:
                self._own.client = self._connected()
            client = self._own.client
            client.start_stream(
                callback=lambda result, error: answers.put(error or result),
                stream_timeout=max(seconds, 0.001),
                headers=self._headers,
            )
            try:
                client.async_stream_infer(*args, enable_empty_final_response=True, **kwargs)
                end = time.monotonic() + seconds
                while True:
                    answer = answers.get(timeout=max(end - time.monotonic(), 0.001) + _SPARE)
                    if isinstance(answer, InferenceServerException):
                        raise answer
                    response = answer.get_response()
                    size += response.ByteSize()
                    if size > LARGEST_INFERENCE:
                        is_silent = True
                        raise Nonsense("it is longer than any that Triton gives")
                    if len(response.outputs):
                        found.append(answer)
                    if response.parameters["triton_final_response"].bool_param:
                        return found
            except queue.Empty:
                is_silent = True
                raise Silent from None
            finally:
                # A request that is cancelled while its model still sends answers stays with Triton
                # 2.51, whose next unload of that model then never ends. Its end, which the time-out
                # of the stream bounds, is waited for instead.
                client.stop_stream(cancel_requests=is_silent)
        except InferenceServerException as error:
            raise self._failure(error, seconds) from error

    def _failure(self, error: Answer, seconds: float) -> Refused | Silent | Gone:
        """What an error of tritonclient means."""
        code = (error.status() or "").rpartition(".")[2]
        text = error.message() or ""
        if code == "DEADLINE_EXCEEDED" or text == "Deadline Exceeded":
            return Silent()
        if code == "UNAVAILABLE" and not self._answered(text, seconds):
            # A new connection begins without the waits between attempts of the old one.
            self.close()
            return Gone(" ".join(text.split()))
        return Refused(403 if "restricted" in text else _GRPC_STATUS.get(code, 500), text)

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
                headers=self._headers, client_timeout=min(seconds, ASK_AGAIN)
            )
        except InferenceServerException as error:  # one that shuts down refuses this too
            return not _is_broken(error.message() or "deadline")
        return True

    def _connected(self) -> Answer:
        from tritonclient.grpc import InferenceServerClient

        access = self._access.readable()
        # gRPC obeys http_proxy for loopback addresses too. The connections of threads are apart, so
        # that one can be given up alone.
        channel = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", LARGEST_INFERENCE),
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

    def index(self, seconds: float) -> Answer:
        return self._asked(seconds, "get_model_repository_index").get("models", [])

    def config(self, seconds: float, name: str) -> Answer:
        return self._asked(seconds, "get_model_config", name).get("config")

    def metadata(self, seconds: float, name: str, version: str = "") -> Answer:
        return self._asked(seconds, "get_model_metadata", name, version)

    def release(self, seconds: float) -> Answer:
        return self._asked(seconds, "get_server_metadata")

    def statistics(self, seconds: float) -> Answer:
        return self._asked(seconds, "get_inference_statistics")

    def _asked(self, seconds: float, method: str, *args: object) -> dict[str, Any]:
        """As tritonclient's JSON, which it would make of any amount."""
        answer = self.call(seconds, method, *args)
        if answer.ByteSize() > LARGEST_ANSWER:
            raise Nonsense("it is longer than any that Triton gives")
        return as_json(answer)

    @property
    def spelling(self) -> str:
        """The JSON is made here, of the fields that this client knows."""
        return f"gRPC, {message_release()}"
