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
LARGEST_ANSWER = 16 << 20
"""Bytes of an answer to a question; an index of ten thousand models has one MiB."""
LARGEST_INFERENCE = 256 << 20
"""Bytes of an answer with tensors. Triton takes requests of 64 MiB over HTTP."""
_LONGEST_TEXT = 16 << 10


class Refused(Exception):
    """An answer of the server that is an error: HTTP-like status and text."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
        super().__init__(self.text)


class Silent(Exception):
    """No answer before the deadline."""


class Nonsense(Exception):
    """An answer that no Triton gives; the text says why, after "it": ``its length is …``."""


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
        Refused, Silent, Gone, Nonsense: by all but ``close``. What is returned is as the server
            said it, whatever its shape.
    """

    def call(self, seconds: float, method: str, /, *args: object, **kwargs: object) -> Answer:
        """Call a method of tritonclient's client."""

    def stream(self, seconds: float, /, *args: object, **kwargs: object) -> Sequence[Answer]:
        """All answers of a decoupled model to one inference."""

    def index(self, seconds: float) -> Answer:
        """Rows of the repository index."""

    def config(self, seconds: float, name: str) -> Answer:
        """The configuration that the server runs a model with."""

    def metadata(self, seconds: float, name: str, version: str = "") -> Answer:
        """Inputs and outputs of a model."""

    def release(self, seconds: float) -> Answer:
        """The server's own metadata, with its version."""

    def statistics(self, seconds: float) -> Answer:
        """What each version of each model has answered since it was loaded."""

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
    meter: Answer = None
