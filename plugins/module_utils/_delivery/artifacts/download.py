# SPDX-License-Identifier: Apache-2.0
"""One remote file onto this disk: in ranges side by side where the server has them, taken up again
after a break, hashed on the way.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol

from ..errors import ArtifactError, DeliveryError
from .transfer import SLOTS, Broken, Cancelled, Stream, pause

CHUNK = 16 << 20
"""Bytes of a range. One after the other is asked for, so that hashing in order follows closely."""
LARGE = 4 * CHUNK
_SIDE_BY_SIDE = 3
_READ = 4 << 20
_WAITS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_NOTHING_CAME = 2
_RESTARTS = 3
_ENOUGH = 1 << 20
_LOOK = 0.25


class Body(Protocol):
    """An open answer: pieces as they come, in any size.

    Attributes:
        start: offset of its first byte in the file.
        end: offset after its last byte; None where it does not tell.
        tag: what changes with the content (a strong ETag), None where the server has none.
        splits: whether ranges of the same content can be asked for besides.
    """

    start: int
    end: int | None
    tag: str | None
    splits: bool

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Store(Protocol):
    """Where a file is read from."""

    def open(
        self, path: str, start: int = 0, end: int | None = None, tag: str | None = None
    ) -> Body:
        """Begin to read a file from ``start`` to ``end`` (not included), or all of it where it no
        longer has ``tag``.

        Raises:
            NotFound, ArtifactError, ``Unreachable``, or ``Broken`` where another try may do.
        """

    def no_ranges(self) -> None:
        """Ranges of this server's files do not fit together: none need be tried again."""


class _Restart(Exception):
    """What came so far is worth nothing: the file is another one now, or the server cannot go on in
    the middle.
    """


class _Span:
    """Bytes ``start`` to ``end`` of a file; all before ``at`` are there."""

    def __init__(self, start: int, end: int) -> None:
        self.at, self.end = start, end


