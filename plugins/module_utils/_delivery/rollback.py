# SPDX-License-Identifier: Apache-2.0
"""Bring a retained deployment back."""

from __future__ import annotations

import dataclasses

from . import config_pbtxt
from .errors import ArtifactError, NotFound
from .folder_repository import Move
from .manifest import Manifest
from .record import Record
from .replacement import Replacement
from .repository import Repository
from .state_store import holder
from .transaction import Run, config_for, config_in_place, now, replaced
from .versions import of_versions, outside_versions, side_by_side


class Rollback:
    def __init__(self, repository: Repository, replacement: Replacement) -> None:
        self.repository = repository
        self.replacement = replacement

    def roll_back(self, run: Run) -> None:
        """Bring a retained deployment back, under a new deploy id: its files are older than
        Triton's time stamps.
        """
        name, old, target = run.name, run.old, run.plan.target
        if old is None or target is None:
            raise RuntimeError("a rollback needs a record and a target")
        whole = target.manifest_digest != old.manifest_digest or not run.plan.observed.folder
        by_version = (
            whole and run.plan.observed.folder and (side_by_side(old) or side_by_side(target))
        )
        moves = self._version_moves(run, old, target) if by_version else None
        if whole and moves is None:
            config = config_for(target.author_config, name, run.deploy_id, target.request)
            moves = [(self.repository.live(name), self._prepared_copy(run, target, config))]
        else:
            config = config_in_place(run, target.author_config, target.request)
            if (
                not moves
            ):  # the same files: a new id makes Triton read them again, whatever their time stamps
                config = config_for(target.author_config, name, run.deploy_id, target.request)
            moves = [*(moves or []), *self.replacement.config_move(run, config)]
        deploy_id = config_pbtxt.deploy_id_of(config) or ""
        run.new = dataclasses.replace(
            target,
            deploy_id=deploy_id,
            transaction=run.deploy_id,
            deployed_at=now(),
            deployed_by=holder(),
            wanted="loaded",
            config_digest=config_pbtxt.digest_without_id(config, deploy_id) or "",
            replaced=replaced(old),
            rolled_back_from=old.deploy_id,
            went_back_to=target.key,
        )
        self.replacement.put(run, moves)

    def _prepared_copy(self, run: Run, target: Record, config: bytes) -> str:
        """The retained copy that holds the target's files, its configuration written anew."""
        place = self._retained_files(target)
        different = Manifest.from_dict(target.manifest).differences(self.repository.manifest(place))
        if different:
            raise ArtifactError(
                f"the retained copy is not what was deployed: {'; '.join(different[:5])}",
                step="roll back",
            )
        self.repository.replace_config(place, self.replacement.staged_config(run, config))
        return place

    def _version_moves(self, run: Run, old: Record, target: Record) -> list[Move] | None:
        """Version folders in and out, from retained copies; None where one of them is not
        retained.
        """
        wanted = Manifest.from_dict(target.manifest)
        if outside_versions(wanted, target.triton_versions) != outside_versions(
            Manifest.from_dict(old.manifest), old.triton_versions
        ):
            return None
        moves = []
        for version in sorted(set(target.triton_versions) - set(old.triton_versions)):
            part = of_versions(wanted, (version,))
            places = self.repository.retained_versions(target.name, version)
            copy = next((place for place in places if self.repository.holds(place, part)), None)
            if copy is None:
                return None
            moves.append((self.repository.live(target.name, str(version)), copy))
        gone = sorted(set(old.triton_versions) - set(target.triton_versions))
        return moves + self.repository.moves_out(run.name, run.deploy_id, gone)

    def _retained_files(self, target: Record) -> str:
        for record in [target, *self.repository.store.retained_records(target.name)]:
            place = self.repository.retained_model(target.name, record.key)
            if record.manifest_digest == target.manifest_digest and place:
                return place
        raise NotFound(f"the files of {target.pinned_uri} are no longer retained", step="roll back")
