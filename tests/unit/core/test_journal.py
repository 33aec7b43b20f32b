# SPDX-License-Identifier: Apache-2.0
"""What a killed run leaves: understood whole, or refused with nothing touched."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import disk
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import (
    journal as journals,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.journal import (
    BegunLoad,
    FolderMove,
    FolderSwap,
    JournalFile,
    Move,
    PendingLoad,
    Removal,
    S3Move,
    S3Swap,
    Trial,
    read_journal,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.marker import (
    MARKER,
    Marker,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import (
    Record,
    read_record,
    read_wanted,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.effects import observe
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import RepositoryError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository import recovery
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    FolderRepository,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.state_store import (
    StateStore,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

T = TypeVar("T")
# Machines that do several things at once are slow, and that is nobody's fault here.
settings.register_profile(
    "patient",
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
settings.load_profile("patient")

NAME = "fraud"
FILE = JournalFile(
    NAME,
    "/srv/state/journals/fraud.json",
    live=NAME,
    aside=(f"staging/{NAME}", f"retained/{NAME}"),
    copies=(f"/srv/state/staging/{NAME}", f"/srv/state/retained/{NAME}"),
)


def record(name: str = NAME, **values: Any) -> Record:
    manifest = Manifest.of(())
    return dataclasses.replace(
        Record(
            name=name,
            deploy_id="d1",
            model_uri="models:/fraud/1",
            pinned_uri="models:/fraud/1",
            source="models:/m-1",
            flavor="triton",
            triton_versions=(1,),
            manifest=manifest.to_dict(),
            manifest_digest=manifest.digest,
            config_digest="",
            request={"config": None},
            deployed_at="2026-01-01T00:00:00",
            deployed_by="somebody",
            transaction="d1",
        ),
        **values,
    )


# -- what can be written down ----------------------------------------------------------------------

parts = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=9).filter(
    lambda part: part not in (".", "..")
)
ids = st.text("0123456789abcdefT-", min_size=1, max_size=12)
below = st.lists(parts, max_size=3).map(lambda found: "".join(f"/{part}" for part in found))
lives = below.map(lambda rest: NAME + rest)
asides = st.builds(lambda head, rest: head + rest, st.sampled_from(FILE.aside), below)
inodes = st.none() | st.integers(0, 1 << 64)
records = st.none() | st.builds(
    record, transaction=st.none() | ids, deploy_id=ids, example=st.none() | st.just({"x": [[1.0]]})
)
keeps = st.none() | st.integers(0, 99)
listings = st.dictionaries(below, st.tuples(st.integers(0, 1 << 40), ids), max_size=3)


@st.composite
def s3_moves(draw: st.DrawFn) -> S3Move:
    old = draw(listings)
    gone = draw(st.lists(st.sampled_from(sorted(old)), unique=True)) if old else []
    cut = draw(st.integers(0, len(gone)))
    return S3Move(
        draw(lives),
        draw(st.just("") | asides),
        draw(asides),
        old,
        draw(listings),
        tuple(gone[:cut]),
        tuple(gone[cut:]),
    )


loads = st.none() | st.builds(
    BegunLoad,
    ids,
    st.lists(ids, max_size=2).map(tuple),
    records.filter(bool),
    st.lists(st.tuples(ids, ids), max_size=2).map(tuple),
)
folder_swaps = st.builds(
    FolderSwap,
    ids,
    records,
    keeps,
    st.lists(st.builds(FolderMove, lives, asides, inodes, inodes), max_size=3).map(tuple),
    loads,
)
s3_swaps = st.builds(
    S3Swap, ids, records, keeps, st.lists(s3_moves(), max_size=3).map(tuple), loads
)
others = (
    st.just(Removal())
    | st.builds(PendingLoad, ids, ids, st.none() | ids)
    | st.builds(Trial, ids, st.just("") | st.just(f"staging/{NAME}/d1/model"), st.just("") | ids)
)
every_journal = folder_swaps | s3_swaps | others


def written(journal: journals.Journal) -> bytes:
    return json.dumps(journal.to_dict()).encode()


def read(body: bytes, journal: journals.Journal) -> journals.Journal:
    """By the reader of the repository that such a journal belongs to."""
    if isinstance(journal, S3Swap):
        return read_journal(body, FILE, S3Swap)
    return read_journal(body, FILE, FolderSwap)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every key and every item of a list below."""
    entries = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in entries:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def inside(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


@given(every_journal)
def test_what_was_written_is_read_again(journal: journals.Journal) -> None:
    assert read(written(journal), journal) == journal


@given(every_journal, st.data())
def test_a_journal_that_was_cut_short_is_refused(
    journal: journals.Journal, data: st.DataObject
) -> None:
    body = written(journal)
    with pytest.raises(RepositoryError, match="journals/fraud"):
        read(body[: data.draw(st.integers(0, len(body) - 1))], journal)


NULLABLE = {"old_record", "keep", "server", "live_inode", "staged_inode"}


@given(every_journal, st.data())
def test_a_journal_with_one_other_key_is_refused_or_means_the_same(
    journal: journals.Journal, data: st.DataObject
) -> None:
    """A value of another kind in one place, a key that is missing, or one that nobody knows."""
    document = json.loads(written(journal))
    path = data.draw(st.sampled_from(list(places(document))))
    where, key = inside(document, path[:-1]), path[-1]
    how = data.draw(st.sampled_from(["replaced", "removed", "added"]))
    listed = isinstance(where, list) or bool({"old", "new"} & set(path[:-1]))
    if how == "replaced":
        kinds: list[object] = [None, True, -1, 1.5, "text", [], {}, [[]], {"a": 1}]
        where[key] = data.draw(
            st.sampled_from([one for one in kinds if type(one) is not type(where[key])])
        )
    elif how == "removed":
        del where[key]
    elif not listed:
        where["of a later version"] = {"a": 1}
    found = refused_or(lambda: read(json.dumps(document).encode(), journal), FILE.path)
    # What may be null, and entries of a list that nothing else counts, can mean something else.
    other = (how == "replaced" and key in NULLABLE) or (how == "removed" and listed)
    if found is not None and not other and "old_record" not in path:
        assert found == journal
    assert found is None or read(written(found), journal) == found


def refused_or(reader: Callable[[], T], path: str) -> T | None:
    """What was read, None where it was refused as it should be; other exceptions come through."""
    try:
        return reader()
    except RepositoryError as error:
        refused = error
    assert path in str(refused)
    assert refused.left == "nothing was changed"
    return None


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_no_bytes_make_the_reader_fail_otherwise(found: Any) -> None:
    body = found if isinstance(found, bytes) else json.dumps(found).encode()
    with pytest.raises(RepositoryError):
        read_journal(body, FILE, FolderSwap)
    with pytest.raises(RepositoryError):
        Marker.from_json(body, "/srv/models/.mlops-triton.json")


def test_a_journal_as_earlier_versions_wrote_it_is_understood() -> None:
    old = record().to_dict()
    swap = {"schema": 1, "op": "swap", "deploy_id": "d2", "old_record": old, "keep": 1}
    move = {
        "live": "fraud",
        "staged": "staging/fraud/d2/model",
        "live_inode": 7,
        "staged_inode": None,
    }
    found = read_journal(json.dumps({**swap, "moves": [move]}).encode(), FILE, FolderSwap)
    assert found == FolderSwap(
        "d2", record(), 1, (FolderMove("fraud", "staging/fraud/d2/model", 7, None),)
    )
    keys = {
        "live": "fraud",
        "staged": "",
        "backup": "retained/fraud/d1/model",
        "old": {"/config.pbtxt": [5, '"e"']},
        "new": {},
        "first": ["/config.pbtxt"],
        "later": [],
    }
    in_s3 = read_journal(
        json.dumps({**swap, "op": "swap in s3", "moves": [keys]}).encode(), FILE, S3Swap
    )
    assert in_s3 == S3Swap(
        "d2",
        record(),
        1,
        (
            S3Move(
                "fraud",
                "",
                "retained/fraud/d1/model",
                {"/config.pbtxt": (5, '"e"')},
                {},
                ("/config.pbtxt",),
                (),
            ),
        ),
    )
    assert read_journal(b'{"schema": 1, "op": "remove"}', FILE, S3Swap) == Removal()
    assert found.to_dict()["schema"] == 1, "an older start wrapper could not undo it"
    pending = b'{"schema": 1, "op": "pending", "deploy_id": "d2", "since": "noon", "server": null}'
    assert read_journal(pending, FILE, FolderSwap) == PendingLoad("d2", "noon", None)


@pytest.mark.parametrize("kind", [FolderSwap, S3Swap])
def test_no_older_version_moves_files_under_a_load(
    kind: type[FolderSwap], monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = kind("d2", None, 1, (), BegunLoad("noon", ("host:8000",), record()))
    monkeypatch.setattr(journals, "SCHEMA", 1)
    with pytest.raises(RepositoryError, match="use the newer version that wrote it"):
        read(json.dumps({**swap.to_dict(), "schema": 2}).encode(), swap)


@pytest.mark.parametrize(
    "wrong",
    [
        {"record": {**record().to_dict(), "name": "other"}},
        {"record": {**record().to_dict(), "transaction": "../other"}},
        {"record": None},
        {"servers": "host"},
        {"answering": [["host"]]},
        {"answering": [[1, 2]]},
        {"answering": 7},
        {"since": 12},
    ],
)
def test_a_journal_whose_load_is_damaged_is_refused(wrong: dict[str, Any]) -> None:
    swap = FolderSwap("d2", None, 1, (), BegunLoad("noon", ("host:8000",), record()))
    document = swap.to_dict()
    document["load"].update(wrong)
    with pytest.raises(RepositoryError, match="cannot be understood"):
        read(json.dumps(document).encode(), swap)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("live", "../elsewhere"),
        ("live", "/etc"),
        ("live", "other"),
        ("live", "fraudulent"),
        ("live", "fraud/../other"),
        ("live", ""),
        ("live", "fraud/\0"),
        ("live", "fraud/\ud800"),
        ("staged", "records/fraud.json"),
        ("staged", "staging/other/d2/model"),
        ("staged", "staging/fraud/../../../models/other"),
        ("staged", "/staging/fraud"),
        ("backup", "records"),
        ("backup", "retained/fraud/../other"),
    ],
)
def test_a_journal_that_leads_elsewhere_is_refused(key: str, path: str) -> None:
    folder = FolderSwap("d2", None, 1, (FolderMove("fraud", "staging/fraud/d2/model", 7, 8),))
    in_s3 = S3Swap("d2", None, 1, (S3Move("fraud", "", "staging/fraud/d2/old", {}, {}, (), ()),))
    for journal in (folder, in_s3):
        document = journal.to_dict()
        if key not in document["moves"][0] or (journal is in_s3 and path == ""):
            continue
        document["moves"][0][key] = path
        with pytest.raises(RepositoryError, match="leads elsewhere"):
            read(json.dumps(document).encode(), journal)


