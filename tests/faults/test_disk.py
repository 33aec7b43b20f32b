# SPDX-License-Identifier: Apache-2.0
"""Disks that are full, read-only, mounted or old-fashioned, and people who change files behind the
engine's back.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import disk
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    InvalidOption,
    RepositoryError,
)
from support.bench import NAME, VERIFY, Bench, new_bench
from support.disks import fill, mounted, weights
from support.rows import Row


@pytest.fixture
def small(base: Path) -> Iterator[Bench]:
    with (
        mounted(base / "tmpfs"),
        new_bench(base / "small", repository=base / "tmpfs" / "models") as bench,
    ):
        yield bench


def test_disk_full_known_before(small: Bench, row: Row) -> None:
    """disk full: known before anything is written (tmpfs of 8 MB)."""
    small.good(model_uri=weights(small, 1, 3 << 20))
    failed = small.deliver(model_uri=weights(small, 2, 6 << 20))
    assert "are needed and" in str(failed.error)
    small.check_agreement(1)
    small.crash()
    small.check_agreement(1)
    row.saw(f"{failed.error}")


@pytest.mark.parametrize(
    ("kind", "moment"),
    [("download", "before"), ("write", "before"), ("exchange", "before"), ("load", "after")],
)
def test_disk_full_meanwhile(kind: str, moment: str, small: Bench, row: Row, base: Path) -> None:
    """disk full: somebody else fills it {moment} effect {kind}."""
    small.good(model_uri=weights(small, 1, 1 << 20))
    gate = small.folder / "gate"
    gate.touch()
    run = small.begin(0, {"pause": [kind, moment, str(gate)]}, model_uri=weights(small, 2, 1 << 20))
    small.child().paused.get(timeout=30)
    filler = fill(base / "tmpfs")
    gate.unlink()
    done = run.result(60)["result"]
    if kind == "exchange":
        assert done["failed"], "the record has no room"
    assert done["failed"]
    assert done["error"] in ("RepositoryError", "ArtifactError"), done["msg"]
    assert "disk is full" in done["msg"] or "No space left" in done["msg"], done["msg"]
    assert small.identity() == 1
    small.crash()
    assert small.identity() == 1
    filler.unlink()
    small.good(model_uri=str(small.folder / "sources" / f"{NAME}-2" / NAME))
    small.check_agreement(2, retained=1)
    row.saw(f"{done['msg']} The next run, with room: done")


def test_repository_is_a_mount_point(base: Path, row: Row) -> None:
    """repository that is a mount point of its own (tmpfs)."""
    with mounted(base / "mount"), new_bench(base / "mounted", repository=base / "mount") as bench:
        bench.good(model_uri=bench.source(1))
        bench.good(model_uri=bench.source(2))
        bench.check_agreement(2, retained=1)
        assert bench.store.path == str(base / "mount" / ".mlops-triton")
        assert not (base / "mount.mlops-triton").exists()
        bench.crash()
        bench.check_agreement(2, retained=1)
        bench.good(state="rolled_back")
        bench.check_agreement(1, retained=1)
        bench.good(state="absent")
        bench.check_agreement(None)
        assert [
            line
            for line in bench.triton.log_text().splitlines()
            if ".mlops-triton" in line and line.startswith("E")
        ] == []
    row.saw(
        "the state lies inside, Triton takes it for no model; created, updated, restarted, rolled"
        " back and removed"
    )


def test_read_only_repository(base: Path, row: Row) -> None:
    """read-only repository (a mount that is made read-only)."""
    with (
        mounted(base / "readonly"),
        new_bench(base / "ro", repository=base / "readonly" / "models") as bench,
    ):
        old = bench.source(1)
        bench.good(model_uri=old)
        subprocess.run(["mount", "-o", "remount,ro", str(base / "readonly")], check=True)
        try:
            same = bench.good(model_uri=old)
            failed = bench.deliver(model_uri=bench.source(2))
            gone = bench.deliver(state="absent")
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(base / "readonly")], check=True)
        assert same.changed is False
        for one in (failed, gone):
            assert isinstance(one.error, RepositoryError), repr(one.error)
            assert "read-only" in str(one.error).lower(), str(one.error)
        bench.check_agreement(1)
    row.saw(f"unchanged stays unchanged; update: {failed.error} Removal: {gone.error}")


def test_repository_of_somebody_else(bench: Bench, row: Row) -> None:
    """repository that this user may not write."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    old = bench.source(1)
    bench.good(model_uri=old)
    same = bench.run({"user": 65534}, model_uri=old)["result"]
    failed = bench.run({"user": 65534}, model_uri=bench.source(2))["result"]
    assert (same["failed"], same["changed"]) == (False, False), same["msg"]
    assert failed["error"] == "RepositoryError", failed["msg"]
    assert "ermission denied" in failed["msg"], failed["msg"]
    bench.check_agreement(1)
    row.saw(failed["msg"])


