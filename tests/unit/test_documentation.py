# SPDX-License-Identifier: Apache-2.0
"""What the documentation names exists: files, packages, options, links."""

from __future__ import annotations

import importlib
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = "ansible_collections.mlops.triton.plugins"
CORE = ROOT / "plugins/module_utils/_delivery"
DECISIONS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("roles/*/README.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
    ]
)
# Pages on the code: what has a slash there is a path.
ABOUT_CODE = [ROOT / "docs/architecture.md", ROOT / "docs/concepts.md", *DECISIONS]
BASES = (ROOT, CORE, ROOT / "plugins", ROOT / "plugins/module_utils")
# Former names live on in these.
NO_SOURCES = ("changelogs/", "tests/unit/")
CODE = (".cfg", ".j2", ".json", ".py", ".toml", ".yaml", ".yml", "Makefile")
HEADINGS = ["Context", "Decision", "Alternatives", "Consequences"]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def quoted(page: Path) -> list[str]:
    """What stands in single backticks outside code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", read(page), flags=re.S | re.M))


def exists(name: str, page: Path) -> bool:
    return any((base / name).exists() for base in (page.parent, *BASES))


def python_files(folder: str) -> list[Path]:
    """Of a folder of the checkout with all below it; of the checkout itself those at its top."""
    return [*(ROOT / folder).glob("*.py" if folder == "." else "**/*.py")]


@cache
def sources() -> str:
    """The text of everything tracked that is code."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return "\n".join(
        read(ROOT / name)
        for name in names
        if name.endswith(CODE) and (ROOT / name).is_file() and not name.startswith(NO_SOURCES)
    )


def test_pages_were_found() -> None:
    assert len(DECISIONS) > 9
    assert len(PAGES) > len(ABOUT_CODE) > 11


@each_page
def test_files_that_a_page_names_exist(page: Path) -> None:
    paths = [name for name in quoted(page) if re.fullmatch(r"[\w./-]+/[\w.-]+\.(py|yml)", name)]
    assert [name for name in paths if not exists(name, page)] == []


@pytest.mark.parametrize("page", ABOUT_CODE, ids=lambda page: page.name)
def test_packages_that_a_page_names_exist(page: Path) -> None:
    folders = [name for name in quoted(page) if re.fullmatch(r"\w[\w./-]*/", name)]
    files = [name for name in quoted(page) if re.fullmatch(r"[\w-]+\.py", name)]
    assert [name for name in folders if not exists(name, page) and name != "_delivery/"] == []
    there = {path.name for folder in ("plugins", "roles", ".") for path in python_files(folder)}
    assert [name for name in files if name not in there] == []


@each_page
def test_names_that_a_page_quotes_are_in_the_code(page: Path) -> None:
    """Options, variables, functions: a word with an underscore, alone in backticks."""
    words = {name for name in quoted(page) if re.fullmatch(r"[A-Za-z]\w*_\w+", name)}
    names = {word for word in words if not word.startswith("test_")}  # names that one would give
    assert {name for name in names if not re.search(rf"\b{name}\b", sources())} == set()


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", re.sub(r"^```.*?^```", "", read(page), flags=re.S | re.M))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_each_claim_about_security_has_its_test() -> None:
    rows = [
        re.split(r"(?<!\\)\|", line)[1:-1]
        for line in read(ROOT / "docs/security.md").splitlines()
        if line.startswith("| ") and not line.startswith("| could")
    ]
    assert len(rows) > 30
    tests = "\n".join(read(path) for path in (ROOT / "tests").rglob("test_*.py"))
    names = [name for row in rows for name in re.findall(r"`(test_\w+)`", row[2])]
    assert [name for name in names if not re.search(rf"^def {name}\(", tests, re.M)] == []
    untested = [row[0].strip() for row in rows if not re.search(r"`test_|\]\(", row[2])]
    assert untested == ["move an alias to another version"]  # nothing is promised of it


def test_each_term_has_an_owner_and_is_defined_once() -> None:
    rows = [
        re.split(r"(?<!\\)\|", line)[1:-1]
        for line in read(ROOT / "docs/concepts.md").splitlines()
        if line.startswith("| **")
    ]
    terms = [term for row in rows for term in re.findall(r"\*\*([^*]+)\*\*", row[0])]
    assert len(terms) > 35 and len(terms) == len(set(terms))
    ownerless = [row[0] for row in rows if not re.search(r"`[\w./]+(\.py|/)`", row[2])]
    assert ownerless == []


FORMER_WORDS = re.compile(r"\b(settle[sd]?|settling|crew)\b", re.I)
"""Recover and scheduler took their places."""
PROGRAMS = sorted((ROOT / "plugins").rglob("*.py"))


@pytest.mark.parametrize("page", [*PAGES, *PROGRAMS], ids=lambda page: str(page.relative_to(ROOT)))
def test_one_thing_has_one_word(page: Path) -> None:
    assert FORMER_WORDS.findall(read(page)) == []


def test_packages_stand_in_the_picture() -> None:
    page = read(ROOT / "docs/architecture.md")
    (picture,) = (block for block in re.findall(r"```\n(.*?)```", page, re.S) if "┌" in block)
    packages = {path.parent.name for path in CORE.glob("*/__init__.py")}
    assert {name for name in packages if name not in picture} == set()


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_says_when_why_and_at_what_price(page: Path) -> None:
    assert re.findall(r"^## (.+)$", read(page), re.M) == HEADINGS
    found = re.search(r"^Date: (2\d{3}-\d\d(?:-\d\d)?)\. Status: (.+)\.$", read(page), re.M)
    title = re.search(r"^# (\d+)\. (.+)$", read(page), re.M)
    assert found and title and int(title[1]) == int(page.name[:4])
    row = f"| [{title[1]}. {title[2]}]({page.name}) | {found[1]} | {found[2]} |"
    assert row in read(page.parent / "README.md")


def test_a_list_documents_the_options_of_one_model() -> None:
    """``triton_models`` repeats what fragment ``model`` says, with references into the list."""

    def documented(text: str) -> Any:
        return yaml.safe_load(text)["options"]

    fragment = importlib.import_module(f"{PLUGINS}.doc_fragments.model")
    module = importlib.import_module(f"{PLUGINS}.modules.triton_models")
    alone = documented(fragment.ModuleDocFragment.DOCUMENTATION)
    listed = documented(module.DOCUMENTATION)["models"]["suboptions"]
    inside = re.compile(r"O\((?=({})\b)".format("|".join(alone)))

    def said(option: dict[str, Any]) -> str:
        text = option["description"]
        return " ".join(text) if isinstance(text, list) else text

    assert {name: inside.sub("O(models[].", said(alone[name])) for name in alone} == {
        name: said(option) for name, option in listed.items()
    }
