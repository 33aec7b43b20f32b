# SPDX-License-Identifier: Apache-2.0
"""Carry out a plan: the only place that changes a repository or what a server serves.

A deployment is a transaction: staged, journalled, exchanged, loaded, proven by its deploy id,
recorded. Whatever fails on the way, the disk goes back first and the servers after it, and the
error says what is served now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from .. import progress
from ..artifacts.roots import ArtifactRoot
from ..domain.journal import PendingLoad
from ..domain.record import Record
from ..domain.source import Source
from ..errors import ArtifactError, DeliveryError, LoadPending, as_delivery_error
from ..exhaustive import assert_never
from ..planning.plan import (
    Heal,
    Load,
    Plan,
    PutSideBySide,
    Reconfigure,
    Recover,
    Remove,
    Replace,
    ReplaceUnread,
    RollBack,
    SetPermissions,
    Step,
    Unload,
    Verify,
    WriteRecord,
)
from ..repository.protocol import Repository
from ..triton.server import TritonServer
from .limits import Limits
from .replacement import Replacement
from .rollback import Rollback
from .serving import Serving
from .transaction import Transaction, new_deploy_id, now


class Executor:
    """Applies plans to one repository and the servers which read it. The caller holds the model's
    lock.

    Args:
        artifacts: where the files of a source are.
        tracking_uri: the registry's address, for records.
    """

    def __init__(
        self,
        repository: Repository,
        servers: Sequence[TritonServer],
        artifacts: Callable[[Source], ArtifactRoot],
        tracking_uri: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.repository = repository
        self.serving = Serving(repository, servers)
        self.replacement = Replacement(repository, artifacts, tracking_uri)
        self.rollback = Rollback(repository, self.replacement)
        self.limits = limits or Limits()

    def apply(self, plan: Plan) -> tuple[Record | None, list[str]]:
        """Do what the plan lists.

        Returns:
            The record of the model now (None after a removal), and warnings.

        Raises:
            DeliveryError: with the step, and in ``left`` what is in place and served now.
        """
        progress.set_model(plan.desired.name)
        record = plan.observed.record
        transaction = Transaction(plan, record, new_deploy_id(), new=record, limits=self.limits)
        with transaction.turns:
            try:
                for step in plan.steps:
                    self._step(transaction, step)
                self._finish(transaction)
            except (DeliveryError, OSError) as error:
                failure = as_delivery_error(error)
                raise failure.about(
                    model=plan.desired.name, left=self._restore(transaction, failure)
                ) from error
        return transaction.new, transaction.warnings

    def _step(self, transaction: Transaction, step: Step) -> None:
        match step:
            case Recover():
                pass  # done before the plan was made
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
                transaction.take_turn()
                self.repository.touch(transaction.name)
            case Load():
                self.serving.load(transaction, step.servers)
            case Verify():
                self.serving.verify(transaction, step.servers)
            case WriteRecord():
                self._write_record(transaction)
            case Unload():
                self.serving.unload(transaction, step.servers)
            case Remove():
                transaction.take_turn()
                self.repository.remove(transaction.name, transaction.deploy_id)
                transaction.new = None
            case _:
                assert_never(step)

    def _set_permissions(self, transaction: Transaction) -> None:
        self.repository.set_permissions(
            transaction.plan.desired, self.repository.live(transaction.name)
        )
        transaction.new = dataclasses.replace(
            transaction.deployed, request=transaction.plan.desired.request
        )

    def _write_record(self, transaction: Transaction) -> None:
        desired, record = transaction.plan.desired, transaction.deployed
        if desired.uri:
            record = dataclasses.replace(
                record, model_uri=desired.uri.text, alias=desired.asked_alias
            )
        if desired.depends_on is not None:
            record = dataclasses.replace(record, depends_on=desired.depends_on)
        # What lies there is what was deployed only where this run put it there, or found it so.
        proven = transaction.swapped or transaction.took_over
        if proven or not transaction.plan.observed.changed_files:
            now = self.repository.fingerprint(transaction.name, transaction.journal)
            record = dataclasses.replace(record, fingerprint=now)
        transaction.new = dataclasses.replace(
            record,
            wanted="unloaded" if desired.state == "unloaded" else "loaded",
            deployment_set=desired.deployment_set or record.deployment_set,
        )
        self.repository.store.write_record(transaction.new)

    def _finish(self, transaction: Transaction) -> None:
        store = self.repository.store
        if transaction.swapped and transaction.journal:
            self.repository.retire(transaction.name, transaction.journal)
        store.clear_staging(transaction.name)
        if transaction.journal or transaction.plan.observed.journal:
            store.remove_journal(transaction.name)
        transaction.swapped = False

    def _restore(self, transaction: Transaction, failure: DeliveryError) -> str:
        """Disk first, then memory; returns what is in place now."""
        store, trouble = self.repository.store, []
        try:
            self.repository.recover(transaction.name)
            there = store.record(transaction.name)
            if transaction.swapped and there and there.transaction == transaction.deploy_id:
                return f"the new deployment of {there.pinned_uri} is complete but for tidying up"
            if isinstance(failure, LoadPending):
                store.write_journal(
                    transaction.name, PendingLoad(transaction.deploy_id, now(), failure.server)
                )
        except (DeliveryError, OSError) as error:
            trouble.append(f"undoing it failed too ({error}); the next run tries again")
        if isinstance(failure, LoadPending):
            trouble.append(
                "the load is still running and may yet replace what is served in memory; the next"
                " run waits for it and corrects that"
            )
        else:
            trouble += self.serving.restore(transaction)
        return "; ".join([self._left(transaction), *trouble])

    def _left(self, transaction: Transaction) -> str:
        old = transaction.old
        there = (
            f"{old.pinned_uri} is in place as before"
            if old
            else (
                "what was there before is in place"
                if transaction.plan.observed.folder
                else "nothing of it was left in the repository"
            )
        )
        return f"{there}, and {self.serving.describe_served(transaction.name)}"
