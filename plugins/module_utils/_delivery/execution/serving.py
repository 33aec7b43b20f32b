# SPDX-License-Identifier: Apache-2.0
"""The servers' part of a transaction: load until it is proven, verify, unload, and bring back what
was served.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..deadline import Deadline
from ..domain.cases import as_json
from ..domain.journal import BegunLoad, PendingLoad, begun_load
from ..domain.record import Record
from ..domain.served import ServedModel
from ..errors import (
    DeliveryError,
    LoadFailed,
    LoadPending,
    ServerError,
    ServerUnreachable,
    VerificationFailed,
    as_delivery_error,
)
from ..planning.gpu_need import Memory, taken_by
from ..planning.plan import User
from ..planning.swap import OVERLAP, UNLOAD_FIRST
from ..planning.versions import must_be_ready, serves_side_by_side, version_to_ask
from ..repository.protocol import Repository
from ..triton.server import TritonServer
from .gpu_memory import (
    Before,
    Loaded,
    Readings,
    free_without,
    is_on_gpu,
    measure,
    read_gpus,
    wait_for_release,
)
from .out_of_memory import explain
from .pending_loads import hangs, time_left
from .proven_files import ProvenFiles
from .transaction import Transaction, now
from .verification import case_of, kept_case, verify, verify_everywhere

_DAY = 86400.0
_AHEAD = (0.0, _DAY, 400 * _DAY, 40000 * _DAY)


class Serving:
    """The servers which read one repository."""

    def __init__(self, repository: Repository, servers: Sequence[TritonServer]) -> None:
        self.repository = repository
        self.servers = {server.url: server for server in servers}

    def load(self, transaction: Transaction, urls: Sequence[str]) -> None:
        transaction.turn.take()
        record = transaction.deployed
        begun = transaction.plan.resumes and begun_load(transaction.plan.resumes)
        known = begun.servers if begun else ()
        # Where a load may still be running comes first: if another fails, files go back.
        for url in sorted(urls, key=lambda url: url not in known):
            self.note_load(transaction, url)
            server = self.servers[url]
            # What was taken over too: its files may have been changed since they were loaded, and
            # Triton does nothing where they were not.
            transaction.loaded.append(server)
            _look_at_gpus(transaction, server)
            try:
                left = time_left(server, begun.since) if begun and url in known else None
                served = self._load_until_served(server, record, transaction.files, left)
                transaction.going_on.discard(url)
                _note_answer(transaction, served)
            except LoadPending as error:
                if begun and url in known:
                    raise hangs(error, begun.since) from error
                raise
            except LoadFailed as error:
                transaction.going_on.discard(url)
                if said := _out_of_memory(transaction, server, error.reason):
                    error.message = f"{said}. {error.message}"
                elif hint := _hint(error):
                    error.message = error.message.rstrip(".; ") + hint
                raise
            self._release_old(transaction, server)

    def note_load(self, transaction: Transaction, url: str | None = None) -> None:
        """Write down that a load begins. Whoever finds that moves no file before it has ended.

        Args:
            url: of the server that is asked next; when omitted, those of which it was noted before.
        """
        name, swap = transaction.name, transaction.journal
        if not transaction.swapped or swap is None:
            record = transaction.deployed
            note = PendingLoad(record.deploy_id, now(), url)
            transaction.notes_load = True
            self.repository.store.write_journal(name, note)
            return
        record = dataclasses.replace(
            transaction.deployed, fingerprint=transaction.files.of(transaction.deployed)
        )
        known = swap.load.servers if swap.load else ()
        asked = tuple(dict.fromkeys((*known, *([url] if url else ()))))
        # A load that is joined has begun before; those of other servers have ended by now.
        since = swap.load.since if swap.load and asked == known else now()
        unloaded = tuple(server.url for server in transaction.unloaded)
        load = BegunLoad(since, asked, record, tuple(sorted(transaction.answering)), unloaded)
        if swap.load != load:
            transaction.journal = dataclasses.replace(swap, load=load)
            self.repository.store.write_journal(name, transaction.journal)

    def join(self, name: str, note: BegunLoad | PendingLoad) -> None:
        """Wait until a load has ended that an earlier run began.

        Raises:
            LoadHangs: it has not.
        """
        for server in self.named(note.servers if isinstance(note, BegunLoad) else (note.server,)):
            served = server.served(name)
            if isinstance(note, BegunLoad) and _serves(served, note.record):
                continue
            try:
                with contextlib.suppress(LoadFailed):
                    server.load(name, time_left(server, note.since))
            except LoadPending as error:
                raise hangs(error, note.since) from error

    def end_loads(self, transaction: Transaction) -> None:
        """Wait until the loads of an earlier run have ended whose files are to be moved.

        Raises:
            LoadHangs: one has not.
        """
        load = begun_load(transaction.journal)
        if load is None:
            return
        for url in sorted(transaction.going_on):
            with contextlib.suppress(ServerUnreachable):  # what is down loads nothing
                self.join(transaction.name, dataclasses.replace(load, servers=(url,)))
            transaction.going_on.discard(url)

    def named(self, urls: Collection[str | None]) -> list[TritonServer]:
        """The servers of which a journal speaks. One that it calls by another address than this
        run may be any of them.
        """
        if not self.servers.keys() >= {*urls}:
            return [*self.servers.values()]
        return [self.servers[url] for url in urls if url]

    def _load_until_served(
        self,
        server: TritonServer,
        record: Record,
        files: ProvenFiles,
        seconds: float | None = None,
    ) -> ServedModel:
        """Load until the server proves that it serves this deployment; returns what it says then.

        The first load may join one of other files that an earlier run gave up on. And Triton passes
        over files that are no newer than those it has seen, which can be from a future (a clock
        that was wrong, a file touched): ever newer ones find out from which.

        Raises:
            ServerError: it answers that it loaded, and serves something else.
        """
        name = record.name
        for ahead in (None, None, *_AHEAD):
            if ahead is not None:
                files.through(functools.partial(self.repository.touch, name, ahead))
            try:
                server.load(name, seconds)
            except LoadPending:
                with contextlib.suppress(
                    ServerError
                ):  # its answer may be held up by the load of another model
                    served = server.served(name)
                    if _serves(served, record):
                        return served
                raise
            served = server.served(name)
            if _serves(served, record):
                return served
            server.prove_load(name, served)
        raise ServerError(
            f"Triton at {server.url} answered that it loaded deployment {record.deploy_id} and"
            f" serves {_describe_id(served)}",
            step="prove what is served",
        )

    def unload(self, transaction: Transaction, urls: Sequence[str]) -> None:
        transaction.turn.take()
        for url in urls:
            server = self.servers[url]
            if transaction.plan.swap != UNLOAD_FIRST:
                server.unload(transaction.name)
                continue
            on_gpu = is_on_gpu(server, transaction.name)
            enough = free_without(server, _old_memory(transaction, server)) if on_gpu else None
            transaction.unloaded.append(server)
            server.unload(transaction.name)
            if on_gpu:  # in the outage: no longer than it takes
                wait_for_release(server, enough)

    def _release_old(self, transaction: Transaction, server: TritonServer) -> None:
        """The old copy's memory is free when this returns, so that the next model has room."""
        before = transaction.gpus.get(server.url)
        if before is None:
            return
        readings = Readings()
        on_gpu = is_on_gpu(server, transaction.name)
        if transaction.plan.swap == OVERLAP and (on_gpu or before.old):
            wait_for_release(server, old=before.old)
        if on_gpu:
            transaction.proven[server.url] = Loaded(before, readings)

    def measure(self, transaction: Transaction) -> None:
        """Keep what the deployment takes of the GPUs, for the record."""
        share = transaction.turn.share
        if not transaction.proven or share is None or not share.alone:
            return
        found = dict(transaction.deployed.gpu_memory)
        for url, loaded in transaction.proven.items():
            if (taken := measure(self.servers[url], loaded)) is not None:
                found[url] = taken
        share.is_settled = True
        if share.alone:  # still
            transaction.new = dataclasses.replace(transaction.deployed, gpu_memory=found)

    def confirm(self, transaction: Transaction) -> None:
        """What was written down is so: a server that was started again between the proof and the
        record has done what was written down before.

        Raises:
            ServerUnreachable: it went down, and did not come back within its time-out.
        """
        name, record = transaction.name, transaction.new
        wanted = record if record and record.wanted == "loaded" else None
        # Those too that the plan had nothing to do on: they may do something at their start.
        for server in self.servers.values():
            try:
                served = server.served(name)
            except ServerUnreachable:
                if not server.wait_live(Deadline(server.timeout)):
                    raise
                served = server.served(name)
            if wanted and not _serves(served, wanted):
                self._load_until_served(server, wanted, transaction.files)
            elif not wanted and served.ready:
                server.unload(name)

    def verify(self, transaction: Transaction, urls: Sequence[str]) -> None:
        desired, record = transaction.plan.desired, transaction.deployed
        case = case_of(desired, record)
        if case is None:
            return
        version = version_to_ask(record)
        try:
            found = []
            for url in urls:
                with _explaining(transaction, self.servers[url]):
                    found.append(verify_everywhere(self.servers[url], desired.name, version, case))
        except VerificationFailed as error:
            if case is record.case:
                error.message += (
                    " (it was asked what proved this deployment before; verify says something else"
                    " to ask, or none)"
                )
            raise
        left_out = [said for said, _proof, _warning in found if said]
        transaction.warnings += dict.fromkeys(
            [*left_out, *(warning for _said, _proof, warning in found if warning)]
        )
        if left_out:
            return
        proof = functools.reduce(operator.add, [one for _said, one, _warning in found if one])
        if isinstance(desired.verify, Mapping):
            record = dataclasses.replace(record, case=as_json(desired.verify))
        if transaction.swapped or transaction.took_over or record.verified is None:
            record = dataclasses.replace(record, verified=now(), proof=proof.to_dict())
        transaction.new = record

    def find_answering(self, users: Sequence[User]) -> frozenset[tuple[str, str]]:
        """URLs of servers, and names of users that answer there now."""
        return frozenset(
            (url, user.name)
            for url, server in self.servers.items()
            for user in users
            if _why_no_answer(server, user) is None
        )

    def prove_users(self, transaction: Transaction, users: Sequence[User]) -> None:
        """What answered before still does.

        Raises:
            VerificationFailed: it does not.
        """
        for url, server in self.servers.items():
            for user in users:
                if (url, user.name) not in transaction.answering:
                    continue
                if why := _why_no_answer(server, user):
                    raise VerificationFailed(
                        f"'{user.name}', which uses it, answered before and does not any more"
                        f" ({why})",
                        step="verify its users",
                        server=url,
                    )

    def undoes(self, transaction: Transaction, load: BegunLoad) -> None:
        """What ``restore`` brings back is also what an earlier run's load took away."""
        transaction.loaded += self.servers.values()
        transaction.unloaded += self.named(load.unloaded)

    def restore(self, transaction: Transaction) -> list[str]:
        """Bring back what each server served before that was asked to load, or to unload; returns
        sentences on what could not be, and on what had been unloaded.
        """
        transaction.swapped = False
        return [
            said
            for server in dict.fromkeys([*transaction.loaded, *transaction.unloaded])
            if (said := self._restore_server(transaction, server))
        ]

    def _restore_server(self, transaction: Transaction, server: TritonServer) -> str | None:
        if server not in transaction.unloaded:
            return self._bring_back(transaction, server)
        name, url, old = transaction.name, server.url, transaction.old
        try:
            # What failed may have the memory that the old one needs.
            if server.is_live() or server.wait_live(Deadline(server.timeout)):
                on_gpu = is_on_gpu(server, name) or server.url in transaction.gpus
                server.unload(name)
                if on_gpu:
                    before = transaction.gpus.get(url)
                    wait_for_release(server, before.free if before else None)
            failed = self._bring_back(transaction, server)
            case = kept_case(old) if old and transaction.plan.desired.verify != "none" else None
            if failed:
                case = None
            if old and case and verify(server, name, version_to_ask(old), case) is None:
                return f"{url} had unloaded it first, has loaded it again, and it answers"
        except VerificationFailed as error:
            return f"{url} has loaded it again, and it does not answer as it did ({error.message})"
        except Exception as error:  # the other servers are brought back all the same
            failed = as_delivery_error(error).message
        if failed is None:
            return f"{url} had unloaded it first, and has loaded it again"
        asks = f"; a run that asks for {old.pinned_uri} loads it" if old else ""
        return f"{url} had unloaded it first, and it stays unloaded there ({failed}){asks}"

    def _bring_back(self, transaction: Transaction, server: TritonServer) -> str | None:
        name = transaction.name
        try:
            if not server.is_live() and not server.wait_live(Deadline(server.timeout)):
                return f"{server.url} went down and was not up again within {server.timeout:g} s"
            served = server.served(name)
            before = next(one for one in transaction.plan.observed.served if one.url == server.url)
            if (transaction.old and transaction.old.wanted == "loaded") or (
                transaction.plan.observed.foreign and before.ready
            ):
                wanted = transaction.old.deploy_id if transaction.old else before.deploy_id or ""
                self._bring_back_elsewhere(transaction, server, wanted)
                more = (
                    set(served.ready) - set(transaction.old.triton_versions)
                    if transaction.old and serves_side_by_side(transaction.old)
                    else set()
                )
                if (served.deploy_id or "") != wanted or not served.ready or more:
                    if transaction.old and (said := _why_not_again(transaction)):
                        server.unload(name)
                        return f"{server.url} could not load it again, as {said}"
                    self._load_again(transaction, server, (before.deploy_id or "") == wanted)
            else:
                server.unload(name)
        except Exception as error:  # the other servers are brought back all the same
            said = as_delivery_error(error).message
            return f"{server.url} could not be brought back ({said})"
        return None

    def _bring_back_elsewhere(
        self, transaction: Transaction, server: TritonServer, wanted: str
    ) -> None:
        """A load went to another server, which had served the model too."""
        name = transaction.name
        for ahead in (None, *_AHEAD):
            if ahead is not None:
                transaction.files.through(functools.partial(self.repository.touch, name, ahead))
            if server.load_elsewhere(name) in (None, wanted):
                return

    def _load_again(self, transaction: Transaction, server: TritonServer, served: bool) -> None:
        """Load what was there before. ``served``: the server did serve it, and is to again."""
        store, name, old = self.repository.store, transaction.name, transaction.old
        store.write_journal(name, PendingLoad(old.deploy_id if old else "", now(), server.url))
        try:
            if old and served:
                self._load_until_served(server, old, transaction.files)
            else:  # it never did serve it: nothing to be insisted on
                server.load(name)
        except LoadPending:  # the note stays
            raise
        except Exception:
            store.remove_journal(name)
            raise
        store.remove_journal(name)

    def describe_served(self, name: str) -> str:
        """Which server serves what now, for the end of an error's sentence."""
        serving = []
        for server in self.servers.values():
            try:
                served = server.served(name)
            except Exception:  # the sentence is about another error, which it must not hide
                continue
            if served.ready:
                serving.append(f"{server.url} serves version {', '.join(map(str, served.ready))}")
        return " and ".join(serving) if serving else "no server serves it"


