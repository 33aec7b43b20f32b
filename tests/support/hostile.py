# SPDX-License-Identifier: Apache-2.0
"""Servers that answer HTTP as no honest one does, made of sockets; and documents with anything in
any place.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

Talk = Callable[[socket.socket], None]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def body(data: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/json", *headers]
    lines.append(b"Content-Length: %d" % len(data))
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


def says(data: bytes) -> Talk:
    return lambda connection: connection.sendall(data)


def says_json(value: Any) -> Talk:
    return says(body(json.dumps(value).encode()))


def without_end(head: bytes, piece: bytes) -> Talk:
    """As fast as it is read."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return talk


def drips(head: bytes, piece: bytes = b" ") -> Talk:
    """A little at a time, for longer than anybody waits."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(0.05)

    return talk


def bomb(size: int) -> bytes:
    """What becomes ``size`` bytes when it is unpacked."""
    return gzip.compress(bytes(size), compresslevel=6)


ZIPPED = bomb(1 << 28)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS: dict[str, Talk] = {
    "a body without end": without_end(HEAD + b"\r\n", b"[" * 65536),
    "chunks without end": without_end(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "tiny chunks without end": without_end(CHUNKED, b"1\r\n \r\n" * 4096),
    "a gigabyte that is announced": without_end(
        HEAD + b"Content-Length: 1073741824\r\n\r\n", b" " * 65536
    ),
    "headers without end": without_end(HEAD, b"X-A: b\r\n" * 4096),
    "one header without end": without_end(HEAD + b"X-A: ", b"a" * 65536),
    "interim answers without end": without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2048),
    "a packed body": says(body(ZIPPED, b"Content-Encoding: gzip")),
    "a body packed twice": says(body(gzip.compress(ZIPPED), b"Content-Encoding: gzip, gzip")),
    "a body packed otherwise": says(body(ZIPPED, b"Content-Encoding: deflate")),
    "an error without end": without_end(
        b"HTTP/1.1 400 Bad Request\r\n\r\n", b'{"error": "' + b"a" * 65536
    ),
}
DRIPS: dict[str, Talk] = {
    "a body that drips": drips(HEAD + b"Content-Length: 100000\r\n\r\n"),
    "chunks that drip": drips(CHUNKED, b"1\r\n \r\n"),
    "headers that drip": drips(HEAD, b"X-A: b\r\n"),
    "nothing": drips(b"", b""),
}
NONSENSE: dict[str, Talk] = {
    "a redirect": says(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n"
    ),
    "a redirect to a file": says(
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"
    ),
    "no HTTP": says(b"220 mail.example.com ESMTP\r\n"),
    "zeros": says(bytes(4096)),
    "a chunk of no size": says(CHUNKED + b"zz\r\n\r\n"),
    "a chunk of a negative size": says(CHUNKED + b"-1\r\nabc\r\n"),
    "a chunk larger than memory": says(CHUNKED + b"ffffffffffffffff\r\nabc\r\n"),
    "two lengths": says(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "a negative length": says(HEAD + b"Content-Length: -1\r\n\r\n{}"),
    "a length of many digits": says(HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}"),
    "less than it announced": says(HEAD + b"Content-Length: 50\r\n\r\n{}"),
    "a status of no number": says(b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\n{}"),
    "no UTF-8": says(body(b'{"name": "\xff\xfe"}')),
    "an empty body": says(body(b"")),
    "a deep list": says(body(b"[" * 1_000_000 + b"]" * 1_000_000)),
    "a deep object": says(body(b'{"a":' * 200_000 + b"1" + b"}" * 200_000)),
    "a number of many digits": says(body(b'{"version": ' + b"9" * 100_000 + b"}")),
    "an error that is no text": says(body(b'{"error": {"a": [1]}}', status=b"400 Bad")),
    "an error without a word": says(body(b"", status=b"500 Oh")),
    "an error that is a list": says(body(b"[1, 2]", status=b"500 Oh")),
    "an error with commands": says(body(b'{"error": "\\u001b[2J\\r\\nok"}', status=b"500 Oh")),
}


@contextlib.contextmanager
def hostile_server(talk: Talk) -> Iterator[str]:
    """``host:port`` of a server that reads a request on each connection and then does ``talk``."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(60)
            while not over.is_set():
                if not connection.recv(65536):
                    return
                talk(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.close()


VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    2**64,
    "",
    "x",
    "\x1b[2J",
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    [None],
    [{}],
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**20).map(lambda one: one**5)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def spoilt(draw: st.DrawFn, document: Any) -> Any:
    """The document with any JSON in one of its places, or with something left out or added."""
    if not isinstance(document, (dict, list)) or not document or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = draw(st.sampled_from(keys))
    changed = document.copy()
    if draw(st.integers(0, 5)) == 0:
        del changed[key]
    else:
        changed[key] = draw(spoilt(document[key]))
    return changed
