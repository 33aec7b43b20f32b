# SPDX-License-Identifier: Apache-2.0
"""What one transaction has done so far, for the steps that share it."""

from __future__ import annotations

import dataclasses
import datetime
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..domain.config_pbtxt import config_for
from ..domain.environments import Environment
from ..domain.journal import Swap, begun_load
from ..domain.layout import Layout
from ..domain.manifest import Manifest
from ..domain.record import Record
from ..domain.source import Source
from ..errors import NotFound
from ..outside import JsonDict
from ..planning.in_place import applied_in_place
from ..planning.plan import Plan
from ..triton.server import TritonServer
from .gpu_memory import Before, Loaded
from .limits import Limits, Turn
from .proven_files import ProvenFiles


class Staged(NamedTuple):
    """A model folder that was made aside, at ``path``, and what it is made from."""

    layout: Layout
    manifest: Manifest
    path: str
    source: Source


@dataclass
class Transaction:
    """One plan being carried out.

    Attributes:
        old: the record before; ``new`` the one to be written.
        deploy_id: of this transaction, and of the deployment where that gets a new one.
        files: what has been proven of the model's files.
        limits: shared with the other models of a list.
        turn: shared with the models that are changed together with this one.
        staged: what was brought before anything changed.
        environment: that of a Python model, once it was built.
        journal: as it was written before the first change of the model's files.
        swapped: the model's files were changed, and that is neither finished nor undone.
        took_over: what somebody else deployed became ours as it was.
        loaded: the servers that were asked to load, in order.
        unloaded: the servers that were asked to unload the old deployment before that.
        gpus: the memory of each server's GPUs before its load, by URL; ``proven`` where that load
            was proven.
        answering: servers and names of the model's users that answered before.
        recorded: the record was written.
        notes_load: the journal says that a load has begun, of files that were not changed.
        going_on: URLs of servers on which a load of an earlier run may still be running.
        removed: the model, its record and its retained copies are gone, for good.
    """

    plan: Plan
    old: Record | None
    deploy_id: str
    files: ProvenFiles
    limits: Limits
    turn: Turn
    new: Record | None = None
    staged: Staged | None = None
    environment: Environment | None = None
    journal: Swap | None = None
    swapped: bool = False
    took_over: bool = False
    loaded: list[TritonServer] = field(default_factory=list)
    unloaded: list[TritonServer] = field(default_factory=list)
    gpus: dict[str, Before] = field(default_factory=dict)
    proven: dict[str, Loaded] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    answering: frozenset[tuple[str, str]] = frozenset()
    recorded: bool = False
    notes_load: bool = False
    going_on: set[str] = field(default_factory=set)
    removed: bool = False

    @classmethod
    def of(cls, plan: Plan, files: ProvenFiles, limits: Limits, turn: Turn) -> Transaction:
        """Begun, or gone on with where a run had left it when its load had begun."""
        old, swap = plan.observed.record, plan.resumes
        load = begun_load(swap)
        if swap is None or load is None:
            return cls(plan, old, new_deploy_id(), files, limits, turn, new=old)
        swap = dataclasses.replace(swap, keep=plan.desired.keep)  # as it is asked for now
        return cls(
            plan, old, swap.deploy_id, files, limits, turn, new=load.record, journal=swap,
            swapped=True, answering=frozenset(load.answering),
            going_on={*load.servers},
        )  # fmt: skip

    @property
    def name(self) -> str:
        return self.plan.desired.name

    @property
    def to_retain(self) -> Record | None:
        """The deployment that is replaced, where it is worth a retained copy: its files are whole,
        it is another one than what comes, and it is not taken back. Any other would only displace a
        useful copy.
        """
        old, new, desired = self.old, self.new, self.plan.desired
        if old is None or self.plan.observed.is_damaged or desired.undo:
            return None
        if new is not None and _says_what(old) == _says_what(new):
            return None
        if desired.state == "rolled_back" and not desired.is_choice:
            return dataclasses.replace(old, rolled_back_at=now())
        return old

    @property
    def deployed(self) -> Record:
        """What is in place now.

        Raises:
            NotFound: nothing of ours.
        """
        if self.new is None:
            raise NotFound("it is not deployed", model=self.name)
        return self.new


def _says_what(record: Record) -> tuple[object, ...]:
    return record.pinned_uri, record.manifest_digest, record.config_digest, record.triton_versions


def new_deploy_id() -> str:
    """Sorts by time, is unique, and can stand in a file name."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def describe_replaced(old: Record | None) -> JsonDict | None:
    """What a record says of the deployment before it."""
    return {"deploy_id": old.deploy_id, "pinned_uri": old.pinned_uri} if old else None


def config_in_place(transaction: Transaction, author: str, request: Mapping[str, object]) -> bytes:
    """The configuration to deploy, under the old deploy id where Triton applies the change without
    initialising again.
    """
    old, observed = transaction.old, transaction.plan.observed
    if old and (same := applied_in_place(observed, old, author, request)) is not None:
        return same
    return config_for(author, transaction.name, transaction.deploy_id, request)
