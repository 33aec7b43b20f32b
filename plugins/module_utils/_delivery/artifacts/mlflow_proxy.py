# SPDX-License-Identifier: Apache-2.0
"""Artifacts behind an MLflow server, over HTTP: downloads that break are taken up again."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import ClassVar
from urllib.parse import quote, urljoin, urlsplit

from ..deadline import call_within
from ..domain.fields import Fields, WrongShape, read_json, whole
from ..errors import ArtifactError, DeadlineExceeded, NotFound
from ..outside import HttpAnswer
from ..redact import mask, reason
from .transfer import Broken, Unreachable

ENDPOINT = "/mlflow-artifacts/artifacts"
_CHUNK = 1 << 20
LARGEST_LISTING = 64 << 20
_MOST_VALUES = 2_000_000
_LONGEST_ERROR = 4096
_REDIRECTS = 5
_LATER = 5.0
Request = Callable[..., HttpAnswer]
"""``request(base, method, endpoint, headers, **options) -> requests.Response``; it knows which
``base`` gets credentials, and gives none with ``stranger=True``.
"""


class _Answer:
    """The body of an answer in the pieces in which it arrives, so that slow ones are seen to
    move.
    """

    def __init__(self, response: HttpAnswer) -> None:
        self._response = response
        headers = response.headers
        tag = headers.get("ETag", "")
        self.tag = tag if tag.startswith('"') else None
        # 416: the file ends before what was asked for, so that it is another one now.
        self.start = {200: 0, 416: -1}.get(
            response.status_code, _first_byte(headers.get("Content-Range"))
        )
        length = headers.get("Content-Length", "")
        self.end = self.start + int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        self.splits = headers.get("Accept-Ranges", "").lower() == "bytes" and not _is_made_for_this(
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


def _first_bytes(answer: HttpAnswer, most: int) -> bytes:
    """As they are sent: nothing is unpacked, as nothing packed was asked for."""
    data = bytearray()
    for piece in _Answer(answer):
        data += piece
        if len(data) >= most:
            break
    return bytes(data[:most])


def _read_listing(data: bytes) -> list[tuple[str, bool, int | None]]:
    """Raises WrongShape."""
    if len(data) > LARGEST_LISTING:
        raise WrongShape(f"its listing has more than {LARGEST_LISTING >> 20} MiB")
    return [
        # MLflow leaves the size out where it is 0.
        (file.text("path"), bool(file.data.get("is_dir")), _size(file))
        for file in Fields(read_json(data, _MOST_VALUES), "its listing: ").objects("files")
    ]


def _size(file: Fields) -> int:
    size = file.data.get("file_size")
    found = 0 if size is None else whole(size, f"{file.where}file_size")
    if found < 0:
        raise file.wrong("file_size", "a number of bytes")
    return found


def _first_byte(content_range: str | None) -> int:
    found = re.match(r"bytes ([0-9]{1,18})-", content_range or "")
    return int(found.group(1)) if found else -1


def _is_made_for_this(response: HttpAnswer) -> bool:
    """Whether the server seems to have copied the file from elsewhere to answer: it would do so
    again for each range.
    """
    try:
        answered, changed = (
            parsedate_to_datetime(response.headers[name]) for name in ("Date", "Last-Modified")
        )
        age = (answered - changed).total_seconds()
    except (KeyError, ValueError, TypeError):  # TypeError: one of them has no time zone
        return False
    return age <= response.elapsed.total_seconds() + 2


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: what credentials are bound to.

    Raises:
        ArtifactError: it is no address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ArtifactError(f"{mask(url)!r} is no address of a server") from error
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}.get(parts.scheme)


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
        def ask() -> list[tuple[str, bool, int | None]]:
            answer = self._send(
                "GET",
                ENDPOINT,
                params={"path": posixpath.join(self._root, path).rstrip("/")},
                stream=True,
            )
            with self._check(answer, path or "the artifact") as checked:
                return _read_listing(_first_bytes(checked, LARGEST_LISTING + 1))

        try:
            listed = call_within(self._timeout, "the listing", ask)
        except DeadlineExceeded as error:
            raise Unreachable(
                f"{self.label} did not list {path or 'the artifact'} within {self._timeout:g} s"
            ) from error
        except WrongShape as error:
            raise ArtifactError(
                f"{self.label} does not answer as an MLflow server does: {error}"
            ) from error
        yield from listed

    def open(
        self, path: str, start: int = 0, end: int | None = None, tag: str | None = None
    ) -> _Answer:
        asked = {}
        if start or end is not None:
            asked["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if tag:
            asked["If-Range"] = tag
        sent = self._send("GET", self._endpoint(path), asked, stream=True)
        answer = _Answer(sent if sent.status_code == 416 else self._check(sent, path))
        answer.splits = answer.splits and self._base not in self._whole_only
        return answer

    def no_ranges(self) -> None:
        self._whole_only.add(self._base)

    def put(self, path: str, data: object) -> None:
        """Send a file; ``data`` is bytes or has ``read`` and a length."""
        self._check(self._send("PUT", self._endpoint(path), data=data, stream=True), path).close()

    @property
    def label(self) -> str:
        return mask(self._base.removesuffix("/api/2.0"))

    def _endpoint(self, path: str) -> str:
        return f"{ENDPOINT}/{quote(posixpath.join(self._root, path))}"

    def _send(
        self, method: str, endpoint: str, asked: Mapping[str, str] | None = None, **options: object
    ) -> HttpAnswer:
        headers = {"Accept-Encoding": "identity", **(asked or {})}
        if self._base.startswith("http:"):
            # On a reused connection, an MLflow server with several workers costs ten times the
            # latency. Behind TLS it is another server that answers, and a new connection costs
            # more.
            headers["Connection"] = "close"
        answer = self._request(
            self._base, method, endpoint, headers, timeout=self._waits, **options
        )
        left = False
        for _hop in range(_REDIRECTS):
            if not answer.is_redirect:
                return answer
            target = self._redirected_to(answer, method)
            # Who was sent away comes back as a stranger: else any server could make a request of
            # its own choice with the user's credentials.
            left = left or origin(target) != origin(answer.url)
            there = urlsplit(target)
            answer = self._request(
                f"{there.scheme}://{there.netloc}",
                method,
                there.path + (f"?{there.query}" if there.query else ""),
                headers,
                timeout=self._waits,
                stream=True,
                stranger=left,
            )
        if not answer.is_redirect:
            return answer
        answer.close()
        raise ArtifactError(f"{self.label} redirects more than {_REDIRECTS} times")

    def _redirected_to(self, answer: HttpAnswer, method: str) -> str:
        """Where a redirect leads. Raises ArtifactError where it is not followed."""
        answer.close()
        if method != "GET":
            raise ArtifactError(f"{self.label} redirects an upload to another address")
        location = answer.headers["location"]
        try:
            target = urljoin(answer.url, location)
        except ValueError:
            target = ""
        here, there = origin(answer.url)[0], origin(target)[0]
        if there not in ("http", "https") or not urlsplit(target).hostname:
            raise ArtifactError(
                f"{self.label} redirects to {mask(location)!r}, which is no address of a server"
            )
        if here == "https" and there == "http":
            raise ArtifactError(
                f"{self.label} redirects from https to http ({mask(target.partition('?')[0])}),"
                " where anybody on the way could change the files; the redirect is not followed"
            )
        return target

    def _check(self, answer: HttpAnswer, path: str) -> HttpAnswer:
        if answer.status_code < 300:
            return answer
        with answer:
            said = _first_bytes(answer, _LONGEST_ERROR).decode(errors="replace")[:300]
            text = mask(" ".join(said.split()))
        if answer.status_code == 404:
            raise NotFound(f"{self.label} has no {path}")
        told = f"{self.label} answered {answer.status_code} {answer.reason} for {path}: {text}"
        if answer.status_code in (408, 429, 502, 503, 504):
            raise Broken(told)
        raise Unreachable(told) if answer.status_code in (401, 403) else ArtifactError(told)
