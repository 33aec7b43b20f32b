# SPDX-License-Identifier: Apache-2.0
"""What root believes of a repository's state, and as whom it acts there. Standard library only.

The user who owns a repository may be a model's code. What root believes (the marker, the state
folder and all in it) has to be root's own, in folders that nobody else can change. Where everything
is of one other user, root acts as that user. Anything else is refused, with what to do.
"""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .. import disk, rights
from ..errors import RepositoryError
from ..no_follow import reach

_OTHERS = 0o022
_STEP, _NOTHING = "find the state folder", "nothing was changed"
NOBODY = 65534


class Owner(NamedTuple):
    """Ids of a user, of that user's own group and of all others of his."""

    user: int
    group: int
    groups: tuple[int, ...] = ()


def find_owner(repository: str, marker: str, state: str, folders: Sequence[str]) -> Owner | None:
    """As whom root acts in repository and state; None: as itself.

    Args:
        folders: those of the state, by name.

    Raises:
        RepositoryError: root must not believe what lies there; names the path, and the remedy.
    """
    owner = _of(repository).st_uid
    found = disk.stat_or_none(state)
    if found is not None and stat.S_ISLNK(found.st_mode):
        found = _of(state)
    if found is None:
        state_owner = 0 if owner == 0 or _is_for_root(state, owner) else owner
    else:
        state_owner = found.st_uid
    if state_owner == owner != 0:
        _all_of_one(marker, state, folders, owner)
        return _with_groups(owner)
    marked = disk.stat_or_none(marker)
    if marked is not None and not _is_own_file(marked):
        raise _refused(
            f"the marker {marker} is {_whose(marked)}, so that root does not believe what it says"
            " of the state folder",
            f"rm {shlex.quote(marker)}",
            "where the state lies beside the repository it is found without one:",
        )
    if state_owner == 0:
        _believe_own(repository, state, folders)
        return None
    raise _refused(
        f"the state folder {state} is of user {state_owner} and the repository {repository} of"
        f" user {owner}, so that root would believe what another user writes",
        f"chown -hR {owner} {shlex.quote(state)}",
    )


def _with_groups(user: int) -> Owner:
    try:
        entry = pwd.getpwuid(user)
    except KeyError:
        return Owner(user, NOBODY)
    groups = set(os.getgrouplist(entry.pw_name, entry.pw_gid)) - {0, entry.pw_gid}
    return Owner(user, entry.pw_gid, tuple(sorted(groups)))


def check_way(repository: str) -> None:
    """Raises RepositoryError for a link that somebody else may lead elsewhere meanwhile."""
    _of(repository)


def _of(folder: str) -> os.stat_result:
    """Of the folder at a path, which exists. Raises RepositoryError for a link that may change."""
    try:
        with reach(folder, last=True) as (above, name):
            return os.stat(name, dir_fd=above)
    except OSError as error:
        raise _refused(
            f"{folder} cannot be reached by root ({error.strerror})",
            f"ls -ld {shlex.quote(os.path.realpath(folder))}",
            "give the path without links, as this shows it:",
        ) from error


def _believe_own(repository: str, state: str, folders: Sequence[str]) -> None:
    """Raises RepositoryError where somebody else than root may have written what lies there."""
    above = _first_open_above(state, rights.sudoers())
    if above is not None:
        path, found = above
        there = shlex.join(one for one in (repository, state) if disk.is_folder(one))
        raise _refused(
            f"the state folder {state} is root's and lies in {path}, which is {_whose(found)}, so"
            " that it may be another one by now",
            f"chown -hR {found.st_uid} {there}"
            if found.st_uid
            else f"chmod go-w {shlex.quote(path)}",
        )
    looks = {}
    for path in (state, *(os.path.join(state, name) for name in folders)):
        there_is = disk.stat_or_none(path)
        if there_is is not None:
            looks[path] = _of(path) if path == state else there_is
    for path, found in looks.items():
        _believe_folder(path, found, looks, is_top=path == state)


def _believe_folder(
    path: str, found: os.stat_result, all_of_it: Mapping[str, os.stat_result], is_top: bool
) -> None:
    if not stat.S_ISDIR(found.st_mode) and not is_top:
        raise _refused(
            f"{path} is no folder, and root does not follow it", f"rm {shlex.quote(path)}"
        )
    if found.st_uid != 0:
        raise _refused(
            f"{path} is of user {found.st_uid} and its state folder is root's, so that root"
            " would believe what another user writes",
            _for_all("chown -h 0", (one for one, look in all_of_it.items() if look.st_uid)),
        )
    if found.st_mode & _OTHERS and stat.S_ISDIR(found.st_mode):
        raise _refused(
            f"{path} has the mode {stat.S_IMODE(found.st_mode):04o}, so that others may have"
            " written what root would believe",
            _for_all("chmod go-w", (p for p, look in all_of_it.items() if look.st_mode & _OTHERS)),
        )


def _for_all(command: str, paths: Iterable[str]) -> str:
    return f"{command} {shlex.join(paths)}"


def _is_own_file(found: os.stat_result) -> bool:
    """One with a second name (a backup by hard links) was opened, so that root alone gave it."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == 0 and not found.st_mode & _OTHERS


def why_not_own(path: str, found: os.stat_result) -> str | None:
    """Why root must not believe a file of its state; None where it may, and to anybody else."""
    if not rights.is_root() or _is_own_file(found):
        return None
    return (
        f"{path} is {_whose(found)}, and root believes only what it wrote itself: look at it, then"
        f" run rm {shlex.quote(path)}"
    )


def _all_of_one(marker: str, state: str, folders: Sequence[str], owner: int) -> None:
    for path in (*(os.path.join(state, name) for name in folders), marker):
        found = disk.stat_or_none(path)
        if found is not None and found.st_uid not in ((owner, 0) if path == marker else (owner,)):
            raise _refused(
                f"{path} is of user {found.st_uid} and the state folder {state} of user {owner}",
                f"chown -hR {owner} {shlex.quote(state if path != marker else path)}",
            )


def _is_for_root(state: str, owner: int) -> bool:
    """Whose a state becomes that is not there yet: root's where the owner could not make it."""
    above = _first_open_above(state, rights.roots())
    if above is None:
        return True
    return above[1].st_uid != owner and _first_open_above(state, rights.sudoers()) is None


def _first_open_above(path: str, trusted: frozenset[int]) -> tuple[str, os.stat_result] | None:
    """The folder above a path, the nearest first, which somebody else than these can change. One in
    which each may only change what is his own (/tmp) is none.
    """
    for above in _above(os.path.realpath(path)):
        found = disk.stat_or_none(above)
        if found is not None and rights.others_may_change(above, found, trusted):
            return above, found
    return None


def _above(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _whose(found: os.stat_result) -> str:
    kind = "a symbolic link of" if stat.S_ISLNK(found.st_mode) else "of"
    return f"{kind} user {found.st_uid} with the mode {stat.S_IMODE(found.st_mode):04o}"


def _refused(
    said: str, command: str, advice: str = "look at what is there, then run"
) -> RepositoryError:
    return RepositoryError(f"{said}: {advice} {command}", step=_STEP, left=_NOTHING)
