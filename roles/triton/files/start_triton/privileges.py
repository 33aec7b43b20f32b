# SPDX-License-Identifier: Apache-2.0
"""The rights that this program and the server have, where it was started as root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .failures import StartError


@contextlib.contextmanager
def rights_of(path: Path) -> Iterator[None]:
    """Root acts as the owner of the folder meanwhile, who would else find files of root in it that
    he cannot remove.
    """
    owner = os.stat(path) if os.geteuid() == 0 else None
    if owner is None or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def become(run_as: list[int] | None) -> None:
    """Take on the server's user and group, which cannot be undone. Raises StartError where root's
    rights would be needed for it.
    """
    if run_as is None or [os.geteuid(), os.getegid()] == run_as:
        return
    user, group = run_as
    try:
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    except OSError as err:
        raise StartError(
            f"The server cannot run as user {user}, group {group} ({err.strerror}): start this"
            " program as root."
        ) from None
