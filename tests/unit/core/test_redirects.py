# SPDX-License-Identifier: Apache-2.0
"""Servers that send a download, an upload or a question elsewhere: nothing goes from https to
http, and credentials go to no other server.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    DeliveryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.upload import (
    UploadSource,
    upload,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.credentials import (
    Credentials,
    use_credentials,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.certificates import Authority

pytest.importorskip("mlflow")
ROOT = "mlflow-artifacts:/1/models/m-1/artifacts"
BYTES = b"bytes of the model"
SECRETS = ("geheim", "Z2VoZWlt")


@dataclass
class Heard:
    """What came to a server: head and client certificate of each request."""

    heads: list[str] = field(default_factory=list)
    certificates: list[Any] = field(default_factory=list)

    def secrets(self) -> list[str]:
        return [
            head
            for head in self.heads
            if "authorization" in head.lower() or any(secret in head for secret in SECRETS)
        ] + [str(one) for one in self.certificates if one]


Location = Callable[[str], str | None]
"""From the path that was asked for to where the client is sent, None: here are the bytes."""


class _Handler(http.server.BaseHTTPRequestHandler):
    heard: Heard
    location: Location

    def answer(self) -> None:
        self.heard.heads.append(f"{self.command} {self.path}\n{self.headers}")
        peer = getattr(self.connection, "getpeercert", None)
        self.heard.certificates.append(peer() if peer else None)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        location = type(self).location(self.path)
        if location is not None:
            self.send_response_only(307)
            self.send_header("Location", location)
            body = b""
        else:
            self.send_response_only(200)
            body = BYTES
            if "path=" in self.path:
                found = [{"path": "a.bin", "is_dir": False, "file_size": len(BYTES)}]
                body = json.dumps({"files": found}).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_arguments: object) -> None:
        """A client that was refused hangs up."""


@contextlib.contextmanager
def serving(
    location: Location = lambda path: None, authority: Authority | None = None
) -> Iterator[tuple[str, Heard]]:
    """A server; with an authority it speaks TLS, and takes a client's certificate."""
    heard = Heard()
    handler = type("Handler", (_Handler,), {"heard": heard, "location": staticmethod(location)})
    with _Quiet(("127.0.0.1", 0), handler) as server:
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*authority.issue("server"))
            context.load_verify_locations(authority.ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http{'s' if authority else ''}://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path / "authority")
    # Also for servers to which no option applies.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", made.ca_file)
    return made


def with_certificate(url: str, authority: Authority) -> Registry:
    certificate, key = authority.issue("client")
    options = {
        "mlflow_username": "me",
        "mlflow_password": "geheim",
        "mlflow_ca_file": authority.ca_file,
        "mlflow_client_cert": certificate,
        "mlflow_client_key": key,
    }
    with use_credentials(Credentials.from_options(options, {})):
        return Registry(url, 10)


def fetch(registry: Registry, folder: Path) -> bytes:
    root = registry.files_at(ROOT)
    target = folder / "a.bin"
    root.fetch({"a.bin": str(target)})
    return target.read_bytes()


def only_bytes(target: str) -> Location:
    """The listing is answered, the download is sent elsewhere."""
    return lambda path: None if "path=" in path else target


def test_download_does_not_follow_from_https_to_http(authority: Authority, tmp_path: Path) -> None:
    with serving() as (plain, heard):
        target = only_bytes(f"{plain}/bytes?token=geheim")
        with (
            serving(target, authority) as (url, _heard),
            pytest.raises(ArtifactError, match="redirects from https to http") as caught,
        ):
            fetch(with_certificate(url, authority), tmp_path)
    assert heard.heads == []
    assert "geheim" not in str(caught.value)


def test_download_does_not_follow_from_https_over_https_to_http(
    authority: Authority, tmp_path: Path
) -> None:
    with (
        serving() as (plain, heard),
        serving(lambda _path: f"{plain}/bytes", authority) as (other, _other),
    ):
        target = only_bytes(f"{other}/bytes")
        with (
            serving(target, authority) as (url, _heard),
            pytest.raises(ArtifactError, match="redirects from https to http"),
        ):
            fetch(with_certificate(url, authority), tmp_path)
    assert heard.heads == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_download_follows_to_servers_only(target: str, tmp_path: Path) -> None:
    with (
        serving(only_bytes(target)) as (url, _heard),
        pytest.raises(ArtifactError, match="is no address of a server"),
    ):
        fetch(Registry(url, 10), tmp_path)


def test_neither_password_nor_certificate_follows_a_download(
    authority: Authority, tmp_path: Path
) -> None:
    with serving(authority=authority) as (other, heard):
        target = only_bytes(f"{other}/bytes")
        with serving(target, authority) as (url, own):
            assert fetch(with_certificate(url, authority), tmp_path) == BYTES
    assert len(heard.heads) == 1 and heard.secrets() == []
    assert len(own.secrets()) == 4


def test_server_that_was_left_gets_no_credentials_for_what_another_chose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The other server sends the client back, to an address of its choice."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "geheim")
    addresses: dict[str, str] = {}
    with (
        serving(lambda _path: f"{addresses['own']}/chosen") as (other, _heard),
        serving(lambda path: None if "?path=" in path or "/chosen" in path else f"{other}/x") as (
            url,
            own,
        ),
    ):
        addresses["own"] = url
        fetch(Registry(url, 10), tmp_path)
    chosen = [head for head in own.heads if "/chosen" in head]
    assert len(chosen) == 1
    assert "authorization" not in chosen[0].lower()


def test_redirects_of_a_download_end(tmp_path: Path) -> None:
    with (
        serving(only_bytes("/again")) as (url, heard),
        pytest.raises(ArtifactError, match="redirects more than 5 times"),
    ):
        fetch(Registry(url, 10), tmp_path)
    assert len(heard.heads) == 7


def test_upload_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "geheim")
    with (
        serving() as (other, heard),
        serving(lambda _path: f"{other}/there") as (url, _heard),
        pytest.raises(ArtifactError, match="redirects an upload"),
    ):
        upload(Registry(url, 10), ROOT, {"a.bin": UploadSource.of(BYTES)})
    assert heard.heads == []


def test_question_is_not_sent_to_another_server(authority: Authority) -> None:
    with (
        serving(authority=authority) as (other, heard),
        serving(lambda path: f"{other}{path}", authority) as (url, _heard),
        pytest.raises(DeliveryError, match="to another server") as caught,
    ):
        with_certificate(url, authority).resolve(parse_model_uri("models:/fraud/1"))
    assert heard.heads == []
    assert "geheim" not in str(caught.value)


def test_change_is_not_sent_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "geheim")
    with (
        serving() as (other, heard),
        serving(lambda path: f"{other}{path}") as (url, _heard),
        pytest.raises(DeliveryError),
    ):
        Registry(url, 10).create_version("fraud", "s3://x/y", None, None, {}, None)
    assert heard.heads == []


def test_question_is_not_sent_from_https_to_http(authority: Authority) -> None:
    with (
        serving() as (plain, heard),
        serving(lambda path: f"{plain}{path}", authority) as (url, _heard),
        pytest.raises(DeliveryError, match="to another server"),
    ):
        with_certificate(url, authority).resolve(parse_model_uri("models:/fraud/1"))
    assert heard.heads == []


def test_question_follows_within_its_server() -> None:
    """As where a path was renamed."""
    with (
        serving(lambda path: None if "moved" in path else f"/moved{path}") as (url, heard),
        pytest.raises(DeliveryError),
    ):
        Registry(url, 10).resolve(parse_model_uri("models:/fraud/1"))
    assert any("/moved" in head for head in heard.heads)
