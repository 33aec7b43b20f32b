# SPDX-License-Identifier: Apache-2.0
"""Files of this host opened component by component, so that no symbolic link is followed, whoever
puts one there meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from .errors import ArtifactError

# With O_PATH a folder needs no more than the permission to pass through it.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe without a writer would be waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
