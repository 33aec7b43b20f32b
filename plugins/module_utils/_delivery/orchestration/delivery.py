# SPDX-License-Identifier: Apache-2.0
"""One run: the registry, the repository and the servers, and what is asked of them. Modules and the
MLflow plugin call this.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..domain.desired import DesiredModel
from ..domain.served import VersionRow
from ..errors import (
    ArtifactError,
    DeliveryError,
    InvalidOption,
    MissingLibrary,
    NeedsOther,
    ServerError,
    ServerUnreachable,
)
from ..execution.executor import Executor, as_delivery_error
from ..execution.limits import Limits
from ..execution.scheduler import do_all
from ..planning.dependencies import needs_of, pins_of, uses_of
from ..planning.list_order import Member, Order, order_of
from ..planning.plan import Plan
from ..redact import mask
from ..registry.registry import Registry
from ..repository.protocol import Repository
from ..repository.s3.location import is_s3
from ..triton.http_transport import leave_thread
from .inspection import Inspection
from .plan_builder import QUESTIONS, PlanBuilder
from .report import Result
from .target import Target

__all__ = ["Delivery", "Result", "Target"]


@dataclass
class _Draft:
    """What is known of one model of a run so far."""

    desired: DesiredModel
    plan: Plan | None = None
    warnings: list[str] = field(default_factory=list)
    error: DeliveryError | None = None
    pinned: bool = False

    @property
    def todo(self) -> bool:
        return bool(self.error is None and self.plan and self.plan.steps)

    def result(self) -> Result:
        if self.error:
            return Result(
                self.desired.name,
                error=self.error.about(model=self.desired.name, left="nothing was changed"),
            )
        record = self.plan.observed.record if self.plan else None
        return Result(
            self.desired.name,
            self.plan,
            record,
            bool(self.plan and self.plan.changed),
            warnings=tuple(self.warnings),
        )


Drafts = dict[str, _Draft]
Indexes = Mapping[str, Any]


class Delivery(Inspection):
    """Deliver models to one place. Use it as a context manager: connections are closed at the
    end.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.registry = Registry(
            target.tracking_uri, target.timeout, target.registry_uri, once=True
        )
        self._explicit: set[str] = set()

    def _leave(self) -> None:
        """The end of one thread."""
        self._close()
        leave_thread()

    @property
    def _tracking_id(self) -> str | None:
        return mask(self.target.tracking_uri) if self.target.tracking_uri else None

    # -- all models --------------------------------------------------------------------------------

    def deliver(
        self,
        wanted: Sequence[DesiredModel],
        check: bool = False,
        *,
        purge: str | None = None,
        failed: Collection[str] = (),
    ) -> list[Result]:
        """Bring each model to its desired state; one that fails does not stop the others.

        Args:
            purge: a deployment set whose models are removed where ``wanted`` does not name them.
            failed: further names of the list, about which is known already that nothing can be
                done.

        Returns:
            A result for each of ``wanted`` in its order, then for each model that was purged, by
                name.
        """
        names = [*(model.name for model in wanted), *failed]
        _refuse_repeated(names)
        repository = self._repository(check)
        indexes = self._indexes(check)
        models = [*wanted, *(_to_purge(repository, purge, names) if purge and repository else ())]
        reader = PlanBuilder(
            self.registry,
            self.servers,
            repository,
            tracking_id=self._tracking_id,
            policy=self.target.policy,
            tensorrt_target=self.target.tensorrt_target,
        )
        drafts = self._drafts(reader, models, indexes, check)
        order = _ordered(drafts, failed)
        results: dict[str, Result] = {}
        if check or repository is None:
            for name in (name for name in order.sequence() if name in drafts):
                results[name] = (
                    _refused(drafts[name], order, results, failed) or drafts[name].result()
                )
        else:
            self._carry_out(reader, repository, drafts, order, results, failed)
        if self.target.registry_status:
            from .registry_status import StatusReport

            report = StatusReport(
                self.registry,
                self.target.registry_status,
                self._tracking_id,
                check or repository is None,
            )
            results = report.add(results)
        return [results[model.name] for model in models]

    def _drafts(
        self, reader: PlanBuilder, models: Sequence[DesiredModel], indexes: Indexes, check: bool
    ) -> Drafts:
        """Read and plan all, several at a time."""
        drafts = {model.name: _Draft(model) for model in models}
        reader.ask_versions(models)

        def read(name: str, pinned: Collection[str] = ()) -> None:
            draft = drafts[name]
            try:
                observed = reader.observe(draft.desired, indexes)
                draft.plan = reader.plan(observed, draft.desired, check, pinned)
                draft.warnings = [*draft.plan.warnings, *observed.unreachable]
            except (DeliveryError, OSError) as error:
                draft.error = as_delivery_error(error)

        do_all(read, dict.fromkeys(drafts, frozenset()), QUESTIONS, self._leave)
        # What an ensemble of the list pins keeps its version folders, which its own plan could not
        # know.
        pinned = (
            frozenset().union(*(pins_of(draft.plan) for draft in drafts.values() if draft.plan))
            & drafts.keys()
        )
        for name in sorted(pinned):
            if (plan := drafts[name].plan) and plan.replacement:
                drafts[name].pinned = True
                read(name, pinned)
        return drafts

    def _carry_out(
        self,
        reader: PlanBuilder,
        repository: Repository,
        drafts: Drafts,
        order: Order,
        results: dict[str, Result],
        failed: Collection[str],
    ) -> None:
        limits = Limits(self.target.parallel_downloads, self.target.parallel_loads)

        def change(name: str) -> None:
            draft = drafts[name]
            try:
                results[name] = _refused(draft, order, results, failed) or self._one(
                    reader, repository, draft, limits
                )
            except (DeliveryError, OSError) as error:
                found = as_delivery_error(error)
                results[name] = Result(
                    name, error=found.about(model=name, left="nothing was changed")
                )

        busy = {name for name, draft in drafts.items() if draft.todo}
        for name in drafts.keys() - busy:
            change(name)
        do_all(
            change,
            {name: _through(order, name, busy) for name in drafts if name in busy},
            limits.workers,
            self._leave,
        )

    def _one(
        self, reader: PlanBuilder, repository: Repository, draft: _Draft, limits: Limits
    ) -> Result:
        if not draft.todo or draft.plan is None:
            if draft.error is None:
                self._tidy(repository, draft.desired.name)
            return draft.result()
        self._require_explicit(draft.plan)
        repository.store.ensure()
        with repository.store.lock(draft.desired.name, self.target.lock_timeout):
            return self._locked(reader, repository, draft, draft.plan, limits)

    @staticmethod
    def _tidy(repository: Repository, name: str) -> None:
        """Remove what a run left that was killed before it had changed anything. One that is at
        work is left alone.
        """
        store = repository.store
        if store.has_leftovers(name):
            with contextlib.suppress(DeliveryError, OSError), store.lock(name, 0):
                store.clear_staging(name)

    def _locked(
        self, reader: PlanBuilder, repository: Repository, draft: _Draft, plan: Plan, limits: Limits
    ) -> Result:
        """Plan again now that nobody else changes the model, and do it."""
        desired, warnings = draft.desired, list(draft.warnings)
        if done := repository.recover(desired.name):
            warnings.append(done)
        observed = reader.observe(desired, {server.url: server.index() for server in self.servers})
        if observed != plan.observed:
            plan = reader.plan(
                observed, desired, check=False, pinned=[desired.name] if draft.pinned else []
            )
        if not plan.steps:
            return Result(desired.name, plan, observed.record, bool(done), warnings=tuple(warnings))
        if plan.replacement:
            reader.before_download(plan.replacement.source)
        try:
            record, said = Executor(
                repository, self.servers, reader.artifacts, self._tracking_id, limits
            ).apply(plan)
        except DeliveryError as error:
            if isinstance(error, ArtifactError) and plan.replacement:
                reader.failed_download(plan.replacement.source)
            return Result(
                desired.name, plan, observed.record, error=error, warnings=tuple(warnings)
            )
        return Result(desired.name, plan, record, plan.changed, warnings=(*warnings, *said))

    def _require_explicit(self, plan: Plan) -> None:
        for server in self.servers:
            if server.url not in self._explicit and server.url in plan.servers:
                server.require_explicit()
                self._explicit.add(server.url)

    # -- reading -----------------------------------------------------------------------------------

    def _repository(self, check: bool) -> Repository | None:
        if (
            check
            and not is_s3(self.target.repository)
            and not os.path.isdir(self.target.repository)
        ):
            return None  # a bare host: the role has not made it yet
        try:
            return self.repository
        except MissingLibrary:
            if not check:
                raise
            return None

    def _indexes(
        self, check: bool
    ) -> dict[str, Mapping[str, tuple[VersionRow, ...]] | DeliveryError]:
        """One question for all models to each server. In check mode a server that is not there yet
        is only noted.
        """
        found: dict[str, Mapping[str, tuple[VersionRow, ...]] | DeliveryError] = {}
        for server in self.servers:
            try:
                found[server.url] = server.index()
            except (ServerError, MissingLibrary) as error:
                if not check or not isinstance(error, (MissingLibrary, ServerUnreachable)):
                    raise error.about(left="nothing was changed") from error
                found[server.url] = error
        return found


