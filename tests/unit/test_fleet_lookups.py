# SPDX-License-Identifier: Apache-2.0
"""What the playbooks refuse before they begin, and the variables that they know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.mlops.triton.plugins.lookup import misnamed_variables, play_hosts

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"all": ["a", "b"], "triton": ["a", "b"], "east": ["b"], "ungrouped": []}


@pytest.mark.parametrize(
    ("patterns", "limit", "problem"),
    [
        (["triton"], None, None),
        (["triton"], "east", None),
        (["triton"], "!east", None),
        (["mlflow", "triton"], None, None),
        (["localhost"], None, None),
        (["tri*"], "a", None),
        (["triton:!east"], "b", "leaves no host"),
        (["localhost"], "a", "leaves no host of 'localhost'"),
        (["mlflow"], "a", "no host in 'mlflow'"),
    ],
)
def test_a_play_has_the_hosts_that_ansible_finds(
    patterns: list[str], limit: str | None, problem: str | None
) -> None:
    found = play_hosts._hosts_problem(patterns, GROUPS, {"subset": limit})
    assert (found is None) if problem is None else (found and problem in found)


@pytest.mark.parametrize(
    ("version", "is_old"),
    [("2.18.9", True), ("2.9.27", True), ("2.19.0", False), ("2.21.1rc1", False), ("3.0.0", False)],
)
def test_an_ansible_core_that_is_too_old_is_what_is_wrong(version: str, is_old: bool) -> None:
    problem = play_hosts._version_problem(version)
    assert bool(problem) == is_old
    assert not problem or f"ansible-core {version}, and mlops.triton needs 2.19 or newer" in problem


def test_a_slip_is_told_from_a_name_of_ones_own() -> None:
    known = misnamed_variables.known_names()
    slips = {
        "triton_serail": "triton_serial",
        "triton_model": "triton_models",
        "triton_models_to_rollback": "triton_models_to_roll_back",
        "mlflow_tracking_url": "mlflow_tracking_uri",
        "triton_modelrepository": "triton_model_repository",
        "triton_in_service": "triton_in_service_tasks",
        "triton_out_of_service": "triton_out_of_service_tasks",
    }
    own = ["triton_models_common", "triton_release_notes", "mlflow_x", "triton_registry"]
    given = [*slips, *own, *known, "tritn_serial", "other"]
    assert misnamed_variables.judge(given, known) == (slips, sorted(own))


def listed() -> set[str]:
    text = (ROOT / "playbooks/files/variables.yml").read_text(encoding="utf-8")
    names = re.findall(r"^  - (\w+)$", text, re.M)
    assert names == sorted(set(names))
    return set(names)


def test_the_page_explains_the_variables_of_the_playbooks_and_no_others() -> None:
    page = (ROOT / "docs/playbooks.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    explained = {name for row in rows for name in re.findall(r"`((?:triton|mlflow)_\w+)`", row)}
    assert explained == listed()


def test_the_playbooks_read_no_other_variables() -> None:
    known = misnamed_variables.known_names()
    read = set()
    for path in (ROOT / "playbooks").rglob("*.yml"):
        if path.parent.name not in ("files", "inventory"):
            code = re.sub(r"^\s*#.*$", "", path.read_text(encoding="utf-8"), flags=re.M)
            read |= set(re.findall(r"(?<![\w.'/])((?:triton|mlflow)_[a-z0-9_]+)\b", code))
    modules = {path.stem for path in (ROOT / "plugins").rglob("*.py")}
    assert read - known - modules == set()
    # What a run leaves, and what is for people's own tasks.
    own = {"mlflow_publication", "triton_module_python", "triton_restart_due"}
    unread = listed() - read - own
    assert unread == set()