class _Retries:
    """How often a break is borne: more often where much came before it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._breaks = 0
        self._at = 0

    def wait(self, error: DeliveryError, at: int) -> None:
        """Wait a little longer than the last time, or raise the error."""
        self._breaks = 1 if at - self._at >= _ENOUGH else self._breaks + 1
        self._at = at
        if self._breaks > (len(_WAITS) if at else _NOTHING_CAME):
            raise error
        pause(self._stream, _WAITS[self._breaks - 1], error)


def download(
    store: Store, path: str, descriptor: int, size: int | None, stream: Stream
) -> tuple[int, str]:
    """Write a remote file to an open one, which can be read too and is empty.

    Args:
        size: bytes that it should have; None where nobody knows.

    Returns:
        Bytes that came, and their sha256 in hex.

    Raises:
        ArtifactError: it could not be read, or another number of bytes comes each time.
    """
    restarts = 0
    while True:
        try:
            return _Download(store, path, descriptor, size, stream).run()
        except _Restart as again:
            error = (
                again.__cause__
                if isinstance(again.__cause__, DeliveryError)
                else ArtifactError(f"{path} changes while it is read")
            )
            restarts += 1
            if restarts > _RESTARTS:
                raise error from again
            pause(stream, _WAITS[restarts - 1], error)
            os.ftruncate(descriptor, 0)
            stream.again()


class _Download:
    """One attempt, from the first byte to the last."""

    def __init__(
        self, store: Store, path: str, descriptor: int, size: int | None, stream: Stream
    ) -> None:
        self.store, self.path, self.descriptor, self.size, self.stream = (
            store,
            path,
            descriptor,
            size,
            stream,
        )
        self.tag: str | None = None

    def run(self) -> tuple[int, str]:
        digest, patience, at = hashlib.sha256(), _Retries(self.stream), 0
        while True:
            try:
                with closing(self.open_from(at)) as body:
                    self.tag = body.tag
                    if at == 0 and self.size is not None and self._splits(body, self.size):
                        return self.size, _Split(self, self.size).bring(body)
                    for piece in body:
                        self.stream.add(len(piece))
                        digest.update(piece)
                        write(self.descriptor, piece, at)
                        at += len(piece)
                        # What is longer than listed may be without end, and would fill the disk;
                        # that it is longer is told to who listed it.
                        if self.size is not None and at > self.size:
                            return at, digest.hexdigest()
                # What is shorter than listed, and says so, will not get longer.
                expected = self.size if body.end is None else body.end
                if expected is None or at >= expected:
                    return at, digest.hexdigest()
                raise Broken(f"{at} bytes came instead of {expected}")
            except Broken as error:
                if at and not self.tag:
                    raise _Restart from error
                patience.wait(error, at)

    def _splits(self, body: Body, size: int) -> bool:
        """Ranges of what was listed would hide that an answer has more than that."""
        return size >= LARGE and body.splits and body.tag is not None and body.end == size

    def open_from(self, at: int, end: int | None = None) -> Body:
        """The rest of the file, or of a part of it; the same file as before.

        Raises:
            _Restart: it is another one now.
        """
        body = self.store.open(self.path, at, end, self.tag)
        if body.start != at or (self.tag and body.tag != self.tag):
            body.close()
            raise _Restart(self.path)
        return body


class _Split:
    """A large file in ranges. The first answer goes on alone until another connection has proven
    that ranges fit together.
    """

    def __init__(self, whole: _Download, size: int) -> None:
        self._whole, self._size = whole, size
        self._spans = [_Span(0, CHUNK)]
        self._first = 0
        self._changed = threading.Condition()
        self._proof: bool | None = None
        self._failure: BaseException | None = None
        self._digest = hashlib.sha256()
        self._helpers: list[threading.Thread] = []

    def bring(self, body: Body) -> str:
        """Returns the sha256 of all, when all is there."""
        hasher = threading.Thread(target=self._guard, args=(self._hash,), daemon=True, name="hash")
        hasher.start()
        self._help(self._prove)
        try:
            self._fill(self._spans[0], body)
            self._claim_all()
            self._wait_for_helpers()
        except Cancelled as error:
            self._fail(error)  # another thread's failure, where there was one, is the reason
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            hasher.join()
        if self._failure:
            raise self._failure
        return self._digest.hexdigest()

    # -- threads -----------------------------------------------------------------------------------

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # raised again in the thread that waits
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._proof = bool(self._proof)
            self._changed.notify_all()

    def _help(self, work: Callable[[], None]) -> None:
        """Do it in a thread of its own, where this process has not too many connections already."""
        if not SLOTS.acquire(blocking=False):
            if self._proof is None:
                self._alone()
            return

        def assist() -> None:
            try:
                self._guard(work)
            finally:
                SLOTS.release()

        thread = threading.Thread(target=assist, daemon=True, name=f"range of {self._whole.path}")
        self._helpers.append(thread)
        thread.start()

    def _wait_for_helpers(self) -> None:
        with self._changed:
            while self._failure is None and self._front() < self._size:
                self._wait()
        if self._failure is None:
            for helper in self._helpers:
                helper.join()

    def _wait(self) -> None:
        """Until something has changed; the lock is held. Raises ``Cancelled`` when nobody waits for
        the file any more.
        """
        self._changed.wait(_LOOK)
        self._whole.stream.add(0)

    # -- parts -------------------------------------------------------------------------------------

    def _claim(self) -> _Span | None:
        with self._changed:
            start = self._spans[-1].end
            if start >= self._size or self._failure:
                return None
            self._spans.append(_Span(start, min(start + CHUNK, self._size)))
            return self._spans[-1]

    def _front(self) -> int:
        """How far all bytes are there; the lock is held."""
        while (
            self._first < len(self._spans) - 1
            and self._spans[self._first].at >= self._spans[self._first].end
        ):
            self._first += 1
        return self._spans[self._first].at

    def _prove(self) -> None:
        """Ask for the second part: is it of the same file?"""
        span = self._claim()
        if span is None:
            return
        try:
            body = self._whole.open_from(span.at, span.end)
        except _Restart:
            self._whole.store.no_ranges()
            self._alone()
            return
        except DeliveryError:
            self._alone()
            return
        with self._changed:
            self._proof = True
            self._changed.notify_all()
        for _more in range(_SIDE_BY_SIDE - 2):
            self._help(self._claim_all)
        self._fill(span, body)
        self._claim_all()

    def _alone(self) -> None:
        """The first answer brings everything."""
        with self._changed:
            del self._spans[1:]
            self._first = 0
            self._spans[0].end = self._size
            self._proof = False
            self._changed.notify_all()

    def _goes_on(self, span: _Span) -> bool:
        """Whether a part that seemed complete is not, because there are no others."""
        with self._changed:
            while span.at >= span.end and span is self._spans[0] and self._proof is None:
                self._wait()
            return span.at < span.end

    def _claim_all(self) -> None:
        while (span := self._claim()) is not None:
            self._fill(span)

    def _fill(self, span: _Span, body: Body | None = None) -> None:
        patience = _Retries(self._whole.stream)
        while self._goes_on(span):
            try:
                with closing(body or self._whole.open_from(span.at, span.end)) as answer:
                    for piece in answer:
                        if not self._put(span, piece):
                            return
                raise Broken(f"{span.at} bytes came instead of {span.end}")
            except Broken as error:
                patience.wait(error, span.at)
                body = None

    def _put(self, span: _Span, piece: bytes) -> bool:
        """Write a piece; False when the part is complete."""
        rest = memoryview(piece)
        while len(rest):
            if span.at >= span.end and not self._goes_on(span):
                return False
            now = rest[: span.end - span.at]
            self._whole.stream.add(len(now))
            with self._changed:
                # Under the lock: after a failure the file may be closed, and its number another
                # file's.
                if self._failure:
                    raise Cancelled(self._whole.path)
                write(self._whole.descriptor, now, span.at)
                span.at += len(now)
                self._changed.notify_all()
            rest = rest[len(now) :]
        return self._goes_on(span) if span.at >= span.end else True

    def _hash(self) -> None:
        done = 0
        while done < self._size:
            with self._changed:
                while (front := self._front()) <= done and not self._failure:
                    self._changed.wait()
                if self._failure:
                    return
            while done < front:
                data = os.pread(self._whole.descriptor, min(front - done, _READ), done)
                if not data:
                    raise ArtifactError("what was written cannot be read back")
                self._digest.update(data)
                done += len(data)


def write(descriptor: int, data: bytes | memoryview, at: int) -> None:
    """``pwrite`` all of it."""
    while data:
        count = os.pwrite(descriptor, data, at)
        data, at = data[count:], at + count
