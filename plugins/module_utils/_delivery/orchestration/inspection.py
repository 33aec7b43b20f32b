# SPDX-License-Identifier: Apache-2.0
"""What is deployed on one target: record, disk and every server. Short commands import this and
nothing that plans or changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, Union

from ..domain.desired import DesiredModel
from ..domain.environments import Environments
from ..domain.observed import ObservedModel
from ..domain.record import RULES, Record
from ..domain.served import ServedModel, VersionRow
from ..domain.stored import StoredModel
from ..errors import (
    DeliveryError,
    InvalidOption,
    JournalRefused,
    MissingLibrary,
    PolicyRefused,
    RecordRefused,
    ServerTimeout,
    ServerUnreachable,
    as_delivery_error,
)
from ..names import check_model_name
from ..outside import JsonDict
from ..planning.policy import Policy
from ..repository.factory import open_repository
from ..repository.protocol import Repository
from ..repository.retention import usable
from ..repository.s3.location import is_s3
from ..triton.server import TritonServer
from .environments_used import FOLDER, describe_all, has_environments, why_lost
from .report import describe, status_of
from .target import Target

_Inspection = TypeVar("_Inspection", bound="Inspection")
# Evaluated at run time, where ansible-test still asks for the old form.
Indexes = Mapping[str, Union[Mapping[str, tuple[VersionRow, ...]], DeliveryError]]  # noqa: UP007
"""What each server (by URL) lists, or why that is not known."""


class Inspection:
    """Read one target. Use it as a context manager: connections are closed at the end."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.servers = [
            TritonServer(
                url,
                target.timeout,
                target.access,
                target.server_log,
                once=True,
                load_url=load_url,
                load_timeout=target.load_timeout,
                metrics_url=metrics_url,
            )
            for url, load_url, metrics_url in target.addresses
        ]
        self._opened: Repository | None = None
        self._environments: Environments | None = None
        self._policy: Policy | None = None

    def __enter__(self: _Inspection) -> _Inspection:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._close()
        if self._opened:
            self._opened.close()

    def _close(self) -> None:
        """The connections of this thread."""
        for server in self.servers:
            server.close()

    @property
    def repository(self) -> Repository:
        """The repository, which exists."""
        if self._opened is None:
            self._opened = open_repository(
                self.target.repository, self.target.state_dir, self.target.s3, self.target.timeout
            )
        return self._opened

    @property
    def environments(self) -> Environments | None:
        """The Python environments of this host; None where the repository is in S3."""
        if self._environments is None and not is_s3(self.target.repository):
            from ..environments.environments import EnvironmentOptions
            from ..environments.environments import Environments as OfThisHost

            options = EnvironmentOptions.from_options(self.target.environments)
            state = self.repository.store.path
            folder = os.path.join(state, FOLDER)
            self._environments = OfThisHost(folder, options, self.target.timeout, state)
        return self._environments

    @property
    def policy(self) -> Policy:
        """The rules, with the keys that they name, read when the rules are first asked."""
        if self._policy is None:
            self._policy = policy = self.target.policy
            if policy.require_signature:
                from ..trust.anchors import read_anchors

                self._policy = replace(policy, anchors=read_anchors(policy.require_signature))
        return self._policy

    def record(self, name: str) -> Record | None:
        """What is written down about a deployment. No server is asked."""
        return self.repository.store.record(check_model_name(name))

    def status(self, names: Iterable[str] | None = None, *, verify: bool = False) -> list[JsonDict]:
        """What is deployed: record, disk and every server compared; one entry for each model,
        sorted by name.

        Args:
            verify: each model that is to be loaded is asked what proved it before, or its own
                example; keys ``answers`` and ``unproven`` say what came of that.
        """
        repository = self.repository
        indexes: Indexes = {server.url: server.index() for server in self.servers}
        wanted = repository.store.recorded_names() if names is None else list(names)
        entries = []
        for name in wanted:
            try:
                entries.append(self._status_of(repository, name, indexes, verify))
            except (InvalidOption, MissingLibrary, ServerUnreachable, ServerTimeout):
                raise  # of all models
            except Exception as error:  # told of this model; the others go on
                said = as_delivery_error(error, "see what is there").about(model=name)
                asked = {"answers": None, "unproven": None} if verify else {}
                entries.append({**_unknown(name, str(said)), **asked})
        return entries

    def why_lost(self, record: Record) -> str | None:
        """What is wrong with an environment that a deployment needs."""
        return why_lost(self.environments, record) if record.environments else None

    def describe_environments(self) -> list[JsonDict]:
        """The Python environments of this host and the models that need them, by digest."""
        named = (self.target.environments or {}).get("folder")
        if is_s3(self.target.repository) or not (named or has_environments(self.repository)):
            return []
        return describe_all(self.environments, self.repository)

    def _status_of(
        self, repository: Repository, name: str, indexes: Indexes, verify: bool
    ) -> JsonDict:
        more: JsonDict = {}
        try:
            stored, unread = repository.read(name), []
        except JournalRefused as error:
            record = repository.store.record(name)
            stored, unread = StoredModel(record, folder=record is not None), [error.message]
        except RecordRefused as error:
            stored, unread = StoredModel(), [error.message]
            more = {"state": "unknown", "foreign": False}
        observed = ObservedModel.of(name, stored, *_served(self.servers, name, indexes))
        if stored.record and stored.record.environments:
            observed = replace(observed, lost_environment=self.why_lost(stored.record))
        status = status_of(observed)
        status["drift"] += unread
        more |= self._trust(observed.record, status["drift"])
        if verify:
            more |= self._ask(name, observed.record)
        return {**describe(name, observed.record), **status, **more}

    def _trust(self, record: Record | None, drift: list[str]) -> JsonDict:
        """Whether what is deployed would be trusted today; None where no rule asks who vouches for
        it. ``drift`` takes why not.
        """
        if record is None or not self.target.policy.judges_trust:
            return {"trusted": None}
        try:
            self.policy.check_trust(record)
        except PolicyRefused as error:
            doing = "served" if record.wanted == "loaded" else "deployed"
            drift.append(f"{doing}, and no longer trusted: {error.message}")
            return {"trusted": False}
        return {"trusted": True}

    def _ask(self, name: str, record: Record | None) -> JsonDict:
        """Whether each server answers as it should, and why that is not so or not known."""
        from ..execution.verification import kept_case, verify
        from ..planning.versions import version_to_ask

        if record is None or record.wanted != "loaded":
            return {"answers": None, "unproven": None}
        case = kept_case(record)
        if case is None:
            return {"answers": None, "unproven": "there is nothing to ask it"}
        left_out = None
        for server in self.servers:
            try:
                left_out = verify(server, name, version_to_ask(record), case) or left_out
            except Exception as error:  # told of this model; the others go on
                said = as_delivery_error(error, "verify")
                return {"answers": False, "unproven": f"{server.url}: {said.message}"}
        return {"answers": None if left_out else True, "unproven": left_out}