def test_no_exchange(bench: Bench, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """file system without exchange."""

    def missing(source: str, target: str, flags: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), source, None, target)

    monkeypatch.setattr(disk, "_renameat2", missing)
    bench.good(model_uri=bench.source(1))
    updated = bench.good(model_uri=bench.source(2))
    bench.check_agreement(2, retained=1)
    assert any("no atomic exchange" in warning for warning in updated.warnings)
    back = bench.good(state="rolled_back")
    bench.check_agreement(1, retained=1)
    assert any("no atomic exchange" in warning for warning in back.warnings)
    row.saw(f"warned: {updated.warnings[0]}")


@pytest.mark.parametrize("restart", [True, False], ids=["restarted", "running"])
def test_no_exchange_killed(restart: bool, bench: Bench, row: Row) -> None:
    """kill -9 between the three renames where there is no exchange (server restarted:
    {restart}).
    """
    now, seen = 1, []
    bench.good(model_uri=bench.source(1))
    bench.source(2)
    whole = bench.run(
        {"no_exchange": True}, model_uri=str(bench.folder / "sources" / f"{NAME}-2" / NAME)
    )
    now = 2
    renames = [
        number
        for number, (kind, path) in enumerate(whole["effects"], 1)
        if kind == "rename" and "retained" not in path
    ]
    assert len(renames) == 3
    for number in renames:
        for moment in ("before", "after"):
            source = str(bench.folder / "sources" / f"{NAME}-{3 - now}" / NAME)
            killed = bench.run({"no_exchange": True, "kill": [number, moment]}, model_uri=source)
            assert killed["code"] == -9
            if restart:
                bench.crash()
                identity = bench.identity()
                seen.append({now: "old", 3 - now: "new", None: "nothing"}[identity])
                assert identity is not None, f"killed {moment} rename {number}: nothing is served"
            done = bench.run({"no_exchange": True}, model_uri=source)["result"]
            assert not done["failed"], done["msg"]
            now = 3 - now
            bench.check_agreement(now, retained=1)
    row.saw(
        f"{2 * len(renames)} kills, each"
        f" settled{f'; served after the restart: {chr(44).join(seen)}' if seen else ''}"
    )


# -- behind our back -------------------------------------------------------------------------------


def test_future_times(bench: Bench, row: Row) -> None:
    """file touched with a time in the future."""
    bench.good(model_uri=bench.source(1))
    future = time.time() + 10 * 365 * 86400
    for path in [
        bench.repository / NAME / "1" / "model.py",
        bench.repository / NAME / "config.pbtxt",
        bench.repository / NAME / "1",
    ]:
        os.utime(path, (future, future))
    assert bench.triton.load(NAME)[0] == 200
    for identity in (2, 3):
        sample = bench.sample(identity)
        os.utime(sample.folder / "1" / "model.py", (1, 1))
        bench.good(model_uri=str(sample.folder))
        bench.check_agreement(identity)
    failed = bench.deliver(model_uri=bench.source(4, wrong=True), verify=VERIFY)
    assert "output 'y'" in str(failed.error)
    bench.check_agreement(3)
    os.utime(bench.repository / NAME / "1" / "model.py", (future + 1e6, future + 1e6))
    assert bench.triton.load(NAME)[0] == 200
    for pid in bench.triton.stub_pids(NAME):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    bench.good(model_uri=str(bench.folder / "sources" / f"{NAME}-3" / NAME), verify=VERIFY)
    bench.check_agreement(3)
    row.saw(
        "updates to older files, going back after a failed verification, and healing are really"
        " served"
    )


def test_back_and_forth(bench: Bench, row: Row) -> None:
    """A, B and A again: going back to older files."""
    sources = {identity: bench.source(identity) for identity in (1, 2)}
    for identity in (1, 2, 1, 2, 1):
        bench.good(model_uri=sources[identity])
        bench.check_agreement(identity)
    for identity in (2, 1):
        bench.good(state="rolled_back") if identity == 2 else bench.good(model_uri=sources[1])
        bench.check_agreement(identity)
    row.saw("A, B, A, B, A, back to B, A: what was asked for answered each time")


