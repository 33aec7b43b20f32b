# SPDX-License-Identifier: Apache-2.0
"""Protobuf's text format as Triton's parser, which is the one of C++, cuts it into words. Standard
library only, so that the start wrapper can read a configuration without protobuf.

The parser of Python takes what that one refuses (a no-break space for white space, ``+4``) and
refuses what it takes (``- 1``). ``for_python`` makes the two one. What each does was found out by
asking both, which ``tests/integration/test_config_oracle.py`` does again.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple, Union

_DEEPEST = 64
_LONGEST = 1 << 20
_MOST_WORDS = 200_000
_BLANK = re.compile(r"[ \t\r\n\v\f]+|#[^\n]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(
    r"0[xX][0-9a-fA-F]+|0[0-9]+(?![.eE])|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?"
)
_STRING = re.compile(r"\"(?:[^\"\\\n]|\\[^\n])*\"|'(?:[^'\\\n]|\\[^\n])*'")
_ESCAPE = re.compile(
    r"\\(?:[abfnrtv\\?'\"]|[0-7]|x[0-9a-fA-F]|u[0-9a-fA-F]{4}|U00[01][0-9a-fA-F]{5})"
)
_OPENS = {"{": "}", "<": ">"}
_BYTE = re.compile("[\udc80-\udcff]")
"""A byte that is not UTF-8, as ``decode`` keeps it."""
# Triton takes it, and Python's message has no place for it.
NOT_UTF8 = "a string that is not UTF-8 cannot be read here: write it in UTF-8"


class TextRefused(Exception):
    """What Triton's parser does not take, with the place: ``line`` and ``column`` count from 1."""

    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.column = column


class Token(NamedTuple):
    """A word, number, string or sign; ``start`` is its place in the text."""

    kind: str
    text: str
    start: int


def _refuse(text: str, at: int, reason: str) -> TextRefused:
    before = text[:at]
    return TextRefused(reason, before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1)


def decode(data: bytes) -> str:
    """The text of a configuration. Triton takes any bytes in a comment, such as those of Latin-1:
    they are kept, and refused elsewhere.
    """
    return data.decode("utf-8", "surrogateescape")


def in_utf8(data: bytes) -> bytes:
    """A configuration that parses, in UTF-8: what is none in its comments is taken for Latin-1."""
    return _as_latin1(decode(data)).encode()


def _as_latin1(text: str) -> str:
    return _BYTE.sub(lambda found: chr(ord(found[0]) - 0xDC00), text)


def tokens(text: str) -> list[Token]:
    """The words of a text, comments left out.

    Raises:
        TextRefused: a character or a word that Triton's parser does not know.
    """
    found: list[Token] = []
    at = 0
    if len(text) > _LONGEST:
        raise TextRefused(f"it has more than {_LONGEST} characters", 1, 1)
    while at < len(text):
        if len(found) > _MOST_WORDS:
            raise _refuse(text, at, f"it has more than {_MOST_WORDS} words")
        if blank := _BLANK.match(text, at):
            at = blank.end()
            continue
        token = _token(text, at)
        found.append(token)
        at += len(token.text)
    return found


def _token(text: str, at: int) -> Token:
    here = text[at]
    if word := _WORD.match(text, at):
        return Token("word", word[0], at)
    if number := _NUMBER.match(text, at):
        _check_number(text, number)
        return Token("number", number[0], at)
    if here in "\"'":
        return Token("string", _string(text, at), at)
    if here == "+":
        raise _refuse(text, at, "Triton takes no '+' before a number")
    if _BYTE.match(here):
        raise _refuse(text, at, f"the byte 0x{ord(here) - 0xDC00:02X} outside a string or comment")
    if not here.isascii():
        name = "a no-break space" if here == "\u00a0" else f"the character U+{ord(here):04X}"
        instead = ": write a plain space" if here.isspace() else ""
        raise _refuse(text, at, f"{name} outside a string or comment{instead}")
    if here < " ":
        raise _refuse(text, at, f"the control character U+{ord(here):04X}")
    return Token("sign", here, at)


def _check_number(text: str, number: re.Match[str]) -> None:
    octal = re.fullmatch(r"0[0-9]+", number[0])
    if octal and not re.fullmatch(r"[0-7]+", number[0]):
        raise _refuse(text, number.start(), f"{number[0]} begins with 0 and is no octal number")
    if text[number.end() : number.end() + 1].isidentifier() or text.startswith(".", number.end()):
        raise _refuse(text, number.end(), f"no space behind the number {number[0]}")


