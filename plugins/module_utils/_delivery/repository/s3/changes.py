# SPDX-License-Identifier: Apache-2.0
"""Changes of a model's keys in S3, which knows no rename: journalled, copied on the server in an
order, undone or finished.

A change copies what is there to the retained copies, copies the new keys over, config.pbtxt last,
and removes old keys: at once what the new configuration would make Triton load, the rest when the
new deployment is proven. The journal lists sizes and ETags of both sides, so that it can be told
which of it was done.
"""

from __future__ import annotations

import calendar
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from ...domain import config_pbtxt
from ...domain.config_pbtxt import CONFIG_NAME
from ...domain.journal import (
    Journal,
    Keys,
    Move,
    PendingLoad,
    Removal,
    S3Move,
    S3Swap,
    Trial,
    stays_below,
)
from ...domain.record import Record
from ...errors import DeliveryError, RepositoryError
from ...names import check_model_name
from ..comparison import same
from ..retention import prune
from . import candidate
from .bucket import SECOND, Bucket, Objects
from .state_store import S3Store

RESOLUTION = 1.1
"""Seconds. An object's time, as Triton reads it, has whole ones."""


def wait_for_another_second(store: S3Store, name: str) -> None:
    """Triton passes over what came in the second of what it has loaded: all of the model would have
    to be touched, which loads again what did not change, too.

    A store whose clock is another one is not waited for, and may come to that.
    """
    looks = listing(store.bucket, store.location.key(name)).values()
    seconds = [calendar.timegm(time.strptime(str(look[2]), SECOND)) for look in looks]
    left = max(seconds, default=0) + RESOLUTION - time.time()
    if 0 < left <= RESOLUTION:
        time.sleep(left)


def listing(bucket: Bucket, key: str) -> Objects:
    """What follows ``key`` of a model, a version folder or a config.pbtxt, and how it looks; never
    of a name that only begins alike.
    """
    if os.path.basename(key) == CONFIG_NAME:
        found = bucket.objects(key).get(key)
        return {"": found} if found else {}
    return {one[len(key) :]: found for one, found in bucket.objects(f"{key}/").items()}


def journal_of(
    store: S3Store,
    name: str,
    moves: Sequence[Move],
    transaction: str,
    old: Record | None,
    keep: int,
) -> S3Swap:
    """What has to be known to undo or to finish moves of (live, staged) keys; "" for staged takes
    the live side away.
    """
    listed = []
    for live, staged in moves:
        part = os.path.basename(live) if live != store.location.key(name) else "model"
        kept = (
            store.key("retained", name, old.key)
            if old is not None and part != CONFIG_NAME
            else store.key("staging", name, transaction, "old")
        )
        listed.append(
            S3Move(
                live=live,
                staged=staged,
                backup=f"{kept}/{part}",
                old=_sizes_and_etags(listing(store.bucket, live)),
                new=_sizes_and_etags(listing(store.bucket, staged)) if staged else {},
                first=(),
                later=(),
            )
        )
    return S3Swap(transaction, old, keep, _sort_out_stale(store, name, listed))


def _sizes_and_etags(found: Objects) -> Keys:
    for rel in found:
        if not stays_below(rel):
            raise RepositoryError(
                f"the model has an object whose key ends in {rel!r}, which no journal can name:"
                " remove that object, or deploy the model under another name",
                step="write the journal",
            )
    return {rel: (int(value[0]), str(value[1])) for rel, value in found.items()}


def _sort_out_stale(store: S3Store, name: str, moves: Sequence[S3Move]) -> tuple[S3Move, ...]:
    """Which old keys go before the load, and which version folders may wait because Triton will
    pass over them.
    """
    model = store.location.key(name)
    after = {model + rel for rel in listing(store.bucket, model)}
    for move in moves:
        after -= {move.live + rel for rel in move.old}
        after |= {move.live + rel for rel in move.new}
    versions = {version for key in after if (version := _version(key[len(model) :])) is not None}
    ignored = _ignored_by(_config_after(store, model, moves), versions)

    def sorted_out(move: S3Move) -> S3Move:
        stale = sorted(rel for rel in move.old if rel not in move.new)
        waits = [
            rel
            for rel in stale
            if (version := _version((move.live + rel)[len(model) :])) is not None
            and ignored(version)
        ]
        return dataclasses.replace(
            move, later=tuple(waits), first=tuple(rel for rel in stale if rel not in waits)
        )

    return tuple(sorted_out(move) for move in moves)