def _unknown(name: str, said: str) -> JsonDict:
    """A model of which nothing could be found out, and why."""
    status = {"ready": False, "servers": [], "drift": [said], "foreign": False, "trusted": None}
    return {**describe(name, None), **status, "state": "unknown"}


def observe(
    repository: Repository | None,
    servers: Sequence[TritonServer],
    desired: DesiredModel,
    indexes: Indexes,
    why_lost: Callable[[Record], str | None] = lambda _record: None,
) -> ObservedModel:
    """Record, disk and every server; ``indexes`` has each server's, or why it has none.

    Args:
        why_lost: what is wrong with the environment that a deployment needs.
    """
    if repository:
        repository.check(desired)
    stored = repository.read(desired.name, desired.check_files) if repository else StoredModel()
    retained: tuple[Record, ...] = ()
    if repository and desired.state == "rolled_back":
        records = repository.store.retained_records(desired.name)
        inside = repository.store.retained_contents(desired.name)
        retained = tuple(usable(records, stored.record, inside))
    served, unreachable = _served(servers, desired.name, indexes)
    outdated = None
    if repository and stored.record and stored.record.rules < RULES:
        from .former_rules import judge

        outdated = judge(stored.record, repository.live(desired.name))
    seen = ObservedModel.of(desired.name, stored, served, unreachable, retained, outdated)
    needs = stored.record if stored.record and stored.record.environments else None
    return replace(seen, lost_environment=why_lost(needs)) if needs else seen


def _served(
    servers: Sequence[TritonServer], name: str, indexes: Indexes
) -> tuple[tuple[ServedModel, ...], tuple[str, ...]]:
    """What each server says, and sentences on those that did not answer."""
    served, unreachable = [], []
    for server in servers:
        index = indexes[server.url]
        if isinstance(index, DeliveryError):
            unreachable.append(
                f"{index.message}: what it serves is not known, and assumed to be nothing"
            )
            served.append(ServedModel(server.url))
        else:
            served.append(server.served(name, tuple(index.get(name, ()))))
    return tuple(served), tuple(unreachable)
