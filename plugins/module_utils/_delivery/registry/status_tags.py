# SPDX-License-Identifier: Apache-2.0
"""How the registry shows where a version is deployed: a tag for each target, and a marked block of
the description. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InvalidOption

PREFIX = "triton.deployed/"
BEGIN = "<!-- mlops.triton: where this version is deployed; what is written in here is replaced -->"
END = "<!-- mlops.triton: end -->"
LONGEST_DESCRIPTION = 5000
"""Characters that MLflow takes."""
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VALUE = re.compile(r"(?P<state>present|unloaded) since (?P<since>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")
# A block that lost its end takes nothing with it that people wrote below.
_BLOCK = re.compile(
    rf"(\n\n)?{re.escape(BEGIN)}(?:(?!{re.escape(BEGIN)}).)*?{re.escape(END)}", re.DOTALL
)


@dataclass(frozen=True)
class Standing:
    """What one target has of one version: "present" or "unloaded", and since when (UTC, to the
    second).
    """

    state: str
    since: str

    @property
    def text(self) -> str:
        return f"{self.state} since {self.since}"


def check_target(name: str) -> str:
    """Raises InvalidOption for a name that cannot be part of a tag's key."""
    if not _TARGET.fullmatch(name):
        raise InvalidOption(
            f"registry_status '{name}' is not possible: letters, digits and . _ -, at most 100",
            step="read the options",
            left="nothing was changed",
        )
    return name


def tag_key(target: str, name: str, registered: str) -> str:
    """The tag's key for what ``target`` serves as ``name``, which is said only where it is not the
    registered model's.
    """
    return (
        f"{PREFIX}{target}"
        if name == registered
        else f"{PREFIX}{target}/{name.replace('@', ' at ')}"
    )


def read_standing(value: str | None) -> Standing | None:
    """What a tag says; None for one that this collection did not write."""
    found = _VALUE.fullmatch(value or "")
    return Standing(found["state"], found["since"]) if found else None


def to_second(moment: str) -> str:
    """An ISO time in UTC, as records have it, without fractions."""
    return f"{moment[:19]}Z"


def without_block(description: str) -> str:
    """What people wrote."""
    return (
        _BLOCK.sub("", description).removeprefix("\n\n")
        if description.startswith(BEGIN)
        else _BLOCK.sub("", description)
    )


def with_block(description: str, tags: Mapping[str, str]) -> str:
    """The description with a block that says what the tags say, where there was one or at the end;
    without, where there is nothing to say.

    People's text is kept to the character. Where it leaves no room, the block is short, or left
    out.
    """
    written = without_block(description)
    for block in _blocks(tags):
        text = _insert_block(description, block)
        if len(text) <= LONGEST_DESCRIPTION:
            return text
    return written


def _insert_block(description: str, block: str) -> str:
    found = _BLOCK.search(description)
    if not found:
        return f"{description}\n\n{block}" if description else block
    before, after = description[: found.start()], _BLOCK.sub("", description[found.end() :])
    return f"{before}{found[1] or ''}{block}{after}"


def _blocks(tags: Mapping[str, str]) -> list[str]:
    """The block, and a shorter one; nothing where no tag says anything."""
    rows = sorted(
        (key.removeprefix(PREFIX), standing)
        for key, value in tags.items()
        if key.startswith(PREFIX) and (standing := read_standing(value))
    )
    if not rows:
        return []
    table = "\n".join(
        [
            "| deployed on | state | since |",
            "|---|---|---|",
            *(
                f"| {_readable_target(place)} | {standing.state} | {standing.since} |"
                for place, standing in rows
            ),
        ]
    )
    return [
        f"{BEGIN}\n{table}\n{END}",
        f"{BEGIN}\nDeployed on {len(rows)} targets, which the tags name.\n{END}",
    ]


def _readable_target(place: str) -> str:
    target, slash, name = place.partition("/")
    return f"{target} as {name}" if slash else target