def test_folder_deleted(bench: Bench, row: Row) -> None:
    """folder deleted behind our back."""
    source = bench.source(1)
    bench.good(model_uri=source)
    shutil.rmtree(bench.repository / NAME)
    assert "its folder is gone" in bench.drift()
    healed = bench.good(model_uri=source)
    bench.check_agreement(1)
    shutil.rmtree(bench.repository / NAME)
    bench.good(state="absent")
    bench.check_agreement(None)
    status, _body = bench.triton.infer(NAME, bench.sample(1).request())
    assert status != 200, "Triton serves on what was removed"
    row.saw(f"{healed.plan.actions[0] if healed.plan else ''}; a removal unloads it too")


def test_file_changed(bench: Bench, row: Row) -> None:
    """file changed, added and taken away behind our back."""
    source = bench.source(1)
    bench.good(model_uri=source)
    live = bench.repository / NAME / "1"
    said = []
    for change in ("changed", "added", "gone"):
        if change == "changed":
            (live / "model.py").write_text(
                (live / "model.py").read_text().replace("IDENTITY = 1", "IDENTITY = 7")
            )
            bench.triton.load(NAME)
            assert bench.identity() == 7
        elif change == "added":
            (live / "surprise.bin").write_bytes(b"!")
        else:
            (live / "model.py").unlink()
        drift = bench.drift()
        assert drift, change
        healed = bench.good(model_uri=source)
        bench.check_agreement(1)
        said.append(f"{drift[0]}: {healed.plan.actions[0] if healed.plan else ''}")
    row.saw("; ".join(said))


def test_file_changed_and_times_put_back(bench: Bench, row: Row) -> None:
    """file changed in place, size and mtime as before."""
    source = bench.source(1)
    bench.good(model_uri=source)
    path = bench.repository / NAME / "1" / "model.py"
    info = path.stat()
    with open(path, "r+b") as stream:
        text = stream.read().replace(b"IDENTITY = 1", b"IDENTITY = 7")
        stream.seek(0)
        stream.write(text)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert bench.drift() == ["1/model.py changed on disk"]
    bench.good(model_uri=source)
    bench.check_agreement(1)
    row.saw("found by its ctime, healed")


def test_configuration_edited(bench: Bench, row: Row) -> None:
    """config edited behind our back."""
    source = bench.source(1)
    bench.good(model_uri=source)
    path = bench.repository / NAME / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 8", "max_batch_size: 2"))
    assert bench.triton.load(NAME)[0] == 200
    assert bench.served_config()["max_batch_size"] == 2
    drift = bench.drift()
    assert "config.pbtxt changed on disk" in drift
    healed = bench.good(model_uri=source)
    assert bench.served_config()["max_batch_size"] == 8
    bench.check_agreement(1)
    path.unlink()
    bench.good(model_uri=source)
    bench.check_agreement(1)
    row.saw(f"{healed.plan.actions[0] if healed.plan else ''}")


def test_unloaded_behind_our_back(bench: Bench, row: Row) -> None:
    """unloaded behind our back."""
    source = bench.source(1)
    bench.good(model_uri=source)
    assert bench.triton.unload(NAME)[0] == 200
    while any(one.get("state") != "UNAVAILABLE" for one in bench.triton.index()):
        time.sleep(0.05)
    healed = bench.good(model_uri=source)
    bench.check_agreement(1)
    row.saw(f"{', '.join(healed.plan.actions) if healed.plan else ''}")


# -- the state -------------------------------------------------------------------------------------


def test_newer_record(bench: Bench, row: Row) -> None:
    """record of a newer version of the collection."""
    bench.good(model_uri=bench.source(1))
    path = Path(bench.store.path) / "records" / f"{NAME}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
    before = path.read_bytes()
    said = []
    for options in (
        {"model_uri": bench.source(2)},
        {"state": "absent"},
        {"state": "rolled_back"},
        {"state": "unloaded"},
    ):
        failed = bench.deliver(**options)
        assert isinstance(failed.error, RepositoryError), repr(failed.error)
        assert "its record has schema 2" in str(failed.error)
        assert "newer version" in str(failed.error)
        said.append(str(failed.error))
    assert path.read_bytes() == before
    assert bench.identity() == 1
    assert bench.left_behind() == []
    row.saw(said[0])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"schema": 1, "name": "doubler"}', '{"schema": "1"}', "\udcff\udcfe"],
    ids=["empty", "cut", "list", "no keys", "few keys", "schema", "bytes"],
)
def test_damaged_record(text: str, bench: Bench, row: Row) -> None:
    """damaged record ({text!r})."""
    bench.good(model_uri=bench.source(1))
    path = Path(bench.store.path) / "records" / f"{NAME}.json"
    good = path.read_bytes()
    path.write_bytes(text.encode(errors="surrogateescape"))
    for options in ({"model_uri": bench.source(2)}, {"state": "absent"}):
        failed = bench.deliver(**options)
        assert isinstance(failed.error, RepositoryError), repr(failed.error)
        assert "record" in str(failed.error)
        assert path.read_bytes() == text.encode(errors="surrogateescape"), "it is left as it is"
    assert bench.identity() == 1
    path.write_bytes(good)
    bench.check_agreement(1)
    row.saw(f"refused: {failed.error}")


