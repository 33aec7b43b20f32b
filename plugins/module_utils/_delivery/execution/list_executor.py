# SPDX-License-Identifier: Apache-2.0
"""Carry out the plans of a list: several models at once in their order, each under its lock, and
planned again there.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from ..artifacts.roots import ArtifactRoot
from ..domain.desired import DesiredModel
from ..domain.journal import BegunLoad, PendingLoad, begun_load
from ..domain.observed import ObservedModel
from ..domain.source import Source
from ..errors import ArtifactError, as_delivery_error
from ..planning.list_order import Order
from ..planning.outcome import (
    Outcome,
    Planned,
    expect,
    failed_together,
    refuse,
    refuse_with,
)
from ..planning.plan import Plan, Recover
from ..planning.planner import interrupted
from ..repository.protocol import Repository
from ..triton.server import TritonServer
from .executor import Executor
from .limits import Limits, Turn
from .proven_files import ProvenFiles
from .python_models import PythonModels
from .scheduler import do_all
from .transaction import Transaction


class Planner(Protocol):
    """How each model of the list was planned, and is again under its lock."""

    def observe(self, desired: DesiredModel) -> ObservedModel: ...
    def plan(self, observed: ObservedModel, desired: DesiredModel) -> Plan: ...
    def with_users(self, plan: Plan, together: Collection[str]) -> Plan: ...


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
        python: makes the folders of models for which MLflow's own code answers.
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
        python: PythonModels | None = None,
    ) -> None:
        self._repository = repository
        self._servers = servers
        self._planner = planner
        self._sources = sources
        self._lock_timeout = lock_timeout
        self._limits = limits
        self._leave = leave
        self._executor = Executor(
            repository, servers, sources.artifacts, tracking_uri, limits, python
        )
        self._explicit: set[str] = set()

    def run(
        self,
        planned: Mapping[str, Planned],
        order: Order,
        groups: Sequence[Sequence[str]],
        failed: Collection[str],
    ) -> dict[str, Outcome]:
        """Do what is to be done; what fails does not stop what does not need it.

        Args:
            groups: the models that have something to be done, as they are carried out together.
            failed: further names of the list, for which nothing can be done.
        """
        outcomes = {name: expect(one) for name, one in planned.items() if not one.todo}
        for name, one in planned.items():
            if name in outcomes and one.error is None:
                self._tidy(name)

        def change(first: str) -> None:
            going: list[Planned] = []
            for name in by_first[first]:
                if refused := refuse(planned[name], order, outcomes, failed):
                    outcomes[name] = refused
                else:
                    going.append(planned[name])
            if going:
                outcomes.update(self._change(going, order))

        busy = [name for group in groups for name in group]
        by_first = {group[0]: group for group in groups}
        first_of = {name: group[0] for group in groups for name in group}
        after = {
            first: frozenset(
                first_of[other] for name in group for other in order.waits_for(name, busy)
            )
            - {first}
            for first, group in by_first.items()
        }
        do_all(change, after, self._limits.workers, self._leave)
        return outcomes

    def _change(self, group: Sequence[Planned], order: Order) -> dict[str, Outcome]:
        """Carry out plans that belong together, under the locks of their models."""
        store = self._repository.store
        at = group[0].desired.name
        outcomes: dict[str, Outcome] = {}
        try:
            for one in group:
                at = one.desired.name
                if one.todo:
                    self._require_explicit(one.todo)
            store.ensure()
            with contextlib.ExitStack() as locks:
                for at in sorted(one.desired.name for one in group):
                    locks.enter_context(store.lock(at, self._lock_timeout))
                outcomes = self._change_locked(group, order)
        except Exception as error:  # told for its models, so that the others of the list go on
            # A lock that could not be given back takes nothing back of what was done under it.
            return outcomes or failed_together(group, at, as_delivery_error(error, "lock"), order)
        return outcomes

    def _tidy(self, name: str) -> None:
        """Remove what a run left that was killed before it had changed anything. One that is at
        work is left alone.
        """
        store = self._repository.store
        if store.has_leftovers(name):
            with contextlib.suppress(Exception), store.lock(name, 0):
                if store.journal(name) is None:  # else staging may hold what was there before
                    store.clear_staging(name)

    def _change_locked(self, group: Sequence[Planned], order: Order) -> dict[str, Outcome]:
        """Plan again now that nobody else changes the models, and do it."""
        names = [one.desired.name for one in group]
        found: dict[str, Outcome] = {}
        todo: list[Plan] = []
        at = names[0]
        try:
            for at, one in zip(names, group):
                found[at] = self._plan_again(one, names)
                if (plan := found[at].plan) and plan.steps:
                    todo.append(plan)
                    if plan.replacement:
                        self._sources.before_download(plan.replacement.source)
        except Exception as error:
            return failed_together(group, at, as_delivery_error(error, "plan"), order)
        for plan, applied in zip(todo, self._executor.apply_together(todo) if todo else ()):
            if isinstance(applied.error, ArtifactError) and plan.replacement:
                self._sources.failed_download(plan.replacement.source)
            at, record = plan.desired.name, plan.observed.record
            before = found[at].warnings
            if not applied.error:
                # What a plan warned of may have come true.
                said = tuple(dict.fromkeys((*before, *applied.warnings)))
                found[at] = Outcome(plan, applied.record, True, said)
            elif applied.is_untouched:
                found[at] = refuse_with(at, order, found)
            else:
                done = applied.record is not record  # it failed when that was written already
                found[at] = Outcome(plan, applied.record, done, before, applied.error)
        return found

    def _plan_again(self, planned: Planned, together: Collection[str]) -> Outcome:
        """What is still to be done, and what was recovered on the way."""
        name, plan = planned.desired.name, planned.todo
        load = begun_load(self._repository.store.journal(name))
        waited, resumed = self._settle(planned)
        done = None if resumed else self._repository.recover(name)
        observed = self._planner.observe(planned.desired)
        if waited and done and load:
            self._go_back(planned.desired, observed, load)
            observed = self._planner.observe(planned.desired)
        if resumed or plan is None or observed != plan.observed:
            plan = resumed or self._planner.plan(observed, planned.desired)
        if waited and not resumed:
            plan = dataclasses.replace(plan, steps=(*waited, *plan.steps))
        plan = self._planner.with_users(plan, together)
        # What the first plan warned of may be so no more.
        warnings = dataclasses.replace(planned, plan=plan).warnings
        return Outcome(plan, observed.record, bool(done), (*warnings, *((done,) if done else ())))

    def _settle(self, planned: Planned) -> tuple[tuple[Recover, ...], Plan | None]:
        """Wait for a load that an earlier run began; its files are moved by nobody before.

        Returns:
            The step that says so, and the plan that goes on with it, where it brings what is
            wanted.

        Raises:
            LoadHangs: it does not end.
        """
        desired, store = planned.desired, self._repository.store
        journal = store.journal(desired.name)
        record = store.record(desired.name)
        load = begun_load(journal)
        if load and not (record and record.transaction == load.record.transaction):
            plan = self._planner.plan(self._planner.observe(desired), desired)
            step = Recover(interrupted(journal)) if journal else Recover("")
            if plan.resumes:
                return (step,), plan
            self._executor.serving.join(desired.name, load)
            return (step,), None
        if isinstance(journal, PendingLoad):
            self._executor.serving.join(desired.name, journal)
            store.remove_journal(desired.name)
            return (Recover(interrupted(journal)),), None
        return (), None

    def _go_back(self, desired: DesiredModel, observed: ObservedModel, load: BegunLoad) -> None:
        """Where servers have loaded what was not wanted any more, the deployment before comes back
        before anything else is done.
        """
        if desired.state in ("absent", "unloaded"):
            return
        executor = self._executor
        plan = Plan(desired, observed, (), {}, {})
        files = ProvenFiles(self._repository, observed)
        with Turn(self._limits.loads) as turn:
            turn.take()
            one = Transaction.of(plan, files, self._limits, turn)
            executor.serving.undoes(one, load)
            executor.serving.restore(one)
        journal = self._repository.store.journal(desired.name)
        if isinstance(journal, PendingLoad):  # the load of what was there before has not ended
            executor.serving.join(desired.name, journal)

    def _require_explicit(self, plan: Plan) -> None:
        for server in self._servers:
            if server.url in plan.servers - self._explicit:
                server.require_explicit()
                self._explicit.add(server.url)
