# SPDX-License-Identifier: Apache-2.0
"""A bucket without boto3, for the server's start wrapper: requests signed here. Standard library
only.

A server's environment, or the image of a server, has no boto3. What is done at a start is little:
list, read, copy, remove.
"""

from __future__ import annotations

import base64
import configparser
import datetime
import email.utils
import hashlib
import hmac
import http.client
import io
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from ...errors import RepositoryError
from ...loopback import is_loopback
from .bucket import Bucket, CallFailed, CallRefused
from .location import S3Location

_INSTANCE = "http://169.254.169.254/latest"
_INSTANCE_SECONDS = 2.0
_BYTES = "binary/octet-stream"


@dataclass(frozen=True)
class Credentials:
    """What signs a request; ``access_key`` "" leaves requests unsigned, as for a public bucket."""

    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    region: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.access_key})"


def find_credentials(location: S3Location, environment: Mapping[str, str]) -> Credentials:
    """As Triton finds them: the file of TRITON_CLOUD_CREDENTIAL_PATH, the environment, the user's
    files, the instance.
    """
    region = environment.get("AWS_DEFAULT_REGION") or environment.get("AWS_REGION") or ""
    found: Mapping[str, str] = {}
    if environment.get("TRITON_CLOUD_CREDENTIAL_PATH"):
        found = _of_triton(environment["TRITON_CLOUD_CREDENTIAL_PATH"], location)
    if not found.get("key_id") and environment.get("AWS_ACCESS_KEY_ID"):
        found = {
            "key_id": environment["AWS_ACCESS_KEY_ID"],
            "secret_key": environment.get("AWS_SECRET_ACCESS_KEY", ""),
            "session_token": environment.get("AWS_SESSION_TOKEN", ""),
        }
    if not found.get("key_id"):
        found = _of_profile(
            environment, found.get("profile") or environment.get("AWS_PROFILE") or "default"
        )
    if not found.get("key_id") and location.endpoint is None:
        found = _of_instance()
    return Credentials(
        found.get("key_id", ""),
        found.get("secret_key", ""),
        found.get("session_token", ""),
        found.get("region") or region or "us-east-1",
    )


def _of_triton(path: str, location: S3Location) -> Mapping[str, str]:
    try:
        with open(path, encoding="utf-8") as stream:
            known = json.load(stream).get("s3", {})
    except (OSError, ValueError, AttributeError) as error:
        raise RepositoryError(
            f"the credentials file {path} cannot be read ({error})", step="find the credentials"
        ) from error
    fitting = [name for name in known if f"{location.url}/".startswith(name)]
    return known[max(fitting, key=len)] if fitting else {}


