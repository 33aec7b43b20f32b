# SPDX-License-Identifier: Apache-2.0
"""A new deployment is loaded and verified under a name of its own before it takes the place of what
serves: no client of the model sees an answer of one that fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from .. import disk
from ..domain import config_pbtxt
from ..domain.config_pbtxt import config_for
from ..domain.desired import Case, DesiredModel, Example
from ..domain.journal import Trial as TrialJournal
from ..domain.record import Record
from ..domain.stored import Fingerprint
from ..errors import (
    ArtifactError,
    DeliveryError,
    LoadFailed,
    LoadPending,
    ServerError,
    VerificationFailed,
    as_delivery_error,
)
from ..names import candidate_of
from ..outside import JsonObject
from ..planning.plan import PutSideBySide, Reconfigure, Replace, RollBack, TryAside
from ..planning.swap import OVERLAP
from ..planning.versions import loaded_versions
from ..repository.protocol import Repository
from ..triton.readiness import Readiness
from ..triton.server import TritonServer
from .gpu_memory import Before, is_on_gpu, read_gpus, wait_for_release
from .out_of_memory import explain
from .pending_loads import hangs, time_left
from .replacement import Replacement
from .rollback import Rollback
from .transaction import Transaction, now
from .verification import case_of, verify_everywhere

_STEP = "try aside"
_ROOM = (
    "swap: unload_first without verify_aside unloads the old deployment before, so that it serves"
    " no request"
)


class Candidate(NamedTuple):
    """What is tried: the files at ``source`` with this configuration, and how it is asked."""

    source: str
    config: bytes
    version: int
    case: Case | None


class Trial:
    """Trials on the servers which read one repository."""

    def __init__(
        self,
        repository: Repository,
        servers: Sequence[TritonServer],
        replacement: Replacement,
        rollback: Rollback,
    ) -> None:
        self.repository = repository
        self.servers = {server.url: server for server in servers}
        self.replacement = replacement
        self.rollback = rollback

    def run(self, transaction: Transaction, step: TryAside) -> None:
        """Prove the new deployment aside.

        Raises:
            DeliveryError: it could not be loaded, or does not answer as it should. Nothing of what
                serves was touched.
        """
        name = transaction.name
        watched = [Readiness(self.servers[url]) for url in step.servers]
        for one in watched:
            one.refuse_strict(name)
            self._refuse_served(one.server, name)
        candidate = self._candidate(transaction)
        if candidate.case is None:
            raise VerificationFailed("there is nothing to ask it", model=name, step=_STEP)
        transaction.turn.take()
        self.repository.begin_trial(
            transaction.plan.desired, transaction.deploy_id, candidate.source, candidate.config
        )
        try:
            before = self._look(name)
            for one in watched:
                self._try_on(transaction, one, candidate)
            self._refuse_changed(name, before)
        except LoadPending as error:
            raise ServerError(
                f"as {candidate_of(name)}, to be proven: {error.message}; its files stay where they"
                " are, and the next run ends that",
                model=name,
                step=_STEP,
                server=error.server,
            ) from error
        except Exception as cause:  # whatever it is, the candidate has memory and a name
            failure = as_delivery_error(cause, _STEP)
            self._end(transaction, step.servers, failure)
            failure.message = f"as {candidate_of(name)}, before it served: {failure.message}"
            failure.step = _STEP
            if failure is cause:
                raise
            raise failure from cause
        self.repository.end_trial(name)

    def finish(self, transaction: Transaction) -> None:
        """Unload what a run that was killed, or gave up a load, left of a trial.

        Raises:
            LoadHangs: a server is still loading it.
        """
        journal = transaction.plan.observed.journal
        if isinstance(journal, TrialJournal):
            for server in self.servers.values():
                try:
                    self._unload(server, transaction, time_left(server, journal.since))
                except LoadPending as error:
                    failure = hangs(error, journal.since)
                    candidate = candidate_of(transaction.name)
                    failure.message = f"as {candidate}, which was to be proven: {failure.message}"
                    raise failure from error
            self.repository.end_trial(transaction.name)

    def _candidate(self, transaction: Transaction) -> Candidate:
        """Bring what is tried, and write its configuration."""
        plan = transaction.plan
        for step in plan.steps:
            match step:
                case Replace() | PutSideBySide():
                    if transaction.staged is None:
                        self.replacement.prepare(transaction, step)
                    if transaction.staged is None:
                        break
                    layout, staged = transaction.staged.layout, transaction.staged.path
                    config = _config(transaction, layout.author_config.decode(), plan.desired)
                    case = _case(plan.desired, layout.example)
                    return Candidate(staged, config, max(layout.versions), case)
                case Reconfigure():
                    return self._of_record(
                        transaction, step.record, self.repository.live(transaction.name)
                    )
                case RollBack():
                    config = _config(transaction, step.target.author_config, plan.desired)
                    whole = (
                        step.target.manifest_digest != step.record.manifest_digest
                        or not plan.observed.folder
                    )
                    place = (
                        self.rollback.prepared_copy(transaction, step.target, config)
                        if whole
                        else self.repository.live(transaction.name)
                    )
                    return self._of_record(transaction, step.target, place)
        raise VerificationFailed("there is nothing to try", model=transaction.name, step=_STEP)

    def _of_record(self, transaction: Transaction, record: Record, source: str) -> Candidate:
        desired = transaction.plan.desired
        asked = dataclasses.replace(record, request=_request(desired))
        config = _config(transaction, record.author_config, desired)
        return Candidate(source, config, loaded_versions(asked)[-1], case_of(desired, record))

    def _try_on(self, transaction: Transaction, one: Readiness, candidate: Candidate) -> None:
        server, name = one.server, candidate_of(transaction.name)
        transaction.gpus[server.url] = Before(read_gpus(server), {})
        self._note_load(transaction.name)
        try:
            with one.watch():
                server.load(name)
        except LoadFailed as error:
            said = [*one.warnings(), *one.heal(transaction.name, name)]
            error.message = "; ".join([error.message.rstrip(".; "), *said])
            _explain(transaction, server, error, error.reason)
            raise
        transaction.warnings += one.warnings()
        served = server.served(name)
        if served.deploy_id != transaction.deploy_id:
            raise ServerError(
                f"Triton at {server.url} answered that it loaded deployment"
                f" {transaction.deploy_id} and serves {served.deploy_id or 'another one'}",
                server=server.url,
            )
        try:
            why_not_asked, _proof, warning = verify_everywhere(
                server, name, candidate.version, candidate.case or {}
            )
        except VerificationFailed as error:  # the first request may need more than the load did
            _explain(transaction, server, error, error.message)
            raise
        transaction.warnings += [warning] if warning else []
        if why_not_asked:
            raise VerificationFailed(why_not_asked, server=server.url)
        self._unload(server, transaction)

    def _note_load(self, name: str) -> None:
        """Whoever finds it knows how long it may still take."""
        journal = self.repository.store.journal(name)
        if isinstance(journal, TrialJournal):
            noted = dataclasses.replace(journal, since=now())
            self.repository.store.write_journal(name, noted)

    def _unload(
        self, server: TritonServer, transaction: Transaction, seconds: float | None = None
    ) -> None:
        """``seconds``: for how long a load is waited for that has not ended."""
        candidate = candidate_of(transaction.name)
        before = transaction.gpus.pop(server.url, None)
        if any(row.state == "LOADING" for row in server.index().get(candidate, ())):
            with contextlib.suppress(LoadFailed):
                # Joins the load, which an unload would not stop.
                server.load(candidate, seconds)
        on_gpu = is_on_gpu(server, candidate)
        server.unload(candidate)
        if on_gpu:
            wait_for_release(server, before.free if before else None)

    def _end(self, transaction: Transaction, urls: Sequence[str], failure: DeliveryError) -> None:
        """Take the candidate away after it failed; what cannot be done is left to the next run."""
        name = transaction.name
        try:
            for url in urls:
                self._unload(self.servers[url], transaction)
            self.repository.end_trial(name)
        except Exception as error:  # the sentence is about the failure
            failure.message += (
                f"; {candidate_of(name)} could not be taken away"
                f" ({as_delivery_error(error).message.rstrip('.')}), which the next run does"
            )

    def _look(self, name: str) -> Fingerprint:
        """How the candidate's files look: whoever owns the repository can reach them there."""
        found = self.repository.fingerprint(candidate_of(name))
        return {path: look for path, look in found.items() if not disk.is_byproduct(path)}

    def _refuse_changed(self, name: str, before: Fingerprint) -> None:
        """Raises ArtifactError where what was proven is not what was tried. What has come is a
        model's own: it may write files beside its own, and is to write them anew where it serves.
        """
        place, after = self.repository.live(candidate_of(name)), self._look(name)
        came = sorted(after.keys() - before.keys())
        filled = {path for path in before for one in came if one.startswith(f"{path}/")}
        if any(after.get(path) != look for path, look in before.items() if path not in filled):
            raise ArtifactError(f"somebody changed {place} while it was proven")
        self.repository.remove_strays(place, came)

    def _refuse_served(self, server: TritonServer, name: str) -> None:
        if server.served(candidate_of(name)).ready:
            raise ServerError(
                f"{server.url} serves a model {candidate_of(name)}, which no run here has loaded,"
                " and a candidate is proven under that name: unload it, or leave out verify_aside",
                model=name,
                step=_STEP,
                server=server.url,
            )


def _explain(
    transaction: Transaction, server: TritonServer, error: ServerError, reason: str
) -> None:
    """Say in our words where ``reason`` means that memory was too little for a second copy."""
    before = transaction.gpus.get(server.url)
    replaces = transaction.plan.swap == OVERLAP
    said = explain(reason, before.gpus.items() if before else (), _ROOM if replaces else "")
    if said:
        error.message = f"{said}. {error.message}"


def _request(desired: DesiredModel) -> dict[str, object]:
    """One version is proven, whichever are served side by side."""
    return {**desired.request, "serve_versions": 1}


def _config(transaction: Transaction, author: str, desired: DesiredModel) -> bytes:
    """As it is to be deployed, but for the name, which an author may have written down."""
    config = config_pbtxt.parse(
        config_for(author, transaction.name, transaction.deploy_id, _request(desired))
    )
    config.name = candidate_of(transaction.name)
    return config_pbtxt.render(config)


def _case(desired: DesiredModel, example: JsonObject | None) -> Case | None:
    if not isinstance(desired.verify, (str, type(None))):
        return desired.verify
    return Example(example) if example else None
