# SPDX-License-Identifier: Apache-2.0
"""A file of this host copied: shared extents where the file system has them, else in the kernel,
hashed and flushed as it goes. Never a hard link.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_FICLONE = 0x40049409
_STEP = 16 << 20
_READ = 4 << 20
_SMALL = 1 << 20
Moved = Callable[[int], None]
"""Called with the bytes of each step; what it raises ends the copy."""


def copy_hashed(
    source: int, target: int, moved: Moved, copied: Callable[[], None]
) -> tuple[int, str]:
    """Copy an open file into an empty one, which can be read too, and flush that to its disk.

    Args:
        copied: called when all bytes are there; the last of them are still hashed and flushed, at
            the same time. Where extents are shared, that is all of them.

    Returns:
        Its bytes, and the sha256 of what is in ``target`` now.
    """
    if os.fstat(source).st_size > _SMALL:
        with _Follower(target) as follower:
            for count in _steps(source, target):
                moved(count)
                follower.more(count)
            copied()
            os.fsync(target)
        return follower.done, follower.digest.hexdigest()
    digest, size = hashlib.sha256(), 0
    while data := os.read(source, _READ):
        write_all(target, data)
        digest.update(data)
        size += len(data)
        moved(len(data))
    copied()
    os.fsync(target)
    return size, digest.hexdigest()


def write_all(target: int, data: bytes | memoryview) -> None:
    while data:
        data = data[os.write(target, data) :]


def _steps(source: int, target: int) -> Any:
    """Copy in the way that costs least here; yields the bytes of each step."""
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        yield os.fstat(target).st_size
        return
    done = 0
    try:
        while count := os.copy_file_range(source, target, _STEP):
            done += count
            yield count
    except OSError:
        if done:
            raise
    if not done:  # some file systems answer 0 instead of an error
        while data := os.read(source, _STEP):
            write_all(target, data)
            yield len(data)


class _Follower:
    """Hashes a file that is being written, from the page cache, in a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        self.digest = hashlib.sha256()
        self.done = 0
        self._descriptor = descriptor
        self._there = 0
        self._whole = self._abandoned = False
        self._failure: OSError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="hash")

    def more(self, count: int) -> None:
        with self._changed:
            self._there += count
            self._changed.notify()

    def __enter__(self) -> _Follower:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_exc: object) -> None:
        with self._changed:
            self._whole, self._abandoned = True, kind is not None
            self._changed.notify()
        self._thread.join()
        if self._failure and kind is None:
            raise self._failure

    def _follow(self) -> None:
        while True:
            with self._changed:
                while self.done >= self._there and not self._whole:
                    self._changed.wait()
                there = self._there
                if self._abandoned or self.done >= there:
                    return
            try:
                data = os.pread(self._descriptor, min(_READ, there - self.done), self.done)
            except OSError as error:
                self._failure = error
                return
            if not data:
                self._failure = OSError(5, "the copy is shorter than what was written")
                return
            self.digest.update(data)
            self.done += len(data)
