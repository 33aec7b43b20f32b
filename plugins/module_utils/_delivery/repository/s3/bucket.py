# SPDX-License-Identifier: Apache-2.0
"""One bucket: each call with a deadline, its failures as sentences, each change an effect.

Whoever makes the calls, boto3 or the standard library, is an ``ObjectCalls``.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from ...deadline import call_within
from ...effects import effect
from ...errors import DeadlineExceeded, NotFound, RepositoryError
from .location import S3Location

PART = 8 << 20
_MAX_PARTS = 9000
_SLOWEST = 64 << 10
"""Bytes per second below which a transfer is given up."""
_COPY_AT_ONCE = 5 << 30
_AT_ONCE = 1000
WORKERS = 8
SHA256 = "sha256"
_ABSENT = ("404", "NoSuchKey", "NotFound")
_REFUSED = {
    "AccessDenied": "permission is denied",
    "403": "permission is denied",
    "Forbidden": "permission is denied",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key is not the right one",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
}
T = TypeVar("T")
Objects = dict[str, list[Any]]
"""``{key: [size, etag, second of its last change]}``."""
SECOND = "%Y-%m-%dT%H:%M:%SZ"


class NoBucket(NotFound):
    """The bucket itself is not there."""


class Conflict(RepositoryError):
    """A conditional write found something else than it asked for."""


class Unsupported(RepositoryError):
    """The server does not know what it was asked for."""


class CallRefused(Exception):
    """The object store answered with an error.

    Args:
        code: S3's name of the error, or the status where it gave none.
    """

    def __init__(self, code: str, message: str, status: int | None) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


class CallFailed(Exception):
    """There is no answer; the text is a sentence."""


class ObjectCalls(Protocol):
    """S3's operations on one bucket, named, asked and answered as boto3's client has them. A body
    is read by its ``read``, which fails as a call does.
    """

    def call(self, operation: str, /, **parameters: Any) -> Any:
        """Raises CallRefused, CallFailed."""

    def close(self) -> None: ...


class Bucket:
    """The keys of one bucket.

    Args:
        calls: makes the calls; the bucket closes it.
        timeout: seconds for one call.
    """

    def __init__(self, location: S3Location, calls: ObjectCalls, timeout: float) -> None:
        self.location = location
        self.timeout = timeout
        self.conditions_hold: bool | None = None
        """Whether the server minds conditions of a write; None as long as nobody tried."""
        self._calls = calls

    # -- calls -------------------------------------------------------------------------------------

    def _call(
        self, step: str, name: str, seconds: float | None = None, /, **parameters: Any
    ) -> Any:
        return self._within(
            step,
            seconds or self.timeout,
            parameters.get("Key"),
            lambda: self._calls.call(name, **parameters),
        )

    def _read(self, step: str, key: str, body: Any, size: int | None = None) -> bytes:
        """What is left of a body, or its next ``size`` bytes."""
        return self._within(
            step, self.timeout, key, lambda: body.read() if size is None else body.read(size)
        )

    def _within(self, step: str, seconds: float, key: str | None, call: Callable[[], T]) -> T:
        try:
            return call_within(seconds, f"the object store at {self.location.host}", call)
        except CallRefused as error:
            raise self._refusal(error, key, step) from error
        except CallFailed as error:
            raise RepositoryError(str(error), step=step) from error
        except DeadlineExceeded as error:
            raise error.about(step=step) from error

    def _refusal(
        self, error: CallRefused, key: str | None, step: str
    ) -> RepositoryError | NotFound:
        host, code = self.location.host, error.code
        if code == "NoSuchBucket":
            return NoBucket(f"there is no bucket '{self.location.bucket}' at {host}", step=step)
        if code in _ABSENT:
            return NotFound(f"there is no key {key}", step=step)
        if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
            return Conflict(f"{key} is not what it was", step=step)
        if code == "NotImplemented" or error.status == 501:
            return Unsupported(
                f"the object store at {host} cannot do that ({error.message})", step=step
            )
        reason = _REFUSED.get(code, f"{code}: {error.message}")
        return RepositoryError(
            f"the object store at {host} refuses {key or self.location.url}: {reason}", step=step
        )

    # -- reading -----------------------------------------------------------------------------------

    def objects(self, prefix: str) -> Objects:
        """All keys that begin with ``prefix``, page by page. A model's prefix ends with a slash."""
        return {key: found for page in self._pages(prefix) for key, found in page.items()}

    def _pages(self, prefix: str) -> Iterator[Objects]:
        more: dict[str, Any] = {}
        while True:
            page = self._call("list the repository", "list_objects_v2", Prefix=prefix, **more)
            yield {
                one["Key"]: [one["Size"], one["ETag"].strip('"'), _second(one["LastModified"])]
                for one in page.get("Contents", ())
            }
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def folders(self, prefix: str) -> list[str]:
        """Names between ``prefix`` and the next slash."""
        found: list[str] = []
        more: dict[str, Any] = {}
        while True:
            page = self._call(
                "list the repository", "list_objects_v2", Prefix=prefix, Delimiter="/", **more
            )
            found += [
                one["Prefix"][len(prefix) :].strip("/") for one in page.get("CommonPrefixes", ())
            ]
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def get(self, key: str) -> bytes | None:
        """A small object's bytes, None where there is none."""
        try:
            answer = self._call("read the repository", "get_object", Key=key)
            return self._read("read the repository", key, answer["Body"])
        except NoBucket:
            raise
        except NotFound:
            return None

    def answer(self, key: str) -> tuple[bytes, Mapping[str, Any]] | None:
        """Bytes and the whole answer, for a lock; None where there is no such key."""
        try:
            answer = self._call("lock", "get_object", Key=key)
        except NoBucket:
            raise
        except NotFound:
            return None
        return self._read("lock", key, answer["Body"]), answer

    def sha256(self, key: str, *, trust_metadata: bool = False) -> str:
        """Of an object's bytes: what was noted when it was written, or by reading them."""
        if trust_metadata:
            noted = (
                self._call("read the repository", "head_object", Key=key)
                .get("Metadata", {})
                .get(SHA256)
            )
            if noted:
                return str(noted)
        body = self._call("read the repository", "get_object", Key=key)["Body"]
        digest = hashlib.sha256()
        while chunk := self._read("read the repository", key, body, 1 << 20):
            digest.update(chunk)
        return digest.hexdigest()

    # -- changes -----------------------------------------------------------------------------------

    def put(
        self, key: str, data: bytes, *, only_if: str | None = None, only_new: bool = False
    ) -> Mapping[str, Any]:
        """Write a small object; the server compares the MD5 sum. Raises Conflict where a condition
        does not hold.
        """
        with effect("put", key):
            return self.put_quietly(key, data, only_if=only_if, only_new=only_new)

    def put_quietly(
        self, key: str, data: bytes, *, only_if: str | None = None, only_new: bool = False
    ) -> Mapping[str, Any]:
        """As ``put``, for a lock that is renewed beside the work."""
        condition = {"IfMatch": only_if} if only_if else {"IfNoneMatch": "*"} if only_new else {}
        return self._call(
            "write to the repository",
            "put_object",
            Key=key,
            Body=data,
            ContentMD5=_md5(data),
            **condition,
        )

    def upload(self, path: str, key: str) -> None:
        """Write a file, in parts where it is large, and compare what arrived."""
        size = os.path.getsize(path)
        with effect("upload", key), open(path, "rb") as stream:
            if size <= PART:
                data = stream.read()
                self._call(
                    "upload",
                    "put_object",
                    self._allowed(size),
                    Key=key,
                    Body=data,
                    ContentMD5=_md5(data),
                    Metadata={SHA256: hashlib.sha256(data).hexdigest()},
                )
            else:
                self._upload_parts(stream, key, size)
        there = self._call("upload", "head_object", Key=key)["ContentLength"]
        if there != size:
            raise RepositoryError(
                f"{key} has {there} bytes after its upload instead of {size}", step="upload"
            )

    def _upload_parts(self, stream: io.BufferedReader, key: str, size: int) -> None:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
        stream.seek(0)
        part_size = max(PART, -(-size // _MAX_PARTS))

        def parts(upload: str) -> list[dict[str, Any]]:
            done: list[dict[str, Any]] = []
            while data := stream.read(part_size):
                number = len(done) + 1
                answer = self._call(
                    "upload",
                    "upload_part",
                    self._allowed(len(data)),
                    Key=key,
                    UploadId=upload,
                    PartNumber=number,
                    Body=data,
                    ContentMD5=_md5(data),
                )
                done.append({"PartNumber": number, "ETag": answer["ETag"]})
            return done

        self._multipart(key, {SHA256: digest.hexdigest()}, parts)

    def _multipart(
        self, key: str, metadata: Mapping[str, str], send: Callable[[str], list[dict[str, Any]]]
    ) -> None:
        upload = self._call("upload", "create_multipart_upload", Key=key, Metadata=dict(metadata))[
            "UploadId"
        ]
        try:
            self._call(
                "upload",
                "complete_multipart_upload",
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": send(upload)},
            )
        except BaseException:
            self._call("give up an upload", "abort_multipart_upload", Key=key, UploadId=upload)
            raise

    def _allowed(self, size: int) -> float:
        return self.timeout + size / _SLOWEST

    def copy(self, source: str, target: str, size: int) -> None:
        """Copy within the bucket, on the server. Onto itself: its time becomes now."""
        origin = {"Bucket": self.location.bucket, "Key": source}
        with effect("copy", target):
            if size > _COPY_AT_ONCE:
                self._copy_parts(origin, target, size)
                return
            same: dict[str, Any] = {}
            if source == target:
                metadata = self._call("copy", "head_object", Key=source).get("Metadata", {})
                same = {"MetadataDirective": "REPLACE", "Metadata": metadata}
            self._call(
                "copy", "copy_object", self._allowed(size), Key=target, CopySource=origin, **same
            )

    def _copy_parts(self, origin: Mapping[str, str], target: str, size: int) -> None:
        part_size = max(512 << 20, -(-size // _MAX_PARTS))
        metadata = self._call("copy", "head_object", Key=origin["Key"]).get("Metadata", {})

        def part(upload: str, number: int, start: int) -> dict[str, Any]:
            end = min(start + part_size, size)
            answer = self._call(
                "copy",
                "upload_part_copy",
                self._allowed(end - start),
                Key=target,
                UploadId=upload,
                PartNumber=number,
                CopySource=dict(origin),
                CopySourceRange=f"bytes={start}-{end - 1}",
            )
            return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

        self._multipart(
            target,
            metadata,
            lambda upload: self.each(
                lambda one: part(upload, *one), list(enumerate(range(0, size, part_size), start=1))
            ),
        )

    def delete(self, keys: Iterable[str]) -> None:
        """Remove these keys, a thousand with each call."""
        wanted = sorted(keys)
        for start in range(0, len(wanted), _AT_ONCE):
            batch = wanted[start : start + _AT_ONCE]
            with effect(
                "delete", f"{batch[0]}{f' and {len(batch) - 1} more' if len(batch) > 1 else ''}"
            ):
                self._delete(batch)

    def _delete(self, batch: Sequence[str]) -> None:
        if len(batch) == 1:
            self._call("remove from the repository", "delete_object", Key=batch[0])
            return
        answer = self._call(
            "remove from the repository",
            "delete_objects",
            Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True},
        )
        for left in answer.get("Errors", ()):
            raise RepositoryError(
                f"the object store at {self.location.host} does not remove {left.get('Key')}"
                f" ({left.get('Code')})",
                step="remove from the repository",
            )

    def delete_below(self, prefix: str) -> None:
        """Remove everything whose key begins with ``prefix``, which ends with a slash, page by
        page.
        """
        if not prefix.endswith("/"):
            raise ValueError(prefix)
        for page in self._pages(prefix):
            self.delete(page)

    def each(self, function: Callable[..., T], items: Sequence[Any]) -> list[T]:
        """Several at a time, results in order; the first failure is raised when all have ended."""
        if len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(function, items))

    def close(self) -> None:
        self._calls.close()


def _second(time: datetime.datetime) -> str:
    return time.astimezone(datetime.timezone.utc).strftime(SECOND)


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
