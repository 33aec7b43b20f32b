# SPDX-License-Identifier: Apache-2.0
"""Universal Binary JSON, as XGBoost writes it. Long runs of numbers are passed over: nobody here
asks for them; stdlib only.
"""

from __future__ import annotations

import struct
from typing import Any

_NUMBERS = {b"i": "b", b"U": "B", b"I": "h", b"l": "i", b"L": "q", b"d": "f", b"D": "d"}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None, b"N": None}
_DEEPEST = 64


def read_ubjson(data: bytes) -> Any:
    """Parse a document; arrays of one number type come back as their length.

    Raises:
        ValueError: no UBJSON, or not all of it.
    """
    reader = _Reader(data)
    value = reader.value(reader.take(1), 0)
    if reader.place != len(data):
        raise ValueError("it goes on after its end")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self.place : self.place + count]
        if count < 0 or len(piece) < count:
            raise ValueError("it ends too early")
        self.place += count
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
        raise ValueError(f"byte {self.place - 1} is no UBJSON")

    def _number(self, kind: bytes) -> Any:
        code = f">{_NUMBERS[kind]}"
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def _length(self) -> int:
        kind = self.take(1)
        if kind not in (b"i", b"U", b"I", b"l", b"L"):
            raise ValueError(f"byte {self.place - 1} is no length")
        return int(self._number(kind))

    def _array(self, depth: int) -> Any:
        if self._next() == b"$":
            self.take(1)
            kind = self.take(1)
            if kind not in _NUMBERS or self.take(1) != b"#":
                raise ValueError(f"byte {self.place - 1} is no array")
            count = self._length()
            self.take(count * struct.calcsize(_NUMBERS[kind]))
            return count
        if self._next() == b"#":
            self.take(1)
            return [self.value(self.take(1), depth + 1) for _item in range(self._length())]
        items = []
        while self._next() != b"]":
            items.append(self.value(self.take(1), depth + 1))
        self.take(1)
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        found = {}
        while self._next() != b"}":
            key = self.take(self._length()).decode()
            found[key] = self.value(self.take(1), depth + 1)
        self.take(1)
        return found

    def _next(self) -> bytes:
        piece = self._data[self.place : self.place + 1]
        if not piece:
            raise ValueError("it ends too early")
        return piece
