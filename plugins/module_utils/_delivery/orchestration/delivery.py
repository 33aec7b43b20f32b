# SPDX-License-Identifier: Apache-2.0
"""One run: the registry, the repository and the servers, and what is asked of them. Modules and the
MLflow plugin call this.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence

from ..domain.desired import DesiredModel
from ..errors import InvalidOption, MissingLibrary, RecordRefused
from ..execution.limits import Limits
from ..execution.list_executor import ListExecutor
from ..planning.dependencies import order_plans
from ..planning.outcome import expect_all
from ..planning.users import groups_of
from ..redact import mask
from ..registry.registry import Registry
from ..repository.protocol import Repository
from ..repository.s3.location import is_s3
from ..triton.http_transport import leave_thread
from .artifact_reader import ArtifactReader
from .inspection import Inspection
from .observation import Observer
from .plan_builder import PlanBuilder
from .report import Result
from .sources import Sources
from .surroundings import Surroundings
from .target import Target

__all__ = ["Delivery", "Result", "Target"]


class Delivery(Inspection):
    """Deliver models to one target. Use it as a context manager: connections are closed at the
    end.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.registry = Registry(
            target.tracking_uri, target.timeout, target.registry_uri, once=True
        )

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
        observer = Observer(repository, self.servers, self._leave)
        indexes = observer.ask_servers(check)
        models = [*wanted, *(_to_purge(repository, purge, names) if purge and repository else ())]
        sources = Sources(self.registry, self._tracking_id)
        surroundings = Surroundings(repository, self.servers, indexes)
        builder = self._plan_builder(observer, sources, surroundings, repository, check)

        planned = builder.plan_all(models, observer.observe_all(models, indexes), failed)
        order = order_plans(planned, failed)
        groups = groups_of(planned, order, builder.find_users(planned))
        planned = builder.add_users(planned, groups)
        if check or repository is None:
            outcomes = expect_all(planned, order, failed)
        else:
            executor = self._executor(builder, sources, repository)
            outcomes = executor.run(planned, order, groups, failed)

        results = {name: Result.of(name, outcome) for name, outcome in outcomes.items()}
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

    def _plan_builder(
        self,
        observer: Observer,
        sources: Sources,
        surroundings: Surroundings,
        repository: Repository | None,
        check: bool,
    ) -> PlanBuilder:
        target = self.target
        reader = ArtifactReader(
            repository,
            target.policy,
            target.tensorrt_target,
            [server.url for server in self.servers],
        )
        return PlanBuilder(
            observer,
            sources,
            reader,
            surroundings,
            repository,
            self.servers,
            policy=target.policy,
            tracking_id=self._tracking_id,
            check=check,
            leave=self._leave,
        )

    def _executor(
        self, builder: PlanBuilder, sources: Sources, repository: Repository
    ) -> ListExecutor:
        return ListExecutor(
            repository,
            self.servers,
            builder,
            sources,
            tracking_uri=self._tracking_id,
            lock_timeout=self.target.lock_timeout,
            limits=Limits(self.target.parallel_downloads, self.target.parallel_loads),
            leave=self._leave,
        )

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


def _refuse_repeated(names: Sequence[str]) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise InvalidOption(
            f"the list names {', '.join(repeated)} more than once",
            step="read the options",
            left="nothing was changed",
        )


def _to_purge(repository: Repository, purge: str, named: Collection[str]) -> list[DesiredModel]:
    """The models of a deployment set that are not named any more. One whose record does not say
    its set is among them, so that its failure is told.
    """
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

    return [
        DesiredModel(name, state="absent", purged_from=purge)
        for name in store.recorded_names()
        if name not in named and may_belong(name)
    ]
