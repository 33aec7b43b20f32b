# SPDX-License-Identifier: Apache-2.0
"""What the two sides of a worker say to each other. This file is served with the model: standard
library only, any Python from 3.8 on.

One side sends, the other answers: a JSON header over a socket, and the bytes of the tensors in
shared memory that the sender keeps and uses again. A descriptor of it travels when it is new.
Nothing is unpickled, and no number is written as text.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import mmap
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

PROTOCOL = 1
MOST_HEADER = 16 * 1024 * 1024
MOST_PARTS = 4096
KEPT_MEMORY = 64 * 1024 * 1024
"""More than this is given back once it has been read."""

_MAGIC = b"MTP1"
_PREFIX = struct.Struct("<4sI")
_LENGTH = struct.Struct("<I")
_ALIGNED = 64
_LEAST_MEMORY = 256 * 1024
_READ = 64 * 1024
_SECONDS_TO_SEND = 60
_SEALS = fcntl.F_SEAL_SHRINK
_MOST_MEMORY = 1 << 40


class WireError(Exception):
    """What came is no message."""


class Ended(Exception):
    """The other side is gone."""


class TookTooLong(Exception):
    """Nothing came before the deadline."""


class Memory:
    """Shared memory that its owner writes: as large as was needed so far, and no descriptor of it
    can make it smaller under the reader.
    """

    def __init__(self, size: int) -> None:
        self.size = _LEAST_MEMORY
        while self.size < size:
            self.size *= 2
        self.descriptor = os.memfd_create("mlops_triton", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, self.size)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self.map = mmap.mmap(self.descriptor, self.size)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.used = 0

    def write(self, places: Sequence[Sequence[int]], parts: Sequence[Sequence[memoryview]]) -> None:
        with memoryview(self.map) as view:
            for (offset, length), part in zip(places, parts):
                at = offset
                for piece in part:
                    if piece.nbytes:
                        view[at : at + piece.nbytes] = piece
                        at += piece.nbytes
                self.used = max(self.used, offset + length)

    def give_back(self) -> None:
        """What one large message took; the reader has read it."""
        if self.used > KEPT_MEMORY:
            with contextlib.suppress(OSError):
                self.map.madvise(mmap.MADV_REMOVE, KEPT_MEMORY, self.size - KEPT_MEMORY)
        self.used = 0

    def close(self) -> None:
        os.close(self.descriptor)
        # A tensor of it may still be in use; it goes with the last one.
        with contextlib.suppress(BufferError):
            self.map.close()


def lay_out(parts: Sequence[Sequence[memoryview]]) -> tuple[list[list[int]], int]:
    """[offset, length] of each part, and the end."""
    places, end = [], 0
    for part in parts:
        length = sum(piece.nbytes for piece in part)
        places.append([end, length])
        end = -(-(end + length) // _ALIGNED) * _ALIGNED
    return places, end


class Channel:
    """One end of the conversation. No two threads use it at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._ours: Memory | None = None
        self._theirs: mmap.mmap | None = None

    def close(self) -> None:
        self._socket.close()
        if self._ours is not None:
            self._ours.close()
            self._ours = None
        self._theirs = None

    def send(self, header: dict[str, Any], parts: Sequence[Sequence[memoryview]] = ()) -> None:
        """Each part is written as its pieces, one behind the other; they are contiguous bytes.
        Raises Ended, WireError (too much to say in one message).
        """
        if len(parts) > MOST_PARTS:
            raise WireError(f"a message has {len(parts)} tensors, more than {MOST_PARTS}")
        places, end = lay_out(parts)
        new = self._room_for(end)
        if self._ours is not None:
            self._ours.write(places, parts)
        body = json.dumps({**header, "parts": places, "new": bool(new)}).encode("ascii")
        if len(body) > MOST_HEADER:
            raise WireError(f"a message's header takes {len(body)} bytes, more than {MOST_HEADER}")
        self._send(_PREFIX.pack(_MAGIC, len(body)) + body, new)

    def done(self) -> None:
        """The last message has been read, and is not needed any more."""
        if self._ours is not None:
            self._ours.give_back()

    def _room_for(self, size: int) -> list[int]:
        """Descriptors to send along: of memory that is new."""
        if not size or (self._ours is not None and self._ours.size >= size):
            return []
        fresh = Memory(size)
        if self._ours is not None:
            self._ours.close()
        self._ours = fresh
        return [fresh.descriptor]

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self._socket.settimeout(_SECONDS_TO_SEND)
        try:
            sent = self._socket.sendmsg([message], told if descriptors else [])
            if sent < len(message):
                self._socket.sendall(memoryview(message)[sent:])
        except OSError as err:
            raise Ended(str(err)) from err

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], list[memoryview]]:
        """(header, parts) until ``deadline``, a time of the monotonic clock. The parts are the
        sender's memory: they change when the next message is asked for. Raises Ended, WireError,
        TookTooLong.
        """
        descriptors: list[int] = []
        try:
            body = self._receive_body(deadline, descriptors)
            try:
                header = json.loads(body)
            except (ValueError, RecursionError) as err:
                raise WireError("a header is no JSON") from err
            if not isinstance(header, dict):
                raise WireError("a header is no object")
            places = header.pop("parts", [])
            if header.pop("new", False) is not bool(descriptors) or len(descriptors) > 1:
                raise WireError("a message came without its memory, or with another one")
            if descriptors:
                self._theirs = _map(descriptors[0])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return header, self._parts(places)

    def _receive_body(self, deadline: float | None, descriptors: list[int]) -> bytes:
        got = self._receive_some(deadline, _READ, descriptors)
        while len(got) < _PREFIX.size:
            got += self._receive_some(deadline, _READ, descriptors)
        magic, length = _PREFIX.unpack_from(got)
        if magic != _MAGIC or length > MOST_HEADER:
            raise WireError("what came is no message")
        if len(got) == _PREFIX.size + length:
            return bytes(got[_PREFIX.size :])
        whole = bytearray(got)
        while len(whole) < _PREFIX.size + length:
            whole += self._receive_some(
                deadline, min(_PREFIX.size + length - len(whole), 1 << 20), descriptors
            )
        if len(whole) > _PREFIX.size + length:
            raise WireError("more came than one message")
        return bytes(whole[_PREFIX.size :])

    def _receive_some(self, deadline: float | None, most: int, descriptors: list[int]) -> bytes:
        if deadline is None:
            self._socket.settimeout(None)
        else:
            # A timeout of 0 would mean that the socket does not block.
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            got, told, flags, _address = self._socket.recvmsg(
                most, socket.CMSG_SPACE(4 * _LENGTH.size), socket.MSG_CMSG_CLOEXEC
            )
        except (socket.timeout, BlockingIOError) as err:  # noqa: UP041
            raise TookTooLong from err
        except OSError as err:
            raise Ended(str(err)) from err
        for level, kind, data in told:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
                descriptors.extend(found)
        if flags & socket.MSG_CTRUNC:
            raise WireError("more descriptors came than a message has")
        if not got:
            raise Ended("the connection was closed")
        return got

    def _parts(self, places: Any) -> list[memoryview]:
        if not isinstance(places, list) or len(places) > MOST_PARTS:
            raise WireError("a message has too many tensors")
        whole = memoryview(self._theirs) if self._theirs is not None else memoryview(b"")
        parts = []
        for place in places:
            if not isinstance(place, list) or [type(each) for each in place] != [int, int]:
                raise WireError("a tensor has no place")
            offset, length = place
            if offset < 0 or length < 0 or (length and offset + length > whole.nbytes):
                raise WireError("a tensor lies outside the memory")
            parts.append(whole[offset : offset + length] if length else memoryview(b""))
        return parts


