# SPDX-License-Identifier: Apache-2.0
"""Whether a new deployment is proven under another name first (``verify_aside``). Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from ..domain import config_pbtxt
from ..domain.config_pbtxt import config_for
from ..domain.desired import DesiredModel
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..errors import DeliveryError, InvalidOption, NeedsOther
from ..names import candidate_of
from .in_place import applied_in_place
from .plan import Plan, PutSideBySide, Reconfigure, Replace, RollBack, Step, TryAside
from .versions import serves_side_by_side


def try_aside(
    observed: ObservedModel,
    desired: DesiredModel,
    change: Step | None,
    proof: object,
    servers: tuple[str, ...],
) -> tuple[TryAside, ...]:
    """The step before ``change``; none where that makes no server initialise the model again.

    Args:
        proof: what there is to verify with where the user says nothing.

    Raises:
        InvalidOption: nothing would be proven.
    """
    if not desired.verify_aside or not _has_candidate(observed, desired, change):
        return ()
    if desired.verify == "none" or (desired.verify in (None, "auto") and not proof):
        raise InvalidOption(
            "verify_aside: true proves nothing, as"
            + (
                " verify is none"
                if desired.verify == "none"
                else " there is nothing to ask: verify says what, or the model brings an example"
            )
            + "; verify_aside: false deploys it without that proof",
            model=desired.name,
            step="plan",
            left="nothing was changed",
        )
    said = (
        f"prove it as {candidate_of(desired.name)} on {', '.join(servers)} first, which costs a"
        " second load"
    )
    return (TryAside(said, servers),)


def _has_candidate(observed: ObservedModel, desired: DesiredModel, change: Step | None) -> bool:
    match change:
        case Replace():
            return True
        case PutSideBySide():
            return change.versions.fetch
        case Reconfigure():
            author = change.record.author_config
            return applied_in_place(observed, change.record, author, desired.request) is None
        case RollBack():
            return not desired.undo and not by_version(observed, change.record, change.target)
        case _:
            return False


def by_version(observed: ObservedModel, record: Record, target: Record) -> bool:
    """True of a rollback that moves version folders in and out."""
    return (
        target.manifest_digest != record.manifest_digest
        and observed.folder
        and (serves_side_by_side(record) or serves_side_by_side(target))
    )


def warn_of_rollback(
    observed: ObservedModel, desired: DesiredModel, record: Record | None, target: Record | None
) -> tuple[str, ...]:
    """A rollback may be urgent, and is not refused."""
    if (
        not desired.verify_aside
        or not record
        or not target
        or target == record
        or not by_version(observed, record, target)
    ):
        return ()
    return (
        (
            "it is not proven under another name first (verify_aside), as versions are served side"
            " by side and the rollback brings some of them"
        ),
    )


def refuse_with_members(plan: Plan, together: Collection[str]) -> None:
    """Raises NeedsOther for a candidate that would be proven with members, or other models that it
    uses, which are replaced in the same group: it would be asked with the old ones.
    """
    if not any(isinstance(step, TryAside) for step in plan.steps):
        return
    name, record = plan.desired.name, plan.observed.record
    step = plan.replacement
    used = set(plan.desired.depends_on or (record.depends_on if record else None) or ())
    author = step.layout.author_config.decode() if step else record.author_config if record else ""
    with contextlib.suppress(DeliveryError):  # one that is made on the way has no members
        used |= config_pbtxt.members(
            config_pbtxt.parse(config_for(author, name, "-", plan.desired.request))
        )
    if changing := sorted(used & {*together} - {name}):
        raise NeedsOther(
            f"verify_aside: true would prove it with the '{changing[0]}' that serves now, and that"
            " changes together with it: deploy the two one after the other, or leave out"
            " verify_aside here",
            model=name,
            step="plan",
            left="nothing was changed",
        )
