# SPDX-License-Identifier: Apache-2.0
"""What a pickle makes, as inert values; stdlib only.

A pickle is a program for a machine with a stack. Here each of its words is carried out on values
that can do nothing: a class is its name, an object of it a bag, an array the bytes that it has.
What is kept is never more than the words of the file ask for one by one: nothing is copied that the
file holds once, long bytes stay where they are, and no number in it makes anything of that size.
"""

from __future__ import annotations

import codecs
import struct
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import ArtifactError
from .pickled_arrays import Array, PickledType, scalar

_NUMPY_NAMES = frozenset({"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"})
# What Python 2 called them, which older protocols still do.
_NEW_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_SEQUENCES = frozenset({"list", "tuple", "set", "frozenset"})
# Longer bytes stay where they are.
_SHORT = 1 << 10
_LONGEST_NAME = 1 << 10
# Greater ones could all be chosen to fall together in a dictionary, as could tuples of them.
_LARGEST_KEY = 1 << 60
_NEWEST = 5
_MOST_STATES = 8
_NOTHING: dict[str, Any] = {}


class Name(NamedTuple):
    """A class or function that a pickle asks for, of which nothing is known but its name."""

    module: str
    name: str

    @property
    def origin(self) -> str:
        return f"{self.module}.{self.name}"


class Bag:
    """An object: its class by name, what it was made with, and its attributes."""

    __slots__ = ("_items", "_states", "args", "origin")

    def __init__(
        self, origin: str, args: object = (), values: Mapping[str, object] | None = None
    ) -> None:
        self.origin = origin
        self.args = args
        self._items: dict[str, Any] = dict(values) if values else _NOTHING
        self._states: tuple[dict[str, Any], ...] = ()

    @property
    def values(self) -> Mapping[str, Any]:
        states = [*reversed(self._states), *([self._items] if self._items else ())]
        return ChainMap(*states) if len(states) > 1 else states[0] if states else _NOTHING

    def add(self, state: object) -> None:
        """Add attributes, or a pair of such. They are not copied: many objects may have the same,
        and a file that says so of one object again and again is not one of pickle's.
        """
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                if len(self._states) >= _MOST_STATES:
                    raise damaged("an object gets its attributes too many times")
                self._states = (*self._states, part)

    def put(self, key: object, value: object) -> None:
        """As in a dictionary, which the object may be one of."""
        if isinstance(key, str):
            if self._items is _NOTHING:
                self._items = {}
            self._items[key] = value

    @property
    def kind(self) -> str:
        return self.origin.rpartition(".")[2]

    def get(self, name: str) -> Any:
        """An attribute.

        Raises:
            ArtifactError: a model that was never trained, or one of a version of scikit-learn that
                kept this elsewhere.
        """
        if name not in self.values:
            raise ArtifactError(
                f"its {self.kind} has no '{name}': it was not trained, or by an unknown version of"
                " scikit-learn"
            )
        return self.values[name]


