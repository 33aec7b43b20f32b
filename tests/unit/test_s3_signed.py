# SPDX-License-Identifier: Apache-2.0
"""Requests to S3 that are signed without boto3: the same as botocore signs."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.signed_bucket import (  # noqa: E501
    Credentials,
    signature,
)
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("token", ["", "a/token+with=signs"])
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/models/prod/fraud/1/model.onnx",
        "https://models.s3.eu-west-1.amazonaws.com/a%20b/%C3%A4~x",
        "http://127.0.0.1:9000/models?delimiter=%2F&list-type=2&prefix=a%2Fb%20c",
        "http://127.0.0.1:9000/models/?delete=",
    ],
)
def test_signature_is_botocores(
    method: str, token: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    body, headers = b"some bytes", {"Content-MD5": "xyz==", "If-None-Match": "*"}
    ours = signature(
        Credentials("AKIAEXAMPLE", "secret", token, "eu-west-1"), method, url, headers, body, now
    )
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime", lambda: now.replace(tzinfo=None), raising=False
    )
    monkeypatch.setattr(
        "botocore.compat.get_current_datetime", lambda: now.replace(tzinfo=None), raising=False
    )
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    request.context["payload_signing_enabled"] = True
    S3SigV4Auth(
        BotoCredentials("AKIAEXAMPLE", "secret", token or None), "s3", "eu-west-1"
    ).add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    assert theirs["x-amz-date"] == "20260102T030405Z", "the clock was not set"
    assert ours["authorization"] == theirs["authorization"]
