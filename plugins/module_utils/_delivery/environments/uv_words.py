# SPDX-License-Identifier: Apache-2.0
"""What uv says when it fails, as one sentence with the package's name and what to do.

Names and addresses in it are those of a publisher and of an index: the text is bounded, and without
credentials.
"""

from __future__ import annotations

import re

from ..redact import mask
from ..terminal import one_line
from .options import EnvironmentOptions

_LONGEST = 400
_READ = 64 << 10
_PACKAGE = r"`?(?P<package>[A-Za-z0-9][A-Za-z0-9._\[\]-]{0,100})"
_WISH = r"(?P<wish>[^\s`]{1,120})"
_WHERE = "put it there, or name another place in index_url or find_links of the option environments"
_MISSING = re.compile(rf"Because {_PACKAGE}\S* was not found in")
_NO_VERSION = re.compile(rf"Because there (?:is no version|are no versions) of {_WISH}")
_NO_WHEEL = re.compile(
    rf"{_PACKAGE}(?:==(?P<version>[\w.+!-]{{1,60}}))? has no (?:usable )?wheels|"
    rf"Wheels are required for `(?P<other>[A-Za-z0-9._-]{{1,100}})`"
)
_OTHER_BYTES = re.compile(r"Hash mismatch for `(?P<wish>[^`]{1,160})`")
_BUILD = re.compile(r"Failed to build `(?P<wish>[^`]{1,160})`")
_NO_PYTHON = re.compile(r"Failed to install (?P<wish>c?python[\w.+-]{1,80})")
_NO_ROOM = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
_UNREACHABLE = (
    "Failed to fetch",
    "Request failed after",
    "error sending request",
    "failed to query metadata",
    "Failed to read `--find-links`",
    "Could not connect",
)
_CONTRADICT = ("are incompatible", "are unsatisfiable", "No solution found")


def explain(said: str, options: EnvironmentOptions) -> str:
    """The sentence for what uv wrote to its standard error."""
    text = one_line(" ".join(mask(said[-_READ:]).split()))
    place = "the wheelhouse (find_links)" if options.no_index else "the index"
    if found := _OTHER_BYTES.search(text):
        return (
            f"{place} has other bytes for {found['wish']} than the lock says (hash mismatch): the"
            " file there was changed after it was resolved, and is not installed"
        )
    if any(words in text for words in _NO_ROOM):
        return "the disk is full: make room, or name another folder in folder of environments"
    if found := _NO_PYTHON.search(text):
        return (
            f"python_mirror of the option environments does not bring {found['wish']}"
            f" ({_short(text[found.end() :])}): put it there, or install that Python for all users"
        )
    if found := _MISSING.search(text):
        return f"{place} does not have the package '{found['package']}': {_WHERE}"
    if found := _BUILD.search(text):
        return (
            f"the source distribution of {found['wish']} cannot be built here"
            f" ({_short(text[found.end() :])}): put a wheel of it into a folder, and name that in"
            " find_links of the option environments"
        )
    if found := _NO_WHEEL.search(text):
        name = found["other"] or found["package"]
        version = f" {found['version']}" if found["version"] else ""
        return (
            f"there is no wheel of '{name}'{version} for this Python and platform: put one into a"
            " folder and name that in find_links of the option environments, or set"
            " source_distributions there, which builds it and runs its code"
        )
    if (found := _NO_VERSION.search(text)) and " are incompatible" not in text:
        return f"{place} has no version of '{found['wish']}': {_WHERE}"
    if any(words in text for words in _UNREACHABLE):
        return (
            f"{place} cannot be reached ({_short(text)}): look at index_url, extra_index_urls and"
            " find_links of the option environments"
        )
    if any(words in text for words in _CONTRADICT):
        return (
            f"the model's requirements contradict each other ({_because(text)}): log it again with"
            " versions that go together"
        )
    return f"uv failed: {_short(text) or 'it does not say why'}"


def names_package(said: str, name: str) -> bool:
    """True where a sentence of this file says that a package cannot be had."""
    return f"'{name}'" in said or f"'{name}==" in said


def _because(text: str) -> str:
    found = re.search(r"Because .*", text)
    return _short(found[0] if found else text)


def _short(text: str) -> str:
    text = text.strip(" :;.").removeprefix("error: ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
