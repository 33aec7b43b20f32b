# SPDX-License-Identifier: Apache-2.0
"""A repository in S3: killed between versions, locks of the dead and of the living, a store that
fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.journal import S3Swap
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    DeadlineExceeded,
    DeliveryError,
    LoadPending,
    LockTimeout,
    RepositoryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3 import (
    bucket,
    lock,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.repository import (  # noqa: E501
    S3Repository,
)
from support.bench import NAME
from support.rows import Row
from support.s3_bench import STATE, S3Bench, s3_benches
from support.servers import S3, free_ports

pytestmark = pytest.mark.takes(300)


@pytest.fixture(scope="module")
def one_bench(base: Path) -> Iterator[S3Bench]:
    with s3_benches(base, "s3-one") as made:
        yield made[0]


@pytest.fixture
def bench(one_bench: S3Bench) -> S3Bench:
    one_bench.wipe()
    return one_bench


@pytest.mark.parametrize("wish", ["the same", "another"])
def test_objects_stay_under_a_load_that_goes_on(wish: str, bench: S3Bench, row: Row) -> None:
    """S3: a load outlasts load_timeout, then {wish} is asked for."""
    bench.good(model_uri=bench.source(1))
    slow, loads = bench.source(2, load_delay=4), bench.triton.loads(NAME)
    failed = bench.deliver(model_uri=slow, target={"load_timeout": 1})
    assert isinstance(failed.error, LoadPending), repr(failed.error)
    journal = bench.store.journal(NAME)
    assert isinstance(journal, S3Swap) and journal.load
    number = 2 if wish == "the same" else 3
    settled = bench.good(model_uri=slow if number == 2 else bench.source(3))
    assert settled.plan
    assert settled.plan.actions[0] == f"wait for the load that began at {journal.load.since}"
    bench.check_agreement(number, retained=1)
    if number == 2:
        assert bench.triton.loads(NAME) == loads + 1, "it was loaded a second time"
    row.saw(", ".join(settled.plan.actions))


def test_kill_points_between_versions(bench: S3Bench, row: Row) -> None:
    """S3: kill -9 where version n+1 replaces version n, after each effect, the server started
    anew.
    """
    folders = {str(version): bench.source(version) for version in range(1, 41)}

    def run(version: int, **request: Any) -> dict[str, Any]:
        return bench.run({"registry": folders, **request}, model_uri=f"models:/fraud/{version}")

    assert not run(1)["result"]["failed"]
    whole = run(2)
    assert not whole["result"]["failed"], whole["result"]["msg"]
    total, wrong = len(whole["effects"]), []
    assert 0 < total < 38
    print(
        f"\nversions: N = {total}: {', '.join(kind for kind, _subject in whole['effects'])}",
        flush=True,
    )
    for number in range(1, total + 1):
        old, new = number + 1, number + 2
        killed = run(new, kill=[number, "after"])
        try:
            assert killed["code"] == -9
            bench.crash()
            assert bench.identity() in (old, new)
            done = run(new)["result"]
            assert not done["failed"], done["msg"]
            bench.check_agreement(new, retained=1)
            again = run(new)
            assert (again["result"]["changed"], again["effects"]) == (False, [])
        except AssertionError as error:
            wrong.append(
                f"killed after effect {number} ({' '.join(killed['effects'][-1])}):"
                f" {' '.join(str(error).split())[:300]}"
            )
            run(new)
    row.saw(f"N = {total}; {total - len(wrong)} kills converged in one run and left nothing")
    assert not wrong, f"{len(wrong)} points: " + "\n".join(wrong)


def test_lock_of_a_living_run_is_respected(bench: S3Bench, row: Row) -> None:
    """S3: another run has the lock."""
    with bench.store.lock(NAME, 1):
        result = bench.deliver(target={"lock_timeout": 1}, model_uri=bench.source(1))
    assert isinstance(result.error, LockTimeout)
    row.saw(str(result.error))
    assert f"process {os.getpid()}" in str(result.error)
    assert bench.good(model_uri=bench.source(1)).changed


def test_lock_of_another_machine_expires(
    bench: S3Bench, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3: a run on another machine died with the lock."""
    monkeypatch.setattr(lock, "SECONDS", 2.0)
    monkeypatch.setattr(lock, "identity", lambda: ("another boot", "pid:[1]", "1", "1"))
    dead = lock.S3Lock(bench.store.bucket, f"{STATE}locks/{NAME}.lock", NAME)
    monkeypatch.setattr(dead, "_renew", lambda: None)
    dead.acquire(1)
    monkeypatch.undo()
    for name, value in S3.environment.items():
        monkeypatch.setenv(name, value)
    assert bench.good(model_uri=bench.source(1)).changed
    row.saw("the next run waited until the lock had expired and took it over")
    bench.check_agreement(1)


