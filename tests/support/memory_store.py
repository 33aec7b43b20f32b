# SPDX-License-Identifier: Apache-2.0
"""A store of files in memory whose answers break as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ansible_collections.mlops.triton.plugins.module_utils._delivery.artifacts.transfer import (
    Broken,
)


@dataclass(frozen=True)
class Break:
    """How one answer ends: after so many bytes, with an error or (``silent``) as if it were whole;
    ``hangs`` until this event is set.
    """

    after: int
    silent: bool = False
    hangs: threading.Event | None = None


@dataclass
class Question:
    """What was asked for."""

    start: int
    end: int | None
    tag: str | None


class MemoryBody:
    def __init__(
        self, data: bytes, start: int, end: int | None, tag: str | None, splits: bool, piece: int
    ) -> None:
        self.start, self.end, self.tag, self.splits = start, end, tag, splits
        self._data, self._piece = data, piece
        self.broken: Break | None = None
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        limit = len(self._data) if self.broken is None else self.broken.after
        data = self._data[:limit]
        for at in range(0, len(data), self._piece):
            yield data[at : at + self._piece]
        if self.broken is None:
            return
        if self.broken.hangs is not None:
            self.broken.hangs.wait(30)
        if not self.broken.silent:
            raise Broken("the connection broke")

    def close(self) -> None:
        self.closed = True


@dataclass
class MemoryStore:
    """One file.

    Attributes:
        data: what it holds now; ``tag`` changes with it, None for a server that has none.
        ranges: whether the server knows them; ``splits`` whether it says so.
        tells_length: whether an answer says where it ends.
        piece: bytes in which an answer comes.
        breaks: how answers end, by their number; the others are whole.
        before: called with the number of an answer before it is made.
        asked: the questions in their order.
    """

    data: bytes
    tag: str | None = '"1"'
    ranges: bool = True
    splits: bool = True
    tells_length: bool = True
    piece: int = 100
    breaks: dict[int, Break | Exception] = field(default_factory=dict)
    before: Callable[[int], None] = lambda number: None
    asked: list[Question] = field(default_factory=list)
    bodies: list[MemoryBody] = field(default_factory=list)
    whole_only: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(
        self, path: str, start: int = 0, end: int | None = None, tag: str | None = None
    ) -> MemoryBody:
        with self._lock:
            number = len(self.asked)
            self.asked.append(Question(start, end, tag))
            self.before(number)
            how = self.breaks.get(number)
            if isinstance(how, Exception):
                raise how
            body = self._body(start, end, tag)
            body.broken = how
            self.bodies.append(body)
            return body

    def _body(self, start: int, end: int | None, tag: str | None) -> MemoryBody:
        splits = self.splits and not self.whole_only
        size = len(self.data)
        if not self.ranges or (tag is not None and tag != self.tag):
            start, end = 0, size
        elif start and start >= size:
            return MemoryBody(b"", -1, None, self.tag, splits, self.piece)  # as for 416
        end = size if end is None else min(end, size)
        said = end if self.tells_length else None
        return MemoryBody(self.data[start:end], start, said, self.tag, splits, self.piece)

    def no_ranges(self) -> None:
        self.whole_only = True

    @property
    def starts(self) -> list[int]:
        return [question.start for question in self.asked]
