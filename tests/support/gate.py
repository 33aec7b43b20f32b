# SPDX-License-Identifier: Apache-2.0
"""A server in front of another: it asks for a user or a token, speaks TLS, may ask for a client's
certificate, and passes on what may pass.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


@dataclass
class Gate:
    """``seen`` has what came with each request in its header Authorization."""

    url: str
    behind: str
    user: str
    password: str
    token: str
    seen: list[str] = field(default_factory=list)

    def admits(self, header: str) -> bool:
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return header in (f"Basic {pair}", f"Bearer {self.token}")


class _Handler(http.server.BaseHTTPRequestHandler):
    gate: Gate
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        header = self.headers.get("Authorization", "")
        self.gate.seen.append(header)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.gate.admits(header):
            self._send(
                401, {"WWW-Authenticate": 'Basic realm="mlflow"'}, b"You are not authenticated."
            )
            return
        there = urlsplit(self.gate.behind)
        asked = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
        connection = http.client.HTTPConnection(str(there.hostname), there.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body or None, asked)
            answer = connection.getresponse()
            self._send(answer.status, dict(answer.headers.items()), answer.read())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for key, value in headers.items():
            if key.lower() not in _HOP:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:  # else the client would use it again
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_arguments: object) -> None:
        """A client that trusts nobody hangs up."""


@contextlib.contextmanager
def gate(
    behind: str,
    *,
    user: str,
    password: str,
    token: str,
    tls: tuple[str, str] | None = None,
    client_ca: str | None = None,
) -> Iterator[Gate]:
    """A gate before the server at ``behind``; ``tls`` is its certificate and the key."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            if client_ca:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "https" if tls else "http"
        made = Gate(f"{scheme}://127.0.0.1:{server.server_port}", behind, user, password, token)
        handler.gate = made  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown()
