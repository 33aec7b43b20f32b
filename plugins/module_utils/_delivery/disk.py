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
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from . import rights
from .effects import effect
from .errors import RepositoryError
from .no_follow import open_to_read, reach, refuse_hard_link

Place = tuple[int, str]
"""An open folder, and a name in it."""
FOLDER_MODE, FILE_MODE = 0o755, 0o644
SMALL = 64 << 20
"""Bytes of a record, a journal or a configuration, which are a thousandth of that."""
_FOLLOWED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _FOLLOWED | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_NO_SUCH_CALL = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_CHUNK = 1 << 20
_DEEPEST = 100
BESIDE = ".new"
Fingerprint = dict[str, list[int]]


def _renameat2(source: Place, target: Place, flags: int) -> None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError as error:
        raise OSError(errno.ENOSYS, "this C library has no renameat2") from error
    (one, name), (other, new) = source, target
    if function(one, os.fsencode(name), other, os.fsencode(new), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name, None, new)


def exchange(live: str, staged: str) -> bool:
    """Swap two paths, both of which exist, in one step.

    Returns:
        True where it was atomic; False where the file system has no exchange and three renames were
            made, between
        which the live path is missing for a moment.
    """
    with effect("exchange", live), reach(live) as one, reach(staged) as other:
        try:
            _renameat2(one, other, _RENAME_EXCHANGE)
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise
        else:
            _flush(one[0])
            _flush(other[0])
            return True
    aside = staged + ".aside"
    for source, target in ((live, aside), (staged, live), (aside, staged)):
        rename(source, target)
    fsync_folder(os.path.dirname(live))
    return False


def rename(source: str, target: str) -> None:
    """Rename over whatever file is at ``target``."""
    with effect("rename", target), reach(source) as (one, name), reach(target) as (other, new):
        os.rename(name, new, src_dir_fd=one, dst_dir_fd=other)


def replace(source: str, target: str) -> None:
    """Give ``target`` the file that lies at ``source``."""
    with effect("replace", target), reach(source) as (one, name), reach(target) as (other, new):
        os.replace(name, new, src_dir_fd=one, dst_dir_fd=other)