def _refuse_repeated(names: Sequence[str]) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise InvalidOption(
            f"the list names {', '.join(repeated)} more than once",
            step="read the options",
            left="nothing was changed",
        )


def _to_purge(repository: Repository, purge: str, named: Collection[str]) -> list[DesiredModel]:
    """The models of a deployment set that are not named any more. Raises RepositoryError for a
    damaged record.
    """
    return [
        DesiredModel(name, state="absent", purged_from=purge)
        for name, record in sorted(repository.store.records().items())
        if record.deployment_set == purge and name not in named
    ]


def _ordered(drafts: Drafts, failed: Collection[str]) -> Order:
    if len(drafts) + len(failed) < 2 or not any(draft.todo for draft in drafts.values()):
        return Order(dict.fromkeys(drafts, frozenset()))
    members = [Member(name, stays=True) for name in failed]
    for name, draft in drafts.items():
        record = draft.plan.observed.record if draft.plan else None
        needs = frozenset(draft.desired.depends_on or ())
        with contextlib.suppress(DeliveryError):  # said where the model is planned
            needs = needs_of(draft.desired, draft.plan, record)
        members.append(
            Member(name, draft.desired.state in ("present", "rolled_back"), needs, uses_of(record))
        )
    return order_of(members)


def _through(order: Order, name: str, busy: Collection[str]) -> frozenset[str]:
    """What a model comes after among the ``busy`` ones, those that need nothing done being passed
    through.
    """
    found: set[str] = set()
    waiting, seen = list(order.after.get(name, ())), set()
    while waiting:
        other = waiting.pop()
        if other not in seen:
            seen.add(other)
            found |= {other} & set(busy)
            waiting += order.after.get(other, ()) if other not in busy else ()
    return frozenset(found)


def _refused(
    draft: _Draft, order: Order, results: Mapping[str, Result], failed: Collection[str]
) -> Result | None:
    """The failure of a model which cannot be changed because of another one."""
    if not draft.todo:
        return None
    name = draft.desired.name
    if reason := order.why_not(
        name, {*failed, *(other for other, result in results.items() if result.error)}
    ):
        draft.error = NeedsOther(reason, step="put the models in order", left="nothing was changed")
        return draft.result()
    return None
