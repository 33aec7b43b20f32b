# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the fleet playbooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.triton.plugins.filter.controller_file import controller_file
from ansible_collections.mlops.triton.plugins.filter.model_entries import model_entries
from ansible_collections.mlops.triton.plugins.filter.pin_models import pin_models
from ansible_collections.mlops.triton.plugins.filter.serving_changes import serving_changes

ROOT = Path(__file__).resolve().parents[2]
RECORD, TELL, LOAD = "write the record", "tell the registry", "load on localhost:8000"


def entry(*actions: str, **more: Any) -> dict[str, Any]:
    return {"name": "fraud", "changed": bool(actions), "actions": list(actions), **more}


@pytest.mark.parametrize(
    ("plan", "serving"),
    [
        (entry(), False),
        (entry(LOAD, RECORD), True),
        (entry(LOAD, RECORD, noted=[RECORD]), True),
        (entry(RECORD, noted=[RECORD]), False),
        (entry(RECORD, TELL, noted=[RECORD], reported=[TELL]), False),
        (entry(TELL, reported=[TELL]), False),
        ({**entry(), "changed": True}, True),
    ],
)
def test_a_note_is_no_change_of_what_is_served(plan: dict[str, Any], serving: bool) -> None:
    other = entry(RECORD, noted=[RECORD])
    assert serving_changes([plan, other]) == ([plan] if serving else [])


def test_a_record_keeps_what_was_asked_for() -> None:
    asked = [
        {"name": "a", "model_uri": "models:/a@champion"},
        {"name": "b", "model_uri": "models:/b/latest"},
        {"name": "c", "model_uri": "models:/c/3"},
    ]
    assert pin_models(asked, {"models:/a@champion": 2, "models:/b/latest": 7}) == [
        {"name": "a", "model_uri": "models:/a/2", "alias": "champion"},
        {"name": "b", "model_uri": "models:/b/7", "alias": "latest"},
        {"name": "c", "model_uri": "models:/c/3"},
    ]


def test_a_hook_is_found_beside_the_playbook_then_in_the_collection(tmp_path: Path) -> None:
    def found(name: str) -> str:
        return controller_file(name, str(tmp_path), "triton_in_service_tasks")

    own = tmp_path / "tasks/haproxy_in.yml"
    assert found("tasks/haproxy_in.yml") == str(ROOT / "playbooks/tasks/haproxy_in.yml")
    own.parent.mkdir()
    own.write_text("[]")
    assert found("tasks/haproxy_in.yml") == found(str(own)) == str(own)
    assert found("") == ""
    with pytest.raises(AnsibleFilterError, match=r"triton_in_service_tasks: tasks .*No host was"):
        found("tasks")


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ("fraud", "triton_models is a text"),
        ({"fraud": {}}, "triton_models is a dictionary"),
        (["fraud"], "entry 1 of triton_models is a text"),
        ([{"name": "a"}, {"model_uri": "models:/a/1"}], "entry 2 of triton_models has no name"),
        ([{"name": "a"}, {"name": "b"}, {"name": "a"}], "2 entries with the name 'a'"),
        ([{"name": ""}, None], "entry 1 of triton_models has no name; entry 2 of triton_models is"),
    ],
)
def test_what_is_no_list_of_models_is_said(models: Any, words: str) -> None:
    with pytest.raises(AnsibleFilterError) as refusal:
        model_entries(models, "triton_models")
    assert words in str(refusal.value) and "Nothing was changed" in str(refusal.value)


@pytest.mark.parametrize("names", ["fraud", {"fraud": 1}, [{"name": "fraud"}], ["a", "a"], [None]])
def test_what_is_no_list_of_names_is_said(names: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r'-e \'{"to_remove": \["fraud"\]}\''):
        model_entries(names, "to_remove", {"state": "absent"})


def test_names_become_entries() -> None:
    assert model_entries(["a", 7], "to_remove", {"state": "absent"}) == [
        {"name": "a", "state": "absent"},
        {"name": "7", "state": "absent"},
    ]
    entries = [{"name": "a", "keep": 2}]
    assert model_entries(entries, "triton_models") == entries
