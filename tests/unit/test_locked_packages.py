# SPDX-License-Identifier: Apache-2.0
"""The lists with hashes from which role triton installs: complete, and as the requirements ask."""

from __future__ import annotations

import re
from pathlib import Path

import lock
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PARTS = [
    pytest.param(folder, part, wanted, id=part)
    for folder, parts in lock.ENVIRONMENTS
    for part, wanted in parts.items()
]
PYTHONS = ("3.10", "3.11", "3.12")


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """Each requirement with its hashes."""
    joined = re.sub(r"\\\n +", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [
        (line.partition(" --hash")[0].strip(), re.findall(r"--hash=(\S+)", line))
        for line in joined.splitlines()
        if line
    ]


def pins(folder: Path, part: str, python: str, machine: str = "x86_64") -> dict[str, str]:
    """What is installed with a Python; each package once."""
    environment = {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    found: dict[str, str] = {}
    for text, _hashes in blocks(lock.path_of(folder, part).read_text(encoding="utf-8")):
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in found, (part, name)
            found[name] = str(requirement.specifier)
    return found


@pytest.mark.parametrize(("folder", "part", "wanted"), PARTS)
def test_each_package_has_one_version_and_a_hash(folder: Path, part: str, wanted: str) -> None:
    text = lock.path_of(folder, part).read_text(encoding="utf-8")
    assert text.startswith(lock.HEAD) and blocks(text)
    for requirement, hashes in blocks(text):
        assert re.match(r"[a-z0-9.-]+(\[[a-z,]+\])?==[0-9][^ ,]*( ; .+)?$", requirement), (
            requirement
        )
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)


@pytest.mark.parametrize(("folder", "part", "wanted"), PARTS)
def test_no_list_names_where_its_files_are(folder: Path, part: str, wanted: str) -> None:
    text = lock.path_of(folder, part).read_text(encoding="utf-8")
    assert not re.search(r"://|^-|index-url|find-links", text, re.MULTILINE)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("folder", "part", "wanted"), PARTS)
def test_a_list_holds_what_the_requirements_ask_for(
    folder: Path, part: str, wanted: str, python: str
) -> None:
    there = pins(folder, part, python)
    for line in wanted.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pinned = there[canonicalize_name(requirement.name)].removeprefix("==")
            assert requirement.specifier.contains(pinned), (line, pinned)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_lists_of_one_environment_agree(python: str, machine: str) -> None:
    for folder, parts in lock.ENVIRONMENTS:
        together: dict[str, str] = {}
        for part in parts:
            there = pins(folder, part, python, machine)
            for name in set(there) & set(together):
                assert there[name] == together[name], (part, name)
            together |= there


def test_what_the_role_adds_without_the_lists_is_what_the_lists_are_made_of() -> None:
    text = (lock.TRITON.parent / "vars/main.yml").read_text(encoding="utf-8")
    for part, wanted in lock.ENVIRONMENTS[0][1].items():
        if part != "client":
            assert f"'\\n{wanted.encode('unicode_escape').decode()}'" in text, part
            assert f"['{part}']" in text
