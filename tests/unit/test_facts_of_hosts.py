# SPDX-License-Identifier: Apache-2.0
"""A fact that a task sets wins over the variables of roles and tasks, in all later plays of a run:
none has the name of one of those.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")])


class Loader(yaml.SafeLoader):
    """Takes a value with a tag of Ansible's for a text."""


for tag in ("!vault", "!unsafe"):
    Loader.add_constructor(tag, lambda _loader, node: str(node.value))


def named(node: Any, facts: set[str], variables: set[str]) -> None:
    """The names of facts and of tasks' variables in a document."""
    if isinstance(node, dict):
        facts |= set(node.get("ansible.builtin.set_fact") or ())
        facts |= {node["register"]} if isinstance(node.get("register"), str) else set()
        variables |= set(node.get("vars") or ())
    inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for inner in inside:
        named(inner, facts, variables)


def test_no_fact_takes_the_place_of_a_variable() -> None:
    facts: set[str] = set()
    variables: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        found: set[str] = set()
        named(yaml.load(path.read_text(encoding="utf-8"), Loader), facts, found)
        for name in found:
            variables[name].add(str(path.relative_to(ROOT)))
    for path in ROOT.glob("roles/*/vars/main.yml"):
        for name in yaml.safe_load(path.read_text(encoding="utf-8")):
            variables[name].add(str(path.relative_to(ROOT)))
    assert len(facts) > 50 and len(variables) > 100
    assert {name: variables[name] for name in facts & set(variables)} == {}