@pytest.mark.parametrize("listing", ["old", "new"])
@pytest.mark.parametrize(
    "rel",
    [
        "/../other",
        "/..",
        "/./x",
        "//x",
        "/a/../../b",
        "x",
        "../x",
        "/a\n",
        "/a\x7f",
        "/\0",
        "/\ud800",
    ],
)
def test_a_journal_whose_listing_leads_elsewhere_is_refused(listing: str, rel: str) -> None:
    move = S3Move("fraud", "", "staging/fraud/d2/old", {}, {}, (), ())
    move = dataclasses.replace(move, **{listing: {rel: (1, "e")}})
    swap = S3Swap("d2", None, 1, (move,))
    with pytest.raises(RepositoryError, match="leads elsewhere"):
        read(written(swap), swap)


@pytest.mark.parametrize("rel", ["", "/1/model.onnx", "/1/", "/a b/ü", "/..."])
def test_a_listing_of_what_lies_below_is_understood(rel: str) -> None:
    swap = S3Swap(
        "d2",
        None,
        1,
        (S3Move("fraud", "", "staging/fraud/d2/old", {rel: (1, "e")}, {}, (rel,), ()),),
    )
    assert read(written(swap), swap) == swap


@pytest.mark.parametrize("key", ["../../models", "..", "a/b", "\ud800"])
@pytest.mark.parametrize("field", ["transaction", "deploy_id", "went_back_to"])
def test_a_record_whose_copy_would_lie_elsewhere_is_refused(field: str, key: str) -> None:
    written_down = json.dumps(record(**{field: key}).to_dict()).encode()
    with pytest.raises(RepositoryError, match="leads elsewhere"):
        read_record(written_down, NAME, "/srv/state/records/fraud.json")


