# SPDX-License-Identifier: Apache-2.0
"""As whom this process acts on files. Standard library only.

Where root delivers into folders of another user, that user may be a model's code. Root then acts as
that user there, one thread at a time: other threads read sources and credentials as root meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import grp
import os
import platform
import pwd
import stat
import threading
from collections.abc import Iterator, Sequence

from .errors import RepositoryError

# C libraries change the groups of all threads at once; the kernel those of one.
_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}
_SETFSUID = {"x86_64": 122, "aarch64": 151, "riscv64": 151, "ppc64le": 138, "s390x": 215}
_SETFSGID = {"x86_64": 123, "aarch64": 152, "riscv64": 152, "ppc64le": 139, "s390x": 216}
_NOBODY_SUCH = 0xFFFFFFFF
_ACL = "system.posix_acl_access"
_NO_ACL = (errno.ENODATA, errno.ENOTSUP)
_FIRST_OF_USERS = 100
_thread = threading.local()


def is_root() -> bool:
    """True where this thread has root's rights on files."""
    return os.geteuid() == 0 and getattr(_thread, "user", 0) == 0


def other() -> int | None:
    """As whom root acts in this thread; None where it is itself."""
    return getattr(_thread, "user", 0) or None


def roots() -> frozenset[int]:
    """Who is root, or could become it at any time: whoever owns / (in a container that maps users,
    root of the host looks like that).
    """
    return frozenset({0, os.stat("/").st_uid})


def sudoers() -> frozenset[int]:
    """``roots``, and who became root by sudo to run this."""
    caller = os.environ.get("SUDO_UID", "")
    return roots() | ({int(caller)} if caller.isdecimal() else set())


def others_may_change(
    folder: int | str, found: os.stat_result, trusted: frozenset[int], *, sticky: bool = False
) -> bool:
    """True where somebody else than these may put something else in the place of what they have in
    a folder. Root's group is nobody else, nor is one without members.

    Args:
        folder: its path, or its descriptor.
        sticky: somebody may put what is his own into one like /tmp too.
    """
    if found.st_uid not in trusted:
        return True
    if found.st_mode & stat.S_ISVTX and not sticky:
        return False
    if found.st_mode & stat.S_IWGRP and (
        _names_others(folder) or _has_members(found.st_gid, trusted)
    ):
        return True
    return bool(found.st_mode & stat.S_IWOTH)


def _names_others(folder: int | str) -> bool:
    """True where the bits of the group speak for an access control list."""
    try:
        os.getxattr(f"/proc/self/fd/{folder}" if isinstance(folder, int) else folder, _ACL)
    except OSError as error:
        return error.errno not in _NO_ACL
    return True


def _has_members(group: int, trusted: frozenset[int]) -> bool:
    """Directories of users may keep quiet about members, so that only the groups that a
    distribution brings (staff of /usr/local) are asked for them.
    """
    if group == 0 or group >= _FIRST_OF_USERS:
        return group != 0
    try:
        listed = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return True
    everybody = pwd.getpwall()
    known = {one.pw_name for one in everybody if one.pw_uid in trusted}
    return bool(listed - known) or any(
        one.pw_gid == group and one.pw_uid not in trusted for one in everybody
    )


@contextlib.contextmanager
def acting_as(user: int, group: int, groups: Sequence[int] = ()) -> Iterator[None]:
    """This thread, root's, has another user's rights on files meanwhile, and no more.

    Processes and threads that are started in this block have them too, until they start a program.

    Raises:
        RepositoryError: it cannot give up root's rights, and nothing was done.
    """
    if getattr(_thread, "user", 0) == user:
        yield
        return
    before = getattr(_thread, "user", 0), getattr(_thread, "group", os.getegid())
    own = os.getgroups()
    try:
        _become(user, group, groups)
        yield
    finally:
        _become(*before, own)


@contextlib.contextmanager
def being_itself() -> Iterator[None]:
    """Root is itself meanwhile in a block in which it acts as another user."""
    if not getattr(_thread, "user", 0):
        yield
        return
    with acting_as(0, os.getegid()):
        yield


def _become(user: int, group: int, groups: Sequence[int]) -> None:
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


def _set_groups(groups: Sequence[int]) -> None:
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
