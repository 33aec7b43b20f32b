# SPDX-License-Identifier: Apache-2.0
"""What is there of one model, as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .config_pbtxt import CONFIG_NAME
from .journal import BegunLoad, Journal, begun_load
from .record import Record
from .served import ServedModel
from .stored import Fingerprint, StoredModel


@dataclass(frozen=True)
class ObservedModel:
    """What is there.

    Attributes:
        record: of the deployment, None where there is none of ours.
        folder: True where the model's folder exists.
        changed_files: paths whose bytes are not those that were deployed, missing and new ones too.
        missing_files: those of them that are gone.
        touched_files: paths whose times or inode are not those of the record, and whose bytes are:
            what a server has loaded of them since is not known.
        proven: how the files look whose bytes are those that were deployed.
        half_made: True where the folder is what an interrupted run put there: the next run takes it
            away again.
        modes_differ: True where permission bits, or an owner or group that options name, are not as
            they were deployed.
        served: one entry for each server that answered.
        unreachable: sentences on the servers that did not.
        journal: what a killed run, or a load that was given up on, left. Where its load may still
            be running, the files are compared with what that load is to serve.
        retained: previous deployments, the newest first; read only where going back is asked for.
        config: bytes of the deployed config.pbtxt.
        outdated: why an older release has deployed what would be refused, or made otherwise, today.
        lost_environment: what is wrong with the Python environment that it needs, as "its
            environment … is gone"; None where nothing is known to be.
        unsigned: True where a rule asks who signed, and nobody asked when it was deployed.
    """

    name: str
    record: Record | None = None
    folder: bool = False
    changed_files: tuple[str, ...] = ()
    missing_files: tuple[str, ...] = ()
    touched_files: tuple[str, ...] = ()
    served: tuple[ServedModel, ...] = ()
    unreachable: tuple[str, ...] = ()
    journal: Journal | None = None
    retained: tuple[Record, ...] = ()
    config: bytes | None = None
    modes_differ: bool = False
    half_made: bool = False
    outdated: str | None = None
    unsigned: bool = False
    lost_environment: str | None = None
    proven: Fingerprint = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        stored: StoredModel,
        served: tuple[ServedModel, ...] = (),
        unreachable: tuple[str, ...] = (),
        retained: tuple[Record, ...] = (),
        outdated: str | None = None,
    ) -> ObservedModel:
        """What the repository holds, and what the servers say."""
        return cls(
            name,
            record=stored.record,
            folder=stored.folder,
            changed_files=stored.changed_files,
            missing_files=stored.missing_files,
            touched_files=stored.touched_files,
            served=served,
            unreachable=unreachable,
            journal=stored.journal,
            retained=retained,
            config=stored.config,
            modes_differ=stored.modes_differ,
            half_made=stored.half_made,
            outdated=outdated,
            proven=stored.proven,
        )

    @property
    def load(self) -> BegunLoad | None:
        """Of other files than those of the record, which may still be running."""
        load = begun_load(self.journal)
        recorded = self.record.transaction if self.record else None
        return load if load and load.record.transaction != recorded else None

    @property
    def as_loaded(self) -> ObservedModel:
        """What will be there when the load has ended well and is proven."""
        return replace(self, record=self.load.record, half_made=False) if self.load else self

    @property
    def as_taken_back(self) -> ObservedModel:
        """What will be there when the files before are back, as far as that is known."""
        if not self.load:
            return self
        there = self.record is not None
        nothing: Fingerprint = {}
        return replace(
            self, folder=there, changed_files=(), missing_files=(), touched_files=(),
            modes_differ=False, config=None, proven=nothing,
        )  # fmt: skip

    @property
    def lost_files(self) -> tuple[str, ...]:
        """Changed files that only a copy of the deployment could bring back: config.pbtxt is made
        from the record.
        """
        return tuple(path for path in self.changed_files if path != CONFIG_NAME)

    @property
    def is_damaged(self) -> bool:
        """Files of the deployment are not as they were deployed; others may lie beside them."""
        if self.record is None or not self.folder:
            return True
        files, folders = self.record.manifest["files"], self.record.manifest["folders"]
        deployed = {*(one["path"] for one in files), *folders}
        return not deployed.isdisjoint(self.changed_files)

    @property
    def taken(self) -> bool:
        """The name is in use: a record, a folder, or a READY model; what an interrupted run left is
        not in the way.
        """
        return self.record is not None or self.foreign

    @property
    def foreign(self) -> bool:
        """Somebody else's: a folder without a record, or a READY model whose configuration does not
        carry our id.
        """
        if self.record or self.half_made:
            return False
        return self.folder or any(one.ready and not one.deploy_id for one in self.served)

    def answered(self, served: ServedModel) -> str | None:
        """The digest of what the server answered when the record's load was proven, where it would
        answer the same today: None for another release, and where nothing is written down.
        """
        said = self.record.served.get(served.url) if self.record else None
        if served.answers is None or not isinstance(said, Mapping):
            return None
        digest = said.get("digest") if said.get("answers") == served.answers else None
        return digest if isinstance(digest, str) else None

    def overridden(self, served: ServedModel) -> bool:
        """True where somebody loaded another configuration over the deployed one, and left the
        deploy id in it.
        """
        known = self.answered(served)
        return (
            self.record is not None
            and known is not None
            and bool(served.ready)
            and (served.deploy_id or "") == self.record.deploy_id
            and known != served.config_digest
        )
