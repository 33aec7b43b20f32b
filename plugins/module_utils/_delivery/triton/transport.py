# SPDX-License-Identifier: Apache-2.0
"""What the ways to a Triton server over HTTP and gRPC share: how a call can fail, and a client for
each thread. tritonclient does the talking.
"""

from __future__ import annotations

import threading
from typing import Any

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


class ThreadClients(threading.local):
    """tritonclient's client of each thread: gevent's belong to the thread that made them, and
    gRPC's are closed when they break.
    """

    client: Any = None
    loads: int = 0