def move_new(source: str, target: str) -> None:
    """Rename to a path that must not exist yet.

    Raises:
        FileExistsError: it does.
    """
    with effect("rename", target), reach(source) as one, reach(target) as other:
        try:
            _renameat2(one, other, _RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise
            if _look_at(*other) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
            os.rename(one[1], other[1], src_dir_fd=one[0], dst_dir_fd=other[0])
        _flush(other[0])


def make_folder(path: str, mode: int = FOLDER_MODE) -> None:
    """Like ``mkdir -p``; each folder that is made has this mode, whatever the umask."""
    if not is_folder(path):
        with effect("mkdir", path):
            _make(os.path.abspath(path), mode)


def _make(path: str, mode: int) -> None:
    if is_folder(path):
        return
    _make(os.path.dirname(path), mode)
    with reach(path) as (above, name), contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=above)
        folder = os.open(name, _FOLDER, dir_fd=above)
        try:
            os.fchmod(folder, mode)
        finally:
            os.close(folder)
    if not is_folder(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


def is_folder(path: str) -> bool:
    """As ``os.path.isdir``, where root may go."""
    try:
        with reach(path, last=True) as (above, name):
            return stat.S_ISDIR(os.stat(name, dir_fd=above).st_mode)
    except OSError:
        return False


def is_there(path: str) -> bool:
    """As ``os.path.exists``, where root may go."""
    try:
        with reach(path, last=True) as (above, name):
            os.stat(name, dir_fd=above)
    except OSError:
        return False
    return True


def entries(path: str) -> list[str]:
    """The names in a folder; none where there is no folder."""
    try:
        with reach(path, last=True) as (above, name):
            folder = os.open(name, _FOLDER if rights.is_root() else _FOLLOWED, dir_fd=above)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return sorted(os.listdir(folder))
    finally:
        os.close(folder)


def write_file(path: str, data: bytes | memoryview, mode: int = FILE_MODE) -> None:
    """Write a new file of a private folder and flush it."""
    with effect("write", path), reach(path) as (above, name):
        _write(above, name, data, mode)


def _write(above: int, name: str, data: bytes | memoryview, mode: int) -> None:
    """In the place of whatever has this name: nothing is written through a link."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=above)
    with os.fdopen(os.open(name, _NEW, 0o600, dir_fd=above), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())


def replace_file(path: str, data: bytes, mode: int = FILE_MODE, folder: str | None = None) -> None:
    """Write beside ``path`` (or in ``folder``) and rename over it: readers see the old bytes or the
    new ones.

    The caller holds a lock: what a killed run left beside it is written over, so that such files do
    not gather.
    """
    beside = os.path.join(folder or os.path.dirname(path), f"{os.path.basename(path)}{BESIDE}")
    with reach(path) as (above, name), reach(beside) as (place, new):
        try:
            _write(place, new, data, mode)
            with effect("replace", path):
                os.replace(new, name, src_dir_fd=place, dst_dir_fd=above)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=place)
            raise
        _flush(above)


def write_json(
    path: str, data: Mapping[str, Any], mode: int = FILE_MODE, folder: str | None = None
) -> None:
    replace_file(path, (json.dumps(data, indent=2, sort_keys=True) + "\n").encode(), mode, folder)


def link(target: str, path: str) -> None:
    """Make a symbolic link that says ``target``."""
    with effect("link", path), reach(path) as (above, name):
        os.symlink(target, name, dir_fd=above)


def remove_file(path: str) -> None:
    if stat_or_none(path) is not None:
        with effect("unlink", path), reach(path) as (above, name):
            os.unlink(name, dir_fd=above)
            _flush(above)


def remove_tree(path: str) -> None:
    """Remove a folder of ours, and no more than the link where it is one; a missing one is
    fine.
    """
    if stat_or_none(path) is None:
        return
    with effect("rmtree", path), reach(path) as (above, name):
        found = _look_at(above, name)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=above)
            return
        for _path, folders, files, here in _descend(name, above, False, ".", path):
            for entry in files:
                os.unlink(entry, dir_fd=here)
            for entry in folders:
                if stat.S_ISLNK(os.stat(entry, dir_fd=here, follow_symlinks=False).st_mode):
                    os.unlink(entry, dir_fd=here)
                else:
                    os.rmdir(entry, dir_fd=here)
        os.rmdir(name, dir_fd=above)


def fsync_folder(path: str) -> None:
    """Flush a folder's entries. File systems that cannot say so (EINVAL) are taken at their
    word.
    """
    with reach(path, last=True) as (above, name):
        descriptor = os.open(name, _FOLDER if rights.is_root() else _FOLLOWED, dir_fd=above)
        try:
            _flush(descriptor)
        finally:
            os.close(descriptor)


def _flush(folder: int) -> None:
    """As ``fsync_folder``, of one that is open in whatever way."""
    descriptor = os.open(".", _FOLDER, dir_fd=folder)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def fsync_tree_folders(root: str) -> None:
    for _path, _names, _files, folder in walk(root):
        _flush(folder)


def walk(root: str, *, topdown: bool = True) -> Iterator[tuple[str, list[str], list[str], int]]:
    """As ``os.fwalk``: no link below ``root`` is followed, whoever puts one there meanwhile; and at
    ``root`` itself as ``reach`` says. The paths are relative to ``root``.
    """
    try:
        with reach(root, last=True) as (above, name):
            if not rights.is_root():
                name = os.path.join(name, ".")  # what a link there leads to
            yield from _descend(name, above, topdown, ".", root)
    except (FileNotFoundError, NotADirectoryError):
        return


def _descend(
    name: str, above: int, topdown: bool, base: str, root: str, depth: int = 0
) -> Iterator[tuple[str, list[str], list[str], int]]:
    """As ``os.fwalk``, which opens what is no folder any more, and goes down without end."""
    if depth > _DEEPEST:
        there = shlex.quote(os.path.join(root, base.partition("/")[0]))
        raise RepositoryError(
            f"folders lie more than {_DEEPEST} deep in {root}: look at it, then run rm -r {there}"
        )
    try:
        folder = os.open(name, _FOLDER | os.O_NONBLOCK, dir_fd=above)
    except OSError as error:
        if depth == 0 and error.errno != errno.ELOOP:
            raise
        return
    try:
        names: list[str] = []
        files: list[str] = []
        with os.scandir(folder) as found:
            for entry in found:
                (names if entry.is_dir() else files).append(entry.name)
        if topdown:
            yield base, names, files, folder
        for entry_name in names:
            below = entry_name if base == "." else f"{base}/{entry_name}"
            yield from _descend(entry_name, folder, topdown, below, root, depth + 1)
        if not topdown:
            yield base, names, files, folder
    finally:
        os.close(folder)


def is_byproduct(path: str) -> bool:
    """True for what Triton's Python backend may write beside a model while it loads it."""
    return "__pycache__" in path.split("/")


def fingerprint(root: str) -> Fingerprint:
    """``{relative path: [size, mtime_ns, ctime_ns, inode, mode]}`` of every file and version folder
    below ``root``.
    """
    result: Fingerprint = {}
    for base, names, files, folder in walk(root):
        names.sort()
        for entry in [*files, *(name for name in names if not _names_in(name, folder))]:
            info = os.stat(entry, dir_fd=folder, follow_symlinks=False)
            result[os.path.normpath(os.path.join(base, entry))] = [
                info.st_size,
                info.st_mtime_ns,
                info.st_ctime_ns,
                info.st_ino,
                stat.S_IMODE(info.st_mode),
            ]
    return result


def _names_in(name: str, above: int) -> list[str]:
    """What lies in a folder; nothing where it is a link."""
    try:
        folder = os.open(name, _FOLDER, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return []
        raise
    try:
        return os.listdir(folder)
    finally:
        os.close(folder)


def newest(root: str) -> float:
    """The latest time of modification of ``root`` and all below it."""
    times = [0.0]
    for _base, names, files, folder in walk(root):
        times.append(os.fstat(folder).st_mtime)
        for entry in [*names, *files]:
            times.append(os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mtime)
    return max(times)


def touch_versions(folder: str, when: float) -> None:
    """Give the version folders of a model a time, in seconds since 1970."""
    for entry in entries(folder):
        if entry.isdigit():
            path = os.path.join(folder, entry)
            with effect("touch", path), reach(path) as (above, name):
                os.utime(name, (when, when), dir_fd=above, follow_symlinks=not rights.is_root())


def go_on_from(old: str, new: str) -> None:
    """Give the model folder ``new`` times above those of ``old``, whose place it takes, where they
    lie in the future: Triton may have seen them, and passes over what is older.
    """
    if is_folder(old) and is_folder(new) and (last := newest(old)) > time.time():
        touch_versions(new, last + 1)


def set_permissions(root: str, owner: int, group: int, mode: int) -> None:
    """Give every file below ``root`` (and ``root``) owner, group and mode; -1 leaves an id alone.

    Folders get an execute bit wherever the mode has a read bit. A folder is given away when all in
    it has been: its new owner changes nothing that is still to be done.
    """
    folder_mode = mode | ((mode & 0o444) >> 2)
    with effect("permissions", root):
        for base, _names, files, folder in walk(root, topdown=False):
            for name in files:
                _set_file(folder, name, owner, group, mode, os.path.join(root, base, name))
            _set_one(folder, owner, group, folder_mode)
        if not is_folder(root):
            with reach(root, last=True) as (above, name):
                _set_file(above, name, owner, group, mode, root)
        restore_context(root)


def _set_file(above: int, name: str, owner: int, group: int, mode: int, path: str) -> None:
    info = os.stat(name, dir_fd=above, follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        if _is_another(info, owner, group):
            os.chown(name, owner, group, dir_fd=above, follow_symlinks=False)
        return
    if not stat.S_ISREG(info.st_mode) or not _differs(info, owner, group, mode):
        return
    try:
        descriptor = os.open(name, _FILE, dir_fd=above)
    except PermissionError:
        if rights.is_root():
            raise
        # One's own, closed to oneself.
        os.chmod(name, mode, dir_fd=above)
        descriptor = os.open(name, _FILE, dir_fd=above)
    try:
        refuse_hard_link(above, os.fstat(descriptor), path)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            _set_one(descriptor, owner, group, mode)
    finally:
        os.close(descriptor)


def _set_one(descriptor: int, owner: int, group: int, mode: int) -> None:
    info = os.fstat(descriptor)
    if _is_another(info, owner, group):
        os.fchown(descriptor, owner, group)
    if stat.S_IMODE(info.st_mode) != mode or _is_another(info, owner, group):
        os.fchmod(descriptor, mode)


def _differs(info: os.stat_result, owner: int, group: int, mode: int) -> bool:
    return _is_another(info, owner, group) or stat.S_IMODE(info.st_mode) != mode


def _is_another(info: os.stat_result, owner: int, group: int) -> bool:
    return owner not in (-1, info.st_uid) or group not in (-1, info.st_gid)


def restore_context(path: str) -> None:
    """Give ``path`` the SELinux label that its place in the tree has; nothing where there is no
    SELinux.
    """
    program = shutil.which("restorecon")
    if program and os.path.isdir("/sys/fs/selinux") and os.listdir("/sys/fs/selinux"):
        command = [program, "-R", path]
        if user := rights.other():  # whose rights a program that is started would not have
            subprocess.run(
                command,
                check=False,
                capture_output=True,
                timeout=60,
                user=user,
                extra_groups=[],
            )
        else:
            subprocess.run(command, check=False, capture_output=True, timeout=60)


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
        with reach(path) as place:
            return _look_at(*place)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _look_at(above: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
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
                total += os.lstat(os.path.join(current, name)).st_size
    return total


def read_small(path: str) -> bytes:
    """The bytes of what somebody else may have written, at most so many. Raises OSError."""
    with open_to_read(path) as stream:
        return read_bounded(stream, path)


def read_bounded(stream: BinaryIO, path: str) -> bytes:
    """As ``read_small``, of an open file."""
    data = stream.read(SMALL + 1)
    if len(data) > SMALL:
        raise OSError(errno.EFBIG, f"it has more than {SMALL >> 20} MiB", path)
    return data


def copy_as(
    source: str, target: str, rights_there: Callable[[], AbstractContextManager[None]]
) -> None:
    """Copy a folder or a file with its modes, and write with the rights of the target's owner."""
    with effect("copy", target):
        modes = []
        for base, _names, files, folder in walk(source):
            place = os.path.normpath(os.path.join(target, base))
            with rights_there():
                make_folder(place)
            modes.append((place, os.fstat(folder).st_mode))
            for name in files:
                _copy_file(name, folder, os.path.join(place, name), rights_there)
        for place, mode in reversed(modes):
            with rights_there(), reach(place, last=True) as (above, name):
                _flush(above)
                descriptor = os.open(name, _FOLDER, dir_fd=above)
                os.fchmod(descriptor, stat.S_IMODE(mode))
                os.fsync(descriptor)
                os.close(descriptor)
        if not modes:
            with reach(source) as (above, name):
                _copy_file(name, above, target, rights_there)


def _copy_file(
    name: str, folder: int, target: str, rights_there: Callable[[], AbstractContextManager[None]]
) -> None:
    with os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb") as source:
        with rights_there(), reach(target) as (above, new):
            descriptor = os.open(new, _NEW, 0o600, dir_fd=above)
        with os.fdopen(descriptor, "wb") as stream:
            shutil.copyfileobj(source, stream, _CHUNK)
            stream.flush()
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(source.fileno()).st_mode))
            os.fsync(descriptor)


def hash_file(path: str) -> str:
    """sha256 of a file's bytes, in hex."""
    with open_to_read(path) as stream:
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
