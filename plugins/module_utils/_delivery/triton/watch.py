# SPDX-License-Identifier: Apache-2.0
"""Whether a server goes down while a call over HTTP waits for its answer.

The connection of the call does not tell: what Triton's Python backend starts inherits it, and can
live on without its server, which may be up again meanwhile. Nor does silence: a thread of Triton
that loads answers none of its connections. What tells is a connection that was made after that
process was started: the kernel closes it with the server, whose port is refused from then on until
it listens again.
"""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Any

from ..loopback import is_loopback
from .address import Address
from .transport import WentDown

_BEGIN = 0.3
"""Seconds after which a call is watched; most loads have ended by then."""
_SHARE = 0.25
_LONGEST = 10.0
"""A connection is kept for a share of the time that the call has taken, and then renewed, because
what is started meanwhile inherits it too. The pauses grow, because a server whose threads all load
does not notice that the ones before are closed: in five minutes these are about 50."""
_CONNECT = 1.0
_PAUSES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08)
"""Between the questions whether the port is refused. Triton takes 0.06 s to listen again, and more
where a supervisor starts it."""


class Watch:
    """Raises WentDown in the greenlet that entered it, as soon as the server has gone down.

    Both have to be seen, that a connection ends and that the port is refused at once after it:
    proxies close connections, and a cluster refuses new ones to a server that is only slow. To
    this host's loopback nothing comes between, and a refusal is enough. Where neither is seen, the
    call waits on.
    """

    def __init__(self, address: Address) -> None:
        self._host, self._port = address.host, address.port
        self._greenlet: Any = None
        self._thrown: Any = None
        self._is_over = False

    def __enter__(self) -> Watch:
        import gevent

        self._greenlet = gevent.spawn_later(_BEGIN, self._run, gevent.getcurrent())
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        # What has been found, and not been raised yet, must not hit what comes after the call.
        self._is_over = True
        if self._thrown is not None:
            self._thrown.stop()
        self._greenlet.kill()

    def _run(self, caller: Any) -> None:
        import gevent

        began = time.monotonic() - _BEGIN
        while True:
            taken = time.monotonic() - began
            until = time.monotonic() + min(max(_BEGIN, _SHARE * taken), _LONGEST)
            if self._sees_it_go(until):
                if not self._is_over:
                    self._thrown = gevent.get_hub().loop.run_callback(caller.throw, WentDown())
                return
            gevent.sleep(max(0.0, until - time.monotonic()))

    def _sees_it_go(self, until: float) -> bool:
        """Whether it goes down before ``until``, as one connection shows."""
        from gevent import socket

        try:
            connection = socket.create_connection((self._host, self._port), _CONNECT)
        except OSError:
            return is_loopback(self._host) and self._is_refused_everywhere()
        with connection, contextlib.suppress(OSError):
            place = connection.getpeername()[:2]
            return self._ends(connection, until) and self._is_refused(place)
        return False

    def _ends(self, connection: Any, until: float) -> bool:
        while (left := until - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                if not connection.recv(4096):  # proxies may have something to say
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False

    def _is_refused_everywhere(self) -> bool:
        """At each address that the name stands for."""
        from gevent import socket

        with contextlib.suppress(OSError):
            names = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            return all(_refuses(name[4][:2]) for name in names)
        return False

    def _is_refused(self, place: Any) -> bool:
        import gevent

        for pause in _PAUSES:
            gevent.sleep(pause)
            if _refuses(place):
                return True
        return False


def _refuses(place: Any) -> bool:
    """Whether a connection to an address and port is refused, and not just slow or impossible."""
    from gevent import socket

    with contextlib.suppress(OSError):
        try:
            socket.create_connection(place, _CONNECT).close()
        except ConnectionRefusedError:
            return True
    return False
