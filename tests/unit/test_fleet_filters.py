# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of the fleet playbooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.triton.plugins.filter.controller_file import controller_file
from ansible_collections.mlops.triton.plugins.filter.environment_hosts import environment_hosts
from ansible_collections.mlops.triton.plugins.filter.environment_locks import environment_locks
from ansible_collections.mlops.triton.plugins.filter.model_entries import model_entries
from ansible_collections.mlops.triton.plugins.filter.pin_models import pin_models
from ansible_collections.mlops.triton.plugins.filter.rollback_models import rollback_models
from ansible_collections.mlops.triton.plugins.filter.serving_changes import serving_changes
from ansible_collections.mlops.triton.plugins.filter.uris_to_pin import uris_to_pin

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


def host(name: str, *needs: tuple[str | None, bool]) -> dict[str, Any]:
    entries = [
        {"key": key, "requirements": "what the model asks for", "changed": changed}
        for key, changed in needs
    ]
    return {"inventory_hostname": name, "_triton_plan": {"environments": entries}}


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ([], []),
        ([{"inventory_hostname": "a", "_triton_plan": {}}, host("b")], []),
        ([host("a", ("x", True)), host("b", ("x", True))], ["a"]),
        # What one has already, the others install as well.
        ([host("a", ("x", False)), host("b", ("x", True))], ["a"]),
        ([host("a", ("x", False)), host("b", ("x", False))], []),
        # Another platform, or Python.
        ([host("a", ("x", True)), host("b", ("y", True)), host("c", ("y", True))], ["a", "b"]),
        ([host("a", ("x", True)), host("b", ("x", True), ("y", True))], ["a", "b"]),
        # Which Python there will be is not known yet.
        ([host("a", (None, True)), host("b", (None, True))], ["a"]),
    ],
)
def test_one_host_resolves_for_all_that_need_the_same(
    hosts: list[dict[str, Any]], first: list[str]
) -> None:
    assert environment_hosts(hosts) == first


def test_what_the_first_host_has_resolved_counts() -> None:
    def made(*locks: tuple[str | None, str | None]) -> dict[str, Any]:
        return {"environments": [{"key": key, "lock": lock} for key, lock in locks]}

    results = [{}, made(("x", "1"), (None, "2")), made(("x", "3"), ("y", "4"), ("z", None))]
    assert environment_locks(results) == {"x": "1", "y": "4"}


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


@pytest.mark.parametrize(
    ("spelt", "alias"),
    [
        ("models:/a@champion/", "champion"),
        ("models:a@champion", "champion"),
        ("MODELS:/a@champion", "champion"),
        (" models:/a@champion ", "champion"),
        ("models:/a/Latest", "latest"),
        ("models:/a/latest/", "latest"),
    ],
)
@pytest.mark.parametrize("state", [{}, {"state": None}, {"state": "unloaded"}])
def test_an_alias_is_pinned_however_it_is_spelt(
    spelt: str, alias: str, state: dict[str, Any]
) -> None:
    asked = [{"name": "a", "model_uri": spelt, **state}]
    uris = uris_to_pin(asked)
    assert uris == [spelt.strip()]
    (pinned,) = pin_models(asked, dict.fromkeys(uris, 4))
    assert (pinned["model_uri"], pinned["alias"]) == ("models:/a/4", alias)


@pytest.mark.parametrize(
    "entry",
    [
        {"model_uri": "models:/a/3"},
        {"model_uri": "/models/a@champion"},
        {"model_uri": "models:/a/Production"},
        {"model_uri": "models:/a@champion", "state": "absent"},
        {},
    ],
)
def test_what_does_not_move_or_cannot_be_read_is_not_pinned(entry: dict[str, Any]) -> None:
    asked = [{"name": "a", **entry}]
    assert uris_to_pin(asked) == [] and pin_models(asked, {"models:/a@champion": 1}) == asked


def test_who_verifies_nothing_rolls_back_without_it() -> None:
    asked = [{"name": "a", "state": "rolled_back"}, {"name": "b"}, {"name": "c", "state": "absent"}]

    def verified(verify: Any) -> list[Any]:
        return [entry.get("verify") for entry in pin_models(asked, {}, verify)]

    # With auto a rollback is proven by what proved the copy.
    assert verified("auto") == [None, "auto", None]
    assert verified("none") == ["none", "none", None]
    assert verified(None) == [None, None, None]


def test_a_host_is_brought_back_without_a_verification_where_none_is_wanted() -> None:
    was = {"transaction": "1", "state": "present", "source": "models:/a/1"}
    names = ("replaced", "removed", "new")
    before = [{"name": name, "model": was if name != "new" else {}} for name in names]
    now = [{"name": name, "transaction": "2", "state": "present"} for name in ("replaced", "new")]

    def verified(wanted: list[dict[str, Any]], verify: Any) -> dict[str, Any]:
        back = rollback_models(before, now, wanted, verify)
        return {entry["name"]: entry.get("verify") for entry in back}

    removed = {"name": "removed", "state": "absent"}
    nothing = {"replaced": "none", "removed": "none", "new": None}
    assert verified([removed], "none") == verified([removed], False) == nothing
    assert verified([{"name": "replaced", "verify": "none"}], "auto") == {
        **nothing,
        "removed": None,
    }
    case = {"inputs": {"x": [1]}, "outputs": {"y": [2]}}
    assert verified([{"name": "replaced", "verify": case}], "auto") == dict.fromkeys(names)


def test_the_way_of_a_fleet_is_that_of_entries_without_one_and_of_the_way_back() -> None:
    asked = [
        {"name": "a"},
        {"name": "own", "swap": "overlap"},
        {"name": "back", "state": "rolled_back"},
        {"name": "gone", "state": "absent"},
        {"name": "tried", "verify_aside": True},
    ]

    def swaps(entries: list[dict[str, Any]]) -> dict[str, Any]:
        return {one["name"]: one["swap"] for one in entries if "swap" in one}

    first = pin_models(asked, {}, "auto", "unload_first")
    assert swaps(first) == {"a": "unload_first", "own": "overlap", "back": "unload_first"}
    assert swaps(pin_models(asked, {}, "auto", "auto"))["tried"] == "auto"
    assert (
        swaps(pin_models(asked, {}))
        == swaps(pin_models(asked, {}, "auto", ""))
        == {"own": "overlap"}
    )
    before = [
        {"name": name, "model": {"transaction": "1", "state": "present", "source": "models:/a/1"}}
        for name in ("a", "own", "tried")
    ]
    now = [{"name": one["name"], "transaction": "2", "state": "present"} for one in before]
    assert swaps(rollback_models(before, now, first)) == {"a": "unload_first", "own": "overlap"}


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
