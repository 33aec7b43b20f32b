# SPDX-License-Identifier: Apache-2.0
"""The identity of a process: who changes something, and whether it still lives. Standard library
only.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence


def holder() -> str:
    """Who is running, for records and locks: ``user@host (process 123)``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


def identity(pid: int | None = None) -> tuple[str, ...]:
    """What no other process of any host and boot has.

    Returns:
        (boot id, process namespace, pid, start in clock ticks since boot: proc(5), field 22), all
        as text; empty where /proc does not tell, or no such process lives.
    """
    pid = os.getpid() if pid is None else pid
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            started = stream.read().rpartition(")")[2].split()[19]
        return boot, os.readlink("/proc/self/ns/pid"), str(pid), started
    except (OSError, IndexError):
        return ()


def has_ended(other: Sequence[object]) -> bool:
    """True only for the identity of a process of this boot and namespace that lives no more."""
    given, here = tuple(str(part) for part in other), identity()
    if len(given) != 4 or not here or given[:2] != here[:2] or not given[2].isdigit():
        return False
    pid = int(given[2])
    if now := identity(pid):
        return now != given
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's, which /proc may hide
        pass
    return False
