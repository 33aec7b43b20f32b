# SPDX-License-Identifier: Apache-2.0
"""Where artifacts are stored when not on this host: behind the tracking server, or where only
MLflow's own code can go.
"""

from __future__ import annotations

import os
import posixpath
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from .artifacts import ArtifactRoot, Listing, walk
from .deadline import Deadline, call_within
from .errors import ArtifactError, DeadlineExceeded, NotFound
from .manifest import hash_file
from .transfer import Broken, Cancelled, Stream, Unreachable

ENDPOINT = "/mlflow-artifacts/artifacts"
_CHUNK = 1 << 20
_REDIRECTS = 5
_LATER = 5.0
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s'\"]+@")

Request = Callable[..., Any]
"""``request(base, method, endpoint, headers, **options) -> requests.Response``; it knows which
``base`` gets credentials.
"""


def masked(text: str) -> str:
    """``text`` without the user:password@ of its URLs, and without MLflow's own secrets."""
    text = _CREDENTIALS.sub("***@", text)
    for variable in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        secret = os.environ.get(variable)
        if secret and len(secret) > 3:
            text = text.replace(secret, "***")
    return text


def reason(error: BaseException) -> str:
    """The innermost cause that says something, in one line and without credentials."""
    said = error
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.strerror:
            return current.strerror.lower() if current.strerror[1:].islower() else current.strerror
        said = current
        current = current.__cause__ or current.__context__
    text = masked(" ".join(str(said).split())) or type(said).__name__
    return text if len(text) <= 300 else text[:300] + "…"