@pytest.mark.parametrize("key", ["../../models", "..", "a/b"])
def test_an_old_record_whose_copy_would_lie_elsewhere_is_refused(key: str) -> None:
    swap = FolderSwap("d2", record(transaction=key), 1, ())
    with pytest.raises(RepositoryError, match="leads elsewhere"):
        read(written(swap), swap)


@pytest.mark.parametrize("swap", [FolderSwap, S3Swap])
def test_neither_kind_of_repository_takes_the_journal_of_the_other(swap: Any) -> None:
    other = S3Swap if swap is FolderSwap else FolderSwap
    with pytest.raises(RepositoryError, match="knows no 'swap"):
        read_journal(written(other("d2", None, 1, ())), FILE, swap)


# -- records ---------------------------------------------------------------------------------------


@given(st.data())
def test_a_record_with_one_other_key_is_refused_or_read(data: st.DataObject) -> None:
    document = json.loads(json.dumps(record().to_dict()))
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(st.sampled_from([None, True, 1.5, 7, "text", [], ["x"], {}]))
    found = refused_or(lambda: Record.from_dict(document), "its record")
    assert found is None or Record.from_dict(found.to_dict()) == found


def test_keys_of_later_versions_do_not_hinder_a_record() -> None:
    assert Record.from_dict({**record().to_dict(), "of a later version": 1}) == record()


