# SPDX-License-Identifier: Apache-2.0
"""numpy's arrays in a pickle, of which somebody else chose every word.

numpy believes what a pickle says of a type: sizes, offsets, and that bytes are no objects, so that
they become pointers. Here the type is made of its parts, which numpy checks, and an array is filled
with exactly what it has room for.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from ..errors import ArtifactError


class PickledType:
    """A type as a pickle makes it, which is nothing as long as nobody asks for ``made``."""

    def __init__(self, spec: object = None, *_more: object) -> None:
        self.spec = spec
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def made(self) -> Any:
        """numpy's type. Raises ArtifactError, or what numpy raises, where there is no such type."""
        import numpy

        if not isinstance(self.spec, str):
            raise _refuse()
        kind = numpy.dtype(self.spec)
        if not isinstance(self.state, tuple):
            return kind
        _version, order, inner, names, fields, size, *_more = self.state
        if names is not None:
            parts = [fields[name] for name in names]
            kind = numpy.dtype(
                {
                    "names": list(names),
                    "formats": [type_of(part[0]) for part in parts],
                    "offsets": [part[1] for part in parts],
                    "itemsize": size,
                }
            )
        elif inner is not None:
            kind = numpy.dtype((type_of(inner[0]), inner[1]))
        elif order in ("<", ">"):
            kind = kind.newbyteorder(order)
        return kind


def type_of(found: object) -> Any:
    """numpy's type, of what a pickle has in its place; of objects, or of none."""
    if not isinstance(found, PickledType):
        raise _refuse()
    kind = found.made()
    if kind.hasobject and kind.kind != "O":
        raise _refuse()
    return kind


def scalar(found: object, data: object) -> Any:
    """As numpy's function of that name."""
    import numpy

    kind = type_of(found)
    if kind.hasobject:
        return data
    if not isinstance(data, bytes) or len(data) != kind.itemsize or not data:
        raise _refuse()
    return numpy.frombuffer(data, kind)[0]


def from_buffer(data: object, found: object, shape: Any, order: Any = "C") -> Any:
    """As numpy's ``_frombuffer``."""
    import numpy

    kind = type_of(found)
    if kind.hasobject or not isinstance(data, (bytes, bytearray)):
        raise _refuse()
    return numpy.frombuffer(bytes(data), kind).reshape(shape, order=order)


def reconstruct(_kind: object, _shape: object, _code: object) -> Any:
    """As numpy's ``_reconstruct``: an empty array, of which ``__setstate__`` makes another."""
    import numpy

    return numpy.ndarray.__new__(array_class(), (0,), numpy.int8)


@functools.cache
def array_class() -> Any:
    """What stands for numpy's class of arrays in a pickle."""
    import numpy

    class Array(numpy.ndarray[Any, Any]):
        def __new__(cls, *_args: object, **_more: object) -> Any:
            raise _refuse()  # numpy's own takes a buffer, and steps through it

        def __setstate__(self, state: Any) -> None:
            _version, shape, found, by_column, data = state
            kind = type_of(found)
            count = math.prod(shape)
            if min(shape, default=0) < 0 or (
                not (isinstance(data, list) and len(data) == count)
                if kind.hasobject
                else not (isinstance(data, bytes) and len(data) == count * kind.itemsize)
            ):
                raise _refuse()
            whole: Any = (1, tuple(shape), kind, bool(by_column), data)
            super().__setstate__(whole)

    return Array


def _refuse() -> ArtifactError:
    return ArtifactError("the pickle has an array that numpy does not write so: it is damaged")
