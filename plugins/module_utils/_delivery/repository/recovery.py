# SPDX-License-Identifier: Apache-2.0
"""Undo or finish what a killed run left on disk. Standard library only: the server's start wrapper
does it too, before a start.

A journal is written before the first move and removed after the record. It lists the moves with the
inodes of both sides, which renames keep, so that it can be told which of them were made without
trusting any content.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .. import disk
from ..domain.journal import PENDING, REMOVE, SWAP
from ..domain.record import Record
from ..errors import RepositoryError
from .retention import superfluous
from .state_store import StateStore


def inode(path: str) -> int | None:
    """The inode at ``path``, None where there is nothing."""
    try:
        return os.lstat(path).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None


def journal_of_moves(
    store: StateStore,
    moves: list[tuple[str, str]],
    deploy_id: str,
    old_record: Record | None,
    keep: int,
) -> dict[str, Any]:
    """What has to be known to undo or to finish moves of (live, staged) pairs; ``keep`` is how many
    deployments stay retained.

    A pair whose live side exists is exchanged; one whose live side does not is moved from staged to
    live; one whose staged side does not exist is moved from live to staged. Paths are relative,
    because the start wrapper may see the same folders under other mount points.
    """
    listed = [
        {
            "live": os.path.relpath(live, store.repository),
            "staged": os.path.relpath(staged, store.path),
            "live_inode": inode(live),
            "staged_inode": inode(staged),
        }
        for live, staged in moves
    ]
    return {
        "schema": 1,
        "op": SWAP,
        "deploy_id": deploy_id,
        "old_record": old_record.to_dict() if old_record else None,
        "keep": keep,
        "moves": listed,
    }


def paths_of(store: StateStore, move: Mapping[str, Any]) -> tuple[str, str]:
    """Where a move's two sides are. Raises RepositoryError for a journal that leads out of the
    repository or its state.
    """
    if any(
        os.path.isabs(move[side]) or ".." in move[side].split("/") for side in ("live", "staged")
    ):
        raise RepositoryError(
            f"its journal names the path {move['live']!r} or {move['staged']!r}, which leads"
            " elsewhere",
            step="recover from an interrupted run",
            left="nothing was changed",
        )
    return os.path.join(store.repository, move["live"]), os.path.join(store.path, move["staged"])


def make_moves(store: StateStore, journal: Mapping[str, Any]) -> bool:
    """Make the journal's moves; False where one of them was not atomic."""
    atomic = True
    for move in journal["moves"]:
        live, staged = paths_of(store, move)
        if move["live_inode"] is None:
            disk.move_new(staged, live)
        elif move["staged_inode"] is None:
            disk.move_new(live, staged)
        else:
            atomic = disk.exchange(live, staged) and atomic
    return atomic


def moved_in(store: StateStore, journal: Mapping[str, Any] | None, path: str) -> bool:
    """True where an interrupted run put what is at ``path`` there, and nothing was there before."""
    if journal is None or journal.get("op") != SWAP:
        return False
    return any(
        paths_of(store, move)[0] == path
        and move["live_inode"] is None
        and inode(path) == move["staged_inode"]
        for move in journal["moves"]
    )


def _undo_moves(store: StateStore, journal: Mapping[str, Any]) -> None:
    for move in reversed(journal["moves"]):
        live, staged = paths_of(store, move)
        aside = f"{staged}.aside"
        if os.path.lexists(aside):  # an exchange by three renames was cut short
            os.rename(aside, staged if os.path.lexists(live) else live)
        there = inode(live)
        if there == move["live_inode"]:
            continue
        if move["live_inode"] is None and there != move["staged_inode"]:
            continue  # somebody else's since then
        if move["live_inode"] is None:
            disk.move_new(live, staged)
        elif there is None:
            disk.move_new(staged, live)
        else:
            disk.exchange(live, staged)


def recover(store: StateStore, name: str, *, server_starts: bool = False) -> str | None:
    """Bring the disk back to the old deployment, or finish the new one where its record was already
    written.

    A load that was given up on stays noted until a run has joined it, or until the server starts
    anew.

    Returns:
        What was done, in words; None where there was nothing to do.
    """
    journal = store.journal(name)
    done = None
    if journal and journal.get("op") == SWAP:
        record = store.record(name)
        if record and record.transaction == journal["deploy_id"]:
            retire(store, name, journal)
            done = "an interrupted deployment was complete but for tidying up"
        else:
            _undo_moves(store, journal)
            done = "an interrupted deployment was undone"
    elif journal and journal.get("op") == REMOVE:
        if os.path.lexists(os.path.join(store.repository, name)):
            done = "an interrupted removal had not begun"
        else:
            store.remove_record(name)
            disk.remove_tree(store.retained(name))
            done = "an interrupted removal was finished"
    store.clear_staging(name)
    if journal and (journal.get("op") != PENDING or server_starts):
        store.remove_journal(name)
    return done


def retire(store: StateStore, name: str, journal: Mapping[str, Any]) -> None:
    """Move the files that were replaced to the retained copies, then keep as many of those as the
    journal says.
    """
    old = journal.get("old_record")
    key = Record.from_dict(old).key if old else ""
    for move in journal["moves"]:
        _live, staged = paths_of(store, move)
        if old and os.path.isdir(staged):
            target = os.path.join(store.retained(name, key), os.path.basename(staged))
            if staged != target:
                disk.make_folder(os.path.dirname(target))
                disk.remove_tree(target)
                disk.move_new(staged, target)
    if old:
        disk.make_folder(store.retained(name, key))
        disk.write_json(os.path.join(store.retained(name, key), "record.json"), old)
    prune(store, name, journal.get("keep"))


def prune(store: StateStore, name: str, keep: int | None) -> None:
    """Remove retained copies beyond the newest ``keep``, and what has no record; None keeps all.

    A copy whose files serve another one that is kept (only the configuration had changed between
    them, or a version was served beside others) stays until that goes.
    """
    base = store.retained(name)
    if keep is None or not os.path.isdir(base):
        return
    inside = {
        entry: set(os.listdir(os.path.join(base, entry))) for entry in sorted(os.listdir(base))
    }
    for entry in superfluous(store.retained_records(name), store.record(name), inside, keep):
        disk.remove_tree(os.path.join(base, entry))
    if not os.listdir(base):
        disk.remove_tree(base)
