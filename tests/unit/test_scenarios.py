# SPDX-License-Identifier: Apache-2.0
"""Programs in the YAML of Molecule's scenarios, which no linter reads, and what scenarios share."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from support import models

ROOT = Path(__file__).resolve().parents[2]
# Where a scenario brings tests/support/models.py alone, its programs import it by its own name.
BROUGHT = {"models": models}


def programs(document: Any) -> Iterator[str]:
    """What follows a "-c" in a list of words."""
    if isinstance(document, dict):
        for value in document.values():
            yield from programs(value)
    elif isinstance(document, list):
        for word, following in itertools.pairwise(document):
            if word == "-c" and isinstance(following, str) and "import" in following:
                yield following
        for value in document:
            yield from programs(value)


PROGRAMS = [
    pytest.param(path, text, id=f"{path.parent.name}/{path.name}")
    for path in sorted((ROOT / "molecule").rglob("*.yml"))
    for text in programs(yaml.safe_load(path.read_text(encoding="utf-8")))
]


def test_programs_are_found() -> None:
    assert len(PROGRAMS) >= 4


@pytest.mark.parametrize(("path", "text"), PROGRAMS)
def test_programs_use_what_there_is(path: Path, text: str) -> None:
    brings_models = "tests/support/models.py" in path.read_text(encoding="utf-8")
    known: dict[str, ModuleType] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                if brings_models and name.name in BROUGHT:
                    known[name.name] = BROUGHT[name.name]
                else:
                    assert importlib.util.find_spec(name.name), name.name
                    assert name.name not in BROUGHT, f"{name.name} is not brought"
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            module = importlib.import_module(node.module)
            for name in node.names:
                found = getattr(module, name.name, None)
                assert found is not None, f"{node.module} has no {name.name}"
                known[name.name] = found
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = known.get(node.value.id)
            assert owner is None or hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"


def recipes(*targets: str) -> dict[str, str]:
    """What make would run for a scenario, by its name."""
    words = ["make", "--dry-run", "SIDE_BY_SIDE=yes", *(f"molecule-{name}" for name in targets)]
    said = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lines = [line for line in said.splitlines() if " molecule " in line]
    assert len(lines) == len(targets)
    return {name: lines[targets.index(name)].partition(" run --keep -- ")[2] for name in targets}


def test_day2_has_the_hosts_of_fleet() -> None:
    """Other hosts of the same names would be made anew where both run."""
    fleet, day2 = (ROOT / f"molecule/{name}/molecule.yml" for name in ("fleet", "day2"))
    assert day2.is_symlink()
    assert day2.resolve() == fleet


def test_day2_goes_on_where_fleet_ended() -> None:
    both = recipes("fleet", "day2")
    fleet, day2 = (re.findall(r"molecule ([a-z].*?)(?= &&| \|\||;)", both[n]) for n in both)
    # Molecule makes no hosts where an earlier run has left a note that they are there.
    assert fleet == ["destroy -s fleet", "test -s fleet --destroy=never", "destroy -s fleet"]
    assert day2 == [f"{step} -s day2" for step in ("reset", "converge", "verify", "destroy")]
    for name in ("fleet", "day2"):
        assert recipes(name) == {name: f"molecule test -s {name}"}