def test_run_whose_lock_was_taken_stops(
    bench: S3Bench, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3: a run that slept too long finds its lock in other hands, and changes nothing more."""
    bench.good(model_uri=bench.source(1))
    repository = S3Repository(bench.target["model_repository"], None, None, 20)
    with repository.store.lock(NAME, 1):
        lock = repository.store._locks[NAME]
        repository.bucket.put(
            lock.key, b'{"identity": "another", "holder": "another@host", "seconds": 30}'
        )
        lock._renew_once()
        with pytest.raises(RepositoryError, match="another run may be changing it"):
            repository.store.check_lock(NAME)
    assert any(key.endswith("locks/doubler.lock") for key in bench.listed()), (
        "the other's lock stays"
    )
    bench.s3.client.delete_object(Bucket=bench.bucket, Key=lock.key)
    row.saw("refused, and the other's lock was left alone")


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ("frozen", DeadlineExceeded, "did not answer within 3 s$"),
        ("gone", RepositoryError, r"does not answer \("),
    ],
)
def test_store_fails(
    how: str, error: type[DeliveryError], said: str, bench: S3Bench, row: Row
) -> None:
    """S3: the store is {how}: one sentence in time, nothing changed."""
    bench.good(model_uri=bench.source(1))
    port = bench.s3.port if how == "frozen" else free_ports(1)[0]
    if how == "frozen":
        os.kill(bench.s3.pid, 19)
    try:
        started = time.monotonic()
        target = {
            **bench.target,
            "model_repository": f"s3://http://127.0.0.1:{port}/{bench.bucket}/prod",
            "timeout": 3,
        }
        with (
            pytest.raises(
                error, match=f"the object store at http://127.0.0.1:{port} {said}"
            ) as raised,
            Delivery(Target.from_options(target)) as delivery,
        ):
            delivery.status([NAME])
        seconds = time.monotonic() - started
        assert seconds < 20
        row.saw(f"{raised.value} ({seconds:.0f} s)")
    finally:
        if how == "frozen":
            os.kill(bench.s3.pid, 18)
    assert bench.identity() == 1
    assert bench.run(model_uri=bench.source(1))["result"]["changed"] is False


def test_store_without_conditions(
    bench: S3Bench, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3: the store ignores the conditions of a write: said in a warning, and a lock that is there
    is still respected.
    """
    whole = bucket.Bucket.put_quietly

    def careless(self: bucket.Bucket, key: str, data: bytes, **_conditions: Any) -> Any:
        return whole(self, key, data)

    monkeypatch.setattr(bucket.Bucket, "put_quietly", careless)
    result = bench.good(model_uri=bench.source(1))
    assert any("ignores the conditions of a write" in text for text in result.warnings)
    row.saw(next(text for text in result.warnings if "conditions" in text))
    with bench.store.lock(NAME, 5):
        assert isinstance(
            bench.deliver(target={"lock_timeout": 1}, model_uri=bench.source(2)).error, LockTimeout
        )
    bench.check_agreement(1)


def test_upload_that_breaks_leaves_the_old_one(
    bench: S3Bench, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3: the store refuses an upload: nothing changed, nothing left."""
    bench.good(model_uri=bench.source(1))
    broken = RepositoryError("the object store refuses it", step="upload")

    def refuse(self: bucket.Bucket, path: str, key: str) -> None:
        raise broken

    monkeypatch.setattr(bucket.Bucket, "upload", refuse)
    result = bench.deliver(model_uri=bench.source(2))
    row.saw(str(result.error))
    assert "is in place as before" in str(result.error)
    monkeypatch.undo()
    for name, value in S3.environment.items():
        monkeypatch.setenv(name, value)
    bench.check_agreement(1)
