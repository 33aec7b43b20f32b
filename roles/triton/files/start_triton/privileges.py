# SPDX-License-Identifier: Apache-2.0
"""The rights that this program and the server have, where it was started as root."""

from __future__ import annotations

import os

from .failures import StartError


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
