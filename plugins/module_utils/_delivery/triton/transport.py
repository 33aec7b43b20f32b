# SPDX-License-Identifier: Apache-2.0
"""What the ways to a Triton server over HTTP and gRPC share: how a call can fail, and a client for
each thread. tritonclient does the talking.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

ASK_AGAIN = 2.0
"""Seconds after which a question is asked again on a new connection."""


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


class WentDown(Gone):
    """The server ended while it was asked; it may be up again."""

    def __init__(self) -> None:
        super().__init__("the server went down")


Answer: TypeAlias = Any
"""What tritonclient returns: JSON, or an object of its own."""
JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object as Triton sends it."""


class Transport(Protocol):
    """The way to one server. ``seconds`` is the total deadline of a call.

    Raises:
        Refused, Silent, Gone: by all but ``close``.
    """

    def call(self, seconds: float, method: str, /, *args: object, **kwargs: object) -> Answer:
        """Call a method of tritonclient's client."""

    def stream(self, seconds: float, /, *args: object, **kwargs: object) -> Sequence[Answer]:
        """All answers of a decoupled model to one inference."""

    def index(self, seconds: float) -> Sequence[JsonObject]:
        """Rows of the repository index."""

    def config(self, seconds: float, name: str) -> JsonObject:
        """The configuration that the server runs a model with."""

    def metadata(self, seconds: float, name: str, version: str = "") -> JsonObject:
        """Inputs and outputs of a model."""

    def release(self, seconds: float) -> str:
        """The server's version."""

    @property
    def spelling(self) -> str:
        """What decides how an answer of the same server is written, besides its version; "" where
        nothing does.
        """

    def close(self) -> None:
        """Close the connection of the calling thread."""


class ThreadClients(threading.local):
    """tritonclient's client of each thread: gevent's belong to the thread that made them, and
    gRPC's are closed when they break.
    """

    client: Answer = None
    loads: int = 0
