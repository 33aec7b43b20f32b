# SPDX-License-Identifier: Apache-2.0
"""Whether the ensembles that a list loads, and those that are deployed and use what it changes, fit
their members when the run is over, and may call them. Pure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from ..domain import config_pbtxt
from ..domain.config_pbtxt import ModelConfig, config_for
from ..domain.members import Member, why_members_do_not_fit
from ..domain.record import Record
from ..errors import ConfigError, DeliveryError, NeedsOther, PolicyRefused
from ..outside import JsonObject
from .dependencies import versions_after
from .outcome import Planned
from .plan import Load, Plan, Reconfigure, ReplaceUnread
from .policy import Policy


def ensembles_to_load(planned: Mapping[str, Planned]) -> dict[str, ModelConfig]:
    """The ensembles that are to be loaded, with the configuration that they will have."""
    found = {}
    for name, one in planned.items():
        if one.todo and any(isinstance(step, Load) for step in one.todo.steps):
            config = _config_after(one.todo, only_ensembles=True)
            if config is not None:
                found[name] = config
    return found


def said_to_need(planned: Mapping[str, Planned]) -> frozenset[str]:
    """What users say that their models call, of models that have something to be done."""
    return frozenset().union(*(_said_to_need(one) for one in planned.values()))


def _said_to_need(one: Planned) -> frozenset[str]:
    stays = one.todo is not None and one.desired.state in ("present", "rolled_back")
    return frozenset(one.desired.depends_on or ()) if stays else frozenset()


def warn_of_nowhere(planned: Mapping[str, Planned], nowhere: Collection[str]) -> dict[str, Planned]:
    """The same plans, with a warning where ``depends_on`` names what is not there. It is no more:
    Triton loads a model whatever it will call.
    """
    warned = dict(planned)
    for name, one in planned.items():
        missing = sorted(_said_to_need(one) & frozenset(nowhere))
        if one.plan and missing:
            said = tuple(
                f"depends_on names '{other}', which is neither in the list, nor in the repository,"
                " nor served"
                for other in missing
            )
            warned[name] = replace(one, said=(*one.said, *said))
    return warned


def judge_ensembles(
    planned: Mapping[str, Planned],
    records: Mapping[str, Record],
    nowhere: Collection[str],
    adding: Collection[str] = (),
) -> dict[str, Planned]:
    """The same plans, without those after which an ensemble could not be loaded.

    Args:
        records: of what is deployed; of models that are not in the list, those of its ensembles'
            members at least.
        nowhere: names that are not in the list, not in the repository and not served.
        adding: models whose programs may add to their configurations.
    """
    judged = dict(planned)
    for name, config in ensembles_to_load(planned).items():
        names = config_pbtxt.members(config)
        reason = next(
            (
                said
                for other in sorted(names)
                if (said := _why_not(other, planned, records, nowhere))
            ),
            None,
        ) or why_members_do_not_fit(config, _members_after(names, planned, records, adding))
        if reason:
            judged[name] = replace(planned[name], error=ConfigError(reason, step="plan"))
    for name, reason in dict(_broken_users(judged, records, adding)).items():
        error = NeedsOther(reason, step="plan", left="nothing was changed")
        judged[name] = replace(judged[name], error=error)
    return judged


def _why_not(
    member: str,
    planned: Mapping[str, Planned],
    records: Mapping[str, Record],
    nowhere: Collection[str],
) -> str | None:
    """Why an ensemble cannot have this member, whatever that is: Triton loads it with the
    ensemble.
    """
    one, record = planned.get(member), records.get(member)
    if member in nowhere:
        return (
            f"its member '{member}' is neither in the list, nor in the repository, nor served:"
            " deploy it in the same list, or before"
        )
    there = one and one.plan and (one.plan.observed.record or one.plan.observed.foreign)
    if one and one.desired.state == "absent" and not (there or one.error):
        return f"its member '{member}' is not there, and the list says that it is to be absent"
    state = one.desired.state if one else record.wanted if record else None
    if state == "unloaded":
        return (
            f"its member '{member}' is to stay unloaded, and would be loaded with it: set that to"
            " present in the same list, or before"
        )
    return None


def _members_after(
    names: Collection[str],
    planned: Mapping[str, Planned],
    records: Mapping[str, Record],
    adding: Collection[str],
) -> dict[str, Member]:
    """The members of an ensemble, of which something is known, as they will be."""
    found = {}
    for name in names:
        if (one := planned.get(name)) is not None:
            if one.plan and not one.error and one.desired.state != "absent":
                found[name] = member_after(one.plan)
        elif record := records.get(name):
            found[name] = _member_of(record)
    return {name: replace(one, adds=name in adding) for name, one in found.items()}


def member_after(plan: Plan) -> Member:
    """A model as it is when its plan is carried out."""
    return Member(_config_after(plan), versions_after(plan))


def _member_of(record: Record) -> Member:
    config = _parse(record.author_config, record.name, record.request)
    return Member(config, tuple(sorted(record.triton_versions)))


def _broken_users(
    planned: Mapping[str, Planned], records: Mapping[str, Record], adding: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Models that change, with the reason why a deployed ensemble could not be loaded over them any
    more; what does not fit already is no reason.
    """
    changing = {
        name for name, one in planned.items() if one.todo and one.todo.changes_model
    } & records.keys()
    for user, record in records.items() if changing else ():
        one = planned.get(user)
        goes = one is not None and one.desired.state in ("absent", "unloaded")
        if user in changing or goes or record.wanted != "loaded" or not _is_ensemble(record):
            continue
        config = _parse(record.author_config, record.name, record.request)
        names = config_pbtxt.members(config) if config is not None else frozenset()
        if config is None or not names & changing:
            continue
        before = {
            name: replace(_member_of(records[name]), adds=name in adding)
            for name in names & records.keys()
        }
        if why_members_do_not_fit(config, before) is None and (
            reason := why_members_do_not_fit(
                config, _members_after(names, planned, records, adding)
            )
        ):
            said = (
                f"'{user}' is deployed, uses it, and could not be loaded any more: {reason}. What"
                " fits goes together with it in one list"
            )
            yield from ((name, said) for name in sorted(names & changing))


