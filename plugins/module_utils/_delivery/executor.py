# SPDX-License-Identifier: Apache-2.0
"""Carry out a plan: the only place that changes a repository or what a server serves.

A deployment is a transaction: staged, journalled, exchanged, loaded, proven by its deploy id,
    recorded. Whatever fails on the way,
the disk goes back first and the servers after it, and the error says what is served now.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Sequence
from typing import Any

from . import progress, recovery
from .artifacts import ArtifactRoot
from .crew import Limits
from .errors import DeliveryError, LoadPending, RepositoryError
from .planner import Action, Plan, Step
from .record import Record
from .replacement import Replacement
from .repository import Repository
from .rollback import Rollback
from .serving import Serving
from .transaction import Run, new_deploy_id, now
from .triton_server import TritonServer


class Executor:
    """Applies plans to one repository and the servers which read it. The caller holds the model's
    lock.
    """

    def __init__(
        self,
        repository: Repository,
        servers: Sequence[TritonServer],
        tracking_uri: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.repository = repository
        self.serving = Serving(repository, servers)
        self.replacement = Replacement(repository, tracking_uri)
        self.rollback = Rollback(repository, self.replacement)
        self.limits = limits or Limits()

    def apply(
        self, plan: Plan, artifacts: ArtifactRoot | None = None
    ) -> tuple[Record | None, list[str]]:
        """Do what the plan lists.

        Returns:
            The record of the model now (None after a removal), and warnings.

        Raises:
            DeliveryError: with the step, and in ``left`` what is in place and served now.
        """
        progress.about(plan.desired.name)
        record = plan.observed.record
        run = Run(plan, record, new_deploy_id(), new=record, limits=self.limits)
        with run.held:
            try:
                for step in plan.steps:
                    self._step(run, step, artifacts)
                self._finish(run)
            except (DeliveryError, OSError) as error:
                failure = as_delivery_error(error)
                raise failure.about(
                    model=plan.desired.name, left=self._restore(run, failure)
                ) from error
        return run.new, run.warnings

    def _step(self, run: Run, step: Step, artifacts: ArtifactRoot | None) -> None:
        match step.action:
            case Action.REPLACE:
                if artifacts is None:
                    raise RuntimeError("a plan that replaces files needs the artifact")
                self.replacement.replace(run, artifacts)
            case Action.RECONFIGURE:
                self.replacement.reconfigure(run)
            case Action.ROLL_BACK:
                self.rollback.roll_back(run)
            case Action.PERMIT:
                self._permit(run)
            case Action.HEAL:
                run.take_turn()
                self.repository.touch(run.name)
            case Action.LOAD:
                self.serving.load(run, step.servers)
            case Action.VERIFY:
                self.serving.verify(run, step.servers)
            case Action.RECORD:
                self._record(run)
            case Action.UNLOAD:
                self.serving.unload(run, step.servers)
            case Action.REMOVE:
                run.take_turn()
                self.repository.remove(run.name, run.deploy_id)
                run.new = None

    def _permit(self, run: Run) -> None:
        self.repository.set_permissions(run.plan.desired, self.repository.live(run.name))
        if run.new:
            run.new = dataclasses.replace(run.new, request=run.plan.desired.request)

    def _record(self, run: Run) -> None:
        desired, record = run.plan.desired, run.new
        if record is None:
            raise RuntimeError("nothing to record")
        asked: dict[str, Any] = (
            {"model_uri": desired.uri.text, "alias": desired.asked_alias} if desired.uri else {}
        )
        if desired.depends_on is not None:
            asked["depends_on"] = desired.depends_on
        run.new = dataclasses.replace(
            record,
            fingerprint=self.repository.fingerprint(run.name, run.journal),
            wanted="unloaded" if desired.state == "unloaded" else "loaded",
            deployment_set=desired.deployment_set or record.deployment_set,
            **asked,
        )
        self.repository.store.write_record(run.new)

    def _finish(self, run: Run) -> None:
        store = self.repository.store
        if run.swapped and run.journal:
            self.repository.retire(run.name, run.journal)
        store.clear_staging(run.name)
        if run.journal or run.plan.observed.journal:
            store.remove_journal(run.name)
        run.swapped = False

    def _restore(self, run: Run, failure: DeliveryError) -> str:
        """Disk first, then memory; returns what is in place now."""
        store, trouble = self.repository.store, []
        try:
            self.repository.settle(run.name)
            there = store.record(run.name)
            if run.swapped and there and there.transaction == run.deploy_id:
                return f"the new deployment of {there.pinned_uri} is complete but for tidying up"
            if isinstance(failure, LoadPending):
                store.write_journal(
                    run.name,
                    {
                        "schema": 1,
                        "op": recovery.PENDING,
                        "deploy_id": run.deploy_id,
                        "since": now(),
                        "server": failure.extra.get("server"),
                    },
                )
        except (DeliveryError, OSError) as error:
            trouble.append(f"undoing it failed too ({error}); the next run tries again")
        if isinstance(failure, LoadPending):
            trouble.append(
                "the load that is still running may yet replace what is served in memory; the next"
                " run settles it"
            )
        else:
            trouble += self.serving.restore(run)
        return "; ".join([self._left(run), *trouble])

    def _left(self, run: Run) -> str:
        old = run.old
        there = (
            f"{old.pinned_uri} is in place as before"
            if old
            else (
                "what was there before is in place"
                if run.plan.observed.folder
                else "nothing of it was left in the repository"
            )
        )
        return f"{there}, and {self.serving.said(run.name)}"


def as_delivery_error(error: DeliveryError | OSError) -> DeliveryError:
    """What the operating system refused, in a sentence."""
    if isinstance(error, DeliveryError):
        return error
    known = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission is denied",
        errno.EPERM: "permission is denied",
    }
    reason = known.get(error.errno or 0, error.strerror or str(error))
    return RepositoryError(
        f"{reason}{f' ({error.filename})' if error.filename else ''}",
        step="write the model's files",
    )
