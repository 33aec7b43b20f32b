# SPDX-License-Identifier: Apache-2.0
"""Files of this host opened component by component, so that no symbolic link is followed, whoever
puts one there meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from collections.abc import Iterator
from typing import BinaryIO

from . import rights
from .errors import ArtifactError

# With O_PATH a folder needs no more than the permission to pass through it.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe without a writer would be waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_LINKS = 40
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def reach(path: str, *, last: bool = False) -> Iterator[tuple[int, str]]:
    """The open folder above a path, and the name in it.

    Root follows a link only where root alone could have put it there: a folder of another user may
    be changed by that user at any moment. Anybody else goes the way that the kernel goes.

    Args:
        last: a link at the end of the path is followed too.

    Raises:
        OSError: there is no such folder; ELOOP: a link is not followed.
    """
    path = os.path.abspath(path)
    if rights.is_root():
        here, name = _walk(path, last)
    else:
        above, name = os.path.split(path)
        here = os.open(above, _PASS & ~os.O_NOFOLLOW)
    try:
        yield here, name or "."
    finally:
        os.close(here)


def open_to_read(path: str) -> BinaryIO:
    """Open a regular file as ``reach`` does.

    Raises:
        OSError: there is none; ELOOP, EPERM: root must not read what is there.
    """
    with reach(path, last=True) as (above, name):
        flags = _READ if rights.is_root() else _READ & ~os.O_NOFOLLOW
        descriptor = os.open(name, flags, dir_fd=above)
        try:
            refuse_hard_link(above, os.fstat(descriptor), path)
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EPERM, "it is no regular file", path)
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise


def append_to(path: str) -> int:
    """Open a log; root makes or opens none where somebody else has put a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    if not rights.is_root():
        return os.open(path, flags, 0o640)
    with reach(path, last=True) as (above, name):
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640, dir_fd=above)
        try:
            refuse_hard_link(above, os.fstat(descriptor), path)
            os.set_blocking(descriptor, True)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def refuse_hard_link(folder: int, found: os.stat_result, path: str) -> None:
    """Raises OSError where root finds a file that lies elsewhere too, and whoever may change the
    folder may have linked it here.
    """
    if not rights.is_root() or found.st_nlink < 2 or not stat.S_ISREG(found.st_mode):
        return
    trusted = rights.roots() | {found.st_uid}
    if rights.others_may_change(folder, os.fstat(folder), trusted, sticky=True):
        raise OSError(
            errno.EPERM,
            f"it is a hard link to a file of another user, {found.st_uid}, that others may have put"
            f" here: look at it, then run rm {shlex.quote(path)}",
            path,
        )


def _walk(path: str, last: bool) -> tuple[int, str]:
    """Component by component from the root; the folder above the last one, and that one's name."""
    parts, links = _parts(path), 0
    here = os.open("/", _PASS)
    try:
        while len(parts) > 1 or (last and parts):
            part = parts.pop()
            try:
                found = os.stat(part, dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:
                if not parts:
                    return here, part
                raise
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _MOST_LINKS or not _is_roots(here, found):
                    raise OSError(errno.ELOOP, _why_not(part, here, found), path)
                target = os.readlink(part, dir_fd=here)
                parts += _parts(target)
                below = os.open("/", _PASS) if target.startswith("/") else os.dup(here)
            elif not parts:
                return here, part
            else:
                below = os.open(part, _PASS, dir_fd=here)
            os.close(here)
            here = below
        return here, parts.pop() if parts else "."
    except BaseException:
        os.close(here)
        raise


def _parts(path: str) -> list[str]:
    """The components, the first one at the end."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _is_roots(folder: int, link: os.stat_result) -> bool:
    """In a folder like /tmp others may have given a link of root's a second name."""
    above, trusted = os.fstat(folder), rights.roots()
    return (
        link.st_uid in trusted
        and not rights.others_may_change(folder, above, trusted)
        and (link.st_nlink == 1 or not above.st_mode & stat.S_ISVTX)
    )


def _why_not(name: str, folder: int, link: os.stat_result) -> str:
    above = os.fstat(folder)
    return (
        f"root does not follow the symbolic link {name!r} of user {link.st_uid} in a folder of user"
        f" {above.st_uid} with the mode {stat.S_IMODE(above.st_mode):04o}, because others may lead"
        " it elsewhere"
    )


def entries(folder: str) -> list[tuple[str, os.stat_result]]:
    """What lies directly in a folder, sorted by name; of a link, the link itself.

    Args:
        folder: absolute, with all links resolved.
    """
    with _parent(folder) as (above, name):
        descriptor = _open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, above, folder)
    try:
        return [
            (name, os.stat(name, dir_fd=descriptor, follow_symlinks=False))
            for name in sorted(os.listdir(descriptor))
        ]
    finally:
        os.close(descriptor)


def open_file(path: str, listed: os.stat_result | None = None) -> BinaryIO:
    """Open a file for reading.

    Args:
        path: absolute, with all links resolved.
        listed: how the file looked when it was listed.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        ArtifactError: a part of the path is a link now, it is no regular file, or another one than
            was listed.
    """
    with _parent(path) as (above, name):
        # Opening a device may do something: what is no regular file is not opened.
        _check(path, os.stat(name, dir_fd=above, follow_symlinks=False), listed)
        descriptor = _open(name, _READ, above, path)
    try:
        _check(path, os.fstat(descriptor), listed)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def create_file(path: str) -> BinaryIO:
    """Make a file that does not exist yet, and the folders above it.

    Args:
        path: absolute, with all links resolved.
    """
    with _parent(path, make=True) as (above, name):
        return os.fdopen(os.open(name, _WRITE, 0o666, dir_fd=above), "wb")


def _check(path: str, found: os.stat_result, listed: os.stat_result | None) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise _swapped(path)
    if not stat.S_ISREG(found.st_mode):
        raise ArtifactError(f"{path} is no regular file, and is not read")
    if listed is not None and _identity(found) != _identity(listed):
        raise ArtifactError(f"{path} is another file than the one that was listed")


def _identity(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_dev, info.st_ino, info.st_size


@contextlib.contextmanager
def _parent(path: str, make: bool = False) -> Iterator[tuple[int, str]]:
    """The open folder above, and the name in it."""
    parts = [part for part in path.split("/") if part] or ["."]
    here = os.open("/", _PASS)
    try:
        for part in parts[:-1]:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=here)
            below = _open(part, _PASS, here, path)
            os.close(here)
            here = below
        yield here, parts[-1]
    finally:
        os.close(here)


def _open(name: str, flags: int, above: int, path: str) -> int:
    try:
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=above)
    except OSError as error:
        # A link where a folder should be opened is "not a directory" to the kernel.
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            with contextlib.suppress(OSError):
                if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
                    raise _swapped(path) from error
        raise


def _swapped(path: str) -> ArtifactError:
    return ArtifactError(f"a symbolic link was put into the place of {path}, and is not followed")
