# SPDX-License-Identifier: Apache-2.0
"""A new deployment in a folder under the candidate's name, for as long as it is being proven.
Standard library only: the start wrapper takes it away.

No second copy of the bytes is made. New files are renamed into the repository and back. Of files
that serve, the candidate has symbolic links, which are relative, so that they lead to the same
place in a container: a hard link would change the times by which Triton and records know them.
"""

from __future__ import annotations

import os

from .. import disk
from ..domain.journal import Trial
from ..domain.layout import OWN_FILES
from ..errors import ForeignModel
from ..names import candidate_of
from .state_store import StateStore


def place_of(store: StateStore, name: str) -> str:
    return os.path.join(store.repository, candidate_of(name))


def refuse_taken(store: StateStore, name: str) -> str:
    """The candidate's place. Raises ForeignModel where somebody else has put something there."""
    place = place_of(store, name)
    if disk.stat_or_none(place) is not None:
        raise ForeignModel(
            f"{place} is there, which this collection did not make, and a candidate is proven under"
            " that name: remove it, or leave out verify_aside",
            model=name,
            step="try aside",
        )
    return place


def write_down(store: StateStore, name: str, transaction: str, source: str) -> None:
    """The journal, before anything is put in the candidate's place; ``source``: see ``Trial``."""
    home = os.path.relpath(source, store.path) if source else ""
    store.write_journal(name, Trial(transaction, home))


def link(live: str, place: str) -> None:
    """A folder of links to what lies in a model's folder, but for its configuration."""
    disk.make_folder(place)
    for entry in disk.entries(live):
        if entry not in OWN_FILES and not disk.is_byproduct(entry):
            disk.link(f"../{os.path.basename(live)}/{entry}", os.path.join(place, entry))


def take_away(store: StateStore, name: str, journal: Trial) -> bool:
    """Files go back to where they belong, where that is still there; False where there are none."""
    place = place_of(store, name)
    if disk.stat_or_none(place) is None:
        return False
    home = os.path.join(store.path, journal.home) if journal.home else ""
    if home and disk.is_folder(os.path.dirname(home)) and disk.stat_or_none(home) is None:
        disk.move_new(place, home)
    else:
        disk.remove_tree(place)
    return True
