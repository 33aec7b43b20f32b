# SPDX-License-Identifier: Apache-2.0
"""A file that somebody else has opened: whoever reads it need not have the right to open it.
Standard library only.
"""

from __future__ import annotations

import io
import mmap
import os
from typing import BinaryIO, cast


class GivenFile(str):
    """The name of a file, which is read through a descriptor or from bytes."""

    descriptor: int | None
    data: bytes | None

    @classmethod
    def of(cls, name: str, descriptor: int) -> GivenFile:
        made = cls(name)
        made.descriptor, made.data = descriptor, None
        return made

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> GivenFile:
        made = cls(name)
        made.descriptor, made.data = None, data
        return made


def opened(path: str) -> BinaryIO:
    """The file, at its beginning."""
    if not isinstance(path, GivenFile):
        return open(path, "rb")
    if path.descriptor is None:
        return io.BytesIO(path.data or b"")
    # A duplicate shares the place in the file, which nobody else uses meanwhile.
    file = cast(BinaryIO, os.fdopen(os.dup(path.descriptor), "rb"))
    file.seek(0)
    return file


def view_of(file: BinaryIO) -> memoryview:
    """All bytes of a file, which are not copied: views into them may be kept."""
    if isinstance(file, io.BytesIO):
        return memoryview(file.getvalue())
    if not file.seek(0, 2):
        return memoryview(b"")
    # Not closed by hand: the views into it, which an exception's traceback holds too, must be gone
    # before.
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
