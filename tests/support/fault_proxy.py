# SPDX-License-Identifier: Apache-2.0
"""A proxy before a real HTTP server, with switches for what networks and servers do on bad days.
Standard library only.

    with FaultProxy(mlflow.url) as proxy:
        proxy.fault, proxy.only = "cut", "mlflow-artifacts/artifacts/"
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from email.message import Message
from typing import BinaryIO
from urllib.parse import urlsplit

FAULTS = (
    "",
    "cut",
    "cut without length",
    "silent",
    "trickle",
    "hang up",
    "no ranges",
    "fresh tags",
    "lose",
    "slow",
)
_DROPPED = {"no ranges": {"host", "range", "if-range"}}
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}


class FaultProxy:
    """Answers one request per connection, as the real server does, or with a fault.

    Attributes:
        fault: "" (pass on), "cut" (the body ends at byte ``after`` of the file, Content-Length
            tells the whole), "cut without length" (the body ends there and nothing tells that it is
            not whole), "silent" (nothing is ever answered), "trickle" (a byte a second), "hang up"
            (the connection is closed without an answer), "no ranges" (as servers that do not know
            them), "fresh tags" (as a server that copies a file from elsewhere for each answer: each
            has an ETag of its own), "lose" (the server gets the request, and nobody its answer),
            "slow" (``after`` bytes a second, in both directions).
        only: a text that the request line must hold for the fault to happen.
        times: how many requests get the fault; all of them when None.
        hit: how many requests got the fault.
        ranges: the Range header of each GET that the fault's ``only`` holds for, in order.
        sent: bytes of bodies passed on.
        before: called with a request line before it is passed on.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self.fault = ""
        self.only = ""
        self.after = 0
        self.hit = 0
        self.times: int | None = None
        self.ranges: list[str] = []
        self.sent = 0
        self.before: Callable[[str], None] = lambda line: None
        self.lines: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener: socket.socket | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultProxy:
        self.listen()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self.refuse()

    def listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Nobody listens any more, until ``listen``."""
        if self._listener is not None:
            # A thread that waits in accept keeps the port open until it is woken.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def clear(self) -> None:
        self.fault, self.only, self.after, self.hit, self.times, self.sent = "", "", 0, 0, None, 0
        self.before = lambda line: None
        self.lines.clear()
        self.ranges.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _peer = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException), connection:
            stream = connection.makefile("rb")
            line = stream.readline().decode("latin-1").strip()
            if not line:
                return  # somebody only looked whether anybody listens
            headers = http.client.parse_headers(stream)
            method, path, _version = line.split(" ", 2)
            fault = self._fault_of(line, headers)
            body = self._read(stream, int(headers.get("Content-Length") or 0), fault)
            self.lines.append(line)
            if fault == "silent":
                self._over.wait(600)
                return
            if fault == "hang up":
                return
            with contextlib.closing(
                http.client.HTTPConnection(*self._target, timeout=120)
            ) as behind:
                # The real host's name: MLflow refuses others.
                given = {
                    key: value
                    for key, value in headers.items()
                    if key.lower() not in _HOP | _DROPPED.get(fault, {"host"})
                }
                if fault == "fresh tags" and "If-Range" in given:
                    given["If-Range"] = '"another"'
                behind.request(method, path, body or None, given)
                answer = behind.getresponse()
                if fault == "lose":
                    return
                self._pass_on(connection, answer, answer.read(), fault)

    def _read(self, stream: BinaryIO, size: int, fault: str) -> bytes:
        if fault != "slow":
            return stream.read(size)
        body = b""
        while len(body) < size and not self._over.wait(0.1):
            body += stream.read(min(self.after // 10, size - len(body)))
        return body

    def _fault_of(self, line: str, headers: Message) -> str:
        with self._lock:
            wanted = self.only in line
            if wanted and line.startswith("GET "):
                self.ranges.append(headers.get("Range", ""))
            self.before(line)
            if not self.fault or not wanted or (self.times is not None and self.hit >= self.times):
                return ""
            self.hit += 1
            return self.fault

    def _pass_on(
        self, connection: socket.socket, answer: http.client.HTTPResponse, body: bytes, fault: str
    ) -> None:
        head = [f"HTTP/1.1 {answer.status} {answer.reason}", "Connection: close"]
        hidden = _HOP | (
            {"accept-ranges", "etag"}
            if fault == "no ranges"
            else {"etag"}
            if fault == "fresh tags"
            else set()
        )
        head += [
            f"{key}: {value}" for key, value in answer.getheaders() if key.lower() not in hidden
        ]
        if fault == "fresh tags":
            head.append(f'ETag: "{self.hit}"')
        if fault != "cut without length":
            head.append(f"Content-Length: {len(body)}")
        connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1"))
        if fault == "trickle":
            for byte in body:
                connection.sendall(bytes([byte]))
                if self._over.wait(1):
                    return
        if fault.startswith("cut"):
            start = int(
                answer.headers.get("Content-Range", "bytes 0-")
                .removeprefix("bytes ")
                .partition("-")[0]
            )
            body = body[: max(0, self.after - start)]
        step = self.after // 10 if fault == "slow" else max(len(body), 1)
        for start in range(0, len(body), step):
            connection.sendall(body[start : start + step])
            if fault == "slow" and self._over.wait(0.1):
                return
        with self._lock:
            self.sent += len(body)
        if fault == "cut":
            time.sleep(0.05)
