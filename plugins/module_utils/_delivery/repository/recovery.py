# SPDX-License-Identifier: Apache-2.0
"""Undo or finish what a killed run left of a model in a folder. Standard library only: the server's
start wrapper does it too, before a start.

A journal is written before the first move and removed after the record. It lists the moves with the
inodes of both sides, which renames keep, so that it can be told which of them were made without
trusting any content. A journal that is not understood is refused before anything is touched.
"""

from __future__ import annotations

import os

from .. import disk
from ..domain.journal import FolderSwap, PendingLoad, Removal
from .retention import prune
from .state_store import StateStore


def recover(store: StateStore, name: str, *, server_starts: bool = False) -> str | None:
    """Bring the disk back to the old deployment, or finish the new one where its record was already
    written.

    A load that was given up on stays noted until a run has joined it, or until the server starts
    anew.

    Returns:
        What was done, in words; None where there was nothing to do.

    Raises:
        RepositoryError: the journal is not understood; nothing was touched.
    """
    journal = store.journal(name)
    done = None
    if isinstance(journal, FolderSwap):
        record = store.record(name)
        if record and record.transaction == journal.deploy_id:
            retire(store, name, journal)
            done = "an interrupted deployment was complete but for tidying up"
        else:
            _undo_moves(store, journal)
            done = "an interrupted deployment was undone"
    elif isinstance(journal, Removal):
        if os.path.lexists(os.path.join(store.repository, name)):
            done = "an interrupted removal had not begun"
        else:
            store.remove_record(name)
            disk.remove_tree(store.retained(name))
            done = "an interrupted removal was finished"
    store.clear_staging(name)
    if journal is not None and (server_starts or not isinstance(journal, PendingLoad)):
        store.remove_journal(name)
    return done


def _undo_moves(store: StateStore, journal: FolderSwap) -> None:
    for move in reversed(journal.moves):
        live, staged = store.sides(move)
        aside = f"{staged}.aside"
        if os.path.lexists(aside):  # an exchange by three renames was cut short
            os.rename(aside, staged if os.path.lexists(live) else live)
        there = disk.inode(live)
        if there == move.live_inode:
            continue
        if move.live_inode is None and there != move.staged_inode:
            continue  # somebody else's since then
        if move.live_inode is None:
            disk.move_new(live, staged)
        elif there is None:
            disk.move_new(staged, live)
        else:
            disk.go_on_from(live, staged)
            disk.exchange(live, staged)


def retire(store: StateStore, name: str, journal: FolderSwap) -> None:
    """Move the files that were replaced to the retained copies, then keep as many of those as the
    journal says.
    """
    old = journal.old_record
    if old:
        kept = store.retained(name, old.key)
        for move in journal.moves:
            staged = store.sides(move)[1]
            target = os.path.join(kept, os.path.basename(staged))
            if os.path.isdir(staged) and staged != target:
                disk.make_folder(os.path.dirname(target))
                disk.remove_tree(target)
                disk.move_new(staged, target)
        disk.make_folder(kept)
        disk.write_json(os.path.join(kept, "record.json"), old.to_dict())
    prune(store, name, journal.keep)