class Odd:
    """A key of a dictionary that is neither a text, bytes nor a small number."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Program:
    """One pickle.

    Args:
        data: all of it.
        knows: whether a name is one that is expected; what else is asked for, ``foreign`` tells.
    """

    def __init__(self, data: memoryview, knows: Callable[[Name], bool] | None = None) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._knows = knows
        # What is decoded anew each time that it is named.
        self._room = max(2 * len(data), 1 << 20)
        self.foreign: Name | None = None

    def run(self) -> Any:
        """Carry it out.

        Raises:
            ArtifactError: no whole pickle, or one with what no model needs.
        """
        data, end, words = self._data, len(self._data), _WORDS
        try:
            while self._at < end:
                code = data[self._at]
                self._at += 1
                if code == _STOP:
                    return self._stack.pop()
                words[code](self)
        except (IndexError, struct.error):
            raise damaged("it takes more than it has made") from None
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise damaged(f"{type(error).__name__} at byte {self._at}") from None
        raise damaged("it ends too early")

    # --- reading

    def _take(self, count: int) -> memoryview:
        piece = self._data[self._at : self._at + count]
        if len(piece) < count:
            raise damaged("it ends too early")
        self._at += count
        return piece

    def _unsigned(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _line(self) -> bytes:
        """Up to the end of a line, which is looked for where a line may be."""
        end, size = self._at, 256
        while True:
            piece = bytes(self._data[end : end + size])
            place = piece.find(b"\n")
            if place >= 0:
                break
            if len(piece) < size:
                raise damaged("it ends too early")
            end, size = end + size, size * 2
        line = bytes(self._data[self._at : end + place])
        self._at = end + place + 1
        return line

    def _bytes(self, size: int) -> None:
        piece = self._take(size)
        self._stack.append(piece if size > _SHORT else bytes(piece))

    def _text(self, size: int) -> None:
        self._stack.append(str(self._take(size), "utf-8", "surrogatepass"))

    def _old_text(self, data: bytes) -> None:
        """Of Python 2, which did not tell texts from bytes."""
        try:
            self._stack.append(data.decode("ascii"))
        except UnicodeDecodeError:
            self._stack.append(data)

    # --- the stack

    def _above_mark(self) -> list[Any]:
        place = self._marks.pop()
        items = self._stack[place:]
        del self._stack[place:]
        return items

    def _top(self) -> Any:
        """What lies below the last mark, or below all."""
        return self._stack[-1]

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise damaged("it takes more than it has made")
        return self._stack.pop()

    def _pop_word(self) -> None:
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._stack.pop()

    def _drop(self) -> None:
        self._above_mark()

    def _fill(self, items: list[Any]) -> None:
        top = self._top()
        if isinstance(top, list):
            top.extend(items)
        elif not isinstance(top, Bag):
            raise damaged("it adds to what is no list")

    def _put(self, pairs: list[Any]) -> None:
        top = self._top()
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(top, dict):
                top[_key(key)] = value
            elif isinstance(top, Bag):
                top.put(key, value)
            else:
                raise damaged("it adds to what is no dictionary")

    # --- names and objects

    def _name(self, module: Any, name: Any) -> Name:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise damaged("it asks for a name that is no text")
        if len(module) + len(name) > _LONGEST_NAME:
            raise damaged("it asks for a name that is too long")
        found = Name(_NEW_NAMES.get(module, module), name)
        if self.foreign is None and self._knows and not self._knows(found):
            self.foreign = found
        return found

    def _global(self) -> None:
        module, name = self._line(), self._line()
        self._stack.append(self._name(module.decode(), name.decode()))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(self._name(module, name))

    def _reduce(self) -> None:
        args, function = self._pop(), self._pop()
        self._stack.append(self._called(function, args))

    def _new(self) -> None:
        args, kind = self._pop(), self._pop()
        self._stack.append(self._made(kind, args))

    def _new_ex(self) -> None:
        named, args, kind = self._pop(), self._pop(), self._pop()
        if not isinstance(named, dict):
            raise damaged("it makes an object in a way that pickle has not")
        self._stack.append(self._made(kind, args))

    def _inst(self) -> None:
        module, name = self._line(), self._line()
        kind = self._name(module.decode(), name.decode())
        self._stack.append(self._called(kind, tuple(self._above_mark())))

    def _obj(self) -> None:
        kind, *args = self._above_mark()
        self._stack.append(self._called(kind, tuple(args)))

    def _made(self, kind: object, args: object) -> Any:
        if not isinstance(kind, (Name, Bag)) or not isinstance(args, tuple):
            raise damaged("it makes an object of what is no class")
        return self._called(kind, args)

    def _called(self, function: object, args: object) -> Any:
        if not isinstance(args, tuple):
            raise damaged("it makes an object in a way that pickle has not")
        if isinstance(function, Bag):
            return function  # what a call of anybody's object answers is not known
        if not isinstance(function, Name):
            raise damaged("it calls what is no function")
        module, name = function
        if module.partition(".")[0] == "numpy" and name in _NUMPY_NAMES:
            return self._of_numpy(name, args)
        if function == ("copyreg", "_reconstructor"):
            if not (args and isinstance(args[0], Name)):
                raise damaged("it makes an object of what is no class")
            return self._made(args[0], ())
        if function == ("_codecs", "encode"):  # bytes, for protocols that have none
            return self._encoded(args)
        if module == "builtins":
            return self._plain(function, args)
        return Bag(function.origin, args)

    def _plain(self, function: Name, args: tuple[Any, ...]) -> Any:
        """Lists stay what they were made of: a file could have one copied for each few bytes."""
        name, first = function.name, args[0] if args else None
        if name in _SEQUENCES:
            if not args:
                return () if name == "tuple" else []
            if len(args) == 1 and isinstance(first, (list, tuple)):
                return first
        if name == "dict" and not args:
            return {}
        if name in ("bytes", "bytearray"):
            if not args:
                return b""
            if len(args) == 1 and isinstance(first, (bytes, memoryview)):
                return first
            return self._encoded(args)
        return Bag(function.origin, args)

    def _encoded(self, args: tuple[Any, ...]) -> bytes:
        if len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
            self._charge(len(args[0]))
            return args[0].encode("latin-1")
        raise damaged("it makes bytes of something else than pickle does")

    def _charge(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise damaged("it makes more than it holds")

    def _of_numpy(self, name: str, args: tuple[Any, ...]) -> Any:
        if name == "dtype" and args:
            return PickledType(args[0])
        if name == "_reconstruct":
            return Array()
        if name == "scalar" and len(args) == 2:
            if hasattr(args[1], "__len__"):
                self._charge(len(args[1]))
            return scalar(*args)
        if name == "_frombuffer" and len(args) in (4, 5):
            data, kind, shape, order, *axes = args
            made = Array.of(kind, shape, order == "F", data)
            return made.transposed(axes[0]) if order == "K" and axes else made
        raise damaged(f"numpy's {name} is not called so")

    def _build(self) -> None:
        state, made = self._pop(), self._top()
        if isinstance(made, Bag):
            made.add(state)
        elif isinstance(made, PickledType):
            made.state = state
        elif isinstance(made, Array):
            if not (isinstance(state, tuple) and len(state) == 5):
                raise damaged("it has an array that numpy does not write so")
            _version, shape, kind, by_column, data = state
            self._stack[-1] = self._replaced(made, Array.of(kind, shape, by_column, data))
        elif not isinstance(made, Name):  # a class that the pickle describes
            raise damaged("it gives attributes to what has none")

    @staticmethod
    def _replaced(made: Array, by: Array) -> Array:
        made.type, made.shape, made.axes = by.type, by.shape, by.axes
        made.by_column, made.data = by.by_column, by.data
        return made

    # --- the memory

    def _remember(self, place: int) -> None:
        if place < 0:
            raise damaged("it remembers something below the first place")
        self._memo[place] = self._stack[-1]

    def _recall(self, place: int) -> None:
        if place not in self._memo:
            raise damaged("it recalls what it never remembered")
        self._stack.append(self._memo[place])

    def _frame(self) -> None:
        if self._unsigned(8) > len(self._data) - self._at:
            raise damaged("it ends too early")

    def _protocol(self) -> None:
        if self._unsigned(1) > _NEWEST:
            raise damaged("it is of a newer protocol than is known here")

    def _unknown(self) -> None:
        raise damaged(f"byte {self._at - 1} is no word of a pickle that stands for itself")


def _key(value: Any) -> Any:
    """A key that nobody could have chosen to fall together with thousands of others."""
    if value is None or isinstance(value, (str, bytes, bool, float)):
        return value
    if isinstance(value, int) and abs(value) < _LARGEST_KEY:
        return value
    return Odd(value)


def _integer(text: bytes) -> Any:
    """With the signs of C before it, "0x" and its like, as pickle has them."""
    known = {b"00": False, b"01": True}
    return known[text] if text in known else int(text, 0)


def _quoted(text: bytes) -> bytes:
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in b"\"'":
        raise damaged("a text has no quotes")
    return bytes(codecs.escape_decode(text[1:-1])[0])


def _pushes(make: Callable[[Program], Any]) -> Callable[[Program], None]:
    def word(program: Program) -> None:
        program._stack.append(make(program))

    return word


def _last(program: Program, count: int) -> tuple[Any, ...]:
    return tuple([program._pop() for _item in range(count)][::-1])


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _append(program: Program) -> None:
    item = program._pop()
    program._fill([item])


def _set_item(program: Program) -> None:
    value, key = program._pop(), program._pop()
    program._put([key, value])


_STOP = ord(".")
P = Program
_BY_WORD: dict[bytes, Callable[[Program], None]] = {
    b"\x80": P._protocol,
    b"\x95": P._frame,
    b"(": lambda p: p._marks.append(len(p._stack)),
    b"0": P._pop_word,
    b"1": P._drop,
    b"2": lambda p: p._stack.append(p._stack[-1]),
    b"N": lambda p: p._stack.append(None),
    b"\x88": lambda p: p._stack.append(True),
    b"\x89": lambda p: p._stack.append(False),
    b"I": _pushes(lambda p: _integer(p._line())),
    b"J": _pushes(lambda p: struct.unpack("<i", p._take(4))[0]),
    b"K": _pushes(lambda p: p._unsigned(1)),
    b"M": _pushes(lambda p: p._unsigned(2)),
    b"L": _pushes(lambda p: int(p._line().removesuffix(b"L"), 0)),
    b"\x8a": _pushes(lambda p: int.from_bytes(p._take(p._unsigned(1)), "little", signed=True)),
    b"\x8b": _pushes(lambda p: int.from_bytes(p._take(p._unsigned(4)), "little", signed=True)),
    b"F": _pushes(lambda p: float(p._line())),
    b"G": _pushes(lambda p: struct.unpack(">d", p._take(8))[0]),
    b"S": lambda p: p._old_text(_quoted(p._line())),
    b"T": lambda p: p._old_text(bytes(p._take(p._unsigned(4)))),
    b"U": lambda p: p._old_text(bytes(p._take(p._unsigned(1)))),
    b"B": lambda p: p._bytes(p._unsigned(4)),
    b"C": lambda p: p._bytes(p._unsigned(1)),
    b"\x8e": lambda p: p._bytes(p._unsigned(8)),
    b"\x96": lambda p: p._bytes(p._unsigned(8)),
    b"V": _pushes(lambda p: str(p._line(), "raw-unicode-escape")),
    b"X": lambda p: p._text(p._unsigned(4)),
    b"\x8c": lambda p: p._text(p._unsigned(1)),
    b"\x8d": lambda p: p._text(p._unsigned(8)),
    b"]": lambda p: p._stack.append([]),
    b"a": _append,
    b"e": lambda p: p._fill(p._above_mark()),
    b"l": _pushes(P._above_mark),
    b")": lambda p: p._stack.append(()),
    b"t": _pushes(lambda p: tuple(p._above_mark())),
    b"\x85": _pushes(lambda p: _last(p, 1)),
    b"\x86": _pushes(lambda p: _last(p, 2)),
    b"\x87": _pushes(lambda p: _last(p, 3)),
    b"}": lambda p: p._stack.append({}),
    b"d": _pushes(lambda p: _pairs(p._above_mark())),
    b"s": _set_item,
    b"u": lambda p: p._put(p._above_mark()),
    # Sets are lists here: what is in them need not have a hash.
    b"\x8f": lambda p: p._stack.append([]),
    b"\x90": lambda p: p._fill(p._above_mark()),
    b"\x91": _pushes(P._above_mark),
    b"g": lambda p: p._recall(int(p._line())),
    b"h": lambda p: p._recall(p._unsigned(1)),
    b"j": lambda p: p._recall(p._unsigned(4)),
    b"p": lambda p: p._remember(int(p._line())),
    b"q": lambda p: p._remember(p._unsigned(1)),
    b"r": lambda p: p._remember(p._unsigned(4)),
    b"\x94": lambda p: p._remember(len(p._memo)),
    b"c": P._global,
    b"\x93": P._stack_global,
    b"R": P._reduce,
    b"b": P._build,
    b"i": P._inst,
    b"o": P._obj,
    b"\x81": P._new,
    b"\x92": P._new_ex,
}
_WORDS: tuple[Callable[[Program], None], ...] = tuple(
    _BY_WORD.get(bytes([code]), P._unknown) for code in range(256)
)


def damaged(why: str) -> ArtifactError:
    return ArtifactError(f"the pickle is damaged: {why}")
