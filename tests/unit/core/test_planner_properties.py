# SPDX-License-Identifier: Apache-2.0
"""What a plan promises: when it was carried out, there is nothing left to do, whatever was done and
whatever happened before.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.journal import (
    FolderSwap,
    PendingLoad,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.observed import (
    ObservedModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.served import (
    ServedModel,
    VersionRow,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ForeignModel,
    NotFound,
    RepositoryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    status_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import (
    Plan,
    Reconfigure,
    Recover,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    is_pinned,
    make_plan,
    why_reconfigure,
    why_replace,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.versions import serves
from hypothesis import event, given
from hypothesis import strategies as st
from support.pure_model import apply, kinds_of

NAME = "fraud"
URLS = ("one:8000", "two:8000")
CONFIG = {"max_batch_size": 4}


@dataclasses.dataclass(frozen=True)
class Turn:
    """One run: what happened before it, what is asked for, and what the registry has then.

    Attributes:
        happened: changes what is there, behind the collection's back.
        version: what an alias means.
        answers: False where a verification fails.
        takes_over: what somebody else deployed has the files of the artifact.
    """

    happened: Callable[[ObservedModel], ObservedModel]
    options: dict[str, Any]
    version: int
    answers: bool
    takes_over: bool


def happening(what: str) -> Callable[[ObservedModel], ObservedModel]:
    changes: dict[str, Callable[[ObservedModel], dict[str, Any]]] = {
        "nothing": lambda there: {},
        "a file changed": lambda there: {"changed_files": ("1/a", "1/b")},
        "the configuration changed": lambda there: {"changed_files": ("config.pbtxt",)},
        "a file was touched": lambda there: {"touched_files": ("1/a",)},
        "permissions changed": lambda there: {"modes_differ": True},
        "the folder is gone": lambda there: {"folder": False},
        "a server was restarted": lambda there: {
            "served": (ServedModel(URLS[0]), *there.served[1:])
        },
        "a server loads": lambda there: {
            "served": (
                ServedModel(URLS[0], (VersionRow(1, "LOADING"),)), *there.served[1:]
            )
        },
        "a server has something old": lambda there: {
            "served": (
                *there.served[:1], ServedModel(URLS[1], (VersionRow(1, "READY"),), "t-0")
            )
        },
        "somebody loaded something": lambda there: {
            "served": (*there.served[:1], ServedModel(URLS[1], (VersionRow(1, "READY"),)))
        },
        "somebody made a folder": lambda there: {"folder": True},
        "copies were deleted": lambda there: {"retained": ()},
        "a run was killed": lambda there: {"journal": FolderSwap("id", None, 1, ())},
        "a load was given up on": lambda there: {"journal": PendingLoad("id", "noon", None)},
    }  # fmt: skip
    return lambda there: dataclasses.replace(there, **changes[what](there))


HAPPENINGS = (
    "nothing", "a file changed", "the configuration changed", "a file was touched",
    "permissions changed", "the folder is gone", "a server was restarted", "a server loads",
    "a server has something old", "somebody loaded something", "somebody made a folder",
    "copies were deleted", "a run was killed", "a load was given up on",
)  # fmt: skip
VERSIONS = st.integers(1, 4)
URIS = st.one_of(
    VERSIONS.map(lambda number: f"models:/fraud/{number}"), st.just("models:/fraud@champion")
)
PRESENT = st.fixed_dictionaries(
    {"model_uri": URIS, "state": st.sampled_from(["present", "present", "present", "unloaded"])},
    optional={
        "config": st.sampled_from([CONFIG, {}]),
        "instance_kind": st.sampled_from(["cpu", "gpu"]),
        "version_folders": st.sampled_from(["artifact", "registry"]),
        "serve_versions": st.integers(1, 3),
        "flavor": st.sampled_from(["triton", "onnx"]),
        "mode": st.sampled_from(["0640", "0644"]),
        "owner": st.just("triton"),
        "keep": st.integers(0, 2),
        "depends_on": st.sampled_from([[], ["tokenizer"]]),
        "deployment_set": st.just("blue"),
        "verify": st.sampled_from(["none", "auto", {"inputs": {"x": [1]}}]),
    },
)
BACK = st.fixed_dictionaries(
    {"state": st.just("rolled_back")},
    optional={
        "rollback_to": st.one_of(
            VERSIONS.map(str), VERSIONS.map(lambda number: f"models:/fraud/{number}")
        ),
        "keep": st.integers(0, 2),
        "verify": st.sampled_from(["none", "auto", {"inputs": {"x": [2]}}]),
    },
)
OPTIONS = st.one_of(
    PRESENT, PRESENT, PRESENT, BACK, st.sampled_from([{"state": "absent"}, {"state": "unloaded"}])
)
TURNS = st.builds(
    Turn,
    st.sampled_from(HAPPENINGS).map(happening),
    st.builds(
        lambda options, adopt: {"name": NAME, "adopt": adopt, **options}, OPTIONS, st.booleans()
    ),
    VERSIONS,
    st.sampled_from([True, True, True, False]),
    st.booleans(),
)
NOTHING = ObservedModel(NAME, served=tuple(ServedModel(url) for url in URLS))


def source_of(desired: DesiredModel, version: int) -> Source | None:
    uri = desired.uri
    if uri is None:
        return None
    number = uri.version or version
    return Source(uri, "fraud", number, uri.alias, f"models:/m-{number}", "x:/y", None, None)


def layout_of(desired: DesiredModel, source: Source | None) -> Layout | None:
    if source is None or source.registry_version is None:
        return None
    version = 1 if desired.version_folders == "artifact" else source.registry_version
    return Layout(
        desired.flavor or "triton", (("a", f"{version}/a", 5),), (), b"", (version,), (1,)
    )


def plan_of(
    there: ObservedModel, desired: DesiredModel, version: int, failed: str | None = None
) -> Plan:
    """As a run makes it: the record answers for the registry where it can."""
    source = source_of(desired, version)
    if is_pinned(there.record, desired, None) and not why_replace(there, desired, None):
        source = None
    return make_plan(there, desired, source, layout_of(desired, source), failed_verification=failed)


def run(there: ObservedModel, turn: Turn) -> tuple[ObservedModel, DesiredModel, Plan] | None:
    """What is there after a run; None where it refused."""
    there = turn.happened(there)
    desired = DesiredModel.from_options(turn.options)
    failed = None if turn.answers else "output 'y' differs"
    try:
        plan = plan_of(there, desired, turn.version, failed)
        if Recover in kinds_of(plan):
            # What a killed run left is recovered first; the rest is planned of what is there
            # then.
            event("recovered")
            there = dataclasses.replace(there, journal=None)
            again = plan_of(there, desired, turn.version, failed)
            if isinstance(plan.observed.journal, FolderSwap):
                assert kinds_of(plan) == [Recover, *kinds_of(again)]
                plan = again
    except ForeignModel:
        assert there.foreign and not desired.adopt
        event("refused: somebody else's")
        return None
    except NotFound:
        assert desired.state in ("rolled_back", "unloaded")
        event("refused: nothing there")
        return None
    except RepositoryError:
        assert desired.state == "rolled_back"
        assert there.changed_files or not there.folder
        event("refused: it would leave changed files in place")
        return None
    return apply(plan, turn.takes_over), desired, plan


@given(st.lists(TURNS, min_size=1, max_size=5))
def test_what_was_done_need_not_be_done_again(turns: list[Turn]) -> None:
    there = NOTHING
    for turn in turns:
        done = run(there, turn)
        if done is None:
            continue
        there, desired, plan = done
        event(", ".join(kind.__name__ for kind in kinds_of(plan)) or "nothing to do")
        again = plan_of(there, desired, turn.version)
        assert again.actions == [], (plan.actions, there)
        assert not again.changed
        assert again.before == again.after
        # An unloading leaves files alone that changed on disk, and they are told of.
        stays = desired.state == "unloaded" and desired.uri is None
        assert "problems" not in again.before or stays


@given(st.lists(TURNS, min_size=1, max_size=3), st.sampled_from(HAPPENINGS))
def test_inspection_tells_of_what_the_same_run_would_put_right(
    turns: list[Turn], happens: str
) -> None:
    there = NOTHING
    for turn in turns:
        there, desired, _plan = run(there, turn) or (there, None, None)
        if desired is None or desired.uri is None:
            continue
        assert status_of(there)["drift"] == []
        found = happening(happens)(there)
        again = plan_of(found, desired, turn.version)
        event(f"{happens}: {', '.join(kind.__name__ for kind in kinds_of(again)) or 'nothing'}")
        assert bool(again.steps) == bool(status_of(found)["drift"]), (again.actions, found)


@given(st.lists(TURNS, min_size=1, max_size=4))
def test_what_was_asked_for_is_there(turns: list[Turn]) -> None:
    there = NOTHING
    for turn in turns:
        done = run(there, turn)
        if done is None:
            continue
        there, desired, _plan = done
        record = there.record
        if desired.state == "absent":
            assert record is None and not there.folder and not there.taken
            assert all(one.ready == () for one in there.served)
            continue
        assert record is not None
        if desired.uri is not None:
            assert there.folder and not there.changed_files and not there.modes_differ
            wanted = desired.uri.version or turn.version
            assert record.registry_version == wanted
            assert record.model_uri == desired.asked_uri
            assert record.rolled_back_from is None
            assert _said(record.request) == _said(desired.request)
            assert max(record.triton_versions) == (
                1 if desired.version_folders == "artifact" else wanted
            )
            assert len(record.triton_versions) <= desired.serve_versions
        if desired.state == "rolled_back":
            assert there.folder and not there.changed_files and not there.modes_differ
        if desired.state == "unloaded":
            assert record.wanted == "unloaded"
            assert all(one.ready == () for one in there.served)
        else:
            assert record.wanted == "loaded"
            assert all(serves(one.ready, one.deploy_id, record) for one in there.served)


def _said(request: Mapping[str, Any]) -> dict[str, Any]:
    """An empty option says nothing."""
    return {key: value for key, value in request.items() if value}


@given(st.lists(TURNS, min_size=1, max_size=4))
def test_a_plan_says_all_that_it_does(turns: list[Turn]) -> None:
    """Nothing changes without a step, servers are named that are there, and a diff shows both."""
    there = NOTHING
    for turn in turns:
        before = turn.happened(there)
        done = run(there, turn)
        if done is None:
            continue
        there, desired, plan = done
        assert plan.changed == bool(plan.actions)
        assert all(plan.actions)
        for step in plan.steps:
            urls = getattr(step, "servers", ())
            assert set(urls) <= set(URLS)
        if not plan.changed:
            assert dataclasses.replace(there, journal=None) == dataclasses.replace(
                before, journal=None
            )
            assert plan.diff()["before"] == plan.diff()["after"]
        if plan.replacement:
            assert why_replace(plan.observed, desired, plan.replacement.source)
        elif Reconfigure in kinds_of(plan):
            assert why_reconfigure(plan.observed, desired)


@given(TURNS, TURNS)
def test_a_rollback_brings_back_what_was_replaced(first: Turn, second: Turn) -> None:
    one = run(NOTHING, dataclasses.replace(first, happened=happening("nothing")))
    if one is None or one[0].record is None:
        return
    nothing = happening("nothing")
    two = run(one[0], dataclasses.replace(
        second, happened=nothing, options={**second.options, "keep": 2}
    ))  # fmt: skip
    if two is None or two[0].record is None or not two[0].retained:
        return
    before, after = one[0].record, two[0].record
    assert two[0].retained[0].deploy_id == before.deploy_id
    for asked, undo in itertools.product((before.deploy_id, before.key), (True, False)):
        options = {"name": NAME, "state": "rolled_back", "rollback_to": asked, "keep": 2}
        options["undo"] = undo
        back = run(two[0], Turn(nothing, options, second.version, True, False))
        assert back is not None and back[0].record is not None
        record = back[0].record
        assert record.rolled_back_from == (after.deploy_id if undo else None)
        assert (record.pinned_uri, record.request, record.triton_versions) == (
            before.pinned_uri, before.request, before.triton_versions
        )  # fmt: skip
        again = plan_of(back[0], back[1], second.version)
        assert again.actions == [], "a rollback that was made is not made again"
        once_more = run(
            back[0], Turn(nothing, {"name": NAME, "state": "rolled_back"}, 1, True, False)
        )
        assert once_more is not None
        if undo:
            assert once_more[2].rollback is None, "what was taken back is not taken up again"
        else:
            assert once_more[2].rollback is not None, "the choice before is gone back to"


@pytest.mark.parametrize("state", ["present", "absent", "unloaded", "rolled_back"])
@given(there=st.sampled_from(["somebody loaded something", "somebody made a folder"]))
def test_what_is_somebody_elses_is_left_alone(state: str, there: str) -> None:
    options = {"name": NAME, "model_uri": "models:/fraud/1", "state": state}
    with pytest.raises(ForeignModel):
        plan_of(happening(there)(NOTHING), DesiredModel.from_options(options), 1)
