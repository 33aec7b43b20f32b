# SPDX-License-Identifier: Apache-2.0
"""The end of a server's log, where that is a file of this host.

The server says where its log is, or the user does (``server_log``). A server may be hostile, and
the module root: what a server names is read only where anybody may read it, or where it belongs to
the user whose process listens at the server's address. The user's own file is read as it is, but
through no link that somebody else has made.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from ..errors import ArtifactError
from ..loopback import is_loopback
from ..no_follow import open_file
from .address import Address

_TAIL = 1 << 18
_MOST_LINKS = 40
_LISTENS = "0A"


class NotRead(Exception):
    """Why a log is not read, for the middle of a sentence."""


def tail_of_users_log(path: str) -> str:
    """The end of the file that the user named. Raises NotRead."""
    return _tail(_resolved(os.path.abspath(path)), None)


def tail_of_named_log(path: object, address: Address) -> str:
    """The end of the file that the server at ``address`` named. Raises NotRead."""
    if not isinstance(path, str) or not path:
        raise NotRead("it names no file")
    if not os.path.isabs(path) or "\0" in path or os.path.normpath(path) != path:
        raise NotRead(f"{path} is no whole path")
    return _tail(path, address)


def _tail(path: str, address: Address | None) -> str:
    try:
        with open_file(path) as stream:
            info = os.fstat(stream.fileno())
            if info.st_nlink != 1:
                raise NotRead(f"{path} has another name beside this one")
            if address and not _is_everybodys(path, info) and info.st_uid not in _users_at(address):
                raise NotRead(f"not everybody may read {path}, and it is not the server's")
            stream.seek(max(0, info.st_size - _TAIL))
            return stream.read(_TAIL).decode(errors="replace")
    except ArtifactError as error:
        raise NotRead(error.message) from error
    except (OSError, ValueError) as error:
        raise NotRead(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _resolved(path: str) -> str:
    """``path`` without links; those are followed that are root's, or of who runs this."""
    todo, done, links = [part for part in path.split("/") if part][::-1], "/", 0
    while todo:
        here = os.path.normpath(os.path.join(done, todo.pop()))
        try:
            info = os.lstat(here)
            target = os.readlink(here) if stat.S_ISLNK(info.st_mode) else None
        except OSError as error:
            raise NotRead(f"{here}: {error.strerror}") from error
        if target is None:
            done = here
            continue
        links += 1
        if info.st_uid not in (0, os.geteuid()) or links > _MOST_LINKS:
            raise NotRead(f"{here} is a link that somebody else has made")
        todo += [part for part in target.split("/") if part][::-1]
        done = "/" if os.path.isabs(target) else done
    return done


def _is_everybodys(path: str, info: os.stat_result) -> bool:
    """Whether anybody may read a file, and pass through the folders above it."""
    above = [path[:at] or "/" for at, sign in enumerate(path) if sign == "/"]
    passable = all(os.stat(folder).st_mode & stat.S_IXOTH for folder in above)
    return bool(info.st_mode & stat.S_IROTH) and passable


def _users_at(address: Address) -> set[int]:
    """The users whose processes listen at a loopback address; none where it is another host's."""
    found: set[int] = set()
    if not is_loopback(address.host):
        return found
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError, ValueError, IndexError), open(table, encoding="ascii") as lines:
            for fields in map(str.split, list(lines)[1:]):
                port = int(fields[1].rpartition(":")[2], 16)
                if port == address.port and fields[3] == _LISTENS:
                    found.add(int(fields[7]))
    return found
