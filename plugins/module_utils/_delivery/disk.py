# SPDX-License-Identifier: Apache-2.0
"""File-system primitives of a delivery. Standard library only: the server's start wrapper uses this
file too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import hashlib
import json
import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from .effects import effect
from .errors import RepositoryError

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_NO_SUCH_CALL = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_CHUNK = 1 << 20
BESIDE = ".new"
Fingerprint = dict[str, list[int]]


def _renameat2(source: str, target: str, flags: int) -> None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError as error:
        raise OSError(errno.ENOSYS, "this C library has no renameat2") from error
    if function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), source, None, target)


def exchange(live: str, staged: str) -> bool:
    """Swap two paths, both of which exist, in one step.

    Returns:
        True where it was atomic; False where the file system has no exchange and three renames were
            made, between
        which the live path is missing for a moment.
    """
    with effect("exchange", live):
        try:
            _renameat2(live, staged, _RENAME_EXCHANGE)
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise
        else:
            fsync_folder(os.path.dirname(live))
            fsync_folder(os.path.dirname(staged))
            return True
    aside = staged + ".aside"
    for source, target in ((live, aside), (staged, live), (aside, staged)):
        with effect("rename", target):
            os.rename(source, target)
    fsync_folder(os.path.dirname(live))
    return False


def move_new(source: str, target: str) -> None:
    """Rename to a path that must not exist yet.

    Raises:
        FileExistsError: it does.
    """
    with effect("rename", target):
        try:
            _renameat2(source, target, _RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
            os.rename(source, target)
    fsync_folder(os.path.dirname(target))


def make_folder(path: str, mode: int = 0o755) -> None:
    """Like ``mkdir -p``, the mode not narrowed by the umask for the folder itself."""
    if not os.path.isdir(path):
        with effect("mkdir", path):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, mode)


def write_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a new file of a private folder and flush it."""
    with effect("write", path), open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())


