# SPDX-License-Identifier: Apache-2.0
"""New files for a model: brought, made and checked aside, then put in place; and changes of its
configuration alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping

from .. import disk
from ..artifacts.checked import checked
from ..artifacts.folder_identity import with_identity
from ..artifacts.roots import ArtifactRoot
from ..domain import config_pbtxt
from ..domain.allowed import code_of
from ..domain.config_pbtxt import config_for
from ..domain.journal import Move
from ..domain.layout import META_NAME, Layout
from ..domain.manifest import (
    DIGEST_TAG,
    FileEntry,
    Manifest,
    files_outside_versions,
    join,
    select_versions,
)
from ..domain.pyfunc import WORKER_VERSION
from ..domain.record import RULES, Record
from ..domain.servable import refuse_unservable
from ..domain.source import Source
from ..errors import ArtifactError, PolicyRefused
from ..planning import plan
from ..planning.plan import PutSideBySide, Reconfigure, Replace, Step
from ..planning.planner import pinned_uri
from ..planning.versions import staying
from ..process import holder
from ..repository.protocol import Repository
from .python_models import PythonModels, name_the_other_way
from .transaction import Staged, Transaction, config_in_place, describe_replaced, now
from .verification import judge_case, judge_example


class Replacement:
    """Steps that bring new files or a new configuration. ``put`` is what every change of a model
    goes through.
    """

    def __init__(
        self,
        repository: Repository,
        artifacts: Callable[[Source], ArtifactRoot],
        tracking_uri: str | None,
        python: PythonModels | None = None,
    ) -> None:
        self.repository = repository
        self.artifacts = artifacts
        self.tracking_uri = tracking_uri
        self.python = python or PythonModels()

    def prepare(self, transaction: Transaction, step: Step) -> None:
        """Bring what a step needs before anything changes; the step itself would do it too."""
        if isinstance(step, Replace) or (isinstance(step, PutSideBySide) and step.versions.fetch):
            transaction.staged = self._stage(transaction, step)

    def replace(self, transaction: Transaction, step: Replace) -> None:
        layout, manifest, staged, source = transaction.staged or self._stage(transaction, step)
        step = dataclasses.replace(step, source=source)
        if transaction.plan.observed.foreign and self._take_over(
            transaction, step, layout, manifest
        ):
            return
        self._put_whole(transaction, step, layout, manifest, staged)

    def put_side_by_side(self, transaction: Transaction, step: PutSideBySide) -> None:
        """Move the wanted version in and retired ones out, and leave the others' files alone; where
        that is not possible, replace the whole folder.
        """
        if not step.versions.fetch:
            layout = step.layout
            if layout.conversion:  # made when its files came
                layout = dataclasses.replace(
                    layout, author_config=step.record.author_config.encode()
                )
            source = with_identity(step.source, self.artifacts(step.source), {})
            step = dataclasses.replace(step, source=source)
            self._put_versions(transaction, step, layout, Manifest.of(()), None)
            return
        layout, manifest, staged, source = transaction.staged or self._stage(transaction, step)
        step = dataclasses.replace(step, source=source)
        deployed = files_outside_versions(
            Manifest.from_dict(step.record.manifest), step.record.triton_versions
        )
        if files_outside_versions(manifest, layout.versions) == deployed:
            self.repository.set_permissions(transaction.plan.desired, staged)
            self._put_versions(transaction, step, layout, manifest, staged)
            return
        transaction.warnings.append(
            "the files outside the version folders differ from those that are deployed, so that"
            f" version {', '.join(map(str, step.versions.kept))} cannot be served side by side with"
            f" {step.versions.wanted}"
        )
        self._put_whole(transaction, step, layout, manifest, staged)

    def _stage(self, transaction: Transaction, step: plan.Replacement) -> Staged:
        """Bring the files into staging and make the model of them."""
        workspace = self.repository.workspace(transaction.name, transaction.deploy_id)
        staged = os.path.join(workspace, "model")
        with transaction.limits.download(self.repository, step.layout.room, workspace):
            disk.make_folder(staged)
            artifacts = self.artifacts(step.source)
            brought = _fetch(step.layout, artifacts, staged)
            source = with_identity(step.source, artifacts, brought)
            came = _at_targets(step.layout, brought)
            _refuse_revoked(step.layout, came)
            layout, manifest = self._converted(transaction, step.layout, staged, came)
            _refuse_revoked(layout, manifest)
            layout = dataclasses.replace(layout, origins=_origins(layout, came, manifest))
        if (
            layout.is_configured_later
        ):  # what is made has its names, and its configuration, only now
            _refuse_unservable(transaction, layout, manifest)
            layout = self._with_judged_example(transaction, layout)
        return Staged(layout, manifest, staged, source)

    def _converted(
        self, transaction: Transaction, layout: Layout, staged: str, came: Manifest
    ) -> tuple[Layout, Manifest]:
        if layout.pyfunc:
            return self.python.make(self.repository, transaction, layout, staged, came)
        try:
            return _converted(layout, staged, came)
        except ArtifactError as error:
            name_the_other_way(error, transaction)
            raise

    def _with_judged_example(self, transaction: Transaction, layout: Layout) -> Layout:
        """Whether a request can be made of the model's example, or of what ``verify`` says, is
        known now.
        """
        desired = transaction.plan.desired
        config = config_for(layout.author_config.decode(), desired.name, "-", desired.request)
        urls = [served.url for served in transaction.plan.observed.served]
        judge_case(config, urls, desired)
        judged = judge_example(layout, config, urls, desired)
        transaction.warnings += judged.warnings[len(layout.warnings) :]
        return judged

    def _put_whole(
        self,
        transaction: Transaction,
        step: plan.Replacement,
        layout: Layout,
        manifest: Manifest,
        staged: str,
    ) -> None:
        desired = transaction.plan.desired
        config = config_for(
            layout.author_config.decode(), desired.name, transaction.deploy_id, desired.request
        )
        self._write_own_files(transaction, step, staged, config, layout.flavor)
        self.repository.set_permissions(desired, staged)
        self.repository.flush(staged)
        transaction.new = self._new_record(transaction, step, layout, manifest, config)
        self.put(transaction, [Move(self.repository.live(desired.name), staged)])

    def put(self, transaction: Transaction, moves: list[Move]) -> None:
        """Journal the moves and make them."""
        transaction.turn.take()
        transaction.journal = self.repository.begin(
            transaction.name,
            moves,
            transaction.deploy_id,
            transaction.to_retain,
            transaction.plan.desired.keep,
        )
        transaction.swapped = True
        swap = transaction.journal
        warning = transaction.files.through(
            lambda: self.repository.put(transaction.name, swap), [move.live for move in moves]
        )
        if warning:
            transaction.warnings.append(warning)

    def _write_own_files(
        self,
        transaction: Transaction,
        step: plan.Replacement,
        staged: str,
        config: bytes,
        flavor: str,
    ) -> None:
        desired = transaction.plan.desired
        disk.write_file(os.path.join(staged, config_pbtxt.CONFIG_NAME), config)
        meta = {
            "name": desired.name,
            "triton_model_path": self.repository.live(desired.name),
            "mlflow_model_uri": pinned_uri(desired, step.source),
            "flavor": flavor,
        }
        disk.write_file(os.path.join(staged, META_NAME), json.dumps(meta, indent=4).encode())

    def _new_record(
        self,
        transaction: Transaction,
        step: plan.Replacement,
        layout: Layout,
        manifest: Manifest,
        config: bytes,
    ) -> Record:
        desired, source = transaction.plan.desired, step.source
        provenance = layout.provenance
        signer = provenance.signed_by if provenance else None
        environment = transaction.environment if layout.pyfunc else None
        return Record(
            name=desired.name,
            deploy_id=transaction.deploy_id,
            model_uri=desired.asked_uri,
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
            served_as=layout.served_as,
            serving=layout.serving,
            environment=environment.digest if environment else None,
            worker=WORKER_VERSION if layout.pyfunc else None,
            alias=desired.asked_alias,
            registry_name=source.registry_name,
            registry_version=source.registry_version,
            tracking_uri=self.tracking_uri,
            source_fingerprint=source.fingerprint,
            source_samples=source.samples,
            run_id=source.run_id,
            model_id=source.model_id,
            deployment_set=desired.deployment_set,
            publisher_digest=provenance.digest if provenance else None,
            publisher_schema=provenance.schema if provenance else None,
            tagged_digest=source.tags.get(DIGEST_TAG),
            signed_by=signer.to_dict() if signer else None,
            said_keys=layout.said_keys,
            origins=layout.origins,
            replaced=describe_replaced(transaction.old),
            transaction=transaction.deploy_id,
            example=layout.example,
            code=_code(config, manifest),
            rules=RULES,
        )

    def _put_versions(
        self,
        transaction: Transaction,
        step: PutSideBySide,
        layout: Layout,
        came: Manifest,
        staged: str | None,
    ) -> None:
        """Move version folders in and out.

        Args:
            came: what lies in ``staged``; nothing, and None, where the version is there already.
        """
        desired, old, versions = transaction.plan.desired, step.record, step.versions
        before = Manifest.from_dict(old.manifest)
        if staged:
            self.repository.flush(staged)
        kept = select_versions(before, (*versions.kept, *(() if staged else (versions.wanted,))))
        shared = Manifest.of(files_outside_versions(before, old.triton_versions))
        manifest = join(join(shared, kept), came)
        moves = [self._version_in(transaction, versions.wanted, staged)] if staged else []
        config = config_in_place(transaction, layout.author_config.decode(), desired.request)
        made = self._new_record(transaction, step, layout, manifest, config)
        deploy_id = config_pbtxt.deploy_id_of(config) or ""
        if not staged:  # what was made of it is what it was
            own = old.vouched_for([versions.wanted])[str(versions.wanted)]
            made = dataclasses.replace(
                made, environment=own["environment"], worker=old.worker, serving=old.serving
            )
        transaction.new = dataclasses.replace(
            made,
            deploy_id=deploy_id,
            triton_versions=(*versions.kept, versions.wanted),
            beside=old.vouched_for(versions.kept),
            config_digest=config_pbtxt.digest_without_id(config, deploy_id) or "",
        )
        out = self.repository.moves_out(transaction.name, transaction.deploy_id, versions.retired)
        self.put(transaction, [*moves, *self.config_move(transaction, config), *out])

    def _version_in(self, transaction: Transaction, version: int, staged: str) -> Move:
        return Move(
            self.repository.live(transaction.name, str(version)), os.path.join(staged, str(version))
        )

    def config_move(self, transaction: Transaction, config: bytes) -> list[Move]:
        """What puts the configuration in place; nothing where it is there."""
        if config == transaction.plan.observed.config:
            return []
        return [
            Move(
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

    def _take_over(
        self, transaction: Transaction, step: plan.Replacement, layout: Layout, manifest: Manifest
    ) -> bool:
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
        live = self.repository.live(desired.name)
        try:
            found, text = transaction.files.seen_by(
                lambda: (self.repository.manifest(live), self.repository.config(desired.name))
            )
        except ArtifactError:
            return False
        config = text or b""
        if wanted != found or config != layout.author_config:
            return False
        made = self._new_record(transaction, step, layout, wanted, config)
        transaction.new = dataclasses.replace(
            made,
            deploy_id="",
            triton_versions=layout.artifact_versions,
            config_digest=config_pbtxt.digest_without_id(config, "") or "",
        )
        transaction.took_over = True
        return True

    def reconfigure(self, transaction: Transaction, step: Reconfigure) -> None:
        desired, old = transaction.plan.desired, step.record
        config = config_in_place(transaction, old.author_config, desired.request)
        deploy_id = config_pbtxt.deploy_id_of(config) or ""
        versions = staying(old, desired)
        retired = sorted({*old.triton_versions} - {*versions})
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
            code=_code(config, manifest),
            deployed_at=now(),
            deployed_by=holder(),
            replaced=describe_replaced(old),
            transaction=transaction.deploy_id,
            rolled_back_from=old.rolled_back_from if desired.state == "rolled_back" else None,
            went_back_to=old.went_back_to if desired.state == "rolled_back" else None,
            verified=None,
            proof=None,
            served={},
            gpu_memory={},
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
        if b"fil" in layout.author_config:
            from ..flavors.conversion import refuse_other_answers

            refuse_other_answers(layout, staged)
        return layout, manifest
    from ..flavors.conversion import convert

    return convert(layout, staged, manifest)


def _refuse_unservable(transaction: Transaction, layout: Layout, manifest: Manifest) -> None:
    """Raises ConfigError or ArtifactError for what Triton could not load."""
    desired = transaction.plan.desired
    config = config_for(layout.author_config.decode(), desired.name, "-", desired.request)
    paths = [*(entry.path for entry in manifest.files), *manifest.folders]
    refuse_unservable(config_pbtxt.parse(config), desired.name, layout.versions, paths)


def _fetch(layout: Layout, artifacts: ArtifactRoot, staged: str) -> dict[str, FileEntry]:
    """What came, by its path in the artifact."""
    targets = {target: os.path.join(staged, target) for _source, target, _size in layout.files}
    for folder in sorted(
        {os.path.dirname(path) for path in targets.values()}
        | {os.path.join(staged, f) for f in layout.folders}
    ):
        disk.make_folder(folder)
    wanted = {source: targets[target] for source, target, _size in layout.files}
    came = checked(artifacts, layout.provenance).fetch(wanted)
    if changed := [path for path, digest in layout.judged.items() if came[path].sha256 != digest]:
        raise ArtifactError(
            f"{changed[0]} is not what it was when a rule judged it: deploy it again",
            step="compare with the plan",
        )
    return came


def _at_targets(layout: Layout, came: Mapping[str, FileEntry]) -> Manifest:
    return Manifest.of(
        (
            FileEntry(target, came[source].size, came[source].sha256)
            for source, target, _size in layout.files
        ),
        layout.folders,
    )


def _refuse_revoked(layout: Layout, manifest: Manifest) -> None:
    """Raises PolicyRefused for bytes that nothing had told of before they came."""
    there = {manifest.digest: "its manifest", **{e.sha256 or "": e.path for e in manifest.files}}
    for digest in sorted(layout.revoked & there.keys()):
        raise PolicyRefused(
            f"revoked_digests has {digest}, which is {there[digest]}: deploy another version",
            step="check the policy",
        )


def _origins(layout: Layout, came: Manifest, manifest: Manifest) -> tuple[str, ...]:
    """sha256 of what the model was made of, and is not in it as it came."""
    claims = layout.provenance.claims.values() if layout.provenance else ()
    origins = {claim.sha256 for claim in claims} | {e.sha256 for e in came.files if e.sha256}
    return tuple(sorted(origins - {entry.sha256 for entry in manifest.files}))


def _code(config: bytes, manifest: Manifest) -> str:
    paths = [entry.path for entry in manifest.files]
    return code_of(config_pbtxt.parse(config), paths) or ""


def _renumbered(path: str, versions: Mapping[str, int]) -> str:
    head, slash, rest = path.partition("/")
    return f"{versions.get(head, head)}{slash}{rest}"
