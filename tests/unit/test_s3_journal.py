# SPDX-License-Identifier: Apache-2.0
"""What a killed run leaves in S3: undone or finished, or refused with nothing touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.journal import (
    Move,
    Removal,
    S3Swap,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.effects import observe
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import RepositoryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3 import changes
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.repository import (  # noqa: E501
    S3Repository,
)
from moto import mock_aws

NAME = "fraud"
JOURNAL = "prod.mlops-triton/journals/fraud.json"
MARKER = "prod/.mlops-triton.json"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "AKIATESTKEY"),
        ("AWS_SECRET_ACCESS_KEY", "test-secret-access-key"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        yield client


def keys(client: Any) -> dict[str, bytes]:
    """Every key with its bytes."""
    found = client.list_objects_v2(Bucket="models").get("Contents", ())
    return {
        one["Key"]: client.get_object(Bucket="models", Key=one["Key"])["Body"].read()
        for one in found
    }


def live(client: Any) -> dict[str, bytes]:
    return {
        key.removeprefix("prod/fraud/"): body
        for key, body in keys(client).items()
        if key.startswith("prod/fraud/")
    }


def put(client: Any, key: str, body: bytes) -> None:
    client.put_object(Bucket="models", Key=key, Body=body)


@pytest.fixture
def models(client: Any) -> Iterator[S3Repository]:
    repository = S3Repository("s3://models/prod", None, None, 20)
    repository.store.ensure()
    yield repository
    repository.close()


BEFORE = {"1/model.py": b"old", "1/gone.py": b"gone", "config.pbtxt": b'backend: "python"\n'}
AFTER = {"1/model.py": b"new", "1/more.py": b"more", "config.pbtxt": b'backend: "python"\n#\n'}


def record(**values: Any) -> Record:
    manifest = Manifest.of(())
    return Record(
        **{
            "name": NAME,
            "deploy_id": "d1",
            "model_uri": "models:/fraud/1",
            "pinned_uri": "models:/fraud/1",
            "source": "models:/m-1",
            "flavor": "triton",
            "triton_versions": (1,),
            "manifest": manifest.to_dict(),
            "manifest_digest": manifest.digest,
            "config_digest": "",
            "request": {},
            "deployed_at": "2026-01-01T00:00:00",
            "deployed_by": "somebody",
            "transaction": "d1",
            **values,
        }
    )


def begin(models: S3Repository, client: Any, tmp_path: Path) -> S3Swap:
    """A whole model is to be replaced."""
    for path, body in BEFORE.items():
        put(client, f"prod/fraud/{path}", body)
    for path, body in AFTER.items():
        (tmp_path / "new" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / path).write_bytes(body)
    manifest = models.manifest(models.live(NAME))
    there = record(fingerprint=models.fingerprint(NAME), manifest=manifest.to_dict())
    models.store.write_record(there)
    old = models.store.record(NAME)
    return models.begin(NAME, [Move(models.live(NAME), str(tmp_path / "new"))], "d2", old, 1)


class Killed(BaseException):
    """As kill -9: nothing on the way out catches it."""


def kill_at(number: int, work: Callable[[], object]) -> bool:
    """Run, and be killed after the effect of this number; False where there are fewer."""
    count = 0

    def watch(moment: str, _kind: str, _subject: str) -> None:
        nonlocal count
        count += moment == "after"
        if moment == "after" and count == number:
            raise Killed

    with observe(watch):
        try:
            work()
        except Killed:
            return True
    return False


def test_what_was_begun_is_read_again(models: S3Repository, client: Any, tmp_path: Path) -> None:
    journal = begin(models, client, tmp_path)
    assert models.store.journal(NAME) == journal == models.read(NAME).journal


@pytest.mark.parametrize("number", range(1, 9))
def test_a_change_killed_after_any_of_its_steps_is_undone(
    number: int, models: S3Repository, client: Any, tmp_path: Path
) -> None:
    journal = begin(models, client, tmp_path)
    # Three copies to the retained ones, two that come, one key that goes, the configuration.
    assert kill_at(number, lambda: models.put(NAME, journal)) == (number <= 7)
    if number >= 7:
        assert live(client) == AFTER
    assert changes.recover(models.store, NAME) == "an interrupted deployment was undone"
    assert live(client) == BEFORE
    assert models.store.journal(NAME) is None
    assert not [key for key in keys(client) if "/staging/" in key or "/retained/" in key]
    assert models.read(NAME).changed_files == models.read(NAME).touched_files == ()


def test_a_change_whose_record_was_written_is_finished(
    models: S3Repository, client: Any, tmp_path: Path
) -> None:
    models.put(NAME, begin(models, client, tmp_path))
    models.store.write_record(record(deploy_id="d2", transaction="d2"))
    done = models.recover(NAME)
    assert done == "an interrupted deployment was complete but for tidying up"
    assert live(client) == AFTER
    assert [kept.key for kept in models.store.retained_records(NAME)] == ["d1"]
    assert models.store.retained_contents(NAME) == {"d1": {"model", "record.json"}}


def test_a_removal_goes_on_where_its_record_is_gone(models: S3Repository, client: Any) -> None:
    put(client, "prod/fraud/1/model.py", b"old")
    models.store.write_journal(NAME, Removal())
    assert models.read(NAME).half_made
    assert models.recover(NAME) == "an interrupted removal was finished"
    assert set(keys(client)) == {MARKER}


@pytest.mark.parametrize(
    "body",
    [
        b'{"schema": 2, "op": "swap v2"}',
        b'{"schema": 1, "op": "swap", "deploy_id": "d2", "old_record": null, "moves": []}',
        b'{"schema": 1, "op": "swap in s3", "deploy_id": "d2", "old_record": null, "keep": 1}',
        b'{"schema": 1, "op": "swap in',
        b"\xff",
    ],
    ids=["newer", "of a folder", "no moves", "cut", "no text"],
)
def test_a_journal_that_is_not_understood_leaves_everything_alone(
    body: bytes, models: S3Repository, client: Any, tmp_path: Path
) -> None:
    models.put(NAME, begin(models, client, tmp_path))
    put(client, JOURNAL, body)
    before = keys(client)
    for work in (
        lambda: models.recover(NAME),
        lambda: changes.recover(models.store, NAME, server_starts=True),
        lambda: models.read(NAME),
    ):
        with pytest.raises(RepositoryError, match="of an interrupted run") as refused:
            work()
        assert f"s3://models/{JOURNAL}" in str(refused.value)
        assert "Nothing was changed." in str(refused.value)
    assert keys(client) == before


def test_what_was_changed_by_hand_is_still_seen_after_an_undone_change(
    models: S3Repository, client: Any, tmp_path: Path
) -> None:
    """What comes back is what lay there, and not what was deployed."""
    begin(models, client, tmp_path)
    put(client, "prod/fraud/1/model.py", b"by hand")
    old = models.store.record(NAME)
    models.put(
        NAME, models.begin(NAME, [Move(models.live(NAME), str(tmp_path / "new"))], "d3", old, 1)
    )
    assert models.recover(NAME) == "an interrupted deployment was undone"
    assert live(client)["1/model.py"] == b"by hand"
    assert models.read(NAME).changed_files == ("1/model.py",)


def test_the_advice_on_a_damaged_journal_helps(
    models: S3Repository, client: Any, tmp_path: Path
) -> None:
    """Copy what lies aside, remove the journal, run again: what was deployed before was kept, and
    the next run sees which files are not those of the record.
    """
    models.put(NAME, begin(models, client, tmp_path))
    put(client, JOURNAL, b"{")
    state = "s3://models/prod.mlops-triton"
    with pytest.raises(RepositoryError) as refused:
        models.recover(NAME)
    assert f"copy {state}/staging/fraud and {state}/retained/fraud" in str(refused.value)
    aside = [
        body
        for key, body in keys(client).items()
        if key.startswith(("prod.mlops-triton/staging/fraud/", "prod.mlops-triton/retained/fraud/"))
    ]
    assert set(BEFORE.values()) <= set(aside)
    client.delete_object(Bucket="models", Key=JOURNAL)
    assert models.recover(NAME) is None
    assert {"1/gone.py", "1/model.py", "1/more.py"} <= set(models.read(NAME).changed_files)


@pytest.mark.parametrize(
    "body",
    [
        b'{"schema": 2, "state_dir": "../prod.mlops-triton"}',
        b'{"schema": 1}',
        b'{"schema": 1, "state_dir": "s3://Not A Bucket"}',
        b"{",
    ],
)
def test_a_marker_that_is_not_understood_leaves_everything_alone(body: bytes, client: Any) -> None:
    put(client, MARKER, body)
    for state_dir in (None, "s3://models/elsewhere"):
        with pytest.raises(RepositoryError) as refused:
            S3Repository("s3://models/prod", state_dir, None, 20)
        assert f"s3://models/{MARKER}" in str(refused.value)
        assert "Nothing was changed." in str(refused.value)
    assert keys(client) == {MARKER: body}


def test_the_advice_on_a_damaged_marker_helps(client: Any) -> None:
    state = "s3://models/elsewhere"
    first = S3Repository("s3://models/prod", state, None, 20)
    first.store.ensure()
    first.store.write_record(record())
    good = keys(client)[MARKER]
    put(client, MARKER, good[:-5])
    with pytest.raises(RepositoryError, match="remove the marker and run again with that folder"):
        S3Repository("s3://models/prod", None, None, 20)
    client.delete_object(Bucket="models", Key=MARKER)
    S3Repository("s3://models/prod", state, None, 20).store.ensure()
    assert keys(client)[MARKER] == good
    found = S3Repository("s3://models/prod", None, None, 20).store.record(NAME)
    assert found == record()


@pytest.mark.parametrize("place", ["../other bucket", "../a\nb", "../a\0b", "s3://else where/x"])
def test_a_marker_that_names_no_place_of_the_bucket_is_refused(client: Any, place: str) -> None:
    client.put_object(
        Bucket="models", Key=MARKER, Body=json.dumps({"schema": 1, "state_dir": place}).encode()
    )
    with pytest.raises(RepositoryError, match="cannot be understood"):
        S3Repository("s3://models/prod", None, {}, 20)


def test_a_key_that_no_journal_can_name_is_told_before_anything_changes(client: Any) -> None:
    client.put_object(Bucket="models", Key="prod/fraud/1//x", Body=b"x")
    repository = S3Repository("s3://models/prod", None, {}, 20)
    before = keys(client)
    with pytest.raises(RepositoryError, match="'/1//x', which no journal can name: remove"):
        repository.begin(NAME, [Move(repository.live(NAME), "")], "d2", None, 1)
    assert keys(client) == before
    client.delete_object(Bucket="models", Key="prod/fraud/1//x")
    repository.begin(NAME, [Move(repository.live(NAME), "")], "d2", None, 1)
