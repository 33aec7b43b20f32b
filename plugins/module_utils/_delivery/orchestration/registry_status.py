# SPDX-License-Identifier: Apache-2.0
"""Tells the registry what a target has deployed: which versions, in which state, since when.

Each target writes its own tags only, and a block of the description is made of the tags of all, so
that several may report at once. A deployment never fails for it: what the registry refuses is a
warning, and the next run tries again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..domain.record import Record
from ..errors import NotFound, as_delivery_error
from ..execution.transaction import now
from ..planning.plan import Plan, PutSideBySide, Reconfigure
from ..planning.versions import serves_side_by_side
from ..registry.registry import Registry, VersionInfo
from ..registry.status_tags import Standing, read_standing, tag_key, to_second, with_block
from .report import Reported, Result

_TRIES = 10


@dataclass(frozen=True)
class Deployed:
    """What a target has, or will have, of one registered model under one name.

    ``since`` is the time of the deployment of ``newest``; None where that is still to come.
    """

    registered: str
    newest: int
    versions: tuple[int, ...]
    state: str
    since: str | None


@dataclass(frozen=True)
class _Change:
    """What has to be said of one version: a tag's new value, None to remove it, or the block of the
    description alone.
    """

    version: VersionInfo
    key: str
    value: str | None
    only_block: bool = False

    def describe(self, target: str) -> str:
        uri = f"models:/{self.version.name}/{self.version.version}"
        if self.only_block:
            return f"renew the status in the description of {uri}"
        standing = read_standing(self.value)
        return (
            f"tell the registry that {uri} is {standing.state if standing else 'no longer'} on"
            f" {target}"
        )


@dataclass
class StatusReport:
    """The reports of one target in one run."""

    registry: Registry
    target: str
    tracking_id: str | None = None
    check: bool = False
    _silent: dict[str, list[str]] = field(default_factory=dict)

    def add(self, results: Mapping[str, Result]) -> dict[str, Result]:
        """The results of all models, with what was reported of those that did not fail, or would be
        in check mode.
        """
        done = {name: self._report(result) for name, result in results.items()}
        for message, names in self._silent.items():
            first, others = names[0], names[1:]
            text = f"its deployment status is not in the registry: {message}" + (
                f" (nor that of {', '.join(others)})" if others else ""
            )
            done[first] = dataclasses.replace(done[first], warnings=(*done[first].warnings, text))
        return done

    def _report(self, result: Result) -> Result:
        if result.error or result.plan is None:
            return result
        said: list[str] = []
        before: dict[str, str] = {}
        after: dict[str, str] = {}
        try:
            deployed = _expected(result.plan) if self.check else _deployed(result.record)
            if deployed and not self._is_of_this_registry(result.plan, result.record):
                return result
            found = self._versions(result, deployed)
            changes, before, after = _compare(found, result.name, self.target, deployed)
            for change in changes:
                if not self.check:
                    self._tell(change)
                said.append(change.describe(self.target))
        except Exception as error:  # what was done is done, and its result must not be lost
            self._silent.setdefault(as_delivery_error(error).message, []).append(result.name)
        if not said:
            return result
        return dataclasses.replace(
            result, changed=True, reported=Reported(tuple(said), before, after)
        )

    def _is_of_this_registry(self, plan: Plan, record: Record | None) -> bool:
        """A version that was deployed from another registry is none of this one, whatever its
        number.
        """
        record = plan.rollback.target if plan.rollback else record or plan.observed.record
        return plan.resolved or record is None or record.tracking_uri == self.tracking_id

    def _versions(self, result: Result, deployed: Deployed | None) -> list[VersionInfo]:
        """All versions of the registered models that the name stands for now or stood for
        before.
        """
        before = result.plan.observed.record if result.plan else None
        names = {
            deployed.registered if deployed else None,
            before.registry_name if before else None,
        } - {None}
        found: list[VersionInfo] = []
        for name in sorted(map(str, names)) or [result.name]:
            try:
                found += self.registry.search(name)
            except NotFound:
                continue
        return found

    def _tell(self, change: _Change) -> None:
        name, number = change.version.name, change.version.version
        if not change.only_block and change.value is None:
            self.registry.delete_version_tag(name, number, change.key)
        elif not change.only_block:
            self.registry.set_version_tag(name, number, change.key, str(change.value))
        # Asked again after each writing: another target may have set its tag, and made its block,
        # meanwhile.
        for _try in range(_TRIES):
            version = self.registry.version_info(name, number)
            text = with_block(version.description, version.tags)
            if text == version.description:
                return
            self.registry.set_version_description(name, number, text)


def _compare(
    found: Iterable[VersionInfo], name: str, target: str, deployed: Deployed | None
) -> tuple[list[_Change], dict[str, str], dict[str, str]]:
    """The changes, and the states of the versions before and after; the one that comes is said
    before those that go.
    """
    changes: list[_Change] = []
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for version in found:
        uri, key = f"models:/{version.name}/{version.version}", tag_key(target, name, version.name)
        there = version.tags.get(key)
        wanted = _wanted(there, version, deployed)
        if there is not None:
            standing = read_standing(there)
            before[uri] = standing.state if standing else there
        if wanted is not None and deployed:
            after[uri] = deployed.state
        if wanted != there:
            changes.append(_Change(version, key, wanted))
        elif (
            there is not None
            and with_block(version.description, version.tags) != version.description
        ):
            changes.append(_Change(version, key, there, only_block=True))
    return sorted(changes, key=lambda change: change.value is None), before, after


def _wanted(there: str | None, version: VersionInfo, deployed: Deployed | None) -> str | None:
    """The tag's value; it stays as it is where it says the state already, for this deployment."""
    if (
        deployed is None
        or version.name != deployed.registered
        or version.version not in deployed.versions
    ):
        return None
    standing, newest = read_standing(there), version.version == deployed.newest
    same = standing is not None and standing.state == deployed.state
    if (
        standing
        and same
        and not (newest and (deployed.since is None or standing.since < deployed.since))
    ):
        return there
    is_new = newest and deployed.state == "present" and (same or standing is None)
    return Standing(deployed.state, (deployed.since if is_new else None) or to_second(now())).text


def _deployed(record: Record | None) -> Deployed | None:
    """What a record says; None without one, and for what came from no registered model."""
    if record is None or not record.registry_name or not record.registry_version:
        return None
    numbered = serves_side_by_side(record) and record.registry_version in record.triton_versions
    return Deployed(
        record.registry_name,
        record.registry_version,
        record.triton_versions if numbered else (record.registry_version,),
        "present" if record.wanted == "loaded" else "unloaded",
        to_second(record.deployed_at),
    )


def _expected(plan: Plan) -> Deployed | None:
    """What the record will say when the plan has been carried out."""
    desired, replacement = plan.desired, plan.replacement
    if desired.state == "absent":
        return None
    state = "unloaded" if desired.state == "unloaded" else "present"
    if replacement:
        source = replacement.source
        if not source.registry_name or not source.registry_version:
            return None
        versions: tuple[int, ...] = (source.registry_version,)
        if isinstance(replacement, PutSideBySide):
            versions = (*replacement.versions.kept, replacement.versions.wanted)
        return Deployed(source.registry_name, source.registry_version, versions, state, None)
    standing = _deployed(plan.rollback.target if plan.rollback else plan.observed.record)
    if standing is None:
        return None
    anew = plan.rollback or any(isinstance(step, Reconfigure) for step in plan.steps)
    return dataclasses.replace(standing, state=state, since=None if anew else standing.since)
