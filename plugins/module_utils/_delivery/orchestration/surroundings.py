# SPDX-License-Identifier: Apache-2.0
"""What is there beside the models of a list, read where a plan needs it. Nothing is changed."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence

from ..domain import config_pbtxt
from ..domain.backends import Loading, completes
from ..domain.config_pbtxt import ModelConfig
from ..domain.record import Record
from ..errors import DeliveryError, NotFound
from ..names import is_candidate
from ..repository.protocol import Repository
from ..triton.server import TritonServer
from .inspection import Indexes


class Surroundings:
    """Reads for one run.

    Args:
        repository: None on a bare host, where nothing is deployed.
        indexes: what each server listed when the run began.
    """

    def __init__(
        self,
        repository: Repository | None,
        servers: Sequence[TritonServer],
        indexes: Indexes,
    ) -> None:
        self._repository = repository
        self._servers = servers
        self._indexes = indexes
        self._records: dict[str, Record] | None = None
        self._foreign: dict[str, ModelConfig] | None = None

    def records(self) -> dict[str, Record]:
        """Of all that is deployed, as far as they can be understood."""
        if self._records is None:
            store = self._repository.store if self._repository else None
            self._records = store.readable_records() if store else {}
        return self._records

    def records_of(self, names: Collection[str]) -> dict[str, Record]:
        """Of these, where they are deployed."""
        if self._records is not None or self._repository is None:
            return self.records()
        found = {}
        for name in names:
            with contextlib.suppress(DeliveryError):
                if record := self._repository.store.record(name):
                    found[name] = record
        return found

    def adds_to_its_configuration(self, record: Record) -> bool:
        """Of a deployed model; True where its program is not known."""
        with contextlib.suppress(DeliveryError):
            loading = Loading.of(config_pbtxt.parse(record.author_config.encode()))
            if loading.backend != "python":
                return False
            version, file = max(record.triton_versions), loading.filename or "model.py"
            program = self._repository and self._repository.text(record.name, f"{version}/{file}")
            return not program or completes(program)
        return True

    def foreign_ensembles(self) -> dict[str, ModelConfig]:
        """Ensembles that are served and have no record. A server is asked for what the repository
        does not hold, and nothing of models that are not READY.
        """
        if self._foreign is None:
            known = self.records()
            self._foreign = {}
            for server in self._servers:
                index = self._indexes.get(server.url)
                for name, rows in index.items() if isinstance(index, Mapping) else ():
                    if (
                        not is_candidate(name)
                        and name not in known
                        and name not in self._foreign
                        and any(row.state == "READY" for row in rows)
                    ):
                        with contextlib.suppress(DeliveryError):
                            self._foreign[name] = self._config(server, name)
            self._foreign = {
                name: config
                for name, config in self._foreign.items()
                if config_pbtxt.is_ensemble(config)
            }
        return self._foreign

    def _config(self, server: TritonServer, name: str) -> ModelConfig:
        text = self._repository.config(name) if self._repository else None
        if text is not None:
            return config_pbtxt.parse(text)
        return config_pbtxt.from_answer(server.config(name))

    def nowhere(self, names: Collection[str]) -> frozenset[str]:
        """Those that are neither in the repository nor served; none where that is not known."""
        indexes = [self._indexes.get(server.url) for server in self._servers]
        missing = set(names)
        for index in indexes:
            if index is None or isinstance(index, DeliveryError):
                return frozenset()
            missing -= index.keys()
        if not missing or not indexes or self._repository is None:
            return frozenset()
        missing -= {*self._repository.names(), *self.records_of(missing)}
        return frozenset(name for name in missing if not self._is_served(name))

    def _is_served(self, name: str) -> bool:
        """A model whose folder is gone is served on, and no server lists it. True where a server
        does not say.
        """
        for server in self._servers:
            try:
                server.metadata(name)
            except NotFound:
                continue
            except DeliveryError:
                return True
            return True
        return False