@pytest.mark.parametrize(
    ("schema", "said"),
    [(2, "use the newer version"), (None, "damaged"), ("1", "damaged"), (True, "damaged")],
)
def test_a_record_says_whether_it_is_newer_or_damaged(schema: Any, said: str) -> None:
    with pytest.raises(RepositoryError, match=said):
        Record.from_dict({**record().to_dict(), "schema": schema})


def test_what_a_server_loads_is_read_from_a_record_of_any_schema() -> None:
    assert read_wanted({**record().to_dict(), "schema": 9}) == (NAME, True)
    assert read_wanted({"name": NAME, "wanted": "unloaded"}) == (NAME, False)
    damaged: object
    for damaged in (None, [], {}, {"name": NAME}, {"name": 1, "wanted": "loaded"}):
        with pytest.raises(RepositoryError):
            read_wanted(damaged)


# -- a folder --------------------------------------------------------------------------------------


def tree(root: Path) -> dict[str, Any]:
    """Every path below, with what it holds and its time."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(root.rglob("*"))
    }


def fill(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "which").write_text(text)
    return folder


def which(folder: Path) -> str | None:
    return (folder / "which").read_text() if folder.is_dir() else None


@pytest.fixture
def models(tmp_path: Path) -> FolderRepository:
    (tmp_path / "models").mkdir()
    repository = FolderRepository(str(tmp_path / "models"))
    repository.store.ensure()
    return repository


def begin(models: FolderRepository) -> FolderSwap:
    """A swap of three moves, of which the first exchanges, the second brings in and the third takes
    out.
    """
    live = Path(models.live(NAME))
    staged = Path(models.store.staging(NAME, "d2"))
    moves = [
        Move(str(fill(live / "1", "old 1")), str(fill(staged / "1", "new 1"))),
        Move(str(live / "2"), str(fill(staged / "2", "new 2"))),
        Move(str(fill(live / "3", "old 3")), str(staged / "3")),
    ]
    models.store.write_record(record())
    return models.begin(NAME, moves, "d2", record(), 1)


BEFORE = ["old 1", None, "old 3"]
AFTER = ["new 1", "new 2", None]


def versions(models: FolderRepository) -> list[str | None]:
    return [which(Path(models.live(NAME, version))) for version in ("1", "2", "3")]


class Killed(BaseException):
    """As kill -9: nothing on the way out catches it."""


def kill_at(number: int, work: Callable[[], object]) -> bool:
    """Run, and be killed after the effect of this number; False where there are fewer."""
    count = 0

    def watch(moment: str, _kind: str, _subject: str) -> None:
        nonlocal count
        if moment == "after":
            count += 1
            if count == number:
                raise Killed

    with observe(watch):
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_swap_killed_after_any_of_its_moves_is_undone(
    number: int, models: FolderRepository
) -> None:
    journal = begin(models)
    assert versions(models) == BEFORE
    assert kill_at(number, lambda: models.put(NAME, journal)) == (number > 0)
    if number in (0, 3):
        assert versions(models) == AFTER
    assert recovery.recover(models.store, NAME) == "an interrupted deployment was undone"
    assert versions(models) == BEFORE
    assert models.store.journal(NAME) is None and not os.path.exists(models.store.staging(NAME))
    assert recovery.recover(models.store, NAME) is None


@pytest.mark.parametrize("number", range(1, 12))
def test_an_undoing_that_is_killed_is_taken_up_by_the_next(
    number: int, models: FolderRepository
) -> None:
    models.put(NAME, begin(models))
    killed = kill_at(number, lambda: models.recover(NAME))
    assert killed == (number <= 5), "three moves, the staging and the journal"
    models.recover(NAME)
    assert versions(models) == BEFORE and models.store.journal(NAME) is None


@pytest.mark.parametrize("number", range(10))
def test_a_swap_is_undone_where_the_file_system_cannot_exchange(
    number: int, models: FolderRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three renames take the place of each exchange, and a run can be killed after any of them; an
    undoing that is killed too is taken up by the next.
    """

    def missing(_source: str, _target: str, _flags: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(disk, "_renameat2", missing)
    journal = begin(models)
    killed = kill_at(number, lambda: models.put(NAME, journal))
    assert killed == (0 < number <= 6)
    for again in range(1, 9):
        kill_at(again, lambda: models.recover(NAME))
    models.recover(NAME)
    assert versions(models) == BEFORE and models.store.journal(NAME) is None


def test_what_somebody_else_put_there_since_then_stays(models: FolderRepository) -> None:
    models.put(NAME, begin(models))
    brought = Path(models.live(NAME, "2"))
    brought.rename(models.live(NAME, "2 before"))  # removed, its inode could be given out again
    fill(brought, "somebody else's")
    assert models.recover(NAME) == "an interrupted deployment was undone"
    assert versions(models) == ["old 1", "somebody else's", "old 3"]


def test_a_model_that_got_the_inode_of_the_run_s_own_stays(models: FolderRepository) -> None:
    """A file system may give the inode of what was deleted to what comes next."""
    live, staged = Path(models.live(NAME)), Path(models.store.staging(NAME, "d2")) / "model"
    fill(staged / "1", "new")
    (staged / "config.pbtxt").write_text('parameters { key: "id" value { string_value: "d2" } }')
    models.put(NAME, models.begin(NAME, [Move(str(live), str(staged))], "d2", None, 1))
    assert models.read(NAME).half_made
    (live / "config.pbtxt").write_text('backend: "python"\n')
    shutil.rmtree(live / "1")
    fill(live / "1", "somebody else's")
    assert not models.read(NAME).half_made
    models.recover(NAME)
    assert which(live / "1") == "somebody else's"
    assert models.store.journal(NAME) is None


def test_a_swap_whose_record_was_written_is_finished(models: FolderRepository) -> None:
    models.put(NAME, begin(models))
    models.store.write_record(record(deploy_id="d2", transaction="d2", triton_versions=(1, 2)))
    done = models.recover(NAME)
    assert done == "an interrupted deployment was complete but for tidying up"
    assert versions(models) == AFTER
    kept = Path(models.store.retained(NAME, "d1"))
    assert [which(kept / version) for version in ("1", "3")] == ["old 1", "old 3"]
    assert models.store.retained_records(NAME) == [record()]


def test_a_swap_that_is_finished_keeps_as_many_copies_as_its_run_was_told(
    models: FolderRepository,
) -> None:
    older = record(deploy_id="d0", transaction="d0", deployed_at="2025-01-01T00:00:00")
    copy = fill(Path(models.store.retained(NAME, "d0")), "older")
    (copy / "record.json").write_text(json.dumps(older.to_dict()))
    models.put(NAME, begin(models))
    models.store.write_record(record(deploy_id="d2", transaction="d2"))
    models.recover(NAME)
    assert models.store.retained_records(NAME) == [record()] and not copy.exists()


@pytest.fixture
def removing(models: FolderRepository) -> Path:
    """A model with a retained copy, of which a removal was begun, beside another such model; the
    folder of the former.
    """
    for name in ("other", NAME):
        fill(Path(models.live(name)), "live")
        fill(Path(models.store.retained(name, "d0")), "retained")
        models.store.write_record(record(name))
    models.store.write_journal(NAME, Removal())
    return Path(models.live(NAME))


def test_a_removal_that_had_not_begun_leaves_the_model_in_place(
    removing: Path, models: FolderRepository
) -> None:
    assert models.recover(NAME) == "an interrupted removal had not begun"
    assert which(removing) == "live" and models.store.record(NAME) == record()
    assert which(Path(models.store.retained(NAME, "d0"))) == "retained"
    assert models.store.journal(NAME) is None


def test_a_removal_that_took_the_folder_is_finished(
    removing: Path, models: FolderRepository
) -> None:
    removing.rename(fill(Path(models.store.staging(NAME)), "aside") / "removed")
    assert models.recover(NAME) == "an interrupted removal was finished"
    for gone in (removing, models.store.staging(NAME), models.store.retained(NAME)):
        assert not os.path.lexists(gone)
    assert models.store.record(NAME) is None and models.store.journal(NAME) is None
    assert which(Path(models.live("other"))) == "live"
    assert which(Path(models.store.retained("other", "d0"))) == "retained"
    assert models.store.record("other") == record("other")
    assert models.recover(NAME) is None


def test_a_load_that_was_given_up_on_stays_noted_until_the_server_starts_anew(
    models: FolderRepository,
) -> None:
    pending = PendingLoad("d1", "noon", None)
    models.store.write_journal(NAME, pending)
    assert recovery.recover(models.store, NAME) is None
    assert models.store.journal(NAME) == pending
    assert recovery.recover(models.store, NAME, server_starts=True) is None
    assert models.store.journal(NAME) is None


@pytest.mark.parametrize("body", [b"{", b'{"schema": 9}'])
def test_a_retained_copy_that_is_not_understood_stays_and_hinders_no_deployment(
    body: bytes, models: FolderRepository
) -> None:
    other = fill(Path(models.store.retained(NAME, "d0")), "older")
    (other / "record.json").write_bytes(body)
    before = tree(other)
    models.put(NAME, begin(models))
    models.store.write_record(record(deploy_id="d2", transaction="d2"))
    done = models.recover(NAME)
    assert done == "an interrupted deployment was complete but for tidying up"
    assert tree(other) == before and versions(models) == AFTER
    with pytest.raises(RepositoryError):
        models.store.retained_records(NAME)


REFUSED = {
    "newer": b'{"schema": 2, "op": "swap v2"}',
    "unknown": b'{"schema": 1, "op": "swap v2"}',
    "of S3": b'{"schema": 1, "op": "swap in s3", "deploy_id": "d2", "moves": []}',
    "cut": b'{"schema": 1, "op": "swa',
    "empty": b"",
    "no object": b"[1]",
    "no text": b"\xff\xfe\xff",
    "UTF-16": '{"schema": 1, "op": "remove"}'.encode("utf-16"),
    "deep": b"[" * 100_000,
    "no schema": b'{"op": "swap"}',
    "no moves": b'{"schema": 1, "op": "swap", "deploy_id": "d2", "old_record": null, "keep": 1}',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_journal_that_is_not_understood_leaves_everything_alone(
    body: bytes, models: FolderRepository, tmp_path: Path
) -> None:
    """After the exchange the staging folder is the only copy of the old deployment."""
    models.put(NAME, begin(models))
    path = Path(models.store.path) / "journals/fraud.json"
    path.write_bytes(body)
    before = tree(tmp_path)
    for work in (
        lambda: models.recover(NAME),
        lambda: recovery.recover(models.store, NAME, server_starts=True),
        lambda: models.read(NAME),
    ):
        with pytest.raises(RepositoryError, match="of an interrupted run") as refused:
            work()
        assert str(path) in str(refused.value) and "Nothing was changed." in str(refused.value)
    assert tree(tmp_path) == before


def test_the_version_that_wrote_a_newer_journal_settles_it(
    models: FolderRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the refusal advises."""
    with monkeypatch.context() as newer:
        newer.setattr(journals, "SCHEMA", 3)
        newer.setattr(journals, "_OLDEST", 3)
        models.put(NAME, begin(models))
    with pytest.raises(RepositoryError, match="use the newer version that wrote it"):
        models.recover(NAME)
    with monkeypatch.context() as newer:
        newer.setattr(journals, "SCHEMA", 3)
        assert models.recover(NAME) == "an interrupted deployment was undone"
    assert versions(models) == BEFORE


# -- a list of models ------------------------------------------------------------------------------


def source(folder: Path, text: str) -> str:
    """A model folder that Triton's Python backend would take."""
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.py").write_text(text)
    (folder / "config.pbtxt").write_text('backend: "python"\n')
    return str(folder)


def deliver(repository: Path, **sources: str) -> dict[str, Any]:
    """To a repository that no server reads."""
    with Delivery(Target(str(repository), servers=())) as delivery:
        wanted = [
            DesiredModel.from_options({"name": n, "model_uri": u}) for n, u in sources.items()
        ]
        return {result.name: result for result in delivery.deliver(wanted)}


@pytest.fixture
def damaged(models: FolderRepository, tmp_path: Path) -> Path:
    """A deployment whose update was killed after the exchange, and whose journal was cut short;
    the journal's path.
    """
    old = source(tmp_path / "old" / NAME, "old")
    assert deliver(Path(models.path), fraud=old)[NAME].error is None
    staged = Path(models.store.staging(NAME, "d2")) / "model"
    shutil.copytree(source(tmp_path / "new" / NAME, "new"), staged)
    journal = models.begin(
        NAME, [Move(models.live(NAME), str(staged))], "d2", models.store.record(NAME), 1
    )
    models.put(NAME, journal)
    path = Path(models.store.path) / "journals/fraud.json"
    path.write_bytes(path.read_bytes()[:-9])
    return path


def test_a_damaged_journal_fails_its_model_and_no_other(
    damaged: Path, models: FolderRepository, tmp_path: Path
) -> None:
    staging = Path(models.store.staging(NAME))
    before = tree(staging)
    other = source(tmp_path / "some" / "other", "other")
    results = deliver(Path(models.path), fraud=str(tmp_path / "old" / NAME), other=other)
    assert results["other"].error is None and os.path.isdir(models.live("other"))
    error = results[NAME].error
    assert isinstance(error, RepositoryError)
    assert str(damaged) in str(error) and str(staging) in str(error)
    assert tree(staging) == before and damaged.exists()
    with Delivery(Target(models.path, servers=())) as delivery:
        status = {entry["name"]: entry for entry in delivery.status()}
    assert status["other"]["drift"] == []
    assert any(str(damaged) in sentence for sentence in status[NAME]["drift"])


def test_the_advice_on_a_damaged_journal_helps(
    damaged: Path, models: FolderRepository, tmp_path: Path
) -> None:
    """Copy what lies aside, remove the journal, run again: the old files were kept, and the model
    is delivered.
    """
    old = str(tmp_path / "old" / NAME)
    error = deliver(Path(models.path), fraud=old)[NAME].error
    staging, retained = models.store.staging(NAME), models.store.retained(NAME)
    assert f"copy {staging} and {retained}" in str(error)
    assert "remove the journal and run again" in str(error)
    shutil.copytree(staging, tmp_path / "kept")
    damaged.unlink()
    assert deliver(Path(models.path), fraud=old)[NAME].error is None
    assert Path(models.live(NAME, "1", "model.py")).read_text() == "old"
    assert not os.path.exists(staging)
    assert (tmp_path / "kept/d2/model/1/model.py").read_text() == "old"


def test_tidying_up_leaves_alone_what_a_run_was_killed_in_meanwhile(
    models: FolderRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has nothing to do looks for leftovers after it has read the journal."""
    old = source(tmp_path / "old" / NAME, "old")
    assert deliver(Path(models.path), fraud=old)[NAME].error is None
    staged = Path(models.store.staging(NAME, "d2")) / "model"

    def another_run(_store: StateStore, name: str) -> bool:
        shutil.copytree(source(tmp_path / "new" / NAME, "new"), staged)
        moves = [Move(models.live(name), str(staged))]
        models.put(name, models.begin(name, moves, "d2", models.store.record(name), 1))
        return True

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(StateStore, "has_leftovers", another_run)
        assert not deliver(Path(models.path), fraud=old)[NAME].changed
    assert (staged / "1/model.py").read_text() == "old"
    assert models.recover(NAME) == "an interrupted deployment was undone"
    assert Path(models.live(NAME, "1", "model.py")).read_text() == "old"


# -- the marker ------------------------------------------------------------------------------------


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_a_marker_is_read_as_it_was_written(state_dir: str) -> None:
    body = json.dumps(Marker(state_dir).to_dict()).encode()
    assert Marker.from_json(body, "m") == Marker(state_dir)
    for end in range(len(body)):
        with pytest.raises(RepositoryError):
            Marker.from_json(body[:end], "m")


@pytest.mark.parametrize(
    "body",
    [
        b'{"schema": 2, "state_dir": "../state"}',
        b'{"schema": "1", "state_dir": "../state"}',
        b'{"state_dir": "../state"}',
        b'{"schema": 1}',
        b'{"schema": 1, "state_dir": 3}',
        b'{"schema": 1, "state_dir": ""}',
        b'{"schema": 1, "state_di',
        b"[]",
        b"",
    ],
)
def test_a_marker_that_is_not_understood_leaves_everything_alone(
    body: bytes, tmp_path: Path
) -> None:
    repository, state = tmp_path / "models", tmp_path / "state"
    repository.mkdir()
    StateStore(str(repository), str(state)).ensure()
    (repository / MARKER).write_bytes(body)
    before = tree(tmp_path)
    for state_dir in (None, str(state)):
        with pytest.raises(RepositoryError) as refused:
            StateStore(str(repository), state_dir)
        assert str(repository / MARKER) in str(refused.value)
        assert "Nothing was changed." in str(refused.value)
    assert tree(tmp_path) == before


def test_the_advice_on_a_damaged_marker_helps(tmp_path: Path) -> None:
    """Remove it, and name the state folder: it is written anew, and the records are found."""
    repository, state = tmp_path / "models", tmp_path / "state"
    repository.mkdir()
    store = StateStore(str(repository), str(state))
    store.ensure()
    store.write_record(record())
    good = (repository / MARKER).read_bytes()
    (repository / MARKER).write_bytes(good[:-5])
    with pytest.raises(RepositoryError, match="remove the marker and run again with that folder"):
        StateStore(str(repository))
    (repository / MARKER).unlink()
    again = StateStore(str(repository), str(state))
    again.ensure()
    assert (repository / MARKER).read_bytes() == good
    assert StateStore(str(repository)).record(NAME) == record()
