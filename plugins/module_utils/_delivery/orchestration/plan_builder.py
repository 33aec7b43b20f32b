# SPDX-License-Identifier: Apache-2.0
"""The plan that follows for each model of a list from what is there and what its URI means now.
Several threads plan at once; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from ..domain.config_pbtxt import config_for, members, parse
from ..domain.desired import DesiredModel
from ..domain.manifest import Manifest
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..domain.releases import dated_fields
from ..domain.servable import refuse_deployed, refuse_lacking, refuse_newer_fields
from ..domain.source import Source
from ..domain.uri import ModelUri
from ..errors import (
    DeliveryError,
    MissingLibrary,
    NotFound,
    RepositoryError,
    ServerError,
    VerificationFailed,
    as_delivery_error,
)
from ..execution.scheduler import do_all
from ..execution.verification import case_of, judge_case, verify
from ..planning.dependencies import pins_of
from ..planning.members import (
    ensembles_to_load,
    is_kept_ensemble,
    judge_ensembles,
    refuse_strangers,
    said_to_need,
    warn_of_nowhere,
)
from ..planning.outcome import Planned
from ..planning.plan import Plan, PutSideBySide, Reconfigure
from ..planning.planner import is_pinned, make_plan, resume, why_reconfigure, why_replace
from ..planning.policy import Policy
from ..planning.users import Usage, may_have_users
from ..planning.versions import staying, version_to_ask
from ..repository.kept import kept_text
from ..repository.protocol import Repository
from ..triton.server import TritonServer
from .artifact_reader import ArtifactReader, is_whole
from .observation import QUESTIONS, Observer
from .sources import Sources
from .surroundings import Surroundings
from .swaps import Swaps


class PlanBuilder:
    """Plans for one run.

    Args:
        repository: None on a bare host.
        tracking_id: the registry's address, as records have it.
        check: a library that is missing is a warning.
        drained: no client sends requests to the servers while the plans are carried out.
        leave: called at the end of each thread.
        why_lost: what is wrong with the environment that a deployment needs.
    """

    def __init__(
        self,
        observer: Observer,
        sources: Sources,
        reader: ArtifactReader,
        surroundings: Surroundings,
        repository: Repository | None,
        servers: Sequence[TritonServer],
        *,
        policy: Policy,
        tracking_id: str | None,
        check: bool,
        drained: bool,
        leave: Callable[[], None],
        why_lost: Callable[[Record], str | None] = lambda _record: None,
    ) -> None:
        self._why_lost = why_lost
        self._observer = observer
        self._sources = sources
        self._reader = reader
        self._surroundings = surroundings
        self._repository = repository
        self._servers = servers
        self._policy = policy
        self._tracking_id = tracking_id
        self._check = check
        self._leave = leave
        self._usage = Usage()
        self._swaps = Swaps(servers, drained)

    def observe(self, desired: DesiredModel) -> ObservedModel:
        """Record, disk and every server, asked anew."""
        return self._observer.observe(desired)

    def plan_all(
        self,
        models: Sequence[DesiredModel],
        observed: Mapping[str, ObservedModel | DeliveryError],
        failed: Collection[str] = (),
    ) -> dict[str, Planned]:
        """A plan for each model, by name in the order of the list, or why there is none.

        Args:
            failed: further names of the list.
        """
        planned = {model.name: Planned(model) for model in models}
        self._sources.ask_versions(models)

        def plan(name: str) -> None:
            there = observed[name]
            try:
                if isinstance(there, DeliveryError):
                    raise there
                made = self._plan(there, planned[name].desired)
                planned[name] = replace(planned[name], plan=made)
            except Exception as error:  # told for this model; the others go on
                planned[name] = replace(planned[name], error=as_delivery_error(error, "plan"))

        do_all(plan, dict.fromkeys(planned, frozenset()), QUESTIONS, self._leave)
        # What an ensemble of the list pins keeps its version folders, which its own plan could not
        # know.
        pinned = (
            frozenset().union(*(pins_of(one.plan) for one in planned.values() if one.plan))
            & planned.keys()
        )
        self._reader.pin(pinned)
        for name in sorted(pinned):
            if (made := planned[name].plan) and made.replacement:
                plan(name)
        judged = self._judge_calls(self._judge_ensembles(planned, failed))
        return self._swaps.choose_all(judged)

    def _judge_calls(self, planned: dict[str, Planned]) -> dict[str, Planned]:
        """Under rules for what models are made of, an ensemble calls none that they do not know."""
        if not self._policy.rules or not any(map(is_kept_ensemble, planned.values())):
            return planned
        records = self._surroundings.records()
        return refuse_strangers(planned, records, self._policy, self._check_settings)

    def find_users(self, planned: Mapping[str, Planned]) -> Usage:
        """Who uses the models of the list that change or go; read where there is such a model."""
        if self._repository and any(may_have_users(one.todo) for one in planned.values()):
            wanted = {name: one.desired for name, one in planned.items() if one.error is None}
            foreign = self._surroundings.foreign_ensembles()
            self._usage = Usage(self._surroundings.records(), wanted, foreign)
        return self._usage

    def add_users(
        self, planned: Mapping[str, Planned], groups: Sequence[Sequence[str]]
    ) -> dict[str, Planned]:
        """The same plans, which ask the users of what they change."""
        added = dict(planned)
        for group in groups:
            for name in group:
                if plan := planned[name].todo:
                    try:
                        added[name] = replace(planned[name], plan=self._usage.add(plan, group))
                    except Exception as error:
                        said = as_delivery_error(error, "find its users")
                        added[name] = replace(planned[name], error=said)
        return added

    def with_users(self, plan: Plan, together: Collection[str]) -> Plan:
        """The same plan, which asks the users of what it changes; those ``together`` with it are
        proven by their own plans.
        """
        return self._usage.add(plan, together)

    def _judge_ensembles(
        self, planned: Mapping[str, Planned], failed: Collection[str]
    ) -> dict[str, Planned]:
        """What is beside the list is read where an ensemble is loaded, or what may be part of one
        changes.
        """
        names = {
            member for config in ensembles_to_load(planned).values() for member in members(config)
        }
        if any(may_have_users(one.todo) for one in planned.values()):
            records = self._surroundings.records()
        elif names:
            records = self._surroundings.records_of(names - planned.keys())
        else:
            records = {}
        asked = (names | said_to_need(planned)) - planned.keys() - records.keys() - {*failed}
        nowhere = self._surroundings.nowhere(asked)
        planned = warn_of_nowhere(planned, nowhere)
        judged = judge_ensembles(planned, records, nowhere)
        refused = {name for name, one in judged.items() if one.error is not planned[name].error}
        # Only where a refusal would follow are programs read: one may add what is missing.
        adding = {
            name for name in refused | names if refused and self._adds(name, planned, records)
        }
        return judge_ensembles(planned, records, nowhere, adding) if adding else judged

    def _adds(
        self, name: str, planned: Mapping[str, Planned], records: Mapping[str, Record]
    ) -> bool:
        """Whether a program adds to the configuration of a model as it will be."""
        plan = planned[name].plan if name in planned else None
        if plan and plan.replacement:
            step = plan.replacement
            return not is_whole(step.layout, self._sources.artifacts(step.source))
        record = plan.observed.record if plan else records.get(name)
        return record is not None and self._surroundings.adds_to_its_configuration(record)

    def plan(self, observed: ObservedModel, desired: DesiredModel) -> Plan:
        """What has to be done, when it is asked again under the model's lock.

        Raises:
            DeliveryError: it cannot be done, or the policy forbids it.
        """
        plan = self._plan(observed, desired)
        return plan if plan.resumes else self._swaps.choose(plan)

    def _plan(self, observed: ObservedModel, desired: DesiredModel) -> Plan:
        if observed.load:
            seen = self._plan_seen(observed.as_loaded, replace(desired, must_be_new=False))
            if desired.state in ("present", "rolled_back") and (left := resume(observed, seen)):
                return left
            observed = observed.as_taken_back
        return self._plan_seen(observed, desired)

    def _plan_seen(self, observed: ObservedModel, desired: DesiredModel) -> Plan:
        if self._policy.require_signature and observed.record:
            observed = replace(observed, unsigned=observed.record.signed_by is None)
        if (
            desired.uri is None
            or (observed.foreign and not desired.adopt)
            or (observed.taken and desired.must_be_new)
        ):
            failed, _proven = (
                self._verified(observed, desired, None)
                if desired.state == "rolled_back"
                else (None, False)
            )
            plan = make_plan(observed, desired, failed_verification=failed)
            if (
                self._policy
                and desired.state == "rolled_back"
                and (target := plan.rollback.target if plan.rollback else observed.record)
            ):
                config = config_for(target.author_config, desired.name, "-", target.request)
                self._policy.check_deployed(target, config)
                self._check_settings(target, config)
            if plan.rollback:
                back = plan.rollback.target
                self._refuse_lost_environment(back)
                config = config_for(back.author_config, desired.name, "-", back.request)
                refuse_lacking(config, back, back.triton_versions)
                self._refuse_newer_fields(config)
                self._judge_case(config, back, desired)
            return plan
        try:
            return self._plan_present(observed, desired, desired.uri)
        except MissingLibrary as error:
            if not self._check:
                raise
            plan = make_plan(observed, desired)
            said = f"{error.message}: what could not be asked is not checked"
            return replace(plan, warnings=(*plan.warnings, said))

    def _plan_present(self, observed: ObservedModel, desired: DesiredModel, uri: ModelUri) -> Plan:
        source = None
        if why_replace(observed, desired, None):
            source = self._sources.resolve(desired, uri, observed.record)
        elif not is_pinned(observed.record, desired, self._tracking_id):
            source = self._sources.find(desired, uri, observed.record)
        layout = None
        if why_replace(observed, desired, source):
            source = source or self._sources.resolve(desired, uri, observed.record)
            layout = self._reader.read(self._sources.open(source), source, desired, observed.record)
            author = layout.author_config.decode()
            self._refuse_newer_fields(config_for(author, desired.name, "-", desired.request))
        elif observed.record and (self._policy or why_reconfigure(observed, desired)):
            config = config_for(observed.record.author_config, desired.name, "-", desired.request)
            # What is not trusted may be taken off a server, as it may be removed.
            if self._policy and not _only_unloads(observed, desired):
                left = staying(observed.record, desired)
                retires = len(left) < len(observed.record.triton_versions)
                for version in left if retires else (None,):
                    stays = observed.record.with_version(version) if version else observed.record
                    self._policy.check_deployed(stays, config)
                self._check_settings(observed.record, config)
            if why_reconfigure(observed, desired):
                refuse_deployed(config, observed.record)
                self._refuse_newer_fields(config)
                self._judge_case(config, observed.record, desired)
        failed, proven = self._verified(observed, desired, source)
        plan = make_plan(
            observed, desired, source, layout, failed_verification=failed, proven=proven
        )
        if observed.record and any(isinstance(one, Reconfigure) for one in plan.steps):
            config = config_for(observed.record.author_config, desired.name, "-", desired.request)
            said = self._policy.warn_of(parse(config))
            plan = replace(plan, warnings=(*plan.warnings, *said))
        step = plan.replacement
        if isinstance(step, PutSideBySide):
            author = step.layout.author_config.decode()
            config = config_for(author, desired.name, "-", desired.request)
            if not step.layout.is_configured_later:  # else the names are made with the files
                refuse_lacking(config, step.record, step.versions.kept)
            if self._policy:
                self._policy.check_staying(
                    step.record, config, step.versions.kept, self._check_settings
                )
        fetches = not isinstance(step, PutSideBySide) or step.versions.fetch
        if self._repository and step and fetches:
            self._repository.require_space(step.layout.room)
        return plan

    def _refuse_lost_environment(self, back: Record) -> None:
        if lost := self._why_lost(back):
            raise RepositoryError(
                f"{lost}, and a rollback does not build it: deploy {back.pinned_uri} instead",
                model=back.name,
                step="roll back",
                left="nothing was changed",
            )

    def _check_settings(self, record: Record, config: bytes) -> None:
        paths = [file.path for file in Manifest.from_dict(record.manifest).files]
        if there := self._repository:
            self._policy.check_settings(config, paths, lambda path: kept_text(there, record, path))

    def _judge_case(self, config: bytes, record: Record, desired: DesiredModel) -> None:
        """Of files that were deployed, programs are not read: what they add is not known."""
        files = Manifest.from_dict(record.manifest).files
        has_programs = any(file.path.endswith(".py") for file in files)
        urls = [server.url for server in self._servers]
        judge_case(config, urls, desired, lambda: not has_programs)

    def _refuse_newer_fields(self, config: bytes) -> None:
        """Servers are asked for their versions where a field needs that."""
        if dated_fields(config):
            releases = {server.url: server.release() for server in self._servers}
            refuse_newer_fields(config, releases)

    def _verified(
        self, observed: ObservedModel, desired: DesiredModel, source: Source | None
    ) -> tuple[str | None, bool]:
        """Why the model that is served, and would be left alone, does not answer as ``verify``
        says; and whether every server showed that it does.
        """
        record = observed.record
        if record is None or desired.state not in ("present", "rolled_back") or observed.load:
            return None, False
        case = case_of(desired, record) if desired.verify else None
        if case is None or (
            desired.uri
            and (why_replace(observed, desired, source) or why_reconfigure(observed, desired))
        ):
            return None, False
        proven = True
        for server in self._servers:
            try:
                left_out = verify(server, desired.name, version_to_ask(record), case)
                proven = proven and left_out is None
            except VerificationFailed as error:
                return error.message, False
            except (NotFound, ServerError):
                return None, False  # not loaded there: that is a step of its own
        return None, proven


def _only_unloads(observed: ObservedModel, desired: DesiredModel) -> bool:
    return desired.state == "unloaded" and not why_reconfigure(observed, desired)
