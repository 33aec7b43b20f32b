# SPDX-License-Identifier: Apache-2.0
"""Places in S3, spelled as Triton spells them. Pure.

``s3://bucket/prefix``, ``s3://http://host:port/bucket/prefix``,
``s3://https://host:port/bucket/prefix``; without a scheme, ``s3://host:port/bucket/prefix`` is
plain HTTP.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace

from ...errors import InvalidOption

SCHEME = "s3://"
# What Triton's own pattern takes; a name outside it would be cut off there without a word.
_BUCKET = re.compile(r"[0-9a-z][0-9a-z.\-]{1,61}[0-9a-z]")
_PART = re.compile(r"[0-9a-zA-Z.\-_]+")
_HOST = re.compile(r"(?:(https?)://)?([0-9A-Za-z.\-]+:[0-9]+)/")


def is_s3(text: str) -> bool:
    return text.startswith(SCHEME)


@dataclass(frozen=True)
class S3Location:
    """``endpoint`` is a URL, None for Amazon's own; ``prefix`` has no slash at its ends and is ""
    for a whole bucket.
    """

    endpoint: str | None
    bucket: str
    prefix: str

    @property
    def base(self) -> str:
        """The URL of the bucket."""
        return (
            f"{SCHEME}{self.endpoint}/{self.bucket}" if self.endpoint else f"{SCHEME}{self.bucket}"
        )

    @property
    def host(self) -> str:
        """What sentences call the object store."""
        return self.endpoint or "Amazon S3"

    @property
    def url(self) -> str:
        return f"{self.base}/{self.prefix}" if self.prefix else self.base

    def key(self, *parts: str) -> str:
        """The key of something below; with no parts, the prefix that everything below begins
        with.
        """
        head = f"{self.prefix}/" if self.prefix else ""
        return head + "/".join(parts)

    def key_of(self, url: str) -> str:
        """The key behind a URL of the same bucket."""
        if not url.startswith(f"{self.base}/"):
            raise ValueError(f"{url} is not in {self.base}")
        return url[len(self.base) + 1 :]

    def state(self) -> S3Location:
        """Where the state lies by default: beside the prefix, which Triton does not list, or inside
        a whole bucket.
        """
        return replace(
            self, prefix=f"{self.prefix}.mlops-triton" if self.prefix else ".mlops-triton"
        )

    def relative(self, other: S3Location) -> str:
        """How the marker names ``other``: relative within one bucket, so that an endpoint can have
        two names.
        """
        if (self.endpoint, self.bucket) != (other.endpoint, other.bucket):
            return other.url
        return posixpath.relpath(f"/{other.prefix}", f"/{self.prefix}")

    def resolve(self, text: str) -> S3Location:
        """The place which the marker names."""
        if is_s3(text):
            return parse_s3(text)
        path = posixpath.normpath(posixpath.join("/", self.prefix, text)).strip("/")
        return parse_s3(f"{self.base}/{path}", "state_dir")


def parse_s3(text: str, option: str = "model_repository") -> S3Location:
    """Read a URL.

    Raises:
        InvalidOption: not one of the forms, or a name which Triton does not take.
    """
    about = {"step": "read the options", "left": "nothing was changed"}
    rest = text[len(SCHEME) :] if is_s3(text) else ""
    host = _HOST.match(rest)
    endpoint = f"{host.group(1) or 'http'}://{host.group(2)}" if host else None
    bucket, _slash, path = (rest[host.end() :] if host else rest).partition("/")
    parts = [part for part in path.split("/") if part]
    if not _BUCKET.fullmatch(bucket):
        raise InvalidOption(
            f"{option} {text} names no bucket; it is written s3://bucket/prefix or"
            " s3://http://host:port/bucket/prefix",
            **about,
        )
    wrong = next((part for part in parts if not _PART.fullmatch(part) or part in (".", "..")), None)
    if wrong is not None:
        raise InvalidOption(
            f"{option} {text} has {wrong!r} in its prefix; Triton takes letters, digits, '.', '-'"
            " and '_' there",
            **about,
        )
    return S3Location(endpoint, bucket, "/".join(parts))
