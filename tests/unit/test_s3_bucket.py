# SPDX-License-Identifier: Apache-2.0
"""A bucket says the same whoever makes its calls: boto3, or the standard library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    NotFound,
    RepositoryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.boto3_bucket import (  # noqa: E501
    open_bucket,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.bucket import (
    Bucket,
    Conflict,
    Unsupported,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.location import (
    S3Location,
    parse_s3,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.signed_bucket import (  # noqa: E501
    Credentials,
    open_signed_bucket,
)

SECONDS = 20.0
ERROR = "<Error><Code>{}</Code><Message>it says so</Message></Error>"


class Store(ThreadingHTTPServer):
    """Answers each request with one status and one body, of which it may send less than it says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.status, self.body, self.withheld = 200, b"", 0
        self.asked = 0

    @property
    def location(self) -> S3Location:
        return parse_s3(f"s3://http://127.0.0.1:{self.server_address[1]}/models/prod")


class Answers(BaseHTTPRequestHandler):
    server: Store

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked += 1
        body = self.server.body
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body) + self.server.withheld))
        self.send_header("ETag", '"tag"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with Store() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def store(server: Store) -> Store:
    server.status, server.body, server.withheld, server.asked = 200, b"", 0, 0
    return server


def open_with_boto3(location: S3Location) -> Bucket:
    return open_bucket(location, {"access_key": "AKIAEXAMPLE", "secret_key": "x"}, SECONDS)


def open_signed(location: S3Location) -> Bucket:
    return open_signed_bucket(location, Credentials("AKIAEXAMPLE", "x", "", "us-east-1"), SECONDS)


WAYS = [open_with_boto3, open_signed]


@pytest.fixture(scope="module", params=WAYS)
def bucket(request: pytest.FixtureRequest, server: Store) -> Iterator[Bucket]:
    with closing(request.param(server.location)) as found:
        yield found


def test_an_object_is_read(bucket: Bucket, store: Store) -> None:
    store.body = b"bytes of a record"
    assert bucket.get("prod/a") == b"bytes of a record"
    found = bucket.answer("prod/a")
    assert found and found[0] == b"bytes of a record" and found[1]["LastModified"].year == 2026


@pytest.mark.parametrize("read", [Bucket.get, Bucket.answer, Bucket.sha256])
def test_an_answer_that_breaks_off_is_a_sentence(
    bucket: Bucket, store: Store, read: Callable[[Bucket, str], object]
) -> None:
    """Less than was promised is no object, and no traceback either."""
    store.body, store.withheld = b"half of a rec", 100
    with pytest.raises(RepositoryError, match="does not answer") as caught:
        read(bucket, "prod/a")
    assert caught.value.step and store.location.host in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (404, "NoSuchBucket", NotFound, "there is no bucket 'models'"),
        (403, "AccessDenied", RepositoryError, "permission is denied"),
        (403, "SignatureDoesNotMatch", RepositoryError, "the secret key is not the right one"),
        (412, "PreconditionFailed", Conflict, "prod/a is not what it was"),
        (501, "NotImplemented", Unsupported, "it says so"),
        (400, "Odd", RepositoryError, "Odd: it says so"),
    ],
)
def test_a_refusal_is_a_sentence(
    bucket: Bucket, store: Store, status: int, code: str, kind: type[Exception], words: str
) -> None:
    store.status, store.body = status, ERROR.format(code).encode()
    with pytest.raises(kind, match=words):
        bucket.put("prod/a", b"x", only_new=True)
    assert store.asked


@pytest.mark.parametrize("key", ["prod/a", "bucket/a"])
def test_an_absent_object_is_none(bucket: Bucket, store: Store, key: str) -> None:
    store.status, store.body = 404, ERROR.format("NoSuchKey").encode()
    assert bucket.get(key) is None
    assert bucket.answer(key) is None


@pytest.mark.parametrize("read", [Bucket.get, Bucket.answer, Bucket.sha256])
def test_an_absent_bucket_is_no_absent_object(
    bucket: Bucket, store: Store, read: Callable[[Bucket, str], object]
) -> None:
    store.status, store.body = 404, ERROR.format("NoSuchBucket").encode()
    with pytest.raises(NotFound, match="there is no bucket 'models'"):
        read(bucket, "prod/a")


@pytest.mark.parametrize("way", WAYS)
def test_nobody_there_is_a_sentence(way: Callable[[S3Location], Bucket]) -> None:
    with Store() as gone:
        location = gone.location
    with closing(way(location)) as bucket, pytest.raises(RepositoryError, match="does not answer"):
        bucket.get("prod/a")


def test_what_needs_boto3_says_so(store: Store) -> None:
    with pytest.raises(RepositoryError, match="only be done where boto3 is installed"):
        open_signed(store.location).sha256("prod/a", trust_metadata=True)
    assert not store.asked