_WITHOUT_GPU = "; instance_kind: cpu serves it on this host without one"
_HINTS = {
    "no GPUs are available": _WITHOUT_GPU,
    "unsupported gpu id .* are:[ ;]*$": _WITHOUT_GPU,
    "KIND_CPU but specifies one or more GPUs": _WITHOUT_GPU,
    "unsupported gpu id [0-9]+": (
        "; the server numbers the GPUs that it sees from 0: config: {instance_group: …} names"
        " others"
    ),
    "unable to find backend library": "; this server has no such backend",
}


def _serves(served: ServedModel, record: Record) -> bool:
    return (
        (served.deploy_id or "") == record.deploy_id
        and bool(served.ready)
        and must_be_ready(record) <= set(served.ready)
    )


def _why_no_answer(server: TritonServer, user: User) -> str | None:
    """Why a model does not answer there, in words; None where it does."""
    try:
        if not server.served(user.name).ready:
            return f"{server.url} does not serve it"
        if user.case is not None:
            verify(server, user.name, user.version, user.case)
    except DeliveryError as error:
        return error.message
    return None


def _note_answer(transaction: Transaction, served: ServedModel) -> None:
    """Keep what the server answered, for the record."""
    record = transaction.deployed
    answers = {url: answer for url, answer in record.served.items() if url != served.url}
    if served.answers and served.config_digest:
        answers[served.url] = {"answers": served.answers, "digest": served.config_digest}
    transaction.new = dataclasses.replace(record, served=answers)


