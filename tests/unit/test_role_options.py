# SPDX-License-Identifier: Apache-2.0
"""Options of the roles mean the same when a command line passes them: ``-e name=value`` makes every
value a text, and "false" is true and "4" is no number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
FILES = sorted(
    path
    for pattern in ("*/tasks/*.yml", "*/vars/*.yml", "*/templates/*.j2", "*/defaults/*.yml")
    for path in ROLES.glob(pattern)
)


def options(kind: str) -> list[str]:
    found = set()
    for path in ROLES.glob("*/meta/argument_specs.yml"):
        specs: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        for entry in specs.values():
            known = entry.get("options") or {}
            found |= {name for name, option in known.items() if option["type"] == kind}
    return sorted(found)


def uses(names: list[str], pattern: str) -> list[str]:
    expression = re.compile(pattern.replace("NAME", f"(?:{'|'.join(names)})\\b"), re.MULTILINE)
    return [
        f"{path.relative_to(ROLES)}: {match.group().strip()}"
        for path in FILES
        for match in expression.finditer(path.read_text(encoding="utf-8"))
    ]


def test_there_are_options_and_files() -> None:
    assert len(options("bool")) > 5 and len(options("int")) > 10 and len(FILES) > 40


@pytest.mark.parametrize("before", [r"\bif ", r"\band ", r"\bor ", r"\bnot ", r"when: ", r"^ *- "])
def test_a_bool_that_decides_is_read_as_one(before: str) -> None:
    # What follows a name in a sentence for the user is a word.
    assert not uses(options("bool"), before + r"NAME(?! \| bool| (?:is|needs|works|must|to)\b|:)")


def test_a_number_that_is_reckoned_with_or_compared_is_read_as_one() -> None:
    names = options("int")
    assert not uses(names, r"NAME (?:[-+*/<>%]|==|!=) ")
    assert not uses(names, r"[-+*/<>%] NAME(?! \| int)")
    assert not uses([name for name in names if name.endswith("_port")], r"'port': NAME(?! \| int)")
    for before in (r"\bif ", r"\band ", r"\bor ", r"\bnot "):
        assert not uses(names, before + r"NAME(?! \| (?:int|string))(?! to | and | are )")
