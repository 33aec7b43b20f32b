# SPDX-License-Identifier: Apache-2.0
"""Registries that refuse, stay silent, trickle, lie or cut: seconds, one sentence, no
credentials.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.deadline import Deadline
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    DeadlineExceeded,
    DeliveryError,
    RegistryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.connection import (
    connect_first,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)

pytest.importorskip("mlflow")
URI = parse_model_uri("models:/fraud/1")
Answer = Callable[[socket.socket, str], None]


@contextlib.contextmanager
def server(answer: Answer) -> Iterator[str]:
    """An address where each request is answered by ``answer(connection, head)``."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            answer(connection, head.decode("latin-1"))
            over.wait(0.01)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    connection, _peer = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()


def silent(connection: socket.socket, _head: str) -> None:
    time.sleep(60)


def trickling(connection: socket.socket, _head: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _second in range(60):
        connection.sendall(b"{")
        time.sleep(0.3)


def trickling_head(connection: socket.socket, _head: str) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Header: x\r\n" * 100:
        connection.sendall(bytes([byte]))
        time.sleep(0.3)


def hanging_up(connection: socket.socket, _head: str) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def reply(
    connection: socket.socket, status: str, body: bytes, *headers: str, length: bool = True
) -> None:
    lines = [
        f"HTTP/1.1 {status}",
        *headers,
        "Connection: close",
        *([f"Content-Length: {len(body)}"] if length else []),
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def web_page(connection: socket.socket, _head: str) -> None:
    reply(connection, "200 OK", b"<html>It works!</html>", "Content-Type: text/html")


def unauthorised(connection: socket.socket, _head: str) -> None:
    reply(connection, "401 Unauthorized", b"You are not authenticated.")


def resolve(url: str, timeout: float = 1.5) -> tuple[DeliveryError, float]:
    # The library's import is no part of the deadline.
    import mlflow  # noqa: F401

    began = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        Registry(url, timeout).resolve(URI)
    return caught.value, time.monotonic() - began


@pytest.mark.parametrize("answer", [silent, trickling, trickling_head])
def test_slow_registry_fails_at_the_deadline(answer: Answer) -> None:
    with server(answer) as url:
        error, took = resolve(url)
    assert "did not answer within 1.5 s" in str(error)
    assert took < 15


def test_refusing_registry_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error, took = resolve(f"http://127.0.0.1:{port}", timeout=60)
    assert "connection refused" in str(error)
    assert took < 30


def test_registry_that_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with server(hanging_up) as url:
        _error, took = resolve(url, timeout=6)
    assert took < 30


@pytest.mark.parametrize(
    ("answer", "said"), [(web_page, "not in a valid JSON format"), (unauthorised, "401")]
)
def test_registry_that_answers_something_else(answer: Answer, said: str) -> None:
    with server(answer) as url:
        error, _took = resolve(url, timeout=10)
    assert said in str(error)


@pytest.mark.parametrize("answer", [silent, unauthorised, web_page, hanging_up])
def test_messages_show_no_credentials(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with server(answer) as url:
        error, _took = resolve(url.replace("http://", "http://me:geheim@"))
    assert "geheim" not in f"{error} {error.facts}"
    assert "***@" in str(error)


def test_folder_needs_no_registry(tmp_path: Path) -> None:
    found = Registry("http://127.0.0.1:1", 1).resolve(parse_model_uri(str(tmp_path)))
    assert found.artifact_root == str(tmp_path)


# --- artifact bytes -------------------------------------------------------------------------------

SIZE = 300_000


def artifacts(body: Answer) -> Answer:
    """A server whose listing is right, and whose bytes come from ``body``."""

    def answer(connection: socket.socket, head: str) -> None:
        if "artifacts?path=" in head:
            files = [
                {"path": name, "is_dir": False, "file_size": SIZE} for name in ("a.bin", "b.bin")
            ]
            reply(
                connection,
                "200 OK",
                json.dumps({"files": files}).encode(),
                "Content-Type: application/json",
            )
        else:
            body(connection, head)

    return answer


def whole(connection: socket.socket, _head: str) -> None:
    reply(connection, "200 OK", b"x" * SIZE)


def truncated(connection: socket.socket, _head: str) -> None:
    reply(connection, "200 OK", b"x" * (SIZE // 2), length=False)


def truncated_with_length(connection: socket.socket, _head: str) -> None:
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode() + b"x" * 1000)


def too_long(connection: socket.socket, _head: str) -> None:
    reply(connection, "200 OK", b"x" * (SIZE + 1), length=False)


def fetch(url: str, folder: Path, timeout: float = 1.5) -> dict[str, Any]:
    root = Registry(url, timeout).files_at("mlflow-artifacts:/1/models/m-1/artifacts")
    return root.fetch({file.path: str(folder / file.path) for file in root.list()})


def test_whole_files(tmp_path: Path) -> None:
    with server(artifacts(whole)) as url:
        found = fetch(url, tmp_path)
    assert {name: entry.size for name, entry in found.items()} == {"a.bin": SIZE, "b.bin": SIZE}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (truncated, f"a.bin ({SIZE // 2} bytes came instead of {SIZE})"),
        (too_long, f"{SIZE + 1} bytes came"),
        (truncated_with_length, "the connection broke"),
        (silent, "less than 1 KiB came within 1.5 s"),
        (trickling, "less than 1 KiB"),
        (trickling_head, "less than 1 KiB"),
        (unauthorised, "answered 401"),
        (hanging_up, "cannot be reached"),
    ],
)
def test_bytes_that_do_not_come(body: Answer, said: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with server(artifacts(body)) as url, pytest.raises(ArtifactError) as caught:
        fetch(url, tmp_path)
    assert said in str(caught.value)
    assert time.monotonic() - began < 15


def test_credentials_do_not_follow_a_redirect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
    heads: list[str] = []

    def elsewhere(connection: socket.socket, head: str) -> None:
        heads.append(head)
        whole(connection, head)

    with server(elsewhere) as other:

        def redirect(connection: socket.socket, head: str) -> None:
            assert "authorization: basic" in head.lower()
            reply(connection, "302 Found", b"", f"Location: {other}/bytes")

        with server(artifacts(redirect)) as url:
            assert len(fetch(url, tmp_path, timeout=5)) == 2
    assert len(heads) == 2
    assert not [head for head in heads if "authorization" in head.lower()]


def test_credentials_go_to_no_server_that_the_registry_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "geheim-token")
    heads: list[str] = []

    def listening(connection: socket.socket, head: str) -> None:
        heads.append(head)
        artifacts(whole)(connection, head)

    with server(listening) as other:
        root = Registry("http://127.0.0.1:9", 5).files_at(
            f"{other}/api/2.0/mlflow-artifacts/artifacts/1"
        )
        root.fetch({file.path: str(tmp_path / file.path) for file in root.list()})
    assert len(heads) == 3
    assert not [head for head in heads if "geheim-token" in head]


def test_a_deadline_that_has_passed_is_said_as_one() -> None:
    with server(silent) as url, pytest.raises(DeadlineExceeded):
        connect_first(url, Deadline(0))
