# SPDX-License-Identifier: Apache-2.0
"""Of which class the object in a file of scikit-learn is, from a few bytes of the file, so that a
plan knows it without a download. The file decides when it is here: its reader believes nothing of
this.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable

from ..errors import ArtifactError

Look = Callable[[int, int], "bytes | None"]
"""Gives some bytes from an offset on; None where nobody does."""
_HEAD = 4096
_MOST_BYTES = 1 << 20
_MOST_LOOKS = 16
_SCHEMA = "schema.json"
# The words of a pickle that name the class of its object: of protocols 4 and 5, and of 2 and 3.
_NEW = re.compile(
    rb"\x80[\x04\x05](?:\x95.{8})?\x8c(.)([\w.]{1,200})\x94?\x8c(.)(\w{1,100})\x94?\x93", re.DOTALL
)
_OLD = re.compile(rb"\x80[\x02\x03]c([\w.]{1,200})\n(\w{1,100})\n")
# skops writes the class of the object first.
_OUTLINE = re.compile(
    r'\s*\{\s*"__class__":\s*"(\w{1,100})",\s*"__module__":\s*"([\w.]{1,200})"', re.ASCII
)


def class_of(look: Look, size: int) -> str | None:
    """The class with its module, such as ``sklearn.pipeline.Pipeline``; None where that is not
    seen.

    Args:
        look: into the file, of ``size`` bytes.
    """
    try:
        head = look(0, min(_HEAD, size))
        if not head:
            return None
        if head.startswith(b"PK"):
            return _of_skops(_Parts(look, size))
        return _of_pickle(head)
    except (ArtifactError, OSError, ValueError, *_DAMAGED):
        return None


_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
)


def _of_pickle(head: bytes) -> str | None:
    if found := _NEW.match(head):
        length, module, other, name = found.groups()
        if (length[0], other[0]) != (len(module), len(name)):
            return None
        return f"{module.decode('ascii')}.{name.decode('ascii')}"
    if found := _OLD.match(head):
        return f"{found[1].decode('ascii')}.{found[2].decode('ascii')}"
    return None


def _of_skops(parts: _Parts) -> str | None:
    with zipfile.ZipFile(parts) as archive, archive.open(_SCHEMA) as file:
        found = _OUTLINE.match(file.read(_HEAD).decode("utf-8", "replace"))
    return f"{found[2]}.{found[1]}" if found else None


class _Parts(io.RawIOBase):
    """A file of which only parts are brought, and not many."""

    def __init__(self, look: Look, size: int) -> None:
        super().__init__()
        self._look, self._size, self._at, self._looks = look, size, 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        wanted = min(self._size - self._at, self._size if size < 0 else size)
        if wanted <= 0:
            return b""
        self._looks += 1
        if wanted > _MOST_BYTES or self._looks > _MOST_LOOKS:
            raise EOFError("it would take too many bytes")
        data = self._look(self._at, wanted)
        if data is None:
            raise EOFError("the store gives no parts")
        self._at += len(data)
        return data
