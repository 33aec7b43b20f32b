# SPDX-License-Identifier: Apache-2.0
"""Bounds of what a server may answer over HTTP: bytes of headers, bytes of a body, and time.

geventhttpclient reads whatever comes, and a peer that sends faster than it is read never lets
gevent count its time-out. So each answer is metered where its bytes come out of the socket.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .transport import LARGEST_ANSWER, LARGEST_INFERENCE, Nonsense, Silent

_LARGEST_HEAD = 256 << 10
_LENGTH = "Inference-Header-Content-Length"


class Meter:
    """What one answer may still bring."""

    def __init__(self) -> None:
        self._left, self._end = 0, 0.0
        self.has_answer = False
        """Whether anything came of the answer to what was asked last."""

    def begin(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._left, self.has_answer = _LARGEST_HEAD, False

    def allow(self, size: int) -> None:
        self._left = size

    def note(self, count: int) -> None:
        """Raises Silent after the deadline, and Nonsense beyond what is allowed."""
        self.has_answer = True
        self._left -= count
        if self._left < 0:
            raise Nonsense("it is longer than any that Triton gives")
        if time.monotonic() > self._end:
            raise Silent


class _MeteredSocket:
    """A socket of gevent whose ``recv`` is metered."""

    def __init__(self, inner: Any, meter: Meter) -> None:
        self.inner, self._meter = inner, meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def recv(self, *arguments: Any) -> bytes:
        data: bytes = self.inner.recv(*arguments)
        self._meter.note(len(data))
        return data


def meter_client(client: Any, meter: Meter) -> None:
    """Let ``meter`` count what an InferenceServerClient of tritonclient.http reads."""
    stub = client._client_stub
    pool = stub._connection_pool
    for name in ("get_socket", "return_socket", "release_socket"):
        setattr(pool, name, _through_meter(getattr(pool, name), meter))
    for name in ("get", "post"):
        setattr(stub, name, _with_judged_head(getattr(stub, name), meter))


def _through_meter(function: Callable[..., Any], meter: Meter) -> Callable[..., Any]:
    def call(*sockets: Any) -> Any:
        found = function(*(getattr(one, "inner", one) for one in sockets))
        return None if found is None else _MeteredSocket(found, meter)

    return call


def _with_judged_head(function: Callable[..., Any], meter: Meter) -> Callable[..., Any]:
    """A body that is packed was not asked for, and would be unpacked to any size."""

    def call(*arguments: Any, **options: Any) -> Any:
        answer = function(*arguments, **options)
        if answer.get("Content-Encoding") not in (None, "identity"):
            answer.release()
            raise Nonsense("it is compressed, which was not asked for")
        length = answer.get(_LENGTH)
        if length is None:
            meter.allow(LARGEST_ANSWER)
        elif str(length).isascii() and str(length).isdigit() and len(str(length)) < 9:
            if int(length) > LARGEST_ANSWER:
                raise Nonsense(f"its {_LENGTH} is {length}")
            meter.allow(LARGEST_INFERENCE)
        else:
            raise Nonsense(f"its {_LENGTH} is no number of bytes")
        return answer

    return call
