# SPDX-License-Identifier: Apache-2.0
"""A bucket through boto3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ...errors import InvalidOption
from ...libraries import require
from ...loopback import is_loopback
from .bucket import WORKERS, Bucket, CallFailed, CallRefused
from .location import S3Location

OPTIONS = ("access_key", "secret_key", "session_token", "profile", "region", "ca_file")


def open_bucket(location: S3Location, options: Mapping[str, Any] | None, timeout: float) -> Bucket:
    """A bucket whose calls boto3 makes.

    Args:
        options: access_key, secret_key, session_token, profile, region, ca_file; what is omitted
            comes from boto3's own chain (environment, profile, the instance).
        timeout: seconds for one call.

    Raises:
        InvalidOption: half a key pair, a profile that is not there.
        MissingLibrary: boto3 cannot be imported.
    """
    given = {key: value for key, value in (options or {}).items() if value}
    return Bucket(location, Boto3Calls(location, _client(location, given, timeout)), timeout)


class Boto3Calls:
    """The calls of a client of boto3."""

    def __init__(self, location: S3Location, client: Any) -> None:
        self._location, self._client = location, client

    def call(self, operation: str, /, **parameters: Any) -> Any:
        with self._translate_failures():
            answer = getattr(self._client, operation)(Bucket=self._location.bucket, **parameters)
        if "Body" in answer:
            answer["Body"] = _Body(self, answer["Body"])
        return answer

    def read(self, stream: Any, size: int | None) -> bytes:
        with self._translate_failures():
            return bytes(stream.read(size))

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _translate_failures(self) -> Iterator[None]:
        from botocore import exceptions

        try:
            yield
        except exceptions.ClientError as error:
            found = error.response.get("Error", {})
            raise CallRefused(
                str(found.get("Code")),
                str(found.get("Message")),
                error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"),
            ) from error
        except (
            exceptions.NoCredentialsError,
            exceptions.PartialCredentialsError,
            exceptions.CredentialRetrievalError,
        ) as error:
            raise CallFailed(
                f"there are no credentials for {self._location.base}: set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY, a profile, or option s3"
            ) from error
        except exceptions.SSLError as error:
            raise CallFailed(
                f"the certificate of the object store at {self._location.host} is not trusted;"
                " option s3 has ca_file"
            ) from error
        except (exceptions.BotoCoreError, OSError) as error:
            raise CallFailed(
                f"the object store at {self._location.host} does not answer"
                f" ({' '.join(str(error).split())[:200]})"
            ) from error


class _Body:
    """The bytes of an answer, which may break off as a call may."""

    def __init__(self, calls: Boto3Calls, stream: Any) -> None:
        self._calls, self._stream = calls, stream

    def read(self, size: int | None = None) -> bytes:
        return self._calls.read(self._stream, size)


def _client(location: S3Location, options: Mapping[str, Any], timeout: float) -> Any:
    about = {"step": "read option s3", "left": "nothing was changed"}
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InvalidOption(
            f"s3 has the unknown key {', '.join(unknown)}; known are {', '.join(OPTIONS)}", **about
        )
    if bool(options.get("access_key")) != bool(options.get("secret_key")):
        raise InvalidOption("s3 has one of access_key and secret_key, and not the other", **about)
    with require("boto3", "for a model repository in S3"):
        import boto3
        from botocore import config, exceptions
    try:
        session = boto3.session.Session(
            options.get("access_key"),
            options.get("secret_key"),
            options.get("session_token"),
            options.get("region"),
            profile_name=options.get("profile"),
        )
    except exceptions.ProfileNotFound as error:
        raise InvalidOption(
            f"there is no profile '{options.get('profile')}' among those of this user", **about
        ) from error
    host = urlsplit(location.endpoint or "").hostname or ""
    settings = config.Config(
        connect_timeout=min(10.0, timeout),
        read_timeout=min(60.0, timeout),
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=2 * WORKERS,
        s3={"addressing_style": "path"} if location.endpoint else {},
        proxies={} if is_loopback(host) else None,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # Another store than Amazon's has no region; a signature needs some.
    region = session.region_name or ("us-east-1" if location.endpoint else None)
    return session.client(
        "s3",
        endpoint_url=location.endpoint,
        region_name=region,
        config=settings,
        verify=options.get("ca_file") or None,
    )
