# SPDX-License-Identifier: Apache-2.0
"""The same request again and again, over connections that are kept: a load generator in one thread,
which takes little of the processors that it shares with the server.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

END_OF_HEADERS = b"\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """One request as its bytes, made once."""

    port: int
    path: str
    body: bytes
    headers: Mapping[str, str]

    def data(self) -> bytes:
        lines = [f"POST {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        given = {"Content-Type": "application/json", **self.headers}
        lines += [f"{name}: {value}" for name, value in given.items()]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + END_OF_HEADERS + self.body


@dataclass(frozen=True)
class Measured:
    """Seconds of each request, in the order of their answers, and of the whole."""

    took: tuple[float, ...]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.took) / self.seconds

    def percentile(self, number: int) -> float:
        return statistics.quantiles(self.took, n=100, method="inclusive")[number - 1]


class Connection:
    """One client: it sends when it has its answer."""

    def __init__(self, port: int, data: bytes) -> None:
        self.data = data
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = bytearray()
        self._expected: int | None = None
        self._begin = 0.0

    def send(self) -> None:
        self._answer.clear()
        self._expected = None
        self._begin = time.perf_counter()
        self.socket.sendall(self.data)

    def receive(self) -> float | None:
        """The seconds that the request took, once its answer is complete."""
        part = self.socket.recv(1 << 20)
        if not part:
            raise SystemExit("the server closed a connection")
        self._answer += part
        if self._expected is None and END_OF_HEADERS in self._answer:
            self._expected = _expected(bytes(self._answer))
        if self._expected is None or len(self._answer) < self._expected:
            return None
        return time.perf_counter() - self._begin

    def body(self) -> bytes:
        return bytes(self._answer).split(END_OF_HEADERS, 1)[1]


def _expected(answer: bytes) -> int:
    headers, _end, _body = answer.partition(END_OF_HEADERS)
    status, *lines = headers.split(b"\r\n")
    if status.split(b" ")[1] != b"200":
        raise SystemExit(f"a request was answered with {answer.decode(errors='replace')[:2000]}")
    for line in lines:
        name, _colon, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(headers) + len(END_OF_HEADERS) + int(value)
    raise SystemExit("an answer does not say its length")


@contextlib.contextmanager
def _connections(request: Request, count: int) -> Iterator[list[Connection]]:
    made: list[Connection] = []
    try:
        for _client in range(count):
            made.append(Connection(request.port, request.data()))
        yield made
    finally:
        for one in made:
            one.socket.close()


def ask(request: Request) -> bytes:
    """The body of one answer."""
    with _connections(request, 1) as (one,):
        one.send()
        while one.receive() is None:
            pass
        return one.body()


def measure(request: Request, clients: int, seconds: float, warm_up: float = 1.0) -> Measured:
    """``clients`` at once; what is asked in the first ``warm_up`` seconds does not count."""
    took: list[float] = []
    with _connections(request, clients) as made, selectors.DefaultSelector() as selector:
        for one in made:
            selector.register(one.socket, selectors.EVENT_READ, one)
            one.send()
        begin = time.perf_counter() + warm_up
        end = begin + seconds
        while (now := time.perf_counter()) < end:
            for key, _events in selector.select(timeout=1):
                if (seconds_of_one := key.data.receive()) is not None:
                    if now >= begin:
                        took.append(seconds_of_one)
                    key.data.send()
    if len(took) < 2:
        raise SystemExit(f"{len(took)} requests were answered in {seconds} s")
    return Measured(tuple(took), seconds)
