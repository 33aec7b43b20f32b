# SPDX-License-Identifier: Apache-2.0
"""Models for which MLflow's own code answers: their environment, and the model folder in
staging.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from .. import disk
from ..domain.environments import Environment, Environments
from ..domain.layout import Layout
from ..domain.manifest import Manifest
from ..domain.pyfunc import PyfuncSettings
from ..domain.requirements import Requirements
from ..errors import DeliveryError, RepositoryError, VerificationFailed
from ..flavors.pyfunc import REMEDY, add_worker
from ..repository.protocol import Repository
from ..worker import files
from .transaction import Transaction

_STEP = "build the environment"
_USUAL_START = 240.0
# The server gives up on the load later than the worker on its start, which says more.
_OF_A_LOAD = 0.8


class PythonModels:
    """Makes them on this host.

    Args:
        environments: gives those of this host; None where there can be none.
        programs: file name → bytes of what runs them.
        load_timeout: seconds that a load may take.
    """

    def __init__(
        self,
        environments: Callable[[], Environments | None] = lambda: None,
        programs: Callable[[], Mapping[str, bytes]] = files,
        load_timeout: float | None = None,
    ) -> None:
        self._environments = environments
        self._programs = programs
        self._start_timeout = load_timeout * _OF_A_LOAD if load_timeout else _USUAL_START

    def build(
        self, repository: Repository, transaction: Transaction, wanted: Requirements
    ) -> Environment:
        """What the model needs is there from here on. Nothing of what serves is touched.

        Raises:
            DeliveryError: it cannot be built.
        """
        if transaction.environment is None:
            # Who removes what nobody uses sees by it that somebody is about to.
            disk.make_folder(repository.workspace(transaction.name, transaction.deploy_id))
            environments = self._environments()
            if environments is None:
                raise RepositoryError(
                    "there is no place for Python environments: make model_repository a folder of"
                    " this host",
                    step=_STEP,
                )
            try:
                transaction.environment = environments.build(wanted)
            except DeliveryError as error:
                error.about(step=_STEP)
                raise
        return transaction.environment

    def make(
        self,
        repository: Repository,
        transaction: Transaction,
        layout: Layout,
        staged: str,
        came: Manifest,
    ) -> tuple[Layout, Manifest]:
        """The model folder of what came, with the worker beside it.

        Returns:
            The layout with the number of packages, and the manifest of what lies in staging now.
        """
        if layout.pyfunc is None or layout.requirements is None:
            raise RepositoryError("what it needs is not known", step=_STEP)
        environment = self.build(repository, transaction, layout.requirements)
        settings = PyfuncSettings(
            environment.python,
            environment.digest,
            layout.pyfunc,
            layout.joins_requests,
            transaction.plan.desired.predict_timeout,
            self._start_timeout,
        )
        manifest = add_worker(layout, staged, came, self._programs(), settings)
        return dataclasses.replace(layout, packages=len(environment.packages)), manifest


def name_the_other_way(error: DeliveryError, transaction: Transaction) -> None:
    """Where a backend cannot do it, or answers otherwise, and MLflow's own code could, say so. Who
    asked for a backend is told no more than why its file does not do.
    """
    desired, step = transaction.plan.desired, transaction.plan.replacement
    layout = step.layout if step else None
    is_told = desired.serve_as != "native" or isinstance(error, VerificationFailed)
    if layout and layout.has_pyfunc and not layout.pyfunc and is_told:
        error.message = f"{error.message.rstrip('.; ')}; {REMEDY}"