def is_kept_ensemble(one: Planned) -> bool:
    """An ensemble that will be deployed when its plan is carried out."""
    return _kept_ensemble(one) is not None


def _kept_ensemble(one: Planned) -> ModelConfig | None:
    if one.plan is None or one.error or one.desired.state == "absent":
        return None
    return _config_after(one.plan, only_ensembles=True)


def refuse_strangers(
    planned: Mapping[str, Planned],
    records: Mapping[str, Record],
    policy: Policy,
    check_settings: Callable[[Record, bytes], None],
) -> dict[str, Planned]:
    """The same plans, without those of ensembles that call a model which nobody has judged: one
    that is not in the list and was not deployed by this collection, or that the policy refuses.

    Args:
        records: of all that is deployed.
        check_settings: judges the files of a deployment that are configurations of their own.
    """
    judged = dict(planned)
    for name, one in planned.items():
        config = _kept_ensemble(one)
        calls = _Calls(planned, records, policy, check_settings, waits=one.todo is not None)
        if config is not None and (reason := calls.why_stranger(config, {name})):
            error = PolicyRefused(reason, step="check the policy", left="nothing was changed")
            judged[name] = replace(one, error=error)
    return judged


@dataclass(frozen=True)
class _Calls:
    """Who may be called by an ensemble.

    Attributes:
        waits: it changes, so that it fails with any member that fails.
    """

    planned: Mapping[str, Planned]
    records: Mapping[str, Record]
    policy: Policy
    check_settings: Callable[[Record, bytes], None]
    waits: bool

    def why_stranger(self, config: ModelConfig, seen: set[str]) -> str | None:
        """Why an ensemble may not call its members, or what these call.

        Args:
            seen: names of what has been judged; added to.
        """
        for member in sorted(config_pbtxt.members(config) - seen):
            seen.add(member)
            record = self.records.get(member)
            if self._is_brought(member):
                continue
            if record is None:
                return (
                    f"its member '{member}' is neither brought by the list nor deployed by this"
                    f" collection, and {self.policy.rules.said}: deploy it in the same list, or"
                    " before"
                )
            text = config_for(record.author_config, member, "-", record.request)
            try:
                self.policy.check_deployed(record, text)
                self.check_settings(record, text)
            except PolicyRefused as error:
                return f"its member '{member}' is deployed, and is refused itself: {error.message}"
            if reason := self.why_stranger(config_pbtxt.parse(text), seen):
                return f"its member '{member}' is an ensemble, and {reason}"
        return None

    def _is_brought(self, member: str) -> bool:
        """The list answers for it: it is judged there, or fails together with the ensemble."""
        one = self.planned.get(member)
        if one is None or one.desired.state == "absent":
            return False
        return one.error is None or (self.waits and member not in self.records)


def _is_ensemble(record: Record) -> bool:
    return "ensemble_scheduling" in record.author_config or "ensemble_scheduling" in (
        record.request.get("config") or {}
    )


def _config_after(plan: Plan, only_ensembles: bool = False) -> ModelConfig | None:
    """The configuration of a model when its plan is carried out; None where it is not known, or is
    made of a file that is not here yet.
    """
    record, step, desired = plan.observed.record, plan.replacement, plan.desired
    request: JsonObject = desired.request
    if step:
        if step.layout.is_configured_later:
            return None
        author = step.layout.author_config.decode()
    elif any(isinstance(one, ReplaceUnread) for one in plan.steps):
        return None
    else:
        target = plan.rollback.target if plan.rollback else record
        if target is None:
            return None
        author = target.author_config
        if not any(isinstance(one, Reconfigure) for one in plan.steps):
            request = target.request
    if only_ensembles and not (
        "ensemble_scheduling" in author or "ensemble_scheduling" in (request.get("config") or {})
    ):
        return None
    return _parse(author, desired.name, request)


def _parse(author: str, name: str, request: JsonObject) -> ModelConfig | None:
    """None where it cannot be understood: that is said where the model is planned."""
    with contextlib.suppress(DeliveryError):
        return config_pbtxt.parse(config_for(author, name, "-", request))
    return None
