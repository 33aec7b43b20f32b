# SPDX-License-Identifier: Apache-2.0
"""Bytes for a library that takes paths only. A private key never becomes a file of this host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DeliveryError


@contextmanager
def file_in_memory(data: bytes = b"") -> Iterator[str]:
    """A path that holds ``data`` for as long as the context lasts; other users cannot open it."""
    if not hasattr(os, "memfd_create"):
        raise DeliveryError("signatures need files in memory, which only Linux has")
    number = os.memfd_create("signature", os.MFD_CLOEXEC)
    with open(number, "r+b", buffering=0) as file:
        at = 0
        while at < len(data):
            at += file.write(data[at:])
        yield f"/proc/self/fd/{number}"


def read_back(path: str) -> bytes:
    """What was written to such a path."""
    with open(path, "rb") as file:
        return file.read()
