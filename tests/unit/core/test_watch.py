# SPDX-License-Identifier: Apache-2.0
"""A load whose answer cannot come is given up; one that is only slow never is."""

from __future__ import annotations

import contextlib
import importlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ServerUnreachable,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton import watch
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.address import (
    Access,
    parse_address,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.http_transport import (
    HttpTransport,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.server import (
    TritonServer,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.transport import (
    Silent,
    WentDown,
)

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SECONDS = 4.0


class Listener:
    """Accepts, reads and answers nothing. The first connection is that of the load.

    Attributes:
        hangs_up: connections after the first are closed at once.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.hangs_up = False
        self.connections: list[socket.socket] = []
        self.accepted = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            if not select.select([self._listener], [], [], 0.01)[0]:
                continue
            connection, _peer = self._listener.accept()
            self.accepted += 1
            if self.hangs_up and self.accepted > 1:
                connection.close()
            else:
                self.connections.append(connection)

    def refuse(self) -> None:
        """Nobody listens any more; what was accepted stays open."""
        self._over.set()
        self._thread.join()
        self._listener.close()

    def go_down(self) -> None:
        """As a server of which a process lives on that has inherited the load's connection."""
        self.refuse()
        for connection in self.connections[1:]:
            connection.close()

    def go_down_and_up(self) -> None:
        self.go_down()
        time.sleep(0.06)
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._over.clear()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def answer(self) -> None:
        self.connections[0].sendall(ANSWER)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.refuse()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    importlib.import_module("tritonclient.http")  # which takes longer than the tests allow
    made = Listener()
    yield made
    made.close()


def load(listener: Listener, event: Callable[[], None], after: float = 1.0) -> float:
    """Seconds that a load took of the SECONDS that it may take, in which something happens."""
    transport = HttpTransport(parse_address(f"127.0.0.1:{listener.port}"), Access())
    timer = threading.Timer(after, event)
    started = time.monotonic()
    timer.start()
    try:
        transport.call(SECONDS, "load_model", "model")
        return time.monotonic() - started
    finally:
        timer.join()
        transport.close()


@pytest.mark.parametrize("up_again", [True, False])
def test_a_server_that_went_down(listener: Listener, up_again: bool) -> None:
    started = time.monotonic()
    with pytest.raises(WentDown):
        load(listener, listener.go_down_and_up if up_again else listener.go_down)
    assert time.monotonic() - started < SECONDS / 2


def test_it_is_said_so(listener: Listener) -> None:
    timer = threading.Timer(1, listener.go_down)
    timer.start()
    url = f"127.0.0.1:{listener.port}"
    with TritonServer(url, SECONDS) as server, pytest.raises(ServerUnreachable) as failed:
        server.load("model")
    timer.join()
    assert str(failed.value) == f"model 'model', load: Triton at {url} went down during the load"


def test_a_slow_server_is_waited_for(listener: Listener) -> None:
    assert load(listener, listener.answer, 2.5) >= 2.5
    assert 2 <= listener.accepted <= 9
    # What was asked for to watch is closed with the end of the call.
    closed = [connection.recv(1) for connection in listener.connections[1:]]
    assert closed == [b""] * len(closed)


def test_a_short_load_is_not_watched(listener: Listener) -> None:
    load(listener, listener.answer, 0.1)
    time.sleep(0.5)
    assert listener.accepted == 1


def test_a_proxy_that_closes_connections(listener: Listener) -> None:
    listener.hangs_up = True
    with pytest.raises(Silent):
        load(listener, lambda: None)


def test_a_cluster_that_refuses_new_connections(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that it has are carried on, and so is the load."""
    monkeypatch.setattr(watch, "is_loopback", lambda host: False)

    def refuse_and_answer() -> None:
        listener.refuse()
        time.sleep(2)
        listener.answer()

    assert load(listener, refuse_and_answer) >= 3


def test_nothing_listens_on_this_host(listener: Listener) -> None:
    """Also where all connections are held open."""
    with pytest.raises(WentDown):
        load(listener, listener.refuse)


def test_what_was_found_too_late_is_not_raised_any_more(listener: Listener) -> None:
    """The answer and the end of the server come at the same moment."""

    def answer_and_go_down() -> None:
        listener.answer()
        listener.go_down()

    assert load(listener, answer_and_go_down) >= 1
    import gevent

    gevent.sleep(0.5)