def _version(relative: str) -> int | None:
    parts = relative.split("/")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None


def _config_after(store: S3Store, model: str, moves: Sequence[S3Move]) -> bytes:
    key = f"{model}/{CONFIG_NAME}"
    keys = [
        move.staged + key[len(move.live) :]
        for move in moves
        if move.staged and key.startswith(move.live)
    ]
    return store.bucket.get(keys[-1] if keys else key) or b""


def _ignored_by(config: bytes, versions: set[int]) -> Callable[[int], bool]:
    """Says of a version folder that does not belong to the deployment whether Triton passes over
    it.
    """
    try:
        policy = config_pbtxt.parse(config).version_policy
    except DeliveryError:
        return lambda version: False
    if policy.WhichOneof("policy_choice") == "specific":
        wanted = set(policy.specific.versions)
        return lambda version: version not in versions and version not in wanted
    if policy.WhichOneof("policy_choice") == "all":
        return lambda version: False
    count = policy.latest.num_versions or 1
    highest = sorted(versions)[-count:]
    return lambda version: (
        version not in versions and len(highest) == count and version < highest[0]
    )


def make(store: S3Store, name: str, journal: S3Swap) -> None:
    """Make the journal's changes, as far as they come before the load."""
    bucket, moves = store.bucket, journal.moves
    _copy(
        store,
        name,
        [
            (move.live + rel, move.backup + rel, size)
            for move in moves
            for rel, (size, _etag) in move.old.items()
        ],
    )
    _copy(
        store,
        name,
        [
            (move.staged + rel, move.live + rel, found[0])
            for move in moves
            for rel, found in move.new.items()
            if not same(found, move.old.get(rel))
        ],
        late_config=lambda: bucket.delete(move.live + rel for move in moves for rel in move.first),
    )


def _copy(
    store: S3Store,
    name: str,
    copies: list[tuple[str, str, int]],
    late_config: Callable[[], None] | None = None,
) -> None:
    """Several at a time; config.pbtxt of the model after all others, and after ``late_config``."""
    model_config = f"{store.location.key(name)}/{CONFIG_NAME}"

    def one(copy: tuple[str, str, int]) -> None:
        store.check_lock(name)
        store.bucket.copy(*copy)

    store.bucket.each(one, [copy for copy in copies if copy[1] != model_config])
    if late_config:
        store.check_lock(name)
        late_config()
    store.bucket.each(one, [copy for copy in copies if copy[1] == model_config])


def moved_in(store: S3Store, name: str, journal: Journal | None) -> bool:
    """True where what is there was put there by an interrupted run, or is what an interrupted
    removal left.
    """
    if isinstance(journal, Removal):
        return True
    if not isinstance(journal, S3Swap):
        return False
    there = listing(store.bucket, store.location.key(name))
    return all(not move.old for move in journal.moves) and set(there) <= {
        rel for move in journal.moves for rel in move.new
    }


def _undo(store: S3Store, name: str, journal: S3Swap) -> None:
    bucket, copies, strays = store.bucket, [], []
    before: Objects = {}
    model = store.location.key(name)
    for move in journal.moves:
        there = listing(bucket, move.live)
        lost = [rel for rel in move.old if not same(there.get(rel), move.old[rel])]
        kept = listing(bucket, move.backup) if lost else {}
        for rel in lost:
            if rel in kept:
                copies.append((move.backup + rel, move.live + rel, kept[rel][0]))
                before[(move.live + rel)[len(model) :]] = list(move.old[rel])
            else:
                raise RepositoryError(
                    f"the copy of {move.live}{rel} that was made before the change is not there"
                    " any more",
                    step="recover from an interrupted run",
                )
        strays += [move.live + rel for rel in there if rel in move.new and rel not in move.old]
    if copies:
        wait_for_another_second(store, name)
    _copy(store, name, copies)
    store.check_lock(name)
    bucket.delete(strays)
    if copies:
        note_new_looks(store, name, before)
    if journal.old_record:
        bucket.delete_below(store.key("retained", name, journal.old_record.key, ""))


