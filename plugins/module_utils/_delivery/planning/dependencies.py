# SPDX-License-Identifier: Apache-2.0
"""Which models of a list need which others, and so come after them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping

from ..domain import config_pbtxt
from ..domain.desired import DesiredModel
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..errors import DeliveryError
from .list_order import Member, Order, order_of
from .outcome import Planned
from .plan import Plan, PutSideBySide


def needs_of(desired: DesiredModel, plan: Plan | None, record: Record | None) -> frozenset[str]:
    """The models that a model will use when its plan is carried out."""
    if desired.state in ("absent", "unloaded"):
        return frozenset()
    said = (
        desired.depends_on
        if desired.depends_on is not None
        else record.depends_on
        if record
        else ()
    )
    if plan and plan.replacement:
        return frozenset(said) | _members(plan.replacement.layout.author_config, desired.config)
    target = plan.rollback.target if plan and plan.rollback else record
    if target is None:
        return frozenset(said)
    overlay = target.request.get("config") if desired.state == "rolled_back" else desired.config
    return frozenset(said) | _members(target.author_config.encode(), overlay)


def uses_of(record: Record | None) -> frozenset[str]:
    """The models that a deployed model uses now, as far as its record can be understood: Triton
    itself keeps a model whose parts are gone from loading, and others of the list go on.
    """
    if record is None or record.wanted != "loaded":
        return frozenset()
    members = frozenset[str]()
    with contextlib.suppress(DeliveryError):
        members = _members(record.author_config.encode(), record.request.get("config"))
    return frozenset(record.depends_on) | members


def _uses_now(observed: ObservedModel) -> frozenset[str]:
    """As ``uses_of``, and for a foreign ensemble what its files say."""
    if observed.record is None and observed.config is not None:
        with contextlib.suppress(DeliveryError):
            return _members(observed.config, None)
    return uses_of(observed.record)


def users_by_model(records: Mapping[str, Record]) -> Mapping[str, frozenset[str]]:
    """The models that are used, each with those deployed models that use it: as a part, or because
    their user said so.
    """
    found: dict[str, set[str]] = {}
    for name, record in records.items():
        for used in uses_of(record) - {name}:
            found.setdefault(used, set()).add(name)
    return {name: frozenset(users) for name, users in found.items()}


def all_users(name: str, users: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Those that use a model, and those that use these, and so on."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = users.get(waiting.pop(), frozenset()) - found - {name}
        found |= new
        waiting += new
    return frozenset(found)


def _members(author: bytes, overlay: Mapping[str, object] | None) -> frozenset[str]:
    if b"ensemble_scheduling" not in author and "ensemble_scheduling" not in (overlay or {}):
        return frozenset()
    message = config_pbtxt.parse(author)
    return config_pbtxt.members(
        config_pbtxt.apply_overlay(message, overlay) if overlay else message
    )


def pins_of(plan: Plan) -> frozenset[str]:
    """Models of which the ensemble that a plan brings asks for a certain version."""
    author = plan.replacement.layout.author_config if plan.replacement else b""
    if b"ensemble_scheduling" not in author:
        return frozenset()
    return config_pbtxt.pinned_by(config_pbtxt.parse(author))


def versions_after(plan: Plan) -> tuple[int, ...]:
    """The version folders of a model when its plan is carried out; empty where it has none."""
    step, record = plan.replacement, plan.observed.record
    if isinstance(step, PutSideBySide):
        return (*step.versions.kept, step.versions.wanted)
    if step:
        return step.layout.versions
    target = plan.rollback.target if plan.rollback else record
    return target.triton_versions if target else ()


def order_plans(planned: Mapping[str, Planned], failed: Collection[str]) -> Order:
    """The order of a list; ``failed`` are further names of it, for which nothing can be done."""
    alone = len(planned) + len(failed) < 2 and not any(
        name in (one.desired.depends_on or ()) for name, one in planned.items()
    )
    if alone or not any(one.todo for one in planned.values()):
        return Order(dict.fromkeys(planned, frozenset()))
    members = [Member(name, stays=True) for name in failed]
    for name, one in planned.items():
        record = one.plan.observed.record if one.plan else None
        needs = frozenset(one.desired.depends_on or ())
        with contextlib.suppress(DeliveryError):  # said where the model is planned
            needs = needs_of(one.desired, one.plan, record)
        stays = one.desired.state in ("present", "rolled_back")
        uses = _uses_now(one.plan.observed) if one.plan else frozenset()
        members.append(Member(name, stays, needs, uses))
    return order_of(members)
