# SPDX-License-Identifier: Apache-2.0
"""What a change of one model means for the deployed models that use it: refused, asked, or changed
together.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
    Example,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.observed import (
    ObservedModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.served import (
    ServedModel,
    VersionRow,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import NeedsOther
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.dependencies import (
    order_plans,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.outcome import Planned
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import (
    Plan,
    ProveUsers,
    User,
    WriteRecord,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    make_plan,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.users import (
    Usage,
    groups_of,
    may_have_users,
)

SERVED = ServedModel("u", (VersionRow(1, "READY", ""),), "id")


def record(name: str, *uses: str, **more: Any) -> Record:
    made = Record(
        name, "id", f"models:/{name}/1", f"models:/{name}/1", "s-1", "triton", (1, 3),
        Manifest.of(()).to_dict(), "d", "c", {"version_folders": "auto"}, "then", "me",
        depends_on=uses, registry_name=name, registry_version=1,
    )  # fmt: skip
    return dataclasses.replace(made, **more)


def plan(name: str, there: Record | None = None, author: bytes = b"", **options: Any) -> Plan:
    """Version 2 comes, where nothing else is asked for."""
    if options.get("state") not in ("absent", "rolled_back"):
        options = {"model_uri": f"models:/{name}/2", **options}
    wanted = DesiredModel.from_options({"name": name, **options})
    uri = parse_model_uri(f"models:/{name}/2")
    source = Source(uri, name, 2, None, "s-2", "x:/y", None, None)
    layout = Layout("triton", (("a", "2/a", 1),), (), author, (2,), (2,))
    served = (SERVED,) if there else ()
    observed = ObservedModel(name, record=there, folder=there is not None, served=served)
    return make_plan(observed, wanted, source, layout)


def update(name: str, *uses: str, **options: Any) -> Plan:
    return plan(name, record(name), depends_on=list(uses), **options)


def users(made: Plan) -> tuple[User, ...]:
    return next((step.users for step in made.steps if isinstance(step, ProveUsers)), ())


def usage(*records: Record, wanted: tuple[DesiredModel, ...] = ()) -> Usage:
    return Usage({one.name: one for one in records}, {one.name: one for one in wanted})


# -- users are asked -------------------------------------------------------------------------------


def test_who_uses_a_model_and_who_uses_these_is_asked_before_the_record_is_written() -> None:
    known = usage(record("one"), record("user", "one"), record("above", "user"), record("apart"))
    made = known.add(update("one"))
    assert [user.name for user in users(made)] == ["above", "user"]
    assert "verify above, user, which use it" in made.actions
    assert isinstance(made.steps[-1], WriteRecord) and isinstance(made.steps[-2], ProveUsers)
    assert known.add(made) == made


def test_a_single_user_is_asked_by_its_highest_version_and_its_example() -> None:
    known = usage(record("one"), record("user", "one", example={"x": [1]}))
    made = known.add(update("one"))
    assert users(made) == (User("user", 3, Example({"x": [1]})),)
    assert "verify user, which uses it" in made.actions


def test_a_user_whose_policy_loads_a_lower_version_is_asked_by_that_one() -> None:
    policy = "version_policy { specific { versions: [ 1 ] } }"
    made = usage(record("one"), record("user", "one", author_config=policy)).add(update("one"))
    assert users(made) == (User("user", 1),)


@pytest.mark.parametrize(
    ("verify", "case"),
    [
        (None, Example({"x": [1]})),
        ("auto", Example({"x": [1]})),
        ("none", None),
        ({"inputs": {"x": [2]}}, {"inputs": {"x": [2]}}),
    ],
)
def test_what_the_list_says_of_a_user_is_how_it_is_asked(verify: object, case: Any) -> None:
    said = DesiredModel.from_options(
        {"name": "user", "model_uri": "models:/user/1", "verify": verify}
    )
    known = usage(record("one"), record("user", "one", example={"x": [1]}), wanted=(said,))
    assert users(known.add(update("one"))) == (User("user", 3, case),)


def test_a_user_that_goes_or_changes_with_it_is_not_asked() -> None:
    gone = DesiredModel.from_options({"name": "gone", "state": "absent"})
    known = usage(record("gone", "one"), record("user", "one"), wanted=(gone,))
    assert users(known.add(update("one"), ["one", "user"])) == ()


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(plan("one"), id="deployed for the first time"),
        pytest.param(plan("one", record("one"), model_uri="models:/one/1"), id="unchanged"),
    ],
)
def test_nobody_is_asked_where_nothing_changes_for_users(made: Plan) -> None:
    if made.changes_model and made.observed.record:
        made = dataclasses.replace(made, steps=())
    assert not may_have_users(made)
    assert usage(record("user", "one")).add(made) is made


# -- taken away ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"state": "absent"}, {"state": "unloaded", "model_uri": None}])
def test_a_model_is_not_taken_away_from_its_users(options: dict[str, Any]) -> None:
    made = plan("one", record("one"), **options)
    with pytest.raises(NeedsOther) as caught:
        usage(record("user", "one")).add(made)
    assert str(caught.value) == (
        "model 'one', plan: 'user' is deployed and uses it: remove or unload that first, or in the"
        " same list. Nothing was changed."
    )
    with pytest.raises(NeedsOther, match="'a', 'b' are deployed and use it: remove or unload thos"):
        usage(record("b", "one"), record("a", "one")).add(made)


def test_a_model_goes_where_its_users_are_unloaded_or_in_the_list() -> None:
    made = plan("one", record("one"), state="absent")
    listed = DesiredModel.from_options({"name": "user", "state": "absent"})
    for known in (
        usage(record("user", "one", wanted="unloaded")),
        usage(record("user", "one"), wanted=(listed,)),
        usage(record("above", "user")),
    ):
        assert known.add(made) is made


# -- ensembles that somebody else deployed ---------------------------------------------------------


def foreign(*wanted: DesiredModel, dims: int = 3) -> Usage:
    step = "step { model_name: 'one' model_version: -1 input_map { key: 'x' value: 'a' } }"
    text = (
        f"platform: 'ensemble' input {{ name: 'a' data_type: TYPE_FP32 dims: {dims} }}"
        f" ensemble_scheduling {{ {step} }}"
    )
    config = config_pbtxt.parse(text.encode())
    return Usage({}, {one.name: one for one in wanted}, {"theirs": config})


@pytest.mark.parametrize("options", [{"state": "absent"}, {"state": "unloaded", "model_uri": None}])
def test_a_model_is_not_taken_away_from_an_ensemble_that_somebody_else_deployed(
    options: dict[str, Any],
) -> None:
    made = plan("one", record("one"), **options)
    with pytest.raises(NeedsOther) as caught:
        foreign().add(made)
    assert str(caught.value) == (
        "model 'one', plan: 'theirs' uses it, and no record here tells of it: unload that"
        " from the server first, or remove it in the same list (state: absent, adopt: true)."
        " Nothing was changed."
    )
    listed = DesiredModel.from_options({"name": "theirs", "state": "absent", "adopt": True})
    assert foreign(listed).add(made) is made
    other = plan("other", record("other"), **options)
    assert foreign().add(other) is other


def test_a_change_under_an_ensemble_that_somebody_else_deployed_is_warned_about() -> None:
    made = foreign().add(update("one"))
    said = "'theirs' uses it, and no record here tells of that: whether it still answers"
    assert [warning[: len(said)] for warning in made.warnings] == [said]
    assert foreign().add(made) == made, "once"
    assert foreign().add(update("other")).warnings == ()

    author = (
        b"backend: 'python' input { name: 'x' data_type: TYPE_FP32 dims: 3 }"
        b" output { name: 'y' data_type: TYPE_FP32 dims: 3 }"
    )
    (warning,) = foreign(dims=4).add(plan("one", record("one"), author=author)).warnings
    assert "it could not be loaded any more: its tensor 'a' has the shape [4] for" in warning


# -- groups ----------------------------------------------------------------------------------------


def groups(*plans: Plan, known: Usage | None = None) -> set[tuple[str, ...]]:
    planned = {made.desired.name: Planned(made.desired, made) for made in plans}
    return set(groups_of(planned, order_plans(planned, ()), known or Usage()))


def test_a_model_that_changes_is_in_one_group_with_its_users_that_change() -> None:
    assert groups(update("above", "user"), update("user", "one"), update("one"), update("apart")) \
        == {("one", "user", "above"), ("apart",)}  # fmt: skip


def test_a_user_that_is_new_is_in_the_group_of_what_it_uses() -> None:
    assert groups(plan("user", depends_on=["one"]), update("one")) == {("one", "user")}


def test_what_is_deployed_for_the_first_time_stays_whatever_its_users_do() -> None:
    made = groups(update("user", "one"), plan("one"), plan("other", depends_on=["one"]))
    assert made == {("one",), ("user",), ("other",)}


def test_users_are_in_the_group_through_a_model_that_does_not_change() -> None:
    still = dataclasses.replace(update("between", "one"), steps=())
    assert groups(update("user", "between"), still, update("one")) == {("one", "user")}


def test_models_that_share_a_user_are_one_group() -> None:
    known = usage(record("user", "one", "two"), record("alone", "three"))
    made = groups(update("one"), update("two"), update("three"), known=known)
    assert {frozenset(group) for group in made} == {frozenset({"one", "two"}), frozenset({"three"})}


def test_what_goes_is_in_no_group() -> None:
    gone = plan("user", record("user", "one"), state="absent")
    assert groups(gone, update("one")) == {("user",), ("one",)}


def test_groups_that_would_wait_for_each_other_are_one() -> None:
    """``one`` and ``z`` share a user; ``z`` waits for ``y``, and ``y`` for ``x``, which goes
    together with ``one``.
    """
    known = usage(record("user", "one", "z"))
    made = groups(
        update("z", "y"),
        plan("y", depends_on=["x"]),
        plan("x", depends_on=["one"]),
        update("one"),
        known=known,
    )
    assert made == {("one", "x", "y", "z")}


def test_a_model_that_is_refused_is_in_no_group() -> None:
    made = groups(update("one", "user"), update("user", "one"))
    assert made == {("one",), ("user",)}
