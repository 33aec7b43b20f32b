# SPDX-License-Identifier: Apache-2.0
"""What is there after a plan was carried out, without a disk or a server: the promise that each
step makes to the planner.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.observed import (
    ObservedModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.served import (
    ServedModel,
    VersionRow,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import (
    Heal,
    Load,
    Plan,
    PutSideBySide,
    Reconfigure,
    Recover,
    Remove,
    Replace,
    RollBack,
    SetPermissions,
    Step,
    Unload,
    Verify,
    WriteRecord,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    pinned_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.versions import (
    serves_side_by_side,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.retention import (
    superfluous,
)

NUMBERS = itertools.count(1)


def kinds_of(plan: Plan) -> list[type[Step]]:
    return [type(step) for step in plan.steps]


def apply(plan: Plan, take_over: bool = False) -> ObservedModel:
    """What is there when each step has done what it promises.

    Args:
        take_over: somebody else's deployment has the files of the artifact, and becomes ours as it
            is.
    """
    there, transaction = plan.observed, f"t-{next(NUMBERS)}"
    old = new = there.record
    for step in plan.steps:
        urls = step.servers if isinstance(step, (Load, Unload)) else ()
        if isinstance(step, Recover):
            there = dataclasses.replace(there, journal=None)
        elif isinstance(step, (Replace, PutSideBySide)):
            new = replaced(plan, step, transaction, take_over)
            there = whole(there, folder=True)
        elif isinstance(step, Reconfigure):
            assert old is not None
            new = reconfigured(plan, old, transaction)
            there = whole(there)
        elif isinstance(step, RollBack):
            new = rolled_back(plan, step, transaction)
            there = whole(there, folder=True)
        elif isinstance(step, SetPermissions):
            assert new is not None
            new = dataclasses.replace(new, request=plan.desired.request)
            there = dataclasses.replace(there, modes_differ=False)
        elif isinstance(step, Load):
            assert new is not None
            there = dataclasses.replace(there, served=tuple(loaded(there.served, new, urls)))
        elif isinstance(step, Unload):
            served = tuple(ServedModel(one.url) if one.url in urls else one for one in there.served)
            there = dataclasses.replace(there, served=served)
        elif isinstance(step, WriteRecord):
            assert new is not None
            new = noted(plan, new)
            there = dataclasses.replace(there, touched_files=())
        elif isinstance(step, Remove):
            new, there = None, dataclasses.replace(whole(there), folder=False, retained=())
        else:
            assert isinstance(step, (Verify, Heal)), step
    return dataclasses.replace(there, record=new, retained=kept(plan, old, new, there.retained))


def whole(there: ObservedModel, folder: bool | None = None) -> ObservedModel:
    """Its files are those of the record."""
    return dataclasses.replace(
        there, folder=there.folder if folder is None else folder, changed_files=(),
        touched_files=(), modes_differ=False, half_made=False,
    )  # fmt: skip


def replaced(
    plan: Plan, step: Replace | PutSideBySide, transaction: str, take_over: bool
) -> Record:
    desired, source, layout = plan.desired, step.source, step.layout
    foreign = plan.observed.foreign
    versions = step.versions if isinstance(step, PutSideBySide) else None
    digest = f"files of {source.source} as {layout.flavor} in {layout.versions}"
    return Record(
        desired.name,
        "" if foreign and take_over else transaction,
        desired.asked_uri,
        pinned_uri(desired, source),
        source.source,
        layout.flavor,
        (*versions.kept, versions.wanted) if versions else layout.versions,
        Manifest.of(()).to_dict(),
        digest,
        "",
        desired.request,
        "then",
        "me",
        alias=desired.asked_alias,
        registry_name=source.registry_name,
        registry_version=source.registry_version,
        deployment_set=desired.deployment_set,
        transaction=transaction,
        example=layout.example,
    )


def reconfigured(plan: Plan, old: Record, transaction: str) -> Record:
    keep = plan.desired.serve_versions
    versions = tuple(sorted(old.triton_versions))
    stays = plan.desired.state == "rolled_back"
    return dataclasses.replace(
        old,
        deploy_id=transaction,
        request=plan.desired.request,
        triton_versions=versions[-keep:] if serves_side_by_side(old) else versions,
        transaction=transaction,
        rolled_back_from=old.rolled_back_from if stays else None,
        went_back_to=old.went_back_to if stays else None,
    )


def rolled_back(plan: Plan, step: RollBack, transaction: str) -> Record:
    old, target = step.record, step.target
    return dataclasses.replace(
        target,
        deploy_id=transaction,
        transaction=transaction,
        wanted="loaded",
        rolled_back_from=None if plan.desired.is_choice else old.deploy_id,
        went_back_to=target.key,
    )


def noted(plan: Plan, record: Record) -> Record:
    desired = plan.desired
    if desired.uri:
        record = dataclasses.replace(record, model_uri=desired.asked_uri, alias=desired.asked_alias)
    if desired.is_choice:
        record = dataclasses.replace(record, rolled_back_from=None)
    case = desired.verify if isinstance(desired.verify, Mapping) else None
    if case and (plan.proven or any(isinstance(step, Verify) for step in plan.steps)):
        record = dataclasses.replace(record, case=case)
    return dataclasses.replace(
        record,
        wanted="unloaded" if desired.state == "unloaded" else "loaded",
        deployment_set=desired.deployment_set or record.deployment_set,
        depends_on=record.depends_on if desired.depends_on is None else desired.depends_on,
    )


def loaded(
    served: tuple[ServedModel, ...], record: Record, urls: tuple[str, ...]
) -> Iterator[ServedModel]:
    rows = tuple(VersionRow(version, "READY") for version in record.triton_versions)
    for one in served:
        yield (ServedModel(one.url, rows, record.deploy_id or None) if one.url in urls else one)


def kept(
    plan: Plan, old: Record | None, new: Record | None, retained: tuple[Record, ...]
) -> tuple[Record, ...]:
    """Copies of what was replaced, those that are superfluous taken away."""
    if old is None or new is None or old.key == new.key:
        return retained
    copies = [*([] if plan.desired.undo else [old]), *retained]
    inside = {one.key: {"record.json", "model"} for one in copies}
    gone = superfluous(copies, new, inside, plan.desired.keep)
    return tuple(one for one in copies if one.key not in gone)
