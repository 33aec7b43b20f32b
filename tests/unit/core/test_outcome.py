# SPDX-License-Identifier: Apache-2.0
"""What a check run, or a model that cannot be changed, comes to: each model by itself, then those
that need others of the list.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.observed import (
    ObservedModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    NeedsOther,
    NotFound,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.dependencies import (
    order_plans,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.outcome import (
    Outcome,
    Planned,
    expect,
    expect_all,
    refuse,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import Plan
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    make_plan,
)


def record(name: str) -> Record:
    return Record(
        name, "id", "models:/m/1", "models:/m/1", "s", "triton", (1,), Manifest.of(()).to_dict(),
        "d", "c", {"version_folders": "auto"}, "then", "me",
        registry_name="m", registry_version=1,
    )  # fmt: skip


def planned(name: str, *needs: str, is_there: bool = False, **more: Any) -> Planned:
    """A model that is to be deployed, or is there as wanted."""
    wanted = DesiredModel.from_options(
        {"name": name, "model_uri": "models:/m/1", "depends_on": list(needs)}
    )
    observed = ObservedModel(name, **more)
    if is_there:
        made = dataclasses.replace(record(name), depends_on=needs)
        observed = dataclasses.replace(observed, record=made, folder=True)
    return Planned(wanted, make_plan(observed, wanted))


def failing(name: str) -> Planned:
    error = NotFound("the registry has no model 'm'", step="resolve the model URI")
    return dataclasses.replace(planned(name), error=error)


def expected(*listed: Planned, failed: tuple[str, ...] = ()) -> dict[str, Outcome]:
    """What a check run says of a list."""
    by_name = {one.desired.name: one for one in listed}
    return expect_all(by_name, order_plans(by_name, failed), failed)


def said(outcomes: dict[str, Outcome]) -> dict[str, str | None]:
    return {name: str(one.error) if one.error else None for name, one in outcomes.items()}


def test_a_plan_comes_to_what_it_says() -> None:
    one = planned("fraud", unreachable=("server one:8000 is not reachable",))
    warned = dataclasses.replace(one, plan=_warning(one.plan))
    assert expect(warned) == Outcome(
        warned.plan, None, True, ("notes.txt is left out", "server one:8000 is not reachable")
    )


def _warning(plan: Plan | None) -> Plan:
    assert plan is not None
    return dataclasses.replace(plan, warnings=("notes.txt is left out",))


def test_a_model_that_is_there_as_wanted_comes_to_its_record() -> None:
    one = planned("fraud", is_there=True)
    assert expect(one) == Outcome(one.plan, record("fraud"), False, ())


def test_a_model_without_a_plan_says_why_and_that_nothing_was_changed() -> None:
    outcome = expect(failing("fraud"))
    assert (outcome.plan, outcome.record, outcome.changed) == (None, None, False)
    assert str(outcome.error) == (
        "model 'fraud', resolve the model URI: the registry has no model 'm'. Nothing was changed."
    )


WHY = (
    "model '{}', put the models in order: it depends on '{}', which failed in this run. Nothing was"
    " changed."
)


def test_a_check_run_says_which_models_would_not_be_changed_and_why() -> None:
    outcomes = expected(
        planned("third", "second"), planned("second", "first"), planned("other"), failing("first")
    )
    assert said(outcomes) == {
        "first": (
            "model 'first', resolve the model URI: the registry has no model 'm'. Nothing was"
            " changed."
        ),
        "second": WHY.format("second", "first"),
        "third": WHY.format("third", "second"),
        "other": None,
    }
    assert isinstance(outcomes["second"].error, NeedsOther)
    assert [name for name, one in outcomes.items() if one.changed] == ["other"]


def test_a_check_run_knows_of_models_that_failed_before_and_has_no_outcome_for_them() -> None:
    outcomes = expected(planned("second", "first"), planned("other"), failed=("first",))
    assert said(outcomes) == {"second": WHY.format("second", "first"), "other": None}


def test_a_model_that_is_there_as_wanted_does_not_fail_with_what_it_needs() -> None:
    there = planned("user", "one", is_there=True)
    outcomes = expected(there, failing("one"), planned("other"))
    assert outcomes["user"] == Outcome(there.plan, there.plan and there.plan.observed.record)


def test_nothing_stands_in_the_way_where_nothing_failed() -> None:
    listed = {"user": planned("user", "one"), "one": planned("one")}
    order = order_plans(listed, ())
    assert refuse(listed["user"], order, {"one": expect(listed["one"])}, ()) is None
