# SPDX-License-Identifier: Apache-2.0
"""Carry out a plan: the only place that changes a repository or what a server serves.

A deployment is a transaction: staged, journalled, exchanged, loaded, proven by its deploy id,
recorded. Whatever fails on the way, defects of this collection included, the disk goes back first
and the servers after it, and the error says what is served now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .. import progress
from ..artifacts.roots import ArtifactRoot
from ..domain.cases import as_json
from ..domain.journal import PendingLoad, begun_load
from ..domain.record import Record
from ..domain.source import Source
from ..errors import (
    ArtifactError,
    DeliveryError,
    LoadPending,
    NeedsOther,
    VerificationFailed,
    as_delivery_error,
)
from ..exhaustive import assert_never
from ..planning.gpu_need import needs_together
from ..planning.plan import (
    BuildEnvironment,
    Heal,
    Load,
    Plan,
    ProveUsers,
    PutSideBySide,
    Reconfigure,
    Recover,
    Remove,
    Replace,
    ReplaceUnread,
    RollBack,
    SetPermissions,
    Step,
    TryAside,
    Unload,
    Verify,
    WriteRecord,
)
from ..repository.protocol import Repository
from ..triton.server import TritonServer
from .limits import Limits, Turn
from .proven_files import ProvenFiles
from .python_models import PythonModels, name_the_other_way
from .replacement import Replacement
from .rollback import Rollback
from .serving import Serving
from .transaction import Transaction, now
from .trial import Trial

# Before any model of a group changes.
_AT_FIRST = (Recover, BuildEnvironment, TryAside)
# When all models of a group are in place and have been proven by their own steps.
_AT_THE_END = (ProveUsers, WriteRecord)


class Applied(NamedTuple):
    """What came of one plan: the record of the model now, None where there is none; and the error
    that names in ``left`` what is in place and served now. ``is_untouched``: nothing was done,
    because another one failed.
    """

    record: Record | None
    warnings: list[str]
    error: DeliveryError | None = None
    is_untouched: bool = False


class Executor:
    """Applies plans to one repository and the servers which read it. The caller holds the model's
    lock.

    Args:
        artifacts: where the files of a source are.
        tracking_uri: the registry's address, for records.
        python: makes the folders of models for which MLflow's own code answers.
    """

    def __init__(
        self,
        repository: Repository,
        servers: Sequence[TritonServer],
        artifacts: Callable[[Source], ArtifactRoot],
        tracking_uri: str | None = None,
        limits: Limits | None = None,
        python: PythonModels | None = None,
    ) -> None:
        self.repository = repository
        self.serving = Serving(repository, servers)
        self.python = python or PythonModels()
        self.replacement = Replacement(repository, artifacts, tracking_uri, self.python)
        self.rollback = Rollback(repository, self.replacement)
        self.trial = Trial(repository, servers, self.replacement, self.rollback)
        self.limits = limits or Limits()

    def apply(self, plan: Plan) -> tuple[Record | None, list[str]]:
        """Do what the plan lists.

        Returns:
            The record of the model now (None after a removal), and warnings.

        Raises:
            DeliveryError: with the step, and in ``left`` what is in place and served now.
        """
        (done,) = self.apply_together([plan])
        if done.error:
            raise done.error
        return done.record, done.warnings

    def apply_together(self, plans: Sequence[Plan]) -> list[Applied]:
        """Do what several plans list: all of them take effect, or none.

        Args:
            plans: in an order in which what a model needs comes before it.

        Returns:
            What came of each, in that order. Where one failed, each of them has an error.
        """
        room = self.limits.gpus.reserve(needs_together([plan.gpu_needs for plan in plans]))
        with Turn(self.limits.loads, room) as turn:
            transactions = [
                Transaction.of(plan, ProvenFiles(self.repository, plan.observed), self.limits, turn)
                for plan in plans
            ]
            for one in transactions:
                if load := begun_load(one.plan.resumes):
                    self.serving.undoes(one, load)  # what fails from here on
            at = transactions[0]
            try:
                for at in transactions:
                    self._prepare(at, alone=len(plans) == 1)
                for at in transactions:
                    self._each_step(at, lambda step: isinstance(step, _AT_FIRST))
                for at in transactions:
                    self._each_step(at, lambda step: not isinstance(step, _AT_FIRST + _AT_THE_END))
                for at in transactions:
                    self._each_step(at, lambda step: isinstance(step, ProveUsers))
                for at in transactions:
                    self._each_step(at, lambda step: isinstance(step, WriteRecord))
                for at in transactions:
                    self.serving.confirm(at)
            except Exception as error:  # whatever it is, nothing unproven may stay live
                failure = as_delivery_error(error, "prepare")
                if not self._are_recorded(transactions):
                    return self._take_back(transactions, at, failure)
                return [self._finish(one, failure if one is at else None) for one in transactions]
            return [self._finish(one) for one in transactions]

    def _prepare(self, transaction: Transaction, *, alone: bool) -> None:
        """Bring what several models need before any of them changes; and ask the users of the model
        whether they answer.
        """
        progress.set_model(transaction.name)
        for step in transaction.plan.steps:
            if isinstance(step, ProveUsers) and not transaction.plan.resumes:
                transaction.answering = self.serving.find_answering(step.users)
            elif isinstance(step, BuildEnvironment):
                self.python.build(self.repository, transaction, step.requirements)
            elif not alone:
                self.replacement.prepare(transaction, step)

    def _each_step(self, transaction: Transaction, which: Callable[[Step], bool]) -> None:
        progress.set_model(transaction.name)
        for step in filter(which, transaction.plan.steps):
            try:
                self._step(transaction, step)
            except VerificationFailed as error:
                name_the_other_way(error, transaction)
                raise
            except DeliveryError:
                raise
            except Exception as error:
                raise as_delivery_error(error, step.summary) from error

    def _step(self, transaction: Transaction, step: Step) -> None:
        match step:
            case Recover():
                self.trial.finish(transaction)  # the rest was done before the plan was made
            case BuildEnvironment():
                self.python.build(self.repository, transaction, step.requirements)
            case TryAside():
                self.trial.run(transaction, step)
            case Replace():
                self.replacement.replace(transaction, step)
            case PutSideBySide():
                self.replacement.put_side_by_side(transaction, step)
            case ReplaceUnread():
                raise ArtifactError("what the artifact holds is not known", step="find the model")
            case Reconfigure():
                self.replacement.reconfigure(transaction, step)
            case RollBack():
                self.rollback.roll_back(transaction, step)
            case SetPermissions():
                self._set_permissions(transaction)
            case Heal():
                transaction.turn.take()
                transaction.files.through(lambda: self.repository.touch(transaction.name))
            case Load():
                self.serving.load(transaction, step.servers)
            case Verify():
                self.serving.verify(transaction, step.servers)
            case ProveUsers():
                self.serving.prove_users(transaction, step.users)
            case WriteRecord():
                self._write_record(transaction)
            case Unload():
                self.serving.unload(transaction, step.servers)
            case Remove():
                transaction.turn.take()
                self.repository.remove(transaction.name, transaction.deploy_id)
                transaction.new = None
                transaction.removed = True
            case _:
                assert_never(step)

    def _set_permissions(self, transaction: Transaction) -> None:
        desired, live = transaction.plan.desired, self.repository.live(transaction.name)
        transaction.files.through(
            lambda: self.repository.set_permissions(desired, live), sets_permissions=True
        )
        transaction.new = dataclasses.replace(transaction.deployed, request=desired.request)

    def _write_record(self, transaction: Transaction) -> None:
        self.serving.measure(transaction)
        desired, record = transaction.plan.desired, transaction.deployed
        if desired.uri:
            record = dataclasses.replace(
                record, model_uri=desired.asked_uri, alias=desired.asked_alias
            )
        if desired.is_choice:
            record = dataclasses.replace(record, rolled_back_from=None)
        if desired.depends_on is not None:
            record = dataclasses.replace(record, depends_on=desired.depends_on)
        if transaction.plan.proven and not transaction.swapped:
            record = dataclasses.replace(record, verified=record.verified or now())
            if isinstance(desired.verify, Mapping):
                record = dataclasses.replace(record, case=as_json(desired.verify))
        transaction.new = dataclasses.replace(
            record,
            fingerprint=transaction.files.of(record),
            wanted="unloaded" if desired.state == "unloaded" else "loaded",
            deployment_set=desired.deployment_set or record.deployment_set,
        )
        self.repository.store.write_record(transaction.new)
        transaction.recorded = True

    def _finish(self, transaction: Transaction, failure: DeliveryError | None = None) -> Applied:
        """Tidy up after what took effect; ``failure`` was after its record had been written."""
        name, new = transaction.name, transaction.new
        there = f"the new deployment of {new.pinned_uri} is" if new else "it is removed,"
        try:
            self._tidy(transaction)
            if isinstance(failure, LoadPending):
                pending = PendingLoad(transaction.deploy_id, now(), failure.server)
                self.repository.store.write_journal(name, pending)
        except Exception as error:
            failure = failure or as_delivery_error(error, "tidy up")
            trouble = self._recover(name)
            left = "; ".join([f"{there} complete but for tidying up", *trouble])
            failure.about(model=name, left=left)
        if failure:
            place = f"{there} in place, and" if new else f"{there} and"
            failure.about(model=name, left=f"{place} {self.serving.describe_served(name)}")
        return Applied(transaction.new, transaction.warnings, failure)

    def _tidy(self, transaction: Transaction) -> None:
        store = self.repository.store
        if transaction.swapped and transaction.journal:
            self.repository.retire(transaction.name, transaction.journal)
        store.clear_staging(transaction.name)
        noted = transaction.journal or transaction.notes_load
        if noted or transaction.plan.observed.journal:
            store.remove_journal(transaction.name)
        transaction.swapped = False

    def _are_recorded(self, transactions: Sequence[Transaction]) -> bool:
        """True where the record of each is that of its new deployment, so that nothing is undone
        any more.
        """
        for one in transactions:
            if one.removed:
                continue
            try:
                there = self.repository.store.record(one.name)
            except Exception:  # not known, so that it is undone
                return False
            if not one.swapped or there is None or there.transaction != one.deploy_id:
                return False
        return True

    def _take_back(
        self, transactions: Sequence[Transaction], failed: Transaction, failure: DeliveryError
    ) -> list[Applied]:
        """Undo what was done of all of them: the disk first, then what is served."""
        if not isinstance(failure, LoadPending):
            failed, failure = self._end_loads(transactions, failed, failure)
        if isinstance(failure, LoadPending):
            return self._leave(transactions, failed, failure)
        trouble = {one.name: self._restore_disk(one) for one in reversed(transactions)}
        applied = []
        for one in transactions:
            trouble[one.name] += self.serving.restore(one)
        for one in transactions:
            error = failure if one is failed else _taken_back_with(failed.name, failure)
            error.about(model=one.name, left="; ".join([self._left(one), *trouble[one.name]]))
            untouched = one is not failed and not (one.swapped or one.loaded or one.unloaded)
            applied.append(Applied(one.old, one.warnings, error, untouched))
        return applied

    def _end_loads(
        self, transactions: Sequence[Transaction], failed: Transaction, failure: DeliveryError
    ) -> tuple[Transaction, DeliveryError]:
        """Wait for the loads of an earlier run that nobody has waited for yet. What failed, and
        how: another one, where its load hangs.
        """
        for one in transactions:
            try:
                self.serving.end_loads(one)
            except Exception as error:
                why = as_delivery_error(error, "wait for the load")
                if not isinstance(why, LoadPending):
                    said = f"whether its load has ended is not known ({why.message})"
                    why = LoadPending(said, step=why.step, server=getattr(why, "server", None))
                why.message += f". Before that, '{failed.name}' failed ({failure.message})"
                return one, why
        return failed, failure

    def _leave(
        self, transactions: Sequence[Transaction], failed: Transaction, failure: LoadPending
    ) -> list[Applied]:
        """Leave all as it is while a load goes on, which may hang for good where its files are
        moved. What is there is written down already: a start of the server goes back, and the next
        run waits for the load.
        """
        applied = []
        for one in transactions:
            error = failure if one is failed else _left_with(failed.name, failure)
            trouble = []
            if one.swapped:
                try:
                    self.serving.note_load(one)
                except Exception as why:
                    trouble.append(f"that could not be written down ({as_delivery_error(why)})")
            elif one is not failed:
                trouble += self._recover(one.name)
            error.about(model=one.name, left="; ".join([*self._describe_left(one), *trouble]))
            applied.append(
                Applied(one.old, one.warnings, error, not one.swapped and one is not failed)
            )
        return applied

    def _describe_left(self, transaction: Transaction) -> list[str]:
        if not transaction.swapped:
            waits = "the load goes on, and the next run waits for it"
            return [self._left(transaction), *([waits] if transaction.notes_load else [])]
        new, old = transaction.deployed, transaction.old
        back = f"{old.pinned_uri} comes back" if old else "nothing of it is left"
        served = self.serving.describe_served(transaction.name)
        stays = f"the files of {new.pinned_uri} stay while the load goes on, and {served}"
        waits = "the next run waits for the load, and proves or takes back what it brought"
        return [stays, waits, f"after a restart of the server {back}"]

    def _restore_disk(self, transaction: Transaction) -> list[str]:
        """Returns sentences on what could not be undone."""
        store, name, trouble = self.repository.store, transaction.name, []
        try:
            if transaction.recorded:  # what was recorded with it was not
                if transaction.old:
                    store.write_record(transaction.old)
                else:
                    store.remove_record(name)
            trouble = self._recover(name)
        except Exception as error:
            trouble.append(_describe_trouble(error))
        return trouble

    def _recover(self, name: str) -> list[str]:
        try:
            self.repository.recover(name)
        except Exception as error:
            return [_describe_trouble(error)]
        return []

    def _left(self, transaction: Transaction) -> str:
        old, observed = transaction.old, transaction.plan.observed
        if not observed.folder or (observed.half_made and old is None):
            there = (
                f"the files of {old.pinned_uri} are gone as before"
                if old
                else "nothing of it was left in the repository"
            )
        elif old is None:
            there = "what was there before is in place"
        else:
            changed = "".join(f", {path} changed on disk" for path in observed.changed_files[:1])
            there = f"{old.pinned_uri} is in place as before{changed}"
        return f"{there}, and {self.serving.describe_served(transaction.name)}"


def _describe_trouble(error: Exception) -> str:
    said = error if isinstance(error, OSError) else as_delivery_error(error)
    return f"undoing it failed too ({said}); the next run tries again"


def _left_with(name: str, failure: DeliveryError) -> DeliveryError:
    return NeedsOther(
        f"it waits together with '{name}', whose load goes on ({failure.message.rstrip('.; ')})",
        step=failure.step,
    )


def _taken_back_with(name: str, failure: DeliveryError) -> DeliveryError:
    return NeedsOther(
        f"it was taken back together with '{name}', which failed ({failure.message.rstrip('.; ')})",
        step=failure.step,
    )
