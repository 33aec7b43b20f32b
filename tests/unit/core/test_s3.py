# SPDX-License-Identifier: Apache-2.0
"""Places in S3, and where their credentials come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.changes import (
    visible,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.location import (
    S3Location,
    parse_s3,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.signed_bucket import (  # noqa: E501
    find_credentials,
)


@pytest.mark.parametrize(
    ("text", "endpoint", "bucket", "prefix", "url"),
    [
        ("s3://models/team/prod/", None, "models", "team/prod", "s3://models/team/prod"),
        ("s3://models", None, "models", "", "s3://models"),
        (
            "s3://http://minio:9000/models/prod",
            "http://minio:9000",
            "models",
            "prod",
            "s3://http://minio:9000/models/prod",
        ),
        (
            "s3://https://minio:9000/models//prod",
            "https://minio:9000",
            "models",
            "prod",
            "s3://https://minio:9000/models/prod",
        ),
        (
            "s3://127.0.0.1:9000/models",
            "http://127.0.0.1:9000",
            "models",
            "",
            "s3://http://127.0.0.1:9000/models",
        ),
    ],
)
def test_places(text: str, endpoint: str | None, bucket: str, prefix: str, url: str) -> None:
    found = parse_s3(text)
    assert (found.endpoint, found.bucket, found.prefix, found.url) == (
        endpoint,
        bucket,
        prefix,
        url,
    )
    assert found.key_of(f"{url}/fraud/1") == found.key("fraud", "1")


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3://Models/prod",
        "s3://http://host/bucket",
        "s3://models/a b",
        "s3://models/a/../b",
        "s3://http://",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(InvalidOption):
        parse_s3(text)


@pytest.mark.parametrize(
    ("prefix", "state"),
    [("", ".mlops-triton"), ("prod", "prod.mlops-triton"), ("a/b", "a/b.mlops-triton")],
)
def test_the_marker_names_the_state(prefix: str, state: str) -> None:
    place = S3Location(None, "models", prefix)
    assert place.state().prefix == state
    assert place.resolve(place.relative(place.state())) == place.state()


def test_folder_keys_count_only_where_nothing_is_in_them() -> None:
    found = {
        "/": [0, "e"],
        "/1/": [0, "e"],
        "/2/": [0, "e"],
        "/2/model.py": [3, "a"],
        "/2/sub/": [0, "e"],
        "/config.pbtxt": [5, "b"],
    }
    assert visible(found) == {
        "1": [0, "e"],
        "2/model.py": [3, "a"],
        "2/sub": [0, "e"],
        "config.pbtxt": [5, "b"],
    }


def test_credentials_come_from_where_triton_looks(tmp_path: Path) -> None:
    place = parse_s3("s3://http://minio:9000/models/prod")
    known = {
        "s3": {
            "": {"key_id": "anywhere", "secret_key": "1"},
            "s3://http://minio:9000/models": {"key_id": "here", "secret_key": "2", "region": "eu"},
        }
    }
    (tmp_path / "cloud.json").write_text(json.dumps(known))
    (tmp_path / "aws").write_text(
        "[default]\naws_access_key_id = file\naws_secret_access_key = 3\n[ops]\naws_access_key_id ="
        " ops\n"
    )
    environment = {"HOME": str(tmp_path), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws")}
    assert find_credentials(place, environment).access_key == "file"
    assert find_credentials(place, {**environment, "AWS_PROFILE": "ops"}).access_key == "ops"
    environment["AWS_ACCESS_KEY_ID"] = "variable"
    assert find_credentials(place, environment).access_key == "variable"
    environment["TRITON_CLOUD_CREDENTIAL_PATH"] = str(tmp_path / "cloud.json")
    found = find_credentials(place, environment)
    assert (found.access_key, found.secret_key, found.region) == ("here", "2", "eu")
    assert "2" not in repr(found)
    assert (
        find_credentials(parse_s3("s3://http://other:9000/models"), environment).access_key
        == "anywhere"
    )
    assert find_credentials(place, {"HOME": str(tmp_path / "nobody")}).access_key == ""