def _string(text: str, at: int) -> str:
    found = _STRING.match(text, at)
    if not found:
        raise _refuse(text, at, "a string that does not end in its line")
    word = found[0]
    if byte := _BYTE.search(word):
        raise _refuse(text, at + byte.start(), NOT_UTF8)
    for escape in re.finditer(r"\\.", word):
        if not _ESCAPE.match(word, escape.start()):
            raise _refuse(text, at + escape.start(), f"{escape[0]} is no escape sequence")
    return word


def for_python(
    text: str, unsigned: Collection[str], flags: Collection[str], choices: Collection[str]
) -> str:
    """The text as Python's parser takes it, where Triton's takes it; lines stay where they are.

    Args:
        unsigned, flags, choices: names of the fields that hold numbers without a sign, true or
            false, and a name from a list.

    Raises:
        TextRefused: Triton's parser does not take it.
    """
    edits: list[tuple[int, int, str]] = []
    field = ""
    words = tokens(text)
    for token, following in zip(words, [*words[1:], Token("sign", "", len(text))]):
        if token.kind == "word":
            if token.text.lower() in ("inff", "infinityf", "nanf"):
                raise _refuse(text, token.start, f"{token.text} is no number")
            field = token.text if following.text in (":", "[") else ""
        elif token.text == "-" and (following.kind == "number" or following.kind == "word"):
            if field in unsigned:
                raise _refuse(text, token.start, f"{field} takes no sign")
            if following.start > token.start + 1:
                edits += [(token.start, 1, " "), (following.start, 0, "-")]
        elif field in flags or field in choices:
            number = _decimal(token.text) if token.kind == "number" else None
            if number:
                edits.append((token.start, len(token.text), number.ljust(len(token.text))))
    pieces, done = [], 0
    for start, length, new in edits:
        pieces += [text[done:start], new]
        done = start + length
    return _as_latin1("".join([*pieces, text[done:]]))


def _decimal(number: str) -> str | None:
    """A whole number that is written as C does, with a 0 before it; None for any other."""
    try:
        base = 16 if number[:2] in ("0x", "0X") else 8
        return str(int(number, base)) if number.startswith("0") else None
    except ValueError:
        return None


Value = Union[str, "Fields"]
Fields = dict[str, list["Value"]]
"""Name → values in order. Strings are without their quotes, their escapes as they stand."""


def read_fields(text: str) -> Fields:
    """What a text says, without knowing which fields there are.

    Raises:
        TextRefused: it is not of this form.
    """
    words = tokens(text)
    fields, at = _fields(text, words, 0, "", 0)
    if at < len(words):
        raise _refuse(text, words[at].start, f"unexpected {words[at].text}")
    return fields


def _fields(text: str, words: list[Token], at: int, end: str, depth: int) -> tuple[Fields, int]:
    if depth > _DEEPEST:
        raise TextRefused("it is nested too deeply", 1, 1)
    found: Fields = {}
    while at < len(words) and words[at].text != end:
        name = words[at]
        if name.text in (",", ";"):
            at += 1
            continue
        if name.kind != "word":
            raise _refuse(text, name.start, f"unexpected {name.text}")
        values, at = _values(text, words, at + 1, depth)
        found.setdefault(name.text, []).extend(values)
    if end and at == len(words):
        raise _refuse(text, len(text), f"{end} is missing")
    return found, at


def _values(text: str, words: list[Token], at: int, depth: int) -> tuple[list[Value], int]:
    """The value, or the values in brackets, that begin at ``at``."""
    if at < len(words) and words[at].text == ":":
        at += 1
    if at == len(words):
        raise _refuse(text, len(text), "a value is missing")
    if words[at].text != "[":
        value, at = _value(text, words, at, depth)
        return [value], at
    found: list[Value] = []
    at += 1
    while at < len(words) and words[at].text != "]":
        if words[at].text == ",":
            at += 1
            continue
        value, at = _value(text, words, at, depth)
        found.append(value)
    return found, at + 1


def _value(text: str, words: list[Token], at: int, depth: int) -> tuple[Value, int]:
    first = words[at]
    if first.text in _OPENS and first.kind == "sign":
        fields, at = _fields(text, words, at + 1, _OPENS[first.text], depth + 1)
        return fields, at + 1
    if first.kind == "string":
        parts = []
        while at < len(words) and words[at].kind == "string":
            parts.append(words[at].text[1:-1])
            at += 1
        return "".join(parts), at
    if first.text == "-" and at + 1 < len(words):
        return f"-{words[at + 1].text}", at + 2
    if first.kind == "sign":
        raise _refuse(text, first.start, f"unexpected {first.text}")
    return first.text, at + 1
