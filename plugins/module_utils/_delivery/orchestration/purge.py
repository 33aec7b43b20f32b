# SPDX-License-Identifier: Apache-2.0
"""Which models of a deployment set a list does not name any more, and whether so many may go."""

from __future__ import annotations

import math
from collections.abc import Collection

from ..domain.desired import DesiredModel
from ..errors import InvalidOption, RecordRefused
from ..repository.protocol import Repository

_FEW = 3
"""So many may always go, where the list names a model at all."""


def models_to_purge(
    repository: Repository, purge: str, named: Collection[str], limit: float | None = None
) -> list[DesiredModel]:
    """The models of a deployment set that are not named any more. One whose record does not say
    its set is among them, so that its failure is told.

    Args:
        purge: the deployment set.
        limit: percentage of the models of the set that may go. When omitted, none for an empty
            list, else up to three, or up to a half.

    Raises:
        InvalidOption: more would go than may, or the limit is no percentage.
    """
    if limit is not None and not 0 <= limit <= 100:
        raise InvalidOption(
            f"purge_limit {limit:g} is not a percentage, from 0 to 100",
            step="read the options",
            left="nothing was changed",
        )
    store = repository.store
    records = store.readable_records()

    def may_belong(name: str) -> bool:
        if name in records:
            return records[name].deployment_set == purge
        try:
            record = store.record(name)
        except RecordRefused as error:
            said = error.document or {}
            return said.get("deployment_set", purge) == purge
        return record is not None and record.deployment_set == purge

    members = [name for name in store.recorded_names() if may_belong(name)]
    gone = [name for name in members if name not in named]
    if reason := _why_too_many(len(gone), len(members), bool(named), limit):
        raise InvalidOption(
            f"{_count(gone, members)} of the deployment set '{purge}' would be removed, and"
            f" {reason}: see whether the list was read as a whole, or let them go with"
            f" purge_limit: {math.ceil(100 * len(gone) / len(members))}",
            step="purge",
            left="nothing was changed",
        )
    return [DesiredModel(name, state="absent", purged_from=purge) for name in gone]


def _why_too_many(gone: int, members: int, has_names: bool, limit: float | None) -> str | None:
    if not gone:
        return None
    if limit is not None:
        return f"purge_limit is {limit:g}" if 100 * gone > limit * members else None
    if not has_names:
        return "the list is empty"
    if gone > _FEW and 2 * gone > members:
        return "these are more than a half"
    return None


def _count(gone: list[str], members: list[str]) -> str:
    if len(gone) == len(members):
        return f"all {len(gone)} models" if len(gone) > 1 else "the only model"
    return f"{len(gone)} of {len(members)} models"
