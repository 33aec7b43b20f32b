# SPDX-License-Identifier: Apache-2.0
"""What a change of one model means for the deployed models that use it. Pure.

A model is not taken away from its users; and they are asked, before its new deployment is recorded,
whether they still answer. Users that change in the same run belong to one group with it: all of its
models are brought, then proven, and taken back together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

from ..domain.config_pbtxt import ModelConfig, members
from ..domain.desired import Case, DesiredModel, Example
from ..domain.members import why_members_do_not_fit
from ..domain.record import Record
from ..errors import NeedsOther
from .aside import refuse_with_members
from .dependencies import all_users, users_by_model
from .list_order import Order
from .members import member_after
from .outcome import Planned
from .plan import Plan, ProveUsers, User, WriteRecord
from .versions import version_to_ask


def may_have_users(plan: Plan | None) -> bool:
    """True where it has to be known who uses the model: it is there, and changes or goes."""
    there = plan is not None and (plan.observed.record is not None or plan.observed.foreign)
    return there and plan is not None and (plan.changes_model or plan.takes_away)


@dataclass(frozen=True)
class Usage:
    """Who uses what, in the repository of one run.

    Attributes:
        records: of the models that are deployed.
        wanted: the models of the list.
        foreign: the ensembles that are served and were not deployed by this collection.
    """

    records: Mapping[str, Record] = field(default_factory=dict)
    wanted: Mapping[str, DesiredModel] = field(default_factory=dict)
    foreign: Mapping[str, ModelConfig] = field(default_factory=dict)

    def add(self, plan: Plan, together: Collection[str] = ()) -> Plan:
        """The same plan, which asks the model's users whether they still answer.

        Args:
            together: names of models that are carried out with it, and proven by their own plans.

        Raises:
            NeedsOther: the model is to go, and one that stays uses it.
        """
        refuse_with_members(plan, together)
        if not may_have_users(plan):
            return plan
        if plan.takes_away:
            self._refuse_to_take_away(plan.desired.name)
            return plan
        names = self.users_of(plan.desired.name) - {*together}
        plan = replace(
            plan,
            steps=tuple(step for step in plan.steps if not isinstance(step, ProveUsers)),
            warnings=tuple(dict.fromkeys((*plan.warnings, *self._warn_of_foreign(plan)))),
        )
        if not names:
            return plan
        users = tuple(self._user(name) for name in sorted(names))
        said = f"verify {', '.join(sorted(names))}, which use{'s' * (len(names) == 1)} it"
        last = len(plan.steps) - isinstance(plan.steps[-1], WriteRecord)
        steps = (*plan.steps[:last], ProveUsers(said, users), *plan.steps[last:])
        return replace(plan, steps=steps)

    def users_of(self, name: str) -> frozenset[str]:
        """The deployed models that use one and stay, whatever the list says of them."""
        gone = {
            other
            for other, desired in self.wanted.items()
            if desired.state in ("absent", "unloaded")
        }
        return all_users(name, users_by_model(self.records)) - gone

    def _refuse_to_take_away(self, name: str) -> None:
        users = users_by_model(self.records).get(name, frozenset()) - self.wanted.keys()
        if users:
            named = ", ".join(f"'{user}'" for user in sorted(users))
            one = len(users) == 1
            raise NeedsOther(
                f"{named} {'is' if one else 'are'} deployed and use{'s' * one} it: remove or unload"
                f" {'that' if one else 'those'} first, or in the same list",
                model=name,
                step="plan",
                left="nothing was changed",
            )

        if foreign := self._foreign_users(name):
            named = ", ".join(f"'{user}'" for user in foreign)
            one = len(foreign) == 1
            raise NeedsOther(
                f"{named} use{'s' * one} it, and no record here tells of {'it' if one else 'them'}:"
                f" unload {'that' if one else 'those'} from the server first, or remove"
                f" {'it' if one else 'them'} in the same list (state: absent, adopt: true)",
                model=name,
                step="plan",
                left="nothing was changed",
            )

    def _foreign_users(self, name: str) -> list[str]:
        return sorted(
            user
            for user, config in self.foreign.items()
            if name in members(config) and user not in self.wanted
        )

    def _warn_of_foreign(self, plan: Plan) -> list[str]:
        """They are not asked: nothing says how, and that they answered before is their own
        affair.
        """
        name, said = plan.desired.name, []
        for user in self._foreign_users(name):
            reason = why_members_do_not_fit(self.foreign[user], {name: member_after(plan)})
            what = (
                f"it could not be loaded any more: {reason}"
                if reason
                else "whether it still answers is not verified"
            )
            said.append(f"'{user}' uses it, and no record here tells of that: {what}")
        return said

    def _user(self, name: str) -> User:
        record, desired = self.records[name], self.wanted.get(name)
        verify = desired.verify if desired else None
        case: Case | None = Example(record.example) if record.example else None
        if isinstance(verify, Mapping):
            case = verify
        elif record.case and verify != "auto":
            # What it answers may change with what it uses; that it answers may not.
            case = {"inputs": record.case["inputs"]}
        return User(name, version_to_ask(record), None if verify == "none" else case)


def groups_of(
    planned: Mapping[str, Planned], order: Order, usage: Usage
) -> tuple[tuple[str, ...], ...]:
    """Which models of a list are carried out together, each group in its order.

    A model that is deployed already, and changes, is in one group with each model that uses it and
    changes too, and with each other model whose user it shares. Every model that has something to
    be done is in one group.
    """
    busy = [name for name in order.sequence() if name in planned and planned[name].todo]
    changing = {
        name
        for name in busy
        if (plan := planned[name].todo) and plan.changes_model and name not in order.refused
    }
    updates = {
        name
        for name in changing
        if (plan := planned[name].todo) and (plan.observed.record or plan.observed.foreign)
    }
    group = {name: name for name in busy}

    def join(one: str, other: str) -> None:
        kept, gone = group[one], group[other]
        group.update({name: kept for name, now in group.items() if now == gone})

    by_user: dict[str, str] = {}
    for name in sorted(updates):
        for user in usage.users_of(name) - changing:
            join(by_user.setdefault(user, name), name)
    for name in changing:
        for needed in order.waits_for(name, changing) & updates:
            join(needed, name)
    for one, other in _circles(group, order, busy):
        join(one, other)
    found: dict[str, list[str]] = {}
    for name in busy:
        found.setdefault(group[name], []).append(name)
    return tuple(map(tuple, found.values()))


def _circles(
    group: Mapping[str, str], order: Order, busy: Collection[str]
) -> list[tuple[str, str]]:
    """Pairs of models whose groups would wait for each other."""
    joined: list[tuple[str, str]] = []
    merged = dict(group)
    while True:
        graph: dict[str, set[str]] = {}
        for name in busy:
            waits = {merged[other] for other in order.waits_for(name, busy)}
            graph.setdefault(merged[name], set()).update(waits - {merged[name]})
        try:
            TopologicalSorter(graph).prepare()
            return joined
        except CycleError as error:
            one, *others = set(error.args[1])
            for other in others:
                joined.append((one, other))
                merged = {name: one if now == other else now for name, now in merged.items()}