def replace_file(path: str, data: bytes, mode: int = 0o644, folder: str | None = None) -> None:
    """Write beside ``path`` (or in ``folder``) and rename over it: readers see the old bytes or the
    new ones.

    The caller holds a lock: what a killed run left beside it is written over, so that such files do
    not gather.
    """
    beside = os.path.join(folder or os.path.dirname(path), f"{os.path.basename(path)}{BESIDE}")
    try:
        with open(beside, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        with effect("replace", path):
            os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    fsync_folder(os.path.dirname(path))


def write_json(
    path: str, data: Mapping[str, Any], mode: int = 0o644, folder: str | None = None
) -> None:
    replace_file(path, (json.dumps(data, indent=2, sort_keys=True) + "\n").encode(), mode, folder)


def remove_file(path: str) -> None:
    if os.path.lexists(path):
        with effect("unlink", path):
            os.unlink(path)
        fsync_folder(os.path.dirname(path))


def remove_tree(path: str) -> None:
    """Remove a folder of ours; a missing one is fine."""
    if os.path.lexists(path):
        with effect("rmtree", path):
            shutil.rmtree(path)


def fsync_folder(path: str) -> None:
    """Flush a folder's entries. File systems that cannot say so (EINVAL) are taken at their
    word.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def fsync_tree_folders(root: str) -> None:
    for current, _names, _files in os.walk(root):
        fsync_folder(current)


def is_byproduct(path: str) -> bool:
    """True for what Triton's Python backend may write beside a model while it loads it."""
    return "__pycache__" in path.split("/")


def fingerprint(root: str) -> Fingerprint:
    """``{relative path: [size, mtime_ns, ctime_ns, inode, mode]}`` of every file and version folder
    below ``root``.
    """
    result: Fingerprint = {}
    for current, names, files in os.walk(root):
        names.sort()
        for entry in [
            *files,
            *(name for name in names if not os.listdir(os.path.join(current, name))),
        ]:
            path = os.path.join(current, entry)
            info = os.lstat(path)
            result[os.path.normpath(os.path.relpath(path, root))] = [
                info.st_size,
                info.st_mtime_ns,
                info.st_ctime_ns,
                info.st_ino,
                stat.S_IMODE(info.st_mode),
            ]
    return result


def newest(root: str) -> float:
    """The latest time of modification of ``root`` and all below it."""
    times = [os.lstat(root).st_mtime]
    for current, names, files in os.walk(root):
        times += [os.lstat(os.path.join(current, entry)).st_mtime for entry in [*names, *files]]
    return max(times)


def touch_versions(folder: str, when: float) -> None:
    """Give the version folders of a model a time, in seconds since 1970."""
    for entry in sorted(os.listdir(folder)):
        if entry.isdigit():
            with effect("touch", os.path.join(folder, entry)):
                os.utime(os.path.join(folder, entry), (when, when))


def go_on_from(old: str, new: str) -> None:
    """Give the model folder ``new`` times above those of ``old``, whose place it takes, where they
    lie in the future: Triton may have seen them, and passes over what is older.
    """
    if os.path.isdir(old) and os.path.isdir(new) and (last := newest(old)) > time.time():
        touch_versions(new, last + 1)


def set_permissions(root: str, owner: int, group: int, mode: int) -> None:
    """Give every file below ``root`` (and ``root``) owner, group and mode; -1 leaves an id alone.

    Folders get an execute bit wherever the mode has a read bit.
    """
    folder_mode = mode | ((mode & 0o444) >> 2)
    with effect("permissions", root):
        _set_one(root, owner, group, folder_mode if os.path.isdir(root) else mode)
        for current, names, files in os.walk(root):
            for name in names:
                _set_one(os.path.join(current, name), owner, group, folder_mode)
            for name in files:
                _set_one(os.path.join(current, name), owner, group, mode)
        restore_context(root)


def _set_one(path: str, owner: int, group: int, mode: int) -> None:
    info = os.lstat(path)
    if (owner not in (-1, info.st_uid)) or (group not in (-1, info.st_gid)):
        os.chown(path, owner, group, follow_symlinks=False)
    if stat.S_IMODE(info.st_mode) != mode:
        os.chmod(path, mode)


def restore_context(path: str) -> None:
    """Give ``path`` the SELinux label that its place in the tree has; nothing where there is no
    SELinux.
    """
    program = shutil.which("restorecon")
    if program and os.path.isdir("/sys/fs/selinux") and os.listdir("/sys/fs/selinux"):
        subprocess.run([program, "-R", path], check=False, capture_output=True, timeout=60)


def user_id(name: str | None, default: int) -> int:
    """A user's name or number as an id.

    Raises:
        RepositoryError: no such user.
    """
    return _id(name, default, lambda text: pwd.getpwnam(text).pw_uid, "user")


def group_id(name: str | None, default: int) -> int:
    """As ``user_id``, for groups."""
    return _id(name, default, lambda text: grp.getgrnam(text).gr_gid, "group")


def _id(name: str | None, default: int, look_up: Any, what: str) -> int:
    if name is None:
        return default
    if str(name).isdigit():
        return int(name)
    try:
        return look_up(name)
    except KeyError as error:
        raise RepositoryError(
            f"there is no {what} '{name}' on this host", step="set the files' permissions"
        ) from error


def stat_or_none(path: str) -> os.stat_result | None:
    """Of the path itself, not of what a link leads to; None where there is nothing."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def inode(path: str) -> int | None:
    """The inode at ``path``, None where there is nothing."""
    found = stat_or_none(path)
    return found.st_ino if found else None


def is_mount_point(path: str) -> bool:
    """True for bind mounts of the same file system too, across which no rename is possible."""
    real = os.path.realpath(path)
    if os.path.ismount(real):
        return True
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            points = {line.split(" ", 5)[4].encode().decode("unicode_escape") for line in stream}
    except OSError:
        return False
    return real in points


def free_bytes(path: str) -> int:
    """Bytes that this user may still write on the file system of ``path``."""
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def bytes_below(folder: str) -> int:
    """The bytes of all files under a folder that others may be changing."""
    total = 0
    for current, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.path.getsize(os.path.join(current, name))
    return total


def hash_file(path: str) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as stream:
        return hash_stream(stream)


def hash_stream(stream: Any) -> str:
    """sha256 of what is left of an open file, in hex."""
    return (
        hashlib.file_digest(stream, "sha256").hexdigest()
        if hasattr(hashlib, "file_digest")
        else _hash(stream)
    )


def _hash(stream: Any) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
