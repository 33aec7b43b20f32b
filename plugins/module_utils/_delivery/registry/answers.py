# SPDX-License-Identifier: Apache-2.0
"""Bounds of what a registry may answer, and the numbers in it.

MLflow's client reads and unpacks whatever comes. Here the body of an answer is read before that, up
to a size and for a time; the client then finds it read.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from typing import Any

from ..domain.fields import WrongShape, whole
from ..errors import RegistryError
from ..outside import HttpAnswer

LARGEST = 64 << 20
"""Bytes of one answer: a page of a thousand versions has one MiB, where people wrote little."""
_PIECE = 1 << 16
_PATIENCE = 120.0
ENCODINGS = "gzip, deflate"
"""What is asked for, and so what may come: these are unpacked piece by piece."""


class BadAnswer(Exception):
    """Becomes a sentence about the registry where it is caught."""


def read_within_bounds(answer: HttpAnswer, **options: Any) -> None:
    """A hook of requests. Raises BadAnswer."""
    if options.get("stream"):
        return
    encoding = str(answer.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", *ENCODINGS.split(", ")):
        answer.close()
        raise BadAnswer(f"it answers packed as {encoding}, which was not asked for")
    parts, size = [], 0
    for part in _unpacked(_pieces(answer, _seconds(options.get("timeout"))), encoding):
        size += len(part)
        if size > LARGEST:
            answer.close()
            raise BadAnswer(f"its answer has more than {LARGEST >> 20} MiB")
        parts.append(part)
    answer._content, answer._content_consumed = b"".join(parts), True


def _seconds(timeout: object) -> float:
    one = timeout[-1] if isinstance(timeout, tuple) and timeout else timeout
    return float(one) if isinstance(one, (int, float)) else _PATIENCE


def _pieces(answer: HttpAnswer, seconds: float) -> Iterator[bytes]:
    """As they arrive: a peer that sends a byte a second trips no time-out of requests."""
    raw, end = answer.raw, time.monotonic() + seconds
    # urllib3 1.x has no read1, and its read waits until all that was asked for is there.
    read, size = (raw.read1, _PIECE) if hasattr(raw, "read1") else (raw.read, 1 << 10)
    while piece := read(size, decode_content=False):
        yield piece
        if time.monotonic() > end:
            answer.close()
            raise BadAnswer(f"its answer took more than {seconds:g} s")


def _unpacked(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    if encoding == "identity":
        yield from pieces
        return
    unpacker: Any = None
    for piece in pieces:
        # Some servers send deflate without the header of zlib.
        bare = encoding == "deflate" and piece[0] & 0x0F != zlib.DEFLATED
        unpacker = unpacker or zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
        while piece and not unpacker.eof:
            try:
                yield unpacker.decompress(piece, _PIECE)
            except zlib.error as error:
                raise BadAnswer(f"its answer cannot be unpacked ({error})") from error
            piece = unpacker.unconsumed_tail


def number(value: object, what: str, said_by: str) -> int:
    """A number that the registry gives as a text. Raises RegistryError."""
    try:
        return whole(value, what)
    except WrongShape as error:
        raise RegistryError(
            f"{said_by} does not answer as an MLflow server does: {error}", step="read"
        ) from error
