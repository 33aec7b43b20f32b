# SPDX-License-Identifier: Apache-2.0
"""Undo or finish what a killed run left of a model in a folder. Standard library only: the server's
start wrapper does it too, before a start.

A journal is written before the first move and removed after the record. It lists the moves with the
inodes of both sides, which renames keep, so that it can be told which of them were made without
trusting any content. A journal that is not understood is refused before anything is touched.
"""

from __future__ import annotations

import os
import stat

from .. import disk
from ..domain.config_pbtxt import CONFIG_NAME
from ..domain.journal import FolderMove, FolderSwap, PendingLoad, Removal, Trial
from ..errors import RepositoryError
from ..names import check_model_name
from . import candidate
from .retention import prune
from .state_store import StateStore


def recover(store: StateStore, name: str, *, server_starts: bool = False) -> str | None:
    """Bring the disk back to the old deployment, or finish the new one where its record was already
    written.

    A load that was given up on stays noted until a run has joined it, or until the server starts
    anew. A trial stays as it is until a run has unloaded it, or until the server starts anew.

    Returns:
        What was done, in words; None where there was nothing to do.

    Raises:
        RepositoryError: the journal is not understood; nothing was touched.
    """
    check_model_name(name)  # that of a file which anybody may have named
    journal = store.journal(name)
    done = None
    if isinstance(journal, FolderSwap):
        record = store.record(name)
        if record and record.transaction == journal.deploy_id:
            retire(store, name, journal)
            done = "an interrupted deployment was complete but for tidying up"
        else:
            try:
                _undo_moves(store, journal)
            except FileNotFoundError as error:
                raise _cannot_undo(store, name, error) from error
            done = "an interrupted deployment was undone"
    elif isinstance(journal, Removal):
        if disk.stat_or_none(os.path.join(store.repository, name)) is not None:
            done = "an interrupted removal had not begun"
        else:
            store.remove_record(name)
            disk.remove_tree(store.retained(name))
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


def brought(store: StateStore, journal: FolderSwap, move: FolderMove) -> bool:
    """True where what lies at the live side is what a run put there.

    A file system gives the inode of what was deleted to what comes next. A model is therefore known
    by its deploy id too.
    """
    live = store.sides(move)[0]
    if disk.inode(live) != move.staged_inode:
        return False
    is_model = os.path.dirname(move.live) == ""
    return not is_model or journal.deploy_id.encode(errors="replace") in _config(live)


def _config(model: str) -> bytes:
    try:
        return disk.read_small(os.path.join(model, CONFIG_NAME))
    except OSError:
        return b""


def _cannot_undo(store: StateStore, name: str, error: FileNotFoundError) -> RepositoryError:
    """A folder that the journal names is gone, such as one that was a link."""
    copies = f"{store.staging(name)} and {store.retained(name)}"
    return RepositoryError(
        f"the journal {os.path.join(store.path, 'journals', name)}.json of an interrupted run names"
        f" {error.filename2 or error.filename}, whose folder is not there: copy {copies}, where the"
        " only copy of what was deployed before may lie, to another place, then remove the journal"
        " and run again",
        model=name,
        step="undo an interrupted deployment",
        left="the repository was left as it is",
    )


def _undo_moves(store: StateStore, journal: FolderSwap) -> None:
    for move in reversed(journal.moves):
        live, staged = store.sides(move)
        aside = f"{staged}.aside"
        if disk.inode(aside) is not None:  # an exchange by three renames was cut short
            disk.rename(aside, live if disk.inode(live) is None else staged)
        there = disk.inode(live)
        if there == move.live_inode:
            continue
        if move.live_inode is None and not brought(store, journal, move):
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
            # A link is no deployment, and would lead whoever goes back to it.
            found = disk.stat_or_none(staged)
            if found is not None and stat.S_ISDIR(found.st_mode) and staged != target:
                disk.make_folder(os.path.dirname(target))
                disk.remove_tree(target)
                disk.move_new(staged, target)
        disk.make_folder(kept)
        disk.write_json(os.path.join(kept, "record.json"), old.to_dict())
    else:  # what was replaced is not worth a copy, and must not be taken for the one that came back
        for move in journal.moves:
            staged = store.sides(move)[1]
            if not move.staged.startswith("staging/"):
                disk.remove_tree(staged)
    prune(store, name, journal.keep)