def _of_profile(environment: Mapping[str, str], profile: str) -> Mapping[str, str]:
    home = os.path.join(environment.get("HOME") or os.path.expanduser("~"), ".aws", "credentials")
    parser = configparser.RawConfigParser()
    try:
        parser.read(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise RepositoryError(
            "the AWS credentials file cannot be read", step="find the credentials"
        ) from error
    if not parser.has_section(profile):
        return {}
    names = {
        "key_id": "aws_access_key_id",
        "secret_key": "aws_secret_access_key",
        "session_token": "aws_session_token",
        "region": "region",
    }
    return {ours: parser.get(profile, theirs, fallback="") for ours, theirs in names.items()}


def _of_instance() -> Mapping[str, str]:
    """From the metadata of a machine at Amazon; nothing anywhere else."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path: str, method: str, headers: Mapping[str, str]) -> str:
        request = urllib.request.Request(
            f"{_INSTANCE}/{path}", method=method, headers=dict(headers)
        )
        with opener.open(request, timeout=_INSTANCE_SECONDS) as answer:
            return str(answer.read().decode())

    try:
        token = {
            "X-aws-ec2-metadata-token": ask(
                "api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
            )
        }
        base = "meta-data/iam/security-credentials/"
        found = json.loads(ask(base + ask(base, "GET", token).split()[0], "GET", token))
        return {
            "key_id": found["AccessKeyId"],
            "secret_key": found["SecretAccessKey"],
            "session_token": found["Token"],
        }
    except (OSError, ValueError, KeyError, IndexError):
        return {}


def signature(
    credentials: Credentials,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime.datetime,
) -> dict[str, str]:
    """The headers to send: those given, and what signs them (AWS Signature Version 4)."""
    parts, stamp = urlsplit(url), now.strftime("%Y%m%dT%H%M%SZ")
    sent = {
        **{name.lower(): value for name, value in headers.items()},
        "host": parts.netloc,
        "x-amz-date": stamp,
        "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
    }
    if credentials.session_token:
        sent["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(sent))
    canonical = "\n".join(
        [
            method,
            parts.path or "/",
            parts.query,
            *(f"{name}:{sent[name].strip()}" for name in sorted(sent)),
            "",
            names,
            sent["x-amz-content-sha256"],
        ]
    )
    scope = f"{stamp[:8]}/{credentials.region}/s3/aws4_request"
    text = "\n".join(
        ["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{credentials.secret_key}".encode()
    for word in scope.split("/"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    digest = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={names},"
        f" Signature={digest}"
    )
    return sent


def open_signed_bucket(
    location: S3Location, credentials: Credentials, timeout: float, ca_file: str | None = None
) -> Bucket:
    """A bucket for listing, reading, small writes, copies up to 5 GiB and removals.

    Args:
        timeout: seconds for one call.
    """
    return Bucket(location, SignedCalls(location, credentials, timeout, ca_file), timeout)


class SignedCalls:
    """The calls that a start needs, each one request of the standard library."""

    def __init__(
        self,
        location: S3Location,
        credentials: Credentials,
        timeout: float,
        ca_file: str | None = None,
    ) -> None:
        self.location, self.timeout, self.credentials = location, timeout, credentials
        self._operations: Mapping[str, Callable[..., dict[str, Any]]] = {
            "list_objects_v2": self._list_objects_v2,
            "get_object": self._get_object,
            "put_object": self._put_object,
            "copy_object": self._copy_object,
            "delete_object": self._delete_object,
            "delete_objects": self._delete_objects,
        }
        host = urlsplit(location.endpoint or "").hostname or ""
        handlers: list[Any] = [
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file))
        ]
        self._opener = urllib.request.build_opener(
            *handlers, *([urllib.request.ProxyHandler({})] if is_loopback(host) else [])
        )

    def close(self) -> None:
        """Nothing is held open."""

    def call(self, operation: str, /, **parameters: Any) -> Any:
        if operation not in self._operations:
            raise CallFailed(
                "this can only be done where boto3 is installed, by the next deployment"
            )
        try:
            return self._operations[operation](**parameters)
        except urllib.error.HTTPError as error:
            raise _refusal_of(error) from None
        except (OSError, http.client.HTTPException, ElementTree.ParseError) as error:
            raise CallFailed(
                f"the object store at {self.location.host} does not answer"
                f" ({getattr(error, 'reason', error)})"
            ) from error

    def _url(self, key: str, query: Mapping[str, str]) -> str:
        bucket, base = self.location.bucket, self.location.endpoint
        if base is None:
            host = f"s3.{self.credentials.region}.amazonaws.com"
            base, path = (
                (f"https://{host}", f"/{bucket}")
                if "." in bucket
                else (f"https://{bucket}.{host}", "")
            )
        else:
            path = f"/{bucket}"
        address = f"{base}{path}/{quote(key, safe='/-_.~')}"
        return (
            f"{address}?{urlencode(sorted(query.items()), quote_via=quote, safe='-_.~')}"
            if query
            else address
        )

    def _ask(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, Mapping[str, str]]:
        url = self._url(key, query or {})
        now = datetime.datetime.now(datetime.timezone.utc)
        sent = (
            signature(self.credentials, method, url, headers or {}, body, now)
            if self.credentials.access_key
            else dict(headers or {})
        )
        request = urllib.request.Request(
            url, data=body if method in ("PUT", "POST") else None, method=method, headers=sent
        )
        with self._opener.open(request, timeout=self.timeout) as answer:
            return answer.read(), {name.lower(): value for name, value in answer.headers.items()}

    # -- operations, named and answered as boto3's -------------------------------------------------

    def _list_objects_v2(
        self, Prefix: str, Delimiter: str = "", ContinuationToken: str = ""
    ) -> dict[str, Any]:
        query = {
            "list-type": "2",
            "prefix": Prefix,
            "delimiter": Delimiter,
            "continuation-token": ContinuationToken,
        }
        tree = ElementTree.fromstring(
            self._ask("GET", query={name: value for name, value in query.items() if value})[0]
        )
        found = [
            {
                "Key": _text(one, "Key"),
                "Size": int(_text(one, "Size")),
                "ETag": _text(one, "ETag"),
                "LastModified": _time(_text(one, "LastModified")),
            }
            for one in _all(tree, "Contents")
        ]
        return {
            "Contents": found,
            "CommonPrefixes": [
                {"Prefix": _text(one, "Prefix")} for one in _all(tree, "CommonPrefixes")
            ],
            "IsTruncated": _text(tree, "IsTruncated") == "true",
            "NextContinuationToken": _text(tree, "NextContinuationToken"),
        }

    def _get_object(self, Key: str) -> dict[str, Any]:
        body, headers = self._ask("GET", Key)
        when = email.utils.parsedate_to_datetime(headers.get("last-modified") or headers["date"])
        return {
            "Body": io.BytesIO(body),
            "ETag": headers.get("etag", ""),
            "LastModified": when,
            "ResponseMetadata": {"HTTPHeaders": headers},
        }

    def _put_object(
        self, Key: str, Body: bytes, ContentMD5: str, IfMatch: str = "", IfNoneMatch: str = ""
    ) -> dict[str, Any]:
        conditions = {
            name: value
            for name, value in (("if-match", IfMatch), ("if-none-match", IfNoneMatch))
            if value
        }
        sent = {"content-md5": ContentMD5, "content-type": _BYTES, **conditions}
        return {"ETag": self._ask("PUT", Key, body=Body, headers=sent)[1].get("etag", "")}

    def _copy_object(self, Key: str, CopySource: Mapping[str, str]) -> dict[str, Any]:
        source = quote(f"/{CopySource['Bucket']}/{CopySource['Key']}", safe="/-_.~")
        body, headers = self._ask(
            "PUT", Key, headers={"x-amz-copy-source": source, "content-type": _BYTES}
        )
        if b"<Error>" in body:  # a copy that fails on its way has the status of one that succeeds
            raise urllib.error.HTTPError(Key, 500, "copy failed", headers, None)  # type: ignore[arg-type]
        return {}

    def _delete_object(self, Key: str) -> dict[str, Any]:
        self._ask("DELETE", Key)
        return {}

    def _delete_objects(self, Delete: Mapping[str, Any]) -> dict[str, Any]:
        document = ElementTree.Element("Delete", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
        ElementTree.SubElement(document, "Quiet").text = "true"
        for one in Delete["Objects"]:
            ElementTree.SubElement(ElementTree.SubElement(document, "Object"), "Key").text = one[
                "Key"
            ]
        body = ElementTree.tostring(document)
        sum_of_body = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        sent = {"content-md5": sum_of_body, "content-type": "application/xml"}
        answer = self._ask("POST", query={"delete": ""}, body=body, headers=sent)[0]
        failed = _all(ElementTree.fromstring(answer), "Error") if answer else []
        return {
            "Errors": [{"Key": _text(one, "Key"), "Code": _text(one, "Code")} for one in failed]
        }


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _all(tree: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in tree if _name(child) == name]


def _text(tree: ElementTree.Element, name: str) -> str:
    return next((child.text or "" for child in tree if _name(child) == name), "")


def _time(text: str) -> datetime.datetime:
    """Of ``2026-01-01T12:00:00.000Z``, which Python reads only from 3.11 on."""
    seconds = text[: len("2026-01-01T12:00:00")]
    return datetime.datetime.strptime(f"{seconds}+0000", "%Y-%m-%dT%H:%M:%S%z")


def _refusal_of(error: urllib.error.HTTPError) -> CallRefused:
    found = {"Code": str(error.code), "Message": str(error.reason)}
    try:
        tree = ElementTree.fromstring(error.read() or b"<Error/>")
        found.update({name: text for name in found if (text := _text(tree, name))})
    except (ElementTree.ParseError, OSError, http.client.HTTPException):
        pass
    return CallRefused(found["Code"], found["Message"], error.code)
