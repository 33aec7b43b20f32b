# SPDX-License-Identifier: Apache-2.0
"""What came of each model of a list, or would come: plans that stand alone, then in their order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..domain.desired import DesiredModel
from ..domain.record import Record
from ..errors import DeliveryError, NeedsOther
from .list_order import Order
from .plan import Plan


@dataclass(frozen=True)
class Planned:
    """What is to be done for one model of a list, or why nothing can be.

    Attributes:
        error: why not; a plan that was made before is kept beside it.
        said: warnings that come from the other models of the list, whatever the plan.
    """

    desired: DesiredModel
    plan: Plan | None = None
    error: DeliveryError | None = None
    said: tuple[str, ...] = ()

    @property
    def todo(self) -> Plan | None:
        """The plan, where it has steps and can be carried out."""
        return self.plan if self.error is None and self.plan and self.plan.steps else None

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.plan is None:
            return ()
        return (*self.plan.warnings, *self.said, *self.plan.observed.unreachable)


@dataclass(frozen=True)
class Outcome:
    """What came of one model.

    Attributes:
        plan: what was carried out, or was not; None where there is none.
        record: of what is deployed now.
    """

    plan: Plan | None = None
    record: Record | None = None
    changed: bool = False
    warnings: tuple[str, ...] = ()
    error: DeliveryError | None = None


def failed_with(name: str, error: DeliveryError) -> Outcome:
    """The outcome of a model that nothing was done for."""
    return Outcome(error=error.about(model=name, left="nothing was changed"))


def expect(planned: Planned) -> Outcome:
    """The outcome as planned: of a check run, or where nothing has to be done."""
    if planned.error:
        return failed_with(planned.desired.name, planned.error)
    plan = planned.plan
    record = plan.observed.record if plan else None
    return Outcome(plan, record, bool(plan and plan.changed), planned.warnings)


def failed_together(
    group: Sequence[Planned], failed: str, error: DeliveryError, order: Order
) -> dict[str, Outcome]:
    """The outcomes of models that are carried out together, of which one failed before anything was
    done.
    """
    outcomes = {failed: failed_with(failed, error)}
    for one in group:
        if one.desired.name != failed:
            outcomes[one.desired.name] = refuse_with(one.desired.name, order, outcomes)
    return outcomes


def refuse_with(name: str, order: Order, outcomes: Mapping[str, Outcome]) -> Outcome:
    """The failure of a model for which nothing was done, because one of its group failed."""
    lost = [other for other, outcome in outcomes.items() if outcome.error and other != name]
    reason = order.why_not(name, lost) or (
        f"it goes together with '{lost[0]}', which failed in this run"
    )
    return failed_with(name, NeedsOther(reason, step="put the models in order"))


def refuse(
    planned: Planned, order: Order, outcomes: Mapping[str, Outcome], failed: Collection[str]
) -> Outcome | None:
    """The failure of a model which cannot be changed because of another one."""
    name = planned.desired.name
    if planned.todo is None:
        return None
    lost = {*failed, *(other for other, outcome in outcomes.items() if outcome.error)}
    reason = order.why_not(name, lost)
    return failed_with(name, NeedsOther(reason, step="put the models in order")) if reason else None


def expect_all(
    planned: Mapping[str, Planned], order: Order, failed: Collection[str]
) -> dict[str, Outcome]:
    """What a check run says of a list."""
    outcomes: dict[str, Outcome] = {}
    for name in order.sequence():
        if name in planned:
            one = planned[name]
            outcomes[name] = refuse(one, order, outcomes, failed) or expect(one)
    return outcomes