def test_damaged_record_of_another_model(bench: Bench, row: Row) -> None:
    """damaged record of one model, the others are delivered and come up."""
    bench.good(model_uri=bench.source(1))
    bench.good(name="other", model_uri=bench.source(5, "other"))
    (Path(bench.store.path) / "records" / "other.json").write_text("{")
    bench.good(model_uri=bench.source(2))
    bench.crash()
    assert bench.identity() == 2
    row.saw("the other model was updated, and came up after a restart")


def test_damaged_journal_and_marker(bench: Bench, row: Row) -> None:
    """damaged journal, damaged marker."""
    bench.good(model_uri=bench.source(1))
    new = bench.source(2)
    journal = Path(bench.store.path) / "journals" / f"{NAME}.json"
    journal.write_text("{")
    one = bench.deliver(model_uri=new)
    assert isinstance(one.error, RepositoryError), repr(one.error)
    assert "journal" in str(one.error)
    journal.unlink()
    marker = bench.repository / ".mlops-triton.json"
    good = marker.read_bytes()
    marker.write_text("{")
    with pytest.raises(RepositoryError, match="cannot be understood") as two:
        bench.deliver(model_uri=new)
    marker.write_bytes(good)
    assert bench.identity() == 1
    bench.good(model_uri=new)
    bench.check_agreement(2, retained=1)
    row.saw(f"{one.error} {two.value}")


# -- what artifacts and names can hold -------------------------------------------------------------


def test_symlinks(bench: Bench, row: Row) -> None:
    """symlinks in an artifact."""
    said = []
    for link, target in (
        ("1/secret", "/etc/passwd"),
        ("1/up", "../../../../.."),
        ("2", "/etc"),
        ("1/gone", "nowhere"),
    ):
        sample = bench.sample(1)
        (sample.folder / link).symlink_to(target)
        failed = bench.deliver(model_uri=str(sample.folder))
        assert failed.error is not None, link
        assert "symbolic link" in str(failed.error)
        assert not (bench.repository / NAME).exists()
        said.append(str(failed.error))
    sample = bench.sample(1)
    (sample.folder / "1" / "inside").symlink_to("model.py")
    bench.good(model_uri=str(sample.folder))
    assert not (bench.repository / NAME / "1" / "inside").is_symlink()
    bench.check_agreement(1)
    row.saw(f"{said[0]} A link inside the model became a file")


HOSTILE = [
    ".",
    "..",
    "",
    "a b",
    "a*",
    "modèle",
    "%2e%2e",
    "x" * 201,
    "a/b",
    "../models",
    "a\nb",
    "a\0b",
    ".mlops-triton",
    "-",
    "~",
]


def test_hostile_names(bench: Bench, row: Row) -> None:
    """hostile names."""
    bench.good(model_uri=bench.source(1))
    before = sorted(
        str(path)
        for path in bench.folder.rglob("*")
        if "sources" not in path.parts and path.name != "triton.log"
    )
    said = []
    for name in HOSTILE:
        for options in (
            {"model_uri": bench.source(1)},
            {"state": "absent", "adopt": True},
            {"state": "rolled_back"},
        ):
            if name == "-":
                continue  # a good name
            with pytest.raises(InvalidOption, match=r"the name|the model's name") as refusal:
                bench.deliver(**{**options, "name": name})
            said.append(str(refusal.value))
    after = sorted(
        str(path)
        for path in bench.folder.rglob("*")
        if "sources" not in path.parts and path.name != "triton.log"
    )
    assert after == before
    bench.check_agreement(1)
    row.saw(
        f"{len(HOSTILE) - 1} names refused for present, absent and rolled_back, nothing touched:"
        f" {said[0]}"
    )
