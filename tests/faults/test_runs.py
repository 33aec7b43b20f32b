# SPDX-License-Identifier: Apache-2.0
"""Two runs on one model: one after the other, whatever happens to the first."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from support.bench import NAME, Bench
from support.rows import Row

pytestmark = pytest.mark.takes(110)

ROUNDS = 50


def test_two_runs_at_once(bench: Bench, row: Row) -> None:
    """two runs at once on one model, started on a barrier, 50 rounds."""
    sources = {identity: bench.source(identity) for identity in (1, 2, 3)}
    gate = bench.folder / "barrier"
    ends = {"first": 0, "second": 0}
    identity = None
    for number in range(ROUNDS):
        gate.unlink(missing_ok=True)
        both = [one for one in sources if one != identity][
            :2
        ]  # neither is in place: both have to change it
        runs = [
            bench.begin(child, {"before": str(gate)}, model_uri=sources[one])
            for child, one in enumerate(both)
        ]
        time.sleep(0.03)
        gate.touch()
        done = [run.result(60)["result"] for run in runs]
        assert [one["failed"] for one in done] == [False, False], (
            number,
            [one.get("msg") for one in done],
        )
        record = bench.record()
        assert record is not None
        served = bench.served_config()["parameters"][config_pbtxt.DEPLOY_ID_KEY]["string_value"]
        on_disk = config_pbtxt.deploy_id_of((bench.repository / NAME / "config.pbtxt").read_bytes())
        assert served == record.deploy_id == on_disk, number
        identity = bench.identity()
        assert identity is not None
        assert (
            f"IDENTITY = {identity}\n" in (bench.repository / NAME / "1" / "model.py").read_text()
        )
        assert record.model_uri == sources[identity]
        ends["first" if identity == both[0] else "second"] += 1
        assert bench.left_behind(1) == []
    bench.check_agreement(bench.identity(), retained=1)
    row.saw(
        f"{ROUNDS} rounds of two updates, all succeeded one after the other, {ends['first']} ended"
        f" with the one and {ends['second']} with the other; disk = record = served each time,"
        " nothing left behind"
    )


def test_update_and_removal_at_once(bench: Bench, row: Row) -> None:
    """an update and a removal at once, started on a barrier, 10 rounds."""
    sources = {identity: bench.source(identity) for identity in (1, 2)}
    gate = bench.folder / "barrier"
    ends = {"present": 0, "absent": 0}
    for _number in range(10):
        bench.good(model_uri=sources[1])
        gate.unlink(missing_ok=True)
        runs = [
            bench.begin(0, {"before": str(gate)}, model_uri=sources[2]),
            bench.begin(1, {"before": str(gate)}, state="absent"),
        ]
        time.sleep(0.03)
        gate.touch()
        done = [run.result(60)["result"] for run in runs]
        assert [one["failed"] for one in done] == [False, False], [one.get("msg") for one in done]
        there = bench.record() is not None
        bench.check_agreement(2 if there else None)
        ends["present" if there else "absent"] += 1
    row.saw(f"{ends['present']} ended present, {ends['absent']} absent, all whole")


def test_two_models_at_once(bench: Bench, row: Row) -> None:
    """first runs of two models at once in a new repository, 10 rounds."""
    gate = bench.folder / "barrier"
    sources = {name: bench.source(1, name) for name in ("one", "two")}
    for _number in range(10):
        bench.wipe()
        gate.unlink(missing_ok=True)
        runs = [
            bench.begin(number, {"before": str(gate)}, name=name, model_uri=source)
            for number, (name, source) in enumerate(sources.items())
        ]
        time.sleep(0.03)
        gate.touch()
        done = [run.result(60)["result"] for run in runs]
        assert [one["failed"] for one in done] == [False, False], [one.get("msg") for one in done]
        assert (bench.identity("one"), bench.identity("two")) == (1, 1)
        assert bench.left_behind(models_there=("one", "two")) == []
    row.saw("both served, one marker, one state folder")


def test_folders_that_come_and_go(bench: Bench, row: Row) -> None:
    """folders and files that vanish from the repository while Triton lists it."""
    source = bench.source(1)
    bench.good(model_uri=source)
    over = threading.Event()

    def churn() -> None:
        number = 0
        while not over.is_set():
            number = (number + 1) % 20
            folder = bench.repository / f"guest{number}"
            folder.mkdir()
            (bench.repository / f"file{number}").touch()
            folder.rename(bench.folder / "gone")
            (bench.folder / "gone").rmdir()
            (bench.repository / f"file{number}").unlink()

    guest = threading.Thread(target=churn)
    guest.start()
    try:
        raw = [bench.triton.call("v2/repository/index", {})[0] for _number in range(300)]
        for identity in (2, 1, 2):
            source = bench.source(identity)
            bench.good(model_uri=source)
        results = [bench.deliver(model_uri=source) for _number in range(100)]
    finally:
        over.set()
        guest.join()
    assert [str(one.error) for one in results if one.error] == []
    assert not any(one.changed for one in results)
    bench.check_agreement_of(NAME, 2)
    row.saw(
        f"Triton's own index failed {sum(status != 200 for status in raw)} times of {len(raw)}, no"
        f" delivery of {len(results)} did"
    )


def test_lock_of_a_living_run(bench: Bench, row: Row) -> None:
    """lock held by a living run."""
    bench.good(model_uri=bench.source(1))
    gate = bench.folder / "gate"
    gate.touch()
    first = bench.begin(0, {"pause": ["exchange", "before", str(gate)]}, model_uri=bench.source(2))
    pid = bench.child(0).paused.get(timeout=30)
    started = time.monotonic()
    failed = bench.deliver(model_uri=bench.source(3), target={"lock_timeout": 1})
    seconds = time.monotonic() - started
    assert type(failed.error).__name__ == "LockTimeout"
    assert f"(process {pid})" in str(failed.error)
    assert re.search(r"\w+@\S+ \(process", str(failed.error))
    assert 1 <= seconds < 10
    same = bench.deliver(check=True, model_uri=bench.source(3), target={"lock_timeout": 1})
    assert same.error is None, "looking needs no lock"
    second = bench.begin(1, model_uri=bench.source(4))
    time.sleep(0.5)
    gate.unlink()
    assert not first.result(30)["result"]["failed"]
    assert not second.result(30)["result"]["failed"]
    bench.check_agreement(4, retained=1)
    row.saw(f"{failed.error} One that waited longer came after it")


def test_lock_of_a_dead_run(bench: Bench, row: Row) -> None:
    """lock of a run that was killed."""
    bench.good(model_uri=bench.source(1))
    gate = bench.folder / "gate"
    gate.touch()
    first = bench.begin(0, {"pause": ["exchange", "after", str(gate)]}, model_uri=bench.source(2))
    pid = bench.child(0).paused.get(timeout=30)
    os.kill(pid, signal.SIGKILL)
    assert first.result(30)["code"] == -9
    gate.unlink()
    lock = Path(bench.store.path) / "locks" / f"{NAME}.lock"
    assert f"process {pid}" in lock.read_text()
    started = time.monotonic()
    done = bench.good(model_uri=bench.source(3), target={"lock_timeout": 60})
    assert time.monotonic() - started < 30
    bench.check_agreement(3, retained=1)
    assert any("interrupted deployment was undone" in warning for warning in done.warnings)
    row.saw(f"not in the way: {'; '.join(done.warnings)}")


def test_killed_creation_then_removal(bench: Bench, row: Row) -> None:
    """creation killed after its load, then the removal is asked for."""
    gate = bench.folder / "gate"
    gate.touch()
    first = bench.begin(0, {"pause": ["load", "after", str(gate)]}, model_uri=bench.source(1))
    os.kill(bench.child(0).paused.get(timeout=30), signal.SIGKILL)
    first.result(30)
    assert bench.identity() == 1
    checked = bench.deliver(check=True, state="absent")
    assert checked.error is None
    done = bench.good(state="absent")
    bench.check_agreement(None)
    assert bench.triton.infer(NAME, bench.sample(1).request())[0] != 200, (
        "Triton serves on what is gone"
    )
    assert bench.deliver(state="absent").changed is False
    row.saw(f"{'; '.join(done.warnings)}; it is no longer served")


@pytest.mark.parametrize("state", ["present", "absent", "rolled_back", "unloaded"])
def test_killed_update_then_something_else(state: str, bench: Bench, row: Row) -> None:
    """update killed at each effect, then something else is asked for: {state}."""
    old = bench.source(1)
    bench.good(model_uri=bench.source(3))
    bench.good(model_uri=old)
    new = bench.source(2)
    options = {"present": {"model_uri": old}}.get(state, {"state": state})
    wanted = {"present": 1, "absent": None, "rolled_back": 3, "unloaded": 1}[state]
    number, moments = 0, 0
    while True:
        number += 1
        killed = bench.run({"kill": [number, "after"]}, model_uri=new)
        if killed["code"] != -9:
            break
        moments += 1
        # Past the record the update has happened, and the one before it is what a rollback goes to.
        record = bench.record()
        assert record is not None
        complete = record.model_uri == new
        done = bench.run(**options)["result"]
        assert not done["failed"], (killed["effects"][-1], done["msg"])
        expected = {"rolled_back": 1, "unloaded": 2}.get(state, wanted) if complete else wanted
        if state == "unloaded":
            assert bench.identity() is None
            assert bench.left_behind(1) == []
        else:
            bench.check_agreement(expected)
        again = bench.run(**options)["result"]
        assert not again["failed"]
        assert again["changed"] is False, again["actions"]
        if state in ("absent", "rolled_back", "unloaded"):
            for source in (str(bench.folder / "sources" / f"{NAME}-3" / NAME), old):
                assert not bench.run(model_uri=source)["result"]["failed"]
    row.saw(f"{moments} kills; the other operation was done in one run, and nothing was left")
