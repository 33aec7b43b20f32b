# SPDX-License-Identifier: Apache-2.0
"""What is there of the models of a list, several read at a time. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..domain.desired import DesiredModel
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..domain.served import VersionRow
from ..errors import (
    DeliveryError,
    MissingLibrary,
    ServerError,
    ServerUnreachable,
    as_delivery_error,
)
from ..execution.scheduler import do_all
from ..repository.protocol import Repository
from ..triton.server import TritonServer
from .inspection import Indexes, observe

QUESTIONS = 8
"""How many models are read at the same time."""


class Observer:
    """Reads for one run.

    Args:
        repository: None on a bare host, where nothing is deployed.
        leave: called at the end of each thread.
        why_lost: what is wrong with the environment that a deployment needs.
    """

    def __init__(
        self,
        repository: Repository | None,
        servers: Sequence[TritonServer],
        leave: Callable[[], None],
        why_lost: Callable[[Record], str | None] = lambda _record: None,
    ) -> None:
        self._why_lost = why_lost
        self._repository = repository
        self._servers = servers
        self._leave = leave

    def ask_servers(self, check: bool) -> Indexes:
        """One question for all models to each server. In check mode a server that is not there yet
        is only noted.
        """
        found: dict[str, Mapping[str, tuple[VersionRow, ...]] | DeliveryError] = {}
        for server in self._servers:
            try:
                found[server.url] = server.index()
            except (ServerError, MissingLibrary) as error:
                if not check or not isinstance(error, (MissingLibrary, ServerUnreachable)):
                    raise error.about(left="nothing was changed") from error
                found[server.url] = error
        return found

    def observe(self, desired: DesiredModel) -> ObservedModel:
        """Record, disk and every server, asked anew."""
        indexes = {server.url: server.index() for server in self._servers}
        return observe(self._repository, self._servers, desired, indexes, self._why_lost)

    def observe_all(
        self, models: Sequence[DesiredModel], indexes: Indexes
    ) -> dict[str, ObservedModel | DeliveryError]:
        """What is there of each, by name, or why that is not known."""
        wanted = {model.name: model for model in models}
        found: dict[str, ObservedModel | DeliveryError] = {}

        def read(name: str) -> None:
            try:
                found[name] = observe(
                    self._repository, self._servers, wanted[name], indexes, self._why_lost
                )
            except Exception as error:  # told for this model; the others go on
                found[name] = as_delivery_error(error, "see what is there")

        do_all(read, dict.fromkeys(wanted, frozenset()), QUESTIONS, self._leave)
        return found
