# SPDX-License-Identifier: Apache-2.0
"""Bring a retained deployment back."""

from __future__ import annotations

import dataclasses

from ..domain import config_pbtxt
from ..domain.config_pbtxt import config_for
from ..domain.journal import Move
from ..domain.manifest import Manifest, files_outside_versions, select_versions
from ..domain.record import Record
from ..errors import ArtifactError, NotFound
from ..planning.plan import RollBack
from ..planning.versions import serves_side_by_side
from ..process import holder
from ..repository.protocol import Repository
from .replacement import Replacement
from .transaction import Transaction, config_in_place, describe_replaced, now


class Rollback:
    def __init__(self, repository: Repository, replacement: Replacement) -> None:
        self.repository = repository
        self.replacement = replacement

    def roll_back(self, transaction: Transaction, step: RollBack) -> None:
        """Bring a retained deployment back, under a new deploy id: its files are older than
        Triton's time stamps.
        """
        name, old, target = transaction.name, step.record, step.target
        whole = (
            target.manifest_digest != old.manifest_digest or not transaction.plan.observed.folder
        )
        by_version = (
            whole
            and transaction.plan.observed.folder
            and (serves_side_by_side(old) or serves_side_by_side(target))
        )
        moves = self._version_moves(transaction, old, target) if by_version else None
        if whole and moves is None:
            config = config_for(target.author_config, name, transaction.deploy_id, target.request)
            copy = self.prepared_copy(transaction, target, config)
            moves = [Move(self.repository.live(name), copy)]
        else:
            config = config_in_place(transaction, target.author_config, target.request)
            if (
                not moves
            ):  # the same files: a new id makes Triton read them again, whatever their time stamps
                config = config_for(
                    target.author_config, name, transaction.deploy_id, target.request
                )
            moves = [*(moves or []), *self.replacement.config_move(transaction, config)]
        deploy_id = config_pbtxt.deploy_id_of(config) or ""
        transaction.new = dataclasses.replace(
            target,
            deploy_id=deploy_id,
            transaction=transaction.deploy_id,
            deployed_at=now(),
            deployed_by=holder(),
            wanted="loaded",
            rolled_back_at=None,
            config_digest=config_pbtxt.digest_without_id(config, deploy_id) or "",
            replaced=describe_replaced(old),
            verified=None,
            proof=None,
            served={},
            rolled_back_from=None if transaction.plan.desired.is_choice else old.deploy_id,
            went_back_to=target.key,
        )
        self.replacement.put(transaction, moves)

    def prepared_copy(self, transaction: Transaction, target: Record, config: bytes) -> str:
        """The retained copy that holds the target's files, its configuration written anew."""
        wanted, different = Manifest.from_dict(target.manifest), ["it is gone"]
        known = self._known(transaction, target)
        for retained in self._retained_files(target):
            found = self.repository.manifest(retained, known)
            # What somebody had added to the deployment is no part of it.
            if strays := wanted.strays(found):
                self.repository.remove_strays(retained, strays)
                found = self.repository.manifest(retained, known)
            different = wanted.differences(found)
            different += [
                f"{path} is missing" for path in wanted.folders if path not in found.folders
            ]
            if not different:
                break
        else:
            raise ArtifactError(
                f"the retained copy is not what was deployed: {'; '.join(different[:5])}",
                step="roll back",
            )
        self.repository.replace_config(
            retained, self.replacement.staged_config(transaction, config)
        )
        self.repository.set_permissions(transaction.plan.desired, retained)
        return retained

    def _version_moves(
        self, transaction: Transaction, old: Record, target: Record
    ) -> list[Move] | None:
        """Version folders in and out, from retained copies; None where one of them is not
        retained, or where what stays is not the same in both.
        """
        wanted, there = Manifest.from_dict(target.manifest), Manifest.from_dict(old.manifest)
        both = tuple(one for one in target.triton_versions if one in old.triton_versions)
        if files_outside_versions(wanted, target.triton_versions) != files_outside_versions(
            there, old.triton_versions
        ) or select_versions(wanted, both) != select_versions(there, both):
            return None
        moves, known = [], self._known(transaction, target)
        for version in sorted(set(target.triton_versions) - set(old.triton_versions)):
            part = select_versions(wanted, (version,))
            places = self.repository.retained_versions(target.name, version)
            copy = next(
                (place for place in places if self.repository.holds(place, part, known)), None
            )
            if copy is None:
                return None
            moves.append(Move(self.repository.live(target.name, str(version)), copy))
        gone = sorted(set(old.triton_versions) - set(target.triton_versions))
        return moves + self.repository.moves_out(transaction.name, transaction.deploy_id, gone)

    def _known(self, transaction: Transaction, target: Record) -> list[Record]:
        """The records that say how the files of retained copies looked when they were proven."""
        if transaction.plan.desired.check_files:
            return []
        return [target, *self.repository.store.retained_records(target.name)]

    def _retained_files(self, target: Record) -> list[str]:
        """The copies that have its files, its own before those of a configuration that differs."""
        records = [target, *self.repository.store.retained_records(target.name)]
        keys = dict.fromkeys(
            record.key for record in records if record.manifest_digest == target.manifest_digest
        )
        places = [self.repository.retained_model(target.name, key) for key in keys]
        found = [place for place in places if place]
        if not found:
            raise NotFound(
                f"the files of {target.pinned_uri} are no longer retained", step="roll back"
            )
        return found
