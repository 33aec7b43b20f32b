# SPDX-License-Identifier: Apache-2.0
"""One run: the registry, the repository and the servers, and what is asked of them. Modules and the
MLflow plugin call this.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..artifacts.places import ArtifactPlaces
from ..domain.desired import DesiredModel
from ..domain.observed import ObservedModel
from ..domain.stored import StoredModel
from ..errors import InvalidOption, MissingLibrary, ServerUnreachable
from ..execution.gpu_memory import GpuRoom
from ..execution.limits import Limits
from ..execution.list_executor import ListExecutor
from ..execution.python_models import PythonModels
from ..planning.dependencies import order_plans
from ..planning.outcome import Planned, expect_all
from ..planning.plan import Load
from ..planning.users import groups_of
from ..redact import mask
from ..registry.registry import Registry
from ..repository.protocol import Repository
from ..repository.s3.location import is_s3
from ..triton.http_transport import leave_thread
from ..triton.server import TritonServer
from .artifact_reader import ArtifactReader
from .environments_used import has_environments, remove_unused
from .inspection import Inspection
from .observation import Observer
from .plan_builder import PlanBuilder
from .preparation import Prepared, prepare
from .purge import models_to_purge
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
            target.tracking_uri,
            target.timeout,
            target.registry_uri,
            once=True,
            places=ArtifactPlaces(target.artifact_folders, target.beside_mlflow),
        )
        self.unreached: list[str] = []
        self.warnings: list[str] = []

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
        purge_limit: float | None = None,
        failed: Collection[str] = (),
    ) -> list[Result]:
        """Bring each model to its desired state; one that fails does not stop the others.

        Args:
            purge: a deployment set whose models are removed where ``wanted`` does not name them.
            purge_limit: see ``models_to_purge``.
            failed: further names of the list, about which is known already that nothing can be
                done.

        Raises:
            DeliveryError: nothing can be planned for any model, such as where a server does not
                answer. In a check run that is noted in ``unreached``.

        Returns:
            A result for each of ``wanted`` in its order, then for each model that was purged, by
                name.
        """
        names = [*(model.name for model in wanted), *failed]
        _refuse_repeated(names)
        repository = self._repository(check)
        observer = Observer(repository, self.servers, self._leave, self.why_lost)
        indexes = observer.ask_servers(check)
        self.unreached = [
            url for url, found in indexes.items() if isinstance(found, ServerUnreachable)
        ]
        models = [*wanted]
        if purge and repository:
            models += models_to_purge(repository, purge, names, purge_limit)
        sources = Sources(self.registry, self._tracking_id)
        surroundings = Surroundings(repository, self.servers, indexes)
        builder = self._plan_builder(observer, sources, surroundings, repository, check)

        observed = observer.observe_all(models, indexes)
        planned = builder.plan_all(models, observed, failed)
        order = order_plans(planned, failed)
        groups = groups_of(planned, order, builder.find_users(planned))
        planned = builder.add_users(planned, groups)
        self.warnings = [said for said in [_warn_of_http(planned, self.servers)] if said]
        if check or repository is None:
            outcomes = expect_all(planned, order, failed)
        else:
            executor = self._executor(builder, sources, repository)
            outcomes = executor.run(planned, order, groups, failed)
            if any(one.changed for one in outcomes.values()):
                self.warnings += self._tidy_environments(repository)

        results = {
            name: Result.of(name, outcome, observed[name]) for name, outcome in outcomes.items()
        }
        results = self._tell_registry(results, check or repository is None)
        return [results[model.name] for model in models]

    def _tidy_environments(self, repository: Repository) -> list[str]:
        named = (self.target.environments or {}).get("folder")
        if is_s3(self.target.repository) or not (named or has_environments(repository)):
            return []
        said = remove_unused(self.environments, repository) if self.environments else None
        return [said] if said else []

    def _tell_registry(self, results: dict[str, Result], check: bool) -> dict[str, Result]:
        if not self.target.registry_status:
            return results
        from .registry_status import StatusReport

        name = self.target.registry_status
        return StatusReport(self.registry, name, self._tracking_id, check).add(results)

    def prepare(self, results: Sequence[Result], *, check: bool) -> list[Prepared]:
        """Make the Python environments that models of a check run need; with ``check``, only look
        for them.
        """
        there = self._repository(check)
        return prepare(
            results, lambda: self.environments if there is not None else None, check=check
        )

    def with_standing(self, results: Mapping[str, Result]) -> dict[str, Result]:
        """The same results, of models that could not be planned, with what is deployed of them."""
        return {
            name: replace(result, record=there.record if there else None, observed=there)
            for name, result in results.items()
            for there in [self._read(name)]
        }

    def _read(self, name: str) -> ObservedModel | None:
        try:
            repository = self._repository(check=True)
            stored = repository.read(name) if repository else StoredModel()
            return ObservedModel.of(name, stored)
        except Exception:  # told as not known, beside why the model could not be planned
            return None

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
            self.policy,
            target.tensorrt_target,
            [server.url for server in self.servers],
            place=target.repository,
            environments=(lambda: self.environments) if repository else (lambda: None),
        )
        return PlanBuilder(
            observer,
            sources,
            reader,
            surroundings,
            repository,
            self.servers,
            policy=self.policy,
            tracking_id=self._tracking_id,
            check=check,
            drained=target.drained,
            leave=self._leave,
            why_lost=self.why_lost,
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
            limits=Limits(
                self.target.parallel_downloads, self.target.parallel_loads, GpuRoom(self.servers)
            ),
            leave=self._leave,
            python=PythonModels(lambda: self.environments, load_timeout=self.target.load_timeout),
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


def _warn_of_http(planned: Mapping[str, Planned], servers: Sequence[TritonServer]) -> str | None:
    """What the loads of this run do to clients, where they go over HTTP; one sentence for all."""
    loading = {
        url
        for one in planned.values()
        for step in (one.todo.steps if one.todo else ())
        if isinstance(step, Load)
        for url in step.servers
    }
    over_http = [one.url for one in servers if one.loads_over_http and one.url in loading]
    if not over_http:
        return None
    return (
        f"loads of {', '.join(over_http)} go over HTTP: some clients that keep their HTTP"
        " connections wait for as long as each load takes. Over gRPC none does: load_url:"
        " grpc://host:8001, the gRPC address of the same server"
    )


def _refuse_repeated(names: Sequence[str]) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise InvalidOption(
            f"the list names {', '.join(repeated)} more than once",
            step="read the options",
            left="nothing was changed",
        )