def note_new_looks(store: S3Store, name: str, before: Objects) -> None:
    """A copy has a time of its own, and that of a large object another ETag: what was copied is
    still what is recorded.

    Args:
        before: what was copied, by its path in the model, and how it looked. What did not look so
            when it was recorded had been changed, and is to be found out.
    """
    record = store.record(name)
    if record is None:
        return
    now = fingerprint(store, name)
    came = {rel.strip("/"): look for rel, look in before.items()}
    noted = {
        path: now[path] if path in now and same(came.get(path), look) else look
        for path, look in record.fingerprint.items()
    }
    if noted != record.fingerprint:
        store.write_record(dataclasses.replace(record, fingerprint=noted))


def fingerprint(store: S3Store, name: str) -> dict[str, list[Any]]:
    """How a model's files look now."""
    return visible(listing(store.bucket, store.location.key(name)))


def visible(found: Objects) -> dict[str, list[Any]]:
    """Relative paths of files and empty folders, and how they look: the key of a folder that has
    content is nothing of its own.
    """
    folders = {os.path.dirname(rel.rstrip("/")) for rel in found}
    return {
        rel.strip("/"): value
        for rel, value in found.items()
        if rel != "/" and not (rel.endswith("/") and rel.rstrip("/") in folders)
    }


def recover(store: S3Store, name: str, *, server_starts: bool = False) -> str | None:
    """Bring the model's keys back to the old deployment, or finish the new one where its record was
    already written.

    Returns:
        What was done, in words; None where there was nothing to do.

    Raises:
        RepositoryError: the journal is not understood, or a copy that it names is gone; nothing was
            touched.
    """
    check_model_name(name)  # that of a key which anybody may have named
    journal = store.journal(name)
    done = None
    if isinstance(journal, S3Swap):
        record = store.record(name)
        if record and record.transaction == journal.deploy_id:
            retire(store, name, journal)
            done = "an interrupted deployment was complete but for tidying up"
        else:
            _undo(store, name, journal)
            done = "an interrupted deployment was undone"
    elif isinstance(journal, Removal):
        if store.record(name):
            done = "an interrupted removal had not begun"
        else:
            _remove_all(store, name)
            done = "an interrupted removal was finished"
    elif isinstance(journal, Trial) and server_starts and candidate.take_away(store, name, journal):
        done = "an interrupted trial was ended"
    store.clear_staging(name)
    # Another server of the repository may serve a candidate: the next run unloads it.
    if not isinstance(journal, (PendingLoad, Trial, type(None))) or (
        server_starts and isinstance(journal, PendingLoad)
    ):
        store.remove_journal(name)
    return done


def retire(store: S3Store, name: str, journal: S3Swap) -> None:
    """Remove the old keys that are left, and keep as many retained copies as the journal says."""
    store.check_lock(name)
    for move in journal.moves:
        if move.later:
            there = listing(store.bucket, move.live)
            store.bucket.delete(move.live + rel for rel in move.later if rel in there)
    if old := journal.old_record:
        store.write_json(store.key("retained", name, old.key, "record.json"), old.to_dict())
    prune(store, name, journal.keep)


def remove(store: S3Store, name: str) -> None:
    """Remove a model. Its record goes first: a server that starts just then does not load what is
    left of it.
    """
    store.write_journal(name, Removal())
    store.remove_record(name)
    _remove_all(store, name)
    store.clear_staging(name)
    store.remove_journal(name)


def _remove_all(store: S3Store, name: str) -> None:
    store.check_lock(name)
    store.bucket.delete_below(f"{store.location.key(name)}/")
    store.bucket.delete_below(store.key("retained", name, ""))
