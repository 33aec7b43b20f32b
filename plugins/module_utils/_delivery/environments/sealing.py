# SPDX-License-Identifier: Apache-2.0
"""What an unprivileged user has built becomes root's, and is looked at on the way.

A folder is taken first and listed then: from there on that user puts nothing into it any more.
"""

from __future__ import annotations

import os
import stat
from typing import NoReturn

from .. import disk
from ..effects import effect
from ..errors import DeliveryError
from ..no_follow import reach
from .bounded import STEP

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DEEPEST = 60


def seal(root: str, pythons: frozenset[str], take: bool) -> int:
    """Make a tree nobody else's, with no more rights than to read and to run.

    Args:
        pythons: the only paths to which links may lead out of it.
        take: it becomes root's; else the owner stays.

    Returns:
        The bytes of its files.

    Raises:
        DeliveryError: something in it is no file, folder or link within it.
    """
    with effect("seal", root), reach(root) as (above, name):
        return _folder(name, above, root, os.path.realpath(root), pythons, take, 0)


def _folder(
    name: str, above: int, path: str, root: str, pythons: frozenset[str], take: bool, depth: int
) -> int:
    if depth > _DEEPEST:
        _refuse(path, f"folders lie more than {_DEEPEST} deep")
    here = os.open(name, _FOLDER, dir_fd=above)
    try:
        if take:
            os.fchown(here, 0, 0)
        os.fchmod(here, disk.FOLDER_MODE)
        size = 0
        for entry in sorted(os.listdir(here)):
            below = os.path.join(path, entry)
            found = os.stat(entry, dir_fd=here, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                size += _folder(entry, here, below, root, pythons, take, depth + 1)
            elif stat.S_ISLNK(found.st_mode):
                _check_link(os.readlink(entry, dir_fd=here), below, root, pythons)
                if take:
                    os.chown(entry, 0, 0, dir_fd=here, follow_symlinks=False)
            elif stat.S_ISREG(found.st_mode):
                size += _take_file(entry, here, below) if take else found.st_size
            else:
                _refuse(below, "it is neither a file nor a folder")
        return size
    finally:
        os.close(here)


def _take_file(name: str, above: int, path: str) -> int:
    descriptor = os.open(name, _FILE, dir_fd=above)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            _refuse(path, "it has a second name elsewhere")
        os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, 0o755 if found.st_mode & 0o111 else 0o644)
        return found.st_size
    finally:
        os.close(descriptor)


def _check_link(target: str, path: str, root: str, pythons: frozenset[str]) -> None:
    leads = os.path.realpath(os.path.join(os.path.dirname(path), target))
    if leads in pythons or leads == root or leads.startswith(f"{root}/"):
        return
    _refuse(path, f"it is a link that leads out of the environment, to {leads}")


def _refuse(path: str, why: str) -> NoReturn:
    raise DeliveryError(f"a package brings {os.path.basename(path)!r}: {why}", step=STEP)
