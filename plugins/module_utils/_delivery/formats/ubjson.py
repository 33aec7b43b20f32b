# SPDX-License-Identifier: Apache-2.0
"""Universal Binary JSON as XGBoost writes it, with where each value lies, so that a document can be
changed without writing it anew; stdlib only.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NUMBERS = {b"i": "b", b"U": "B", b"I": "h", b"l": "i", b"L": "q", b"d": "f", b"D": "d"}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None, b"N": None}
_DEEPEST = 64

Span = tuple[int, int]
"""Where a value begins (its type) and where the next one would."""


class Object(dict[str, Any]):
    """A JSON object; ``spans`` tells where the value of each key lies."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: dict[str, Span] = {}


class Items(list[Any]):
    """An array of any values; ``starts`` tells where each begins, which is where the one before it
    ends, and at last where the last ends.
    """

    __slots__ = ("starts",)

    def __init__(self) -> None:
        super().__init__()
        self.starts = _NO_PLACES


_NO_PLACES = array("Q")


@dataclass(frozen=True)
class Packed:
    """An array of numbers of one type, which is not unpacked before somebody asks."""

    kind: bytes
    count: int
    data: memoryview

    def __len__(self) -> int:
        return self.count

    def first(self, count: int) -> bytes:
        """The first numbers, as an array of its own."""
        size = struct.calcsize(_NUMBERS[self.kind])
        return b"[$" + self.kind + b"#" + _length_of(count) + bytes(self.data[: count * size])

    def values(self) -> list[Any]:
        return list(struct.unpack(f">{self.count}{_NUMBERS[self.kind]}", self.data))


def read_ubjson(data: bytes) -> Any:
    """Parse a document.

    Raises:
        ValueError: no UBJSON, or not all of it.
    """
    reader = _Reader(data)
    value = reader.value(reader.take(1), 0)
    if reader.position != len(data):
        raise ValueError("it goes on after its end")
    return value


def values_of(items: object) -> list[Any]:
    """The items of an array of either kind.

    Raises:
        ValueError: that is no array.
    """
    if isinstance(items, Packed):
        return items.values()
    if isinstance(items, list):
        return items
    raise ValueError("it has something else in place of an array")


def first_of(data: bytes, items: object, count: int) -> bytes:
    """The first items of an array as an array, byte for byte.

    Raises:
        ValueError: that is no array.
    """
    if isinstance(items, Packed):
        return items.first(count)
    if not isinstance(items, Items) or not 0 <= count <= len(items):
        raise ValueError("it has something else in place of an array")
    pieces = data[items.starts[0] : items.starts[count]] if count else b""
    return b"[#" + _length_of(count) + pieces


def text(value: str) -> bytes:
    """A string."""
    return b"S" + _length_of(len(value.encode())) + value.encode()


def replace(data: bytes, changes: Mapping[Span, bytes]) -> bytes:
    """The document with other bytes in some places, none of which lies in another."""
    pieces, position = [], 0
    for (start, end), instead in sorted(changes.items()):
        pieces += [data[position:start], instead]
        position = end
    return b"".join([*pieces, data[position:]])


def _length_of(count: int) -> bytes:
    return b"L" + struct.pack(">q", count)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        return bytes(self._view(count))

    def _view(self, count: int) -> memoryview:
        piece = memoryview(self._data)[self.position : self.position + max(count, 0)]
        if count < 0 or len(piece) < count:
            raise ValueError("it ends too early")
        self.position += count
        return piece

    def value(self, kind: bytes, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if kind in _NUMBERS:
            return self._number(kind)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind in (b"S", b"H"):
            return self.take(self._length()).decode()
        if kind == b"C":
            return self.take(1).decode("ascii")
        if kind == b"[":
            return self._array(depth)
        if kind == b"{":
            return self._object(depth)
        raise ValueError(f"byte {self.position - 1} is no UBJSON")

    def _number(self, kind: bytes) -> Any:
        code = f">{_NUMBERS[kind]}"
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def _length(self) -> int:
        kind = self.take(1)
        if kind not in (b"i", b"U", b"I", b"l", b"L"):
            raise ValueError(f"byte {self.position - 1} is no length")
        return int(self._number(kind))

    def _array(self, depth: int) -> Packed | Items:
        if self._next() == b"$":
            self.take(1)
            kind = self.take(1)
            if kind not in _NUMBERS or self.take(1) != b"#":
                raise ValueError(f"byte {self.position - 1} is no array")
            count = self._length()
            return Packed(kind, count, self._view(count * struct.calcsize(_NUMBERS[kind])))
        items = Items()
        if self._next() == b"#":
            self.take(1)
            count = self._length()
            if count > len(self._data) - self.position:  # each has a byte at least
                raise ValueError("it ends too early")
            for _item in range(count):
                self._item(items, depth)
            return items
        while self._next() != b"]":
            self._item(items, depth)
        self.take(1)
        return items

    def _item(self, items: Items, depth: int) -> None:
        if not items:
            items.starts = array("Q", [self.position])
        items.append(self.value(self.take(1), depth + 1))
        items.starts.append(self.position)

    def _object(self, depth: int) -> Object:
        found = Object()
        while self._next() != b"}":
            key = self.take(self._length()).decode()
            start = self.position
            found[key] = self.value(self.take(1), depth + 1)
            found.spans[key] = (start, self.position)
        self.take(1)
        return found

    def _next(self) -> bytes:
        piece = self._data[self.position : self.position + 1]
        if not piece:
            raise ValueError("it ends too early")
        return piece
