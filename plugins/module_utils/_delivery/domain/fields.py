# SPDX-License-Identifier: Apache-2.0
"""Reads what was written down as JSON, and says what about it is not as it should be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


class WrongShape(ValueError):
    """Says what is wrong, for the middle of a sentence."""


_SIGNS = (b"[", b"{", b",")
_WIDEST = 2**63
_DIGITS = 20


def read_json(body: bytes, most: int | None = None) -> Any:
    """Raises WrongShape for what is not JSON.

    Args:
        most: values that it may hold, where somebody else wrote it: an empty list of two bytes
            takes thirty times as much memory.
    """
    if most is not None and sum(map(body.count, _SIGNS)) > most:
        raise WrongShape(f"it holds more than {most} values")
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise WrongShape(f"it is not JSON: {error}") from error


class Fields:
    """The keys of a JSON object; each method raises WrongShape where a key is missing or holds
    something else.

    Args:
        where: begins the sentences, such as "move 2: ".
    """

    def __init__(self, data: object, where: str = "") -> None:
        if not isinstance(data, Mapping):
            raise WrongShape(f"{where or 'it '}is not a JSON object")
        self.data, self.where = data, where

    def _get(self, key: str) -> Any:
        if key not in self.data:
            raise WrongShape(f"{self.where}{key} is missing")
        return self.data[key]

    def wrong(self, key: str, wanted: str) -> WrongShape:
        return WrongShape(f"{self.where}{key} is not {wanted}")

    def text(self, key: str) -> str:
        found = self._get(key)
        if not isinstance(found, str):
            raise self.wrong(key, "a text")
        return found

    def text_or_none(self, key: str) -> str | None:
        return None if self._get(key) is None else self.text(key)

    def number(self, key: str) -> int:
        """A whole number, 0 or more."""
        found = self._get(key)
        if not isinstance(found, int) or isinstance(found, bool) or found < 0:
            raise self.wrong(key, "a whole number")
        return found

    def number_or_none(self, key: str) -> int | None:
        return None if self._get(key) is None else self.number(key)

    def mapping(self, key: str) -> Mapping[str, Any]:
        found = self._get(key)
        if not isinstance(found, Mapping):
            raise self.wrong(key, "a JSON object")
        return found

    def each(self, key: str) -> list[Any]:
        found = self._get(key)
        if not isinstance(found, (list, tuple)):
            raise self.wrong(key, "a list")
        return list(found)

    def texts(self, key: str) -> tuple[str, ...]:
        found = self.each(key)
        if not all(isinstance(one, str) for one in found):
            raise self.wrong(key, "a list of texts")
        return tuple(found)

    def text_or(self, key: str, absent: str) -> str:
        """A text, or ``absent`` where there is none or null."""
        return absent if self.data.get(key) is None else self.text(key)

    def inner(self, key: str) -> Fields:
        """A JSON object; an empty one where there is none or null."""
        found = self.data.get(key)
        return Fields({} if found is None else found, f"{self.where}{key}: ")

    def objects(self, key: str) -> Iterator[Fields]:
        """The JSON objects of a list; none where there is none or null."""
        if self.data.get(key) is not None:
            for number, one in enumerate(self.each(key), 1):
                yield Fields(one, f"{self.where}{key} {number}: ")


def whole(value: object, where: str) -> int:
    """A number of 64 bits, also as the text that stands for one where JSON has no such numbers.
    Raises WrongShape.
    """
    if isinstance(value, str) and value.isascii() and len(value) <= _DIGITS:
        value = int(value) if value.removeprefix("-").isdigit() else value
    if not isinstance(value, int) or isinstance(value, bool) or not -_WIDEST <= value < _WIDEST:
        raise WrongShape(f"{where} is not a whole number")
    return value
