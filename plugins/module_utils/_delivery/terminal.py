# SPDX-License-Identifier: Apache-2.0
"""Text that may be anybody's, fit for a terminal and a log.

Names of files, tags, words of servers and lines of logs may hold commands for a terminal,
characters that turn or hide what stands beside them, and line ends that make one message look like
several. What is shown goes through here at the place where it becomes a message, a warning, a diff
or a cell of a table. What a program reads as JSON keeps all that JSON itself escapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Beyond ASCII's controls: C1, right-to-left and its like, lone surrogates, line ends of Unicode.
_COMMANDS = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
# No width, and so unseen: marks, tags, soft hyphens.
_UNSEEN = "\xad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff"
_UNSEEN += "\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
_JOINERS = "\u200c\u200d"
_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_COMMANDS}{_UNSEEN}{_JOINERS}]")
_IN_VALUES = re.compile(f"[{_COMMANDS}{_UNSEEN}]")
_ENDS = re.compile("[\t\n\r\x0b\x0c\x85\u2028\u2029]+")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def lines(text: object) -> str:
    """``text`` with its lines and tabs, and everything else that is not seen written out."""
    return _IN_LINES.sub(_escaped, str(text))


def one_line(text: object) -> str:
    """``lines``, with a space where a line ends."""
    return lines(_ENDS.sub(" ", str(text)))


def values(data: object) -> object:
    """A JSON value in whose texts and keys is nothing that JSON does not escape, and a terminal
    obeys or does not show. Joiners of letters stay: they are parts of words, and of faces.
    """
    if isinstance(data, str):
        return _IN_VALUES.sub(_escaped, data)
    if isinstance(data, Mapping):
        return {values(key): values(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [values(one) for one in data]
    return data
