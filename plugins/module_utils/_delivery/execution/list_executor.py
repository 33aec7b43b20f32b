# SPDX-License-Identifier: Apache-2.0
"""Carry out the plans of a list: several models at once in their order, each under its lock, and
planned again there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from ..artifacts.roots import ArtifactRoot
from ..domain.desired import DesiredModel
from ..domain.observed import ObservedModel
from ..domain.source import Source
from ..errors import ArtifactError, DeliveryError, as_delivery_error
from ..planning.list_order import Order
from ..planning.outcome import Outcome, Planned, expect, failed_with, refuse
from ..planning.plan import Plan
from ..repository.protocol import Repository
from ..triton.server import TritonServer
from .executor import Executor
from .limits import Limits
from .scheduler import do_all


class Planner(Protocol):
    """How each model of the list was planned, and is again under its lock."""

    def observe(self, desired: DesiredModel) -> ObservedModel: ...
    def plan(self, observed: ObservedModel, desired: DesiredModel) -> Plan: ...


class Sources(Protocol):
    """Where files come from."""

    def artifacts(self, source: Source) -> ArtifactRoot:
        """The files of a source for which a plan was made."""

    def before_download(self, source: Source) -> None:
        """Raises ArtifactError where a store that failed another model still does not answer."""

    def failed_download(self, source: Source) -> None:
        """Its store is asked again before the next download."""


class ListExecutor:
    """Carries out the plans of one run.

    Args:
        tracking_uri: the registry's address, for records.
        lock_timeout: seconds to wait for the lock of a model.
        leave: called at the end of each thread.
    """

    def __init__(
        self,
        repository: Repository,
        servers: Sequence[TritonServer],
        planner: Planner,
        sources: Sources,
        *,
        tracking_uri: str | None,
        lock_timeout: float,
        limits: Limits,
        leave: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._servers = servers
        self._planner = planner
        self._sources = sources
        self._lock_timeout = lock_timeout
        self._limits = limits
        self._leave = leave
        self._executor = Executor(repository, servers, sources.artifacts, tracking_uri, limits)
        self._explicit: set[str] = set()

    def run(
        self, planned: Mapping[str, Planned], order: Order, failed: Collection[str]
    ) -> dict[str, Outcome]:
        """Do what is to be done; one model that fails does not stop those that do not need it.

        Args:
            failed: further names of the list, for which nothing can be done.
        """
        outcomes: dict[str, Outcome] = {}

        def change(name: str) -> None:
            one = planned[name]
            try:
                refused = refuse(one, order, outcomes, failed)
                outcomes[name] = refused or self._carry_out(one)
            except (DeliveryError, OSError) as error:
                outcomes[name] = failed_with(name, as_delivery_error(error))

        busy = {name for name, one in planned.items() if one.todo}
        for name in planned.keys() - busy:
            change(name)
        after = {name: order.waits_for(name, busy) for name in planned if name in busy}
        do_all(change, after, self._limits.workers, self._leave)
        return outcomes

    def _carry_out(self, planned: Planned) -> Outcome:
        name, plan, store = planned.desired.name, planned.todo, self._repository.store
        if plan is None:
            if planned.error is None:
                self._tidy(name)
            return expect(planned)
        self._require_explicit(plan)
        store.ensure()
        with store.lock(name, self._lock_timeout):
            return self._carry_out_locked(plan, list(planned.warnings))

    def _tidy(self, name: str) -> None:
        """Remove what a run left that was killed before it had changed anything. One that is at
        work is left alone.
        """
        store = self._repository.store
        if store.has_leftovers(name):
            with contextlib.suppress(DeliveryError, OSError), store.lock(name, 0):
                if store.journal(name) is None:  # else staging may hold what was there before
                    store.clear_staging(name)

    def _carry_out_locked(self, plan: Plan, warnings: list[str]) -> Outcome:
        """Plan again now that nobody else changes the model, and do it."""
        desired = plan.desired
        if done := self._repository.recover(desired.name):
            warnings.append(done)
        observed = self._planner.observe(desired)
        if observed != plan.observed:
            plan = self._planner.plan(observed, desired)
        if not plan.steps:
            return Outcome(plan, observed.record, bool(done), tuple(warnings))
        if plan.replacement:
            self._sources.before_download(plan.replacement.source)
        try:
            record, said = self._executor.apply(plan)
        except DeliveryError as error:
            if isinstance(error, ArtifactError) and plan.replacement:
                self._sources.failed_download(plan.replacement.source)
            return Outcome(plan, observed.record, warnings=tuple(warnings), error=error)
        return Outcome(plan, record, plan.changed, (*warnings, *said))

    def _require_explicit(self, plan: Plan) -> None:
        for server in self._servers:
            if server.url in plan.servers - self._explicit:
                server.require_explicit()
                self._explicit.add(server.url)
