# SPDX-License-Identifier: Apache-2.0
"""New files for a model: brought, made and checked aside, then put in place; and changes of its
configuration alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping

from .. import disk
from ..artifacts.roots import ArtifactRoot
from ..domain import config_pbtxt
from ..domain.config_pbtxt import config_for
from ..domain.layout import META_NAME, Layout
from ..domain.manifest import (
    FileEntry,
    Manifest,
    files_outside_versions,
    join,
    select_versions,
    sha256,
)
from ..domain.record import Record
from ..errors import ArtifactError
from ..planning.planner import pinned_uri
from ..planning.versions import SideBySide, serves_side_by_side
from ..process import holder
from ..repository.folder import Move
from ..repository.protocol import Repository
from .transaction import Transaction, config_in_place, describe_replaced, now


class Replacement:
    """Steps that bring new files or a new configuration. ``put`` is what every change of a model
    goes through.
    """

    def __init__(self, repository: Repository, tracking_uri: str | None) -> None:
        self.repository = repository
        self.tracking_uri = tracking_uri

    def replace(self, transaction: Transaction, artifacts: ArtifactRoot) -> None:
        desired, layout = transaction.plan.desired, transaction.plan.layout
        if layout is None:
            raise RuntimeError("a plan that replaces files needs their layout")
        workspace = self.repository.workspace(desired.name, transaction.deploy_id)
        staged = os.path.join(workspace, "model")
        if transaction.plan.beside and not transaction.plan.beside.fetch:
            if layout.conversion and transaction.old:
                layout = dataclasses.replace(
                    layout, author_config=transaction.old.author_config.encode()
                )  # made when its files came
            self._put_beside(transaction, transaction.plan.beside, layout, staged, Manifest.of(()))
            return
        with transaction.limits.download(self.repository, layout.room, workspace):
            disk.make_folder(staged)
            layout, manifest = _converted(layout, staged, _fetch(layout, artifacts, staged))
        config = config_for(
            layout.author_config.decode(), desired.name, transaction.deploy_id, desired.request
        )
        if transaction.plan.beside and self._put_beside(
            transaction, transaction.plan.beside, layout, staged, manifest
        ):
            return
        if transaction.plan.observed.foreign and self._take_over(transaction, layout, manifest):
            return
        self._write_own_files(transaction, staged, config, layout.flavor)
        self.repository.set_permissions(desired, staged)
        self.repository.flush(staged)
        transaction.new = self._new_record(transaction, layout, manifest, config)
        self.put(transaction, [(self.repository.live(desired.name), staged)])

    def put(self, transaction: Transaction, moves: list[Move]) -> None:
        """Journal the moves and make them."""
        transaction.take_turn()
        transaction.journal = self.repository.begin(
            transaction.name,
            moves,
            transaction.deploy_id,
            transaction.old,
            transaction.plan.desired.keep,
        )
        transaction.swapped = True
        if warning := self.repository.put(transaction.name, transaction.journal):
            transaction.warnings.append(warning)

    def _write_own_files(
        self, transaction: Transaction, staged: str, config: bytes, flavor: str
    ) -> None:
        desired = transaction.plan.desired
        disk.write_file(os.path.join(staged, config_pbtxt.CONFIG_NAME), config)
        meta = {
            "name": desired.name,
            "triton_model_path": self.repository.live(desired.name),
            "mlflow_model_uri": pinned_uri(desired, transaction.plan.source),
            "flavor": flavor,
        }
        disk.write_file(os.path.join(staged, META_NAME), json.dumps(meta, indent=4).encode())

    def _new_record(
        self, transaction: Transaction, layout: Layout, manifest: Manifest, config: bytes
    ) -> Record:
        desired, source = transaction.plan.desired, transaction.plan.source
        if source is None or desired.uri is None:
            raise RuntimeError("a plan that replaces files needs its source")
        publisher = layout.publisher
        return Record(
            name=desired.name,
            deploy_id=transaction.deploy_id,
            model_uri=desired.uri.text,
            pinned_uri=pinned_uri(desired, source),
            source=source.source,
            flavor=layout.flavor,
            triton_versions=layout.versions,
            manifest=manifest.to_dict(),
            manifest_digest=manifest.digest,
            config_digest=config_pbtxt.digest_without_id(config, transaction.deploy_id) or "",
            request=desired.request,
            deployed_at=now(),
            deployed_by=holder(),
            author_config=layout.author_config.decode(),
            alias=desired.asked_alias,
            registry_name=source.registry_name,
            registry_version=source.registry_version,
            tracking_uri=self.tracking_uri,
            source_fingerprint=source.fingerprint,
            run_id=source.run_id,
            model_id=source.model_id,
            deployment_set=desired.deployment_set,
            publisher_digest=publisher.digest if publisher else None,
            replaced=describe_replaced(transaction.old),
            transaction=transaction.deploy_id,
            example=layout.example,
        )

    def _put_beside(
        self,
        transaction: Transaction,
        beside: SideBySide,
        layout: Layout,
        staged: str,
        came: Manifest,
    ) -> bool:
        """Move the wanted version in and retired ones out, and leave the others' files alone; False
        where that is not possible.
        """
        desired, old = transaction.plan.desired, transaction.old
        if old is None:
            raise RuntimeError("a version goes beside those of a record")
        before = Manifest.from_dict(old.manifest)
        if beside.fetch and files_outside_versions(came, layout.versions) != files_outside_versions(
            before, old.triton_versions
        ):
            transaction.warnings.append(
                "the files outside the version folders differ from those that are deployed, so that"
                f" version {', '.join(map(str, beside.kept))} cannot be served side by side with"
                f" {beside.wanted}"
            )
            return False
        if beside.fetch:
            self.repository.set_permissions(desired, staged)
        self.repository.flush(staged)
        kept = select_versions(before, (*beside.kept, *(() if beside.fetch else (beside.wanted,))))
        shared = Manifest.of(files_outside_versions(before, old.triton_versions))
        manifest = join(join(shared, kept), came)
        moves = [self._version_in(transaction, beside.wanted, staged)] if beside.fetch else []
        config = config_in_place(transaction, layout.author_config.decode(), desired.request)
        made = self._new_record(transaction, layout, manifest, config)
        deploy_id = config_pbtxt.deploy_id_of(config) or ""
        transaction.new = dataclasses.replace(
            made,
            deploy_id=deploy_id,
            triton_versions=(*beside.kept, beside.wanted),
            config_digest=config_pbtxt.digest_without_id(config, deploy_id) or "",
        )
        out = self.repository.moves_out(transaction.name, transaction.deploy_id, beside.retired)
        self.put(transaction, [*moves, *self.config_move(transaction, config), *out])
        return True

    def _version_in(self, transaction: Transaction, version: int, staged: str) -> Move:
        return self.repository.live(transaction.name, str(version)), os.path.join(
            staged, str(version)
        )

    def config_move(self, transaction: Transaction, config: bytes) -> list[Move]:
        """What puts the configuration in place; nothing where it is there."""
        if config == transaction.plan.observed.config:
            return []
        return [
            (
                self.repository.live(transaction.name, config_pbtxt.CONFIG_NAME),
                self.staged_config(transaction, config),
            )
        ]

    def staged_config(self, transaction: Transaction, config: bytes) -> str:
        folder = self.repository.workspace(transaction.name, transaction.deploy_id)
        disk.make_folder(folder)
        staged = os.path.join(folder, config_pbtxt.CONFIG_NAME)
        disk.write_file(staged, config)
        self.repository.set_permissions(transaction.plan.desired, staged)
        return staged

    def _take_over(self, transaction: Transaction, layout: Layout, manifest: Manifest) -> bool:
        """Write down somebody else's deployment as ours where its files are those of the artifact,
        so that nothing is reloaded.
        """
        desired = transaction.plan.desired
        if (
            not transaction.plan.observed.folder
            or desired.config
            or desired.instance_kind
            or desired.serve_versions > 1
        ):
            return False
        back = {str(new): old for new, old in zip(layout.versions, layout.artifact_versions)}
        wanted = Manifest.of(
            (FileEntry(_renumbered(e.path, back), e.size, e.sha256) for e in manifest.files),
            (_renumbered(f, back) for f in manifest.folders),
        )
        try:
            found = self.repository.manifest(self.repository.live(desired.name))
        except ArtifactError:
            return False
        config = transaction.plan.observed.config or b""
        if wanted != found or config != layout.author_config:
            return False
        made = self._new_record(transaction, layout, wanted, config)
        transaction.new = dataclasses.replace(
            made,
            deploy_id="",
            triton_versions=layout.artifact_versions,
            config_digest=config_pbtxt.digest_without_id(config, "") or "",
        )
        transaction.took_over = True
        return True

    def reconfigure(self, transaction: Transaction) -> None:
        desired, old = transaction.plan.desired, transaction.old
        if old is None:
            raise RuntimeError("a plan that changes a configuration needs a record")
        config = config_in_place(transaction, old.author_config, desired.request)
        deploy_id = config_pbtxt.deploy_id_of(config) or ""
        retired = (
            sorted(old.triton_versions)[: -desired.serve_versions]
            if serves_side_by_side(old)
            else []
        )
        versions = tuple(version for version in old.triton_versions if version not in retired)
        before = Manifest.from_dict(old.manifest)
        manifest = (
            join(
                select_versions(before, versions),
                Manifest.of(files_outside_versions(before, old.triton_versions)),
            )
            if retired
            else before
        )
        transaction.new = dataclasses.replace(
            old,
            deploy_id=deploy_id,
            config_digest=config_pbtxt.digest_without_id(config, deploy_id) or "",
            request=desired.request,
            triton_versions=versions,
            manifest=manifest.to_dict(),
            manifest_digest=manifest.digest,
            deployed_at=now(),
            deployed_by=holder(),
            replaced=describe_replaced(old),
            transaction=transaction.deploy_id,
            rolled_back_from=None,
            went_back_to=None,
        )
        self.put(
            transaction,
            [
                *self.config_move(transaction, config),
                *self.repository.moves_out(transaction.name, transaction.deploy_id, retired),
            ],
        )


def _converted(layout: Layout, staged: str, manifest: Manifest) -> tuple[Layout, Manifest]:
    if layout.conversion is None:
        return layout, manifest
    from ..flavors.conversion import convert

    return convert(layout, staged, manifest)


def _fetch(layout: Layout, artifacts: ArtifactRoot, staged: str) -> Manifest:
    targets = {target: os.path.join(staged, target) for _source, target, _size in layout.files}
    for folder in sorted(
        {os.path.dirname(path) for path in targets.values()}
        | {os.path.join(staged, f) for f in layout.folders}
    ):
        disk.make_folder(folder)
    came = artifacts.fetch({source: targets[target] for source, target, _size in layout.files})
    files = [
        FileEntry(target, came[source].size, came[source].sha256)
        for source, target, _size in layout.files
    ]
    found = Manifest.of(files, layout.folders)
    if layout.publisher:
        config = FileEntry(
            config_pbtxt.CONFIG_NAME, len(layout.author_config), sha256(layout.author_config)
        )
        listed = any(entry.path == config.path for entry in layout.publisher.files)
        different = layout.publisher.differences(
            Manifest.of([*files, *([config] if listed else [])], layout.folders)
        )
        if different:
            raise ArtifactError(
                f"the artifact is not what was published: {'; '.join(different[:5])}",
                step="verify the download",
            )
    return found


def _renumbered(path: str, versions: Mapping[str, int]) -> str:
    head, slash, rest = path.partition("/")
    return f"{versions.get(head, head)}{slash}{rest}"
