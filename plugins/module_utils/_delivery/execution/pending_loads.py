# SPDX-License-Identifier: Apache-2.0
"""How long a run waits for a load that an earlier one gave up on, and what it says when the load
does not end.
"""

from __future__ import annotations

import datetime

from ..errors import LoadHangs, LoadPending
from ..triton.server import TritonServer

_AT_LEAST = 3.0
"""Seconds: enough for a load that has just ended, or ends soon."""


def time_left(server: TritonServer, since: str) -> float:
    """Seconds that a load which began then may still take."""
    try:
        began = datetime.datetime.fromisoformat(since)
        gone = (datetime.datetime.now(datetime.timezone.utc) - began).total_seconds()
    except (ValueError, TypeError):  # as somebody else wrote it
        gone = server.load_timeout
    # A clock may have been wrong.
    return min(max(server.load_timeout - max(gone, 0.0), _AT_LEAST), server.load_timeout)


def hangs(error: LoadPending, since: str) -> LoadHangs:
    """The load that was joined has not ended either."""
    url = error.server or ""
    return LoadHangs(
        f"Triton at {url} hangs on this name: a load that began at {since} has not ended. Only a"
        " restart of the server helps (playbook deploy_models restarts it where"
        " triton_restart_hanging is true); where the model needs longer, a larger load_timeout"
        " waits for it",
        server=url,
        step="wait for the load",
        hanging=[url],
    )
