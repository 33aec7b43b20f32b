# SPDX-License-Identifier: Apache-2.0
"""numpy's types and arrays in a pickle or a skops archive, of which somebody else chose every word.

numpy's own constructors believe what they are told of a type: sizes, offsets, and that bytes are no
objects, so that they become pointers. Here a type is a text of a short list, an array is a shape
and exactly the bytes that it has room for, and numpy is asked for nothing but a view of those.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Union

from ..errors import ArtifactError
from ..libraries import require

_SPEC = re.compile(r"([<>=|]?)([?bBhHiIlLqQefdgFDG]|[biufcmMOSUV][0-9]{0,9})")
_LETTERS = {
    "?": "b1",
    "b": "i1",
    "B": "u1",
    "h": "i2",
    "H": "u2",
    "i": "i4",
    "I": "u4",
    "l": "i8",
    "L": "u8",
    "q": "i8",
    "Q": "u8",
    "e": "f2",
    "f": "f4",
    "d": "f8",
    "g": "f16",
    "F": "c8",
    "D": "c16",
    "G": "c32",
}
# As ``struct`` calls them: the only ones that numpy gets to see.
_NUMBERS = {
    "b1": "?",
    "i1": "b",
    "u1": "B",
    "i2": "h",
    "u2": "H",
    "i4": "i",
    "u4": "I",
    "i8": "q",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}
_LARGEST_ITEM = 1 << 20
_MOST_FIELDS = 64
_MOST_DIMENSIONS = 32
# Of an array without an item: its shape alone could ask for any number of lists.
_MOST_EMPTY = 1 << 16

# Evaluated at run time, where ansible-test still asks for the old form.
Buffer = Union[bytes, memoryview]  # noqa: UP007


class PickledType:
    """A type as a pickle makes it, which is nothing as long as nobody asks."""

    __slots__ = ("spec", "state")

    def __init__(self, spec: object = None, state: object = None) -> None:
        self.spec = spec
        self.state = state

    @property
    def code(self) -> str:
        """Kind and size in bytes, as in "f8"; "V64" for one of several fields.

        Raises:
            ArtifactError: a type that nobody has.
        """
        found = _SPEC.fullmatch(self.spec) if isinstance(self.spec, str) else None
        if not found:
            raise refuse()
        code = _LETTERS.get(found[2], found[2])
        if code[0] in "SUV" and isinstance(self.state, tuple) and len(self.state) > 5:
            size = self.state[5]
            if isinstance(size, int) and size >= 0:
                return f"{code[0]}{size // (4 if code[0] == 'U' else 1)}"
        return code

    @property
    def order(self) -> str:
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else None
        if order in ("<", ">"):
            return str(order)
        return ">" if isinstance(self.spec, str) and self.spec.startswith(">") else "<"

    @property
    def holds_objects(self) -> bool:
        return self.code[0] == "O"

    @property
    def size(self) -> int:
        """Bytes of an item, which is no object.

        Raises:
            ArtifactError: it has none, or too many.
        """
        if isinstance(self.state, tuple) and len(self.state) > 2 and self.state[2] is not None:
            raise refuse()  # an array in each item, which nobody here reads
        code = self.code
        size = int(code[1:] or 0) * (4 if code[0] == "U" else 1)
        if code[0] == "O" or not 0 < size <= _LARGEST_ITEM:
            raise refuse()
        for _name, of, offset in self.fields():
            if of.holds_objects or not 0 <= offset <= size - of.size:
                raise refuse()
        return size

    def fields(self) -> Iterator[tuple[str, PickledType, int]]:
        """Name, type and offset of each; none where it is of one piece.

        Raises:
            ArtifactError: they are not plain.
        """
        if not isinstance(self.state, tuple) or len(self.state) < 6 or self.state[3] is None:
            return
        names, fields = self.state[3], self.state[4]
        if not (isinstance(names, tuple) and isinstance(fields, Mapping)):
            raise refuse()
        if self.code[0] != "V" or not 0 < len(names) <= _MOST_FIELDS:
            raise refuse()
        for name in names:
            part = fields.get(name) if isinstance(name, str) else None
            if not (
                isinstance(part, tuple) and len(part) >= 2 and isinstance(part[0], PickledType)
            ):
                raise refuse()
            of, offset = part[0], part[1]
            state = of.state
            # Types in types could be some thousand deep, or hold themselves.
            plain = not isinstance(state, tuple) or all(one is None for one in state[2:5])
            if not plain or not isinstance(offset, int) or isinstance(offset, bool):
                raise refuse()
            yield name, of, offset

    def numbers(self) -> Any:
        """What numpy is told: a number's type, or the names of fields with such types.

        Raises:
            ArtifactError: anything else.
        """
        code, parts = self.code, list(self.fields())
        if not parts:
            return _number_type(self)
        return {
            "names": [name for name, _of, _offset in parts],
            "formats": [_number_type(of) for _name, of, _offset in parts],
            "offsets": [offset for _name, _of, offset in parts],
            "itemsize": int(code[1:]),
        }


def _number_type(of: PickledType) -> str:
    if of.code not in _NUMBERS:
        raise refuse()
    return of.order + of.code


class Array:
    """An array as it was written: its shape, and either its bytes or the list of its objects;
    ``axes`` where its bytes have them in another order, as newer versions of numpy tell.
    """

    __slots__ = ("axes", "by_column", "data", "shape", "type")

    def __init__(self) -> None:
        self.axes: tuple[int, ...] | None = None
        self.type = PickledType("i1")
        self.shape: tuple[int, ...] = (0,)
        self.by_column = False
        self.data: Buffer | list[Any] = b""

    @classmethod
    def of(cls, kind: object, shape: object, by_column: object, data: object) -> Array:
        """Raises ArtifactError for more or less than the shape has room for."""
        made = cls()
        made.type, made.shape = type_of(kind), _shape_of(shape)
        made.by_column = bool(by_column) and len(made.shape) > 1
        count = math.prod(made.shape)
        if made.type.holds_objects:
            if not (isinstance(data, list) and len(data) == count):
                raise refuse()
            made.data = data
        else:
            if not isinstance(data, (bytes, memoryview)) or len(data) != count * made.type.size:
                raise refuse()
            made.data = data
        return made

    def transposed(self, axes: object) -> Array:
        """Its axes in another order than the bytes have them in; numbers alone are kept so.

        Raises:
            ArtifactError: these are not its axes.
        """
        count = len(self.shape)
        if not isinstance(axes, tuple) or any(
            isinstance(axis, bool) or not isinstance(axis, int) for axis in axes
        ):
            raise refuse()
        if sorted(axes) != list(range(count)) or self.type.code not in _NUMBERS:
            raise refuse()
        self.axes, self.shape = axes, tuple(self.shape[axis] for axis in axes)
        return self

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def numpy(self) -> Any:
        """Its numbers, which cannot be written to.

        Raises:
            ArtifactError: it holds something else.
            MissingLibrary: numpy.
        """
        if isinstance(self.data, list):
            raise refuse()
        kind = self.type.numbers()
        with require("numpy", "to read a model of scikit-learn"):
            import numpy
        if not self.data:
            return numpy.zeros(self.shape, numpy.dtype(kind))
        flat = numpy.frombuffer(self.data, numpy.dtype(kind))
        if self.axes is not None:
            written = [self.shape[self.axes.index(axis)] for axis in range(len(self.axes))]
            return flat.reshape(written).transpose(self.axes)
        return flat.reshape(self.shape, order="F" if self.by_column else "C")

    def tolist(self) -> Any:
        """Lists in lists, as numpy makes them.

        Raises:
            ArtifactError: it holds neither objects, texts nor numbers.
        """
        if isinstance(self.data, list):
            # numpy writes objects in the order of rows, whatever the order in memory.
            return _nested(self.data, self.shape)
        if self.type.code[0] != "U" or self.by_column:
            return self.numpy().tolist()
        size = self.type.size
        texts = [
            text_in(self.data[start : start + size], self.type)
            for start in range(0, len(self.data), size)
        ]
        return _nested(texts, self.shape)


def _nested(items: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return items[0]
    for size in reversed(shape[1:]):
        items = (
            [items[start : start + size] for start in range(0, len(items), size)]
            if size
            else [[] for _row in range(math.prod(shape[:-1]))]
        )
    return items


def _shape_of(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
        raise refuse()
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 0 for size in shape):
        raise refuse()
    if 0 in shape and math.prod(size for size in shape if size) > _MOST_EMPTY:
        raise refuse()
    return shape


def type_of(found: object) -> PickledType:
    if not isinstance(found, PickledType):
        raise refuse()
    return found


def text_in(data: Buffer, of: PickledType) -> str:
    """A text of numpy's, of 4 bytes for each character."""
    order = "utf-32-be" if of.order == ">" else "utf-32-le"
    return bytes(data).decode(order, "replace").rstrip("\0")


def scalar(found: object, data: object) -> Any:
    """As numpy's function of that name; Python's own number or text."""
    kind = type_of(found)
    if kind.holds_objects:
        return data
    if not isinstance(data, (bytes, memoryview)) or len(data) != kind.size:
        raise refuse()
    code = kind.code
    if code[0] == "U":
        return text_in(data, kind)
    if code in _NUMBERS and not any(kind.fields()):
        return struct.unpack(kind.order + _NUMBERS[code], data)[0]
    return bytes(data)


def refuse() -> ArtifactError:
    return ArtifactError("the pickle has an array that numpy does not write so: it is damaged")