def _map(descriptor: int) -> mmap.mmap:
    """Memory of the other side. What could shrink would end this process at the next read."""
    try:
        if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise WireError("the memory of a message could shrink")
        size = os.fstat(descriptor).st_size
        if not 0 < size <= _MOST_MEMORY:
            raise WireError("the memory of a message has no size")
        return mmap.mmap(descriptor, size)
    except (OSError, ValueError, OverflowError) as err:
        raise WireError("a message brought something else than memory") from err


def pack_texts(values: Sequence[bytes]) -> memoryview:
    """Byte strings as Triton writes them: each behind its length, 4 bytes, little-endian."""
    pieces: list[bytes] = []
    for value in values:
        pieces.append(_LENGTH.pack(len(value)))
        pieces.append(value)
    return memoryview(b"".join(pieces))


def unpack_texts(raw: memoryview, count: int) -> list[bytes]:
    """Raises WireError unless these are exactly ``count`` byte strings."""
    data = bytes(raw)
    values: list[bytes] = []
    at = 0
    while at < len(data) and len(values) < count:
        if at + _LENGTH.size > len(data):
            break
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            break
        values.append(data[at : at + length])
        at += length
    if len(values) != count or at != len(data):
        raise WireError("a tensor of texts does not hold as many as its shape says")
    return values