def _why_not_again(transaction: Transaction) -> str | None:
    """Why what the repository holds cannot be loaded: Triton may wait without end for a file that
    is gone.
    """
    observed = transaction.plan.observed
    if not observed.folder:
        return "its folder is gone"
    return f"{observed.missing_files[0]} is gone" if observed.missing_files else None


def _look_at_gpus(transaction: Transaction, server: TritonServer) -> None:
    """Before a load, where the deployment is expected to take memory of them."""
    if not transaction.plan.gpu_needs.get(server.url):
        return
    old = {} if server in transaction.unloaded else _old_memory(transaction, server)
    transaction.gpus[server.url] = Before(read_gpus(server), old)


def _old_memory(transaction: Transaction, server: TritonServer) -> Memory | None:
    """What the old deployment has of the GPUs; None where that is not known."""
    before = next(one for one in transaction.plan.observed.served if one.url == server.url)
    if not before.ready:
        return {}
    is_ours = transaction.old and (before.deploy_id or "") == transaction.old.deploy_id
    return taken_by(transaction.old, server.url) if is_ours else None


@contextlib.contextmanager
def _explaining(transaction: Transaction, server: TritonServer) -> Iterator[None]:
    """A first request may need more memory than the load did."""
    try:
        yield
    except VerificationFailed as error:
        if said := _out_of_memory(transaction, server, error.message):
            error.message = f"{said}. {error.message}"
        raise


def _out_of_memory(transaction: Transaction, server: TritonServer, reason: str) -> str | None:
    """What a user is told of a reason that means that memory was too little."""
    before = transaction.gpus.get(server.url)
    gpus = before.gpus if before else read_gpus(server)
    remedy = "swap: unload_first unloads the old deployment before, so that it serves no request"
    return explain(reason, gpus.items(), remedy if transaction.plan.swap == OVERLAP else "")


def _describe_id(served: ServedModel) -> str:
    return f"deployment {served.deploy_id}" if served.deploy_id else "none that carries an id"


def _hint(error: LoadFailed) -> str:
    """What a user can do about it, for the end of the sentence; empty where that is not known."""
    return next((hint for sign, hint in _HINTS.items() if re.search(sign, error.message)), "")
