# SPDX-License-Identifier: Apache-2.0
"""numpy's own files (.npy), as skops archives hold them, without numpy; stdlib only."""

from __future__ import annotations

import re
from typing import Any

from .pickled_arrays import Array, PickledType, refuse

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 16
_DEEPEST = 4
_TOKEN = re.compile(
    r"\s*(?:'([^'\\]*)'|\"([^\"\\]*)\"|(True|False)|(-?[0-9]{1,18})L?|([\[\](){},:]))", re.ASCII
)
_CLOSES = {"(": ")", "[": "]"}


def read_npy(data: memoryview) -> Array:
    """The array in a file; its bytes are not copied.

    Raises:
        ArtifactError: it is none, or one of objects.
    """
    head, start = _header(data)
    kind = _type(head.get("descr"))
    shape = head.get("shape")
    if kind.holds_objects:
        raise refuse()
    return Array.of(kind, shape, head.get("fortran_order"), data[start:])


def _header(data: memoryview) -> tuple[dict[Any, Any], int]:
    if bytes(data[:6]) != _MAGIC or len(data) < 12:
        raise refuse()
    begin = 10 if data[6] == 1 else 12
    length = int.from_bytes(data[8:begin], "little")
    if length > _LONGEST_HEADER or begin + length > len(data):
        raise refuse()
    text = bytes(data[begin : begin + length]).decode("utf-8", "replace")
    words: list[Any] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if not found:
            raise refuse()
        at = found.end()
        words.append(found)
    value, used = _value(words, 0, 0)
    if used != len(words) or not isinstance(value, dict):
        raise refuse()
    return value, begin + length


def _value(words: list[re.Match[str]], at: int, depth: int) -> tuple[Any, int]:
    if at >= len(words) or depth > _DEEPEST:
        raise refuse()
    single, double, truth, number, sign = words[at].groups()
    if single is not None or double is not None:
        return (single if single is not None else double), at + 1
    if truth:
        return truth == "True", at + 1
    if number:
        return int(number), at + 1
    if sign == "{":
        return _mapping(words, at + 1, depth)
    if sign not in _CLOSES:
        raise refuse()
    items, at = [], at + 1
    while at < len(words) and words[at][5] != _CLOSES[sign]:
        item, at = _value(words, at, depth + 1)
        items.append(item)
        if at < len(words) and words[at][5] == ",":
            at += 1
    return (tuple(items) if sign == "(" else items), at + 1


def _mapping(words: list[re.Match[str]], at: int, depth: int) -> tuple[dict[Any, Any], int]:
    found: dict[Any, Any] = {}
    while at < len(words) and words[at][5] != "}":
        key, at = _value(words, at, depth + 1)
        if not isinstance(key, str) or at >= len(words) or words[at][5] != ":":
            raise refuse()
        found[key], at = _value(words, at + 1, depth + 1)
        if at < len(words) and words[at][5] == ",":
            at += 1
    return found, at + 1


def _type(descr: object) -> PickledType:
    """A type of one piece, or of fields one behind the other, some of which have no name."""
    if isinstance(descr, str):
        return PickledType(descr)
    if not isinstance(descr, list):
        raise refuse()
    fields: dict[str, tuple[PickledType, int]] = {}
    size = 0
    for part in descr:
        if not (isinstance(part, tuple) and len(part) == 2):
            raise refuse()
        name, of = part[0], PickledType(part[1])
        if isinstance(name, tuple):  # a title before the name
            name = name[-1] if name else ""
        if not isinstance(name, str) or of.holds_objects:
            raise refuse()
        if name:
            fields[name] = (of, size)
        size += of.size
    state = (3, "|", None, tuple(fields), fields, size)
    return PickledType(f"V{size}", state)
