# SPDX-License-Identifier: Apache-2.0
"""As whom this process acts on files. Standard library only.

Where root delivers into folders of another user, that user may be a model's code. Root then acts as
that user there, one thread at a time: other threads read sources and credentials as root meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import threading
from collections.abc import Iterator

from .errors import RepositoryError

# C libraries change the groups of all threads at once; the kernel those of one.
_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}
_SETFSUID = {"x86_64": 122, "aarch64": 151, "riscv64": 151, "ppc64le": 138, "s390x": 215}
_SETFSGID = {"x86_64": 123, "aarch64": 152, "riscv64": 152, "ppc64le": 139, "s390x": 216}
_NOBODY_SUCH = 0xFFFFFFFF
_thread = threading.local()


def is_root() -> bool:
    """True where this thread has root's rights on files."""
    return os.geteuid() == 0 and getattr(_thread, "user", 0) == 0


def other() -> int | None:
    """As whom root acts in this thread; None where it is itself."""
    return getattr(_thread, "user", 0) or None


@contextlib.contextmanager
def acting_as(user: int, group: int) -> Iterator[None]:
    """This thread, root's, has another user's rights on files meanwhile, and no more.

    Processes and threads that are started in this block have them too, until they start a program.

    Raises:
        RepositoryError: it cannot give up root's rights, and nothing was done.
    """
    if getattr(_thread, "user", 0) == user:
        yield
        return
    before = getattr(_thread, "user", 0), getattr(_thread, "group", os.getegid())
    groups = os.getgroups()
    try:
        _become(user, group, [])
        yield
    finally:
        _become(*before, groups)


@contextlib.contextmanager
def being_itself() -> Iterator[None]:
    """Root is itself meanwhile in a block in which it acts as another user."""
    if not getattr(_thread, "user", 0):
        yield
        return
    with acting_as(0, os.getegid()):
        yield


def _become(user: int, group: int, groups: list[int]) -> None:
    _set_groups(groups)
    _set_one(_SETFSGID, group)
    _set_one(_SETFSUID, user)
    _thread.user, _thread.group = user, group


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(numbers: dict[str, int], *arguments: object) -> int:
    number = numbers.get(platform.machine())
    if number is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise _refused(f"it does not know how on {platform.machine()}")
    return int(_library().syscall(number, *arguments))


def _set_one(numbers: dict[str, int], wanted: int) -> None:
    """The kernel answers the id before, and says nothing of a failure."""
    _call(numbers, ctypes.c_uint(wanted))
    found = _call(numbers, ctypes.c_uint(_NOBODY_SUCH)) & _NOBODY_SUCH
    if found != wanted:
        raise _refused(f"the kernel keeps it as {found}")


def _set_groups(groups: list[int]) -> None:
    listed = (ctypes.c_uint * len(groups))(*groups)
    if _call(_SETGROUPS, ctypes.c_size_t(len(groups)), listed) != 0:
        raise _refused(os.strerror(ctypes.get_errno()))


def _refused(reason: str) -> RepositoryError:
    return RepositoryError(
        f"root cannot act as another user here ({reason}): run the task as that user, with"
        " become_user",
        step="take on the owner's rights",
        left="nothing was changed",
    )