def connect_first(uri: str, deadline: Deadline) -> None:
    """Say at once that nobody listens: MLflow's client would try again for minutes.

    Raises:
        OSError: refused, no such host, no route.
        DeadlineExceeded: it had passed already.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    left = deadline.remaining()
    if left == 0:  # a socket would take it for "do not wait", and fail with words about that
        raise DeadlineExceeded(f"{parts.hostname}:{port} was not asked in time")
    socket.create_connection((parts.hostname, port), timeout=left).close()


class _Answer:
    """The body of an answer in the pieces in which it arrives, so that slow ones are seen to
    move.
    """

    def __init__(self, response: Any) -> None:
        self._response = response
        headers = response.headers
        tag = headers.get("ETag", "")
        self.tag = tag if tag.startswith('"') else None
        # 416: the file ends before what was asked for, so that it is another one now.
        self.start = {200: 0, 416: -1}.get(
            response.status_code, _first_byte(headers.get("Content-Range"))
        )
        length = headers.get("Content-Length", "")
        self.end = self.start + int(length) if length.isdigit() else None
        self.splits = headers.get("Accept-Ranges", "").lower() == "bytes" and not _made_for_this(
            response
        )

    def __iter__(self) -> Iterator[bytes]:
        raw = self._response.raw
        # urllib3 1.x has no read1, and its read waits until all that was asked for is there.
        read, size = (raw.read1, _CHUNK) if hasattr(raw, "read1") else (raw.read, 1 << 14)
        try:
            while chunk := read(size):
                yield chunk
        except Exception as error:
            raise Broken(f"the connection broke: {reason(error)}") from error

    def close(self) -> None:
        self._response.close()


def _first_byte(content_range: str | None) -> int:
    found = re.match(r"bytes (\d+)-", content_range or "")
    return int(found.group(1)) if found else -1


def _made_for_this(response: Any) -> bool:
    """Whether the server seems to have copied the file from elsewhere to answer: it would do so
    again for each range.
    """
    try:
        answered, changed = (
            parsedate_to_datetime(response.headers[name]) for name in ("Date", "Last-Modified")
        )
    except (KeyError, ValueError):
        return False
    return (answered - changed).total_seconds() <= response.elapsed.total_seconds() + 2


class ProxyStore:
    """The artifact endpoints of an MLflow server.

    Args:
        url: ``https://host/api/2.0/mlflow-artifacts/artifacts/<root>``, as MLflow resolves
            ``mlflow-artifacts:`` URIs.
    """

    _whole_only: ClassVar[set[str]] = set()

    def __init__(self, url: str, timeout: float, request: Request) -> None:
        self._base, _endpoint, root = url.partition(ENDPOINT)
        self._root = root.strip("/")
        self._timeout = timeout
        # Stalls are noticed from outside, whatever the server does; a read gives up a little later,
        # so that the thread ends.
        self._waits = (timeout, timeout + _LATER)
        self._request = request

    def entries(self, path: str) -> Iterator[tuple[str, bool, int | None]]:
        def ask() -> Any:
            answer = self._send(
                "GET", ENDPOINT, params={"path": posixpath.join(self._root, path).rstrip("/")}
            )
            return self._checked(answer, path or "the artifact").json()

        try:
            listed = call_within(self._timeout, "the listing", ask)
        except DeadlineExceeded as error:
            raise Unreachable(
                f"{self.shown} did not list {path or 'the artifact'} within {self._timeout:g} s"
            ) from error
        except ValueError as error:
            raise ArtifactError(f"{self.shown} did not answer as an MLflow server does") from error
        for entry in listed.get("files", []):
            # MLflow leaves the size out where it is 0.
            yield entry["path"], bool(entry.get("is_dir")), int(entry.get("file_size") or 0)

    def open(
        self, path: str, start: int = 0, end: int | None = None, tag: str | None = None
    ) -> _Answer:
        asked = {}
        if start or end is not None:
            asked["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if tag:
            asked["If-Range"] = tag
        sent = self._send("GET", self._endpoint(path), asked, stream=True)
        answer = _Answer(sent if sent.status_code == 416 else self._checked(sent, path))
        answer.splits = answer.splits and self._base not in self._whole_only
        return answer

    def no_ranges(self) -> None:
        self._whole_only.add(self._base)

    def put(self, path: str, data: Any) -> None:
        """Send a file; ``data`` is bytes or has ``read`` and a length."""
        self._checked(self._send("PUT", self._endpoint(path), data=data), path).close()

    @property
    def shown(self) -> str:
        return masked(self._base.removesuffix("/api/2.0"))

    def _endpoint(self, path: str) -> str:
        return f"{ENDPOINT}/{quote(posixpath.join(self._root, path))}"

    def _send(
        self, method: str, endpoint: str, asked: Mapping[str, str] | None = None, **options: Any
    ) -> Any:
        headers = {"Accept-Encoding": "identity", **(asked or {})}
        if self._base.startswith("http:"):
            # On a reused connection, an MLflow server with several workers costs ten times the
            # latency. Behind TLS it is another server that answers, and a new connection costs
            # more.
            headers["Connection"] = "close"
        answer = self._request(
            self._base, method, endpoint, headers, timeout=self._waits, **options
        )
        for _hop in range(_REDIRECTS):
            if not answer.is_redirect:
                return answer
            answer = self._follow(answer, method, headers)
        raise ArtifactError(f"{self.shown} redirects more than {_REDIRECTS} times")

    def _follow(self, answer: Any, method: str, headers: dict[str, str]) -> Any:
        if method != "GET":
            raise ArtifactError(f"{self.shown} redirects an upload to another address")
        target = urljoin(answer.url, answer.headers["location"])
        answer.close()
        there = urlsplit(target)
        endpoint = there.path + (f"?{there.query}" if there.query else "")
        return self._request(
            f"{there.scheme}://{there.netloc}",
            method,
            endpoint,
            headers,
            timeout=self._waits,
            stream=True,
        )

    def _checked(self, answer: Any, path: str) -> Any:
        if answer.status_code < 300:
            return answer
        with answer:
            text = (
                masked(" ".join(answer.text[:300].split()))
                if answer.headers.get("Content-Length", "1") != "0"
                else ""
            )
        if answer.status_code == 404:
            raise NotFound(f"{self.shown} has no {path}")
        said = f"{self.shown} answered {answer.status_code} {answer.reason} for {path}: {text}"
        if answer.status_code in (408, 429, 502, 503, 504):
            raise Broken(said)
        raise Unreachable(said) if answer.status_code in (401, 403) else ArtifactError(said)


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: what credentials are bound to."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def request_without_credentials(
    base: str, method: str, endpoint: str, headers: dict[str, str], **options: Any
) -> Any:
    """A request to a host that the user did not name."""
    import requests

    try:
        # An auth function of one's own keeps requests from asking ~/.netrc.
        return requests.request(
            method,
            base + endpoint,
            headers=headers,
            allow_redirects=False,
            auth=lambda sent: sent,
            **options,
        )
    except requests.RequestException as error:
        raise Broken(f"{masked(base)} cannot be reached: {reason(error)}") from error


class DownloaderRoot(ArtifactRoot):
    """Any other place, through MLflow's own artifact repository (S3, Azure, GCS, …) and its
    credentials.
    """

    def __init__(self, shown: str, timeout: float, repository: Any) -> None:
        super().__init__(shown, timeout)
        self._repository = repository

    def _list(self) -> Listing:
        return walk(self._entries)

    def _entries(self, path: str) -> Iterator[tuple[str, bool, int | None]]:
        try:
            found = call_within(
                self.timeout, "the listing", self._repository.list_artifacts, path or None
            )
        except DeadlineExceeded as error:
            raise Unreachable(f"{self.shown} was not listed within {self.timeout:g} s") from error
        except Exception as error:  # every kind of store has errors of its own
            raise Unreachable(f"{self.shown} cannot be listed: {reason(error)}") from error
        for entry in found:
            yield posixpath.basename(entry.path), entry.is_dir, entry.file_size

    def _read(self, path: str, limit: int) -> bytes:
        if path not in self.sizes():
            raise NotFound(f"{self.shown} has no file {path}")
        size = self.sizes()[path]
        if size is not None and size > limit:
            return b"\0" * (limit + 1)
        with (
            tempfile.TemporaryDirectory() as folder,
            open(self._download(path, folder), "rb") as file,
        ):
            return file.read(limit + 1)

    def _bring(self, path: str, target: str, stream: Stream) -> tuple[int, str]:
        with tempfile.TemporaryDirectory(dir=os.path.dirname(target), prefix=".part-") as folder:
            came = self._download_watched(path, folder, stream)
            stream.received()
            os.chmod(came, 0o600)
            with open(came, "rb") as file:
                os.fsync(file.fileno())
            os.rename(came, target)
        return os.path.getsize(target), hash_file(target)

    def _download_watched(self, path: str, folder: str, stream: Stream) -> str:
        # MLflow's downloader tells nothing while it works; what lies in the folder does.
        over = threading.Event()

        def watch() -> None:
            with suppress(Cancelled):
                while not over.wait(0.5):
                    stream.add(max(0, _bytes_below(folder) - stream.moved))

        threading.Thread(target=watch, daemon=True, name="download watch").start()
        try:
            return self._download(path, folder)
        finally:
            over.set()

    def _download(self, path: str, folder: str) -> str:
        try:
            return str(self._repository.download_artifacts(path, folder))
        except Exception as error:  # every kind of store has errors of its own
            raise ArtifactError(
                f"{path} of {self.shown} could not be downloaded: {reason(error)}"
            ) from error


def _bytes_below(folder: str) -> int:
    total = 0
    for current, _folders, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.path.getsize(os.path.join(current, name))
    return total
