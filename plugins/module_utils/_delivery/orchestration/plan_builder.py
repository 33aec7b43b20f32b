# SPDX-License-Identifier: Apache-2.0
"""What is there, what a URI means now, and the plan that follows for one model. Several threads
read at once; nothing is changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..artifacts.availability import StoreAvailability
from ..artifacts.folder_identity import folder_source
from ..artifacts.metadata import read_artifact
from ..artifacts.roots import ArtifactRoot, LocalRoot
from ..domain import config_pbtxt
from ..domain.config_pbtxt import config_for
from ..domain.desired import DesiredModel
from ..domain.layout import Layout, Numbering
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..domain.source import Source
from ..domain.uri import ModelUri, parse_model_uri
from ..errors import (
    ArtifactError,
    DeliveryError,
    MissingLibrary,
    NotFound,
    ServerError,
    VerificationFailed,
)
from ..execution.verification import case_of, verify
from ..flavors.layouts import layout_of
from ..formats import tensorrt
from ..planning.plan import Plan, PutSideBySide
from ..planning.planner import is_pinned, make_plan, why_reconfigure, why_replace
from ..planning.policy import Policy
from ..registry.registry import Registry
from ..repository.protocol import Repository
from ..triton.server import TritonServer
from .inspection import observe

QUESTIONS = 8
"""How many models are read at the same time."""


class PlanBuilder:
    """Reads for one run.

    Args:
        tracking_id: the registry's address, as records have it.
        tensorrt_target: what TensorRT plans are compared with.
    """

    def __init__(
        self,
        registry: Registry,
        servers: Sequence[TritonServer],
        repository: Repository | None,
        *,
        tracking_id: str | None = None,
        policy: Policy | None = None,
        tensorrt_target: Mapping[str, Any] | None = None,
    ) -> None:
        self.registry = registry
        self.servers = servers
        self.repository = repository
        self._tracking_id = tracking_id
        self._policy = policy or Policy()
        self._tensorrt_target = tensorrt_target
        self._tensorrt: tensorrt.TensorRtTarget | None = None
        self._sources: dict[str, Source] = {}
        self._roots: dict[str, ArtifactRoot] = {}
        self._versions: dict[str, int] = {}
        self._pinned: frozenset[str] | None = None
        self._patience = StoreAvailability(registry.timeout)

    def ask_versions(self, wanted: Iterable[DesiredModel]) -> None:
        """Ask once, and several at a time, what the aliases of a list mean now. Whatever fails is
        asked again, and said, for its model.
        """
        uris = list(
            {
                model.uri.text: model.uri
                for model in wanted
                if model.uri and model.uri.kind in ("alias", "latest")
            }.values()
        )
        if len(uris) < 2:
            return

        def ask(uri: ModelUri) -> None:
            with contextlib.suppress(DeliveryError):
                self._versions[uri.text] = self.registry.version(uri)

        ask(
            uris[0]
        )  # alone: the client is made, and a registry that is not there is not waited for by each
        if uris[0].text in self._versions:
            with ThreadPoolExecutor(QUESTIONS) as pool:
                list(pool.map(ask, uris[1:]))

    def observe(self, desired: DesiredModel, indexes: Mapping[str, Any]) -> ObservedModel:
        """Record, disk and every server; ``indexes`` has each server's, or why it has none."""
        return observe(self.repository, self.servers, desired, indexes)

    # -- plans -------------------------------------------------------------------------------------

    def plan(
        self,
        observed: ObservedModel,
        desired: DesiredModel,
        check: bool,
        pinned: Collection[str] = (),
    ) -> Plan:
        """What has to be done.

        Args:
            check: a library that is missing is a warning.
            pinned: models of which ensembles of the same list ask for a certain version.

        Raises:
            DeliveryError: it cannot be done, or the policy forbids it.
        """
        if (
            desired.uri is None
            or (observed.foreign and not desired.adopt)
            or (observed.taken and desired.must_be_new)
        ):
            failed = (
                self._failed_verification(observed, desired, None)
                if desired.state == "rolled_back"
                else None
            )
            plan = make_plan(observed, desired, failed_verification=failed)
            if (
                self._policy
                and desired.state == "rolled_back"
                and (target := plan.rollback.target if plan.rollback else observed.record)
            ):
                self._policy.check_deployed(
                    target, config_for(target.author_config, desired.name, "-", target.request)
                )
            return plan
        try:
            return self._plan_present(observed, desired, desired.uri, desired.name in pinned)
        except MissingLibrary as error:
            if not check:
                raise
            plan = make_plan(observed, desired)
            said = f"{error.message}: what could not be asked is not checked"
            return replace(plan, warnings=(*plan.warnings, said))

    def _plan_present(
        self, observed: ObservedModel, desired: DesiredModel, uri: ModelUri, pinned: bool
    ) -> Plan:
        source = None
        if why_replace(observed, desired, None):
            source = self._resolve(desired, uri, observed.record)
        elif not is_pinned(observed.record, desired, self._tracking_id):
            source = self._as_recorded(desired, observed.record) or self._resolve(
                desired, uri, observed.record
            )
        layout = None
        if why_replace(observed, desired, source):
            source = source or self._resolve(desired, uri, observed.record)
            layout = self._layout(self._listed(source), source, desired, pinned)
        elif observed.record and (self._policy or why_reconfigure(observed, desired)):
            config = config_for(observed.record.author_config, desired.name, "-", desired.request)
            if self._policy:
                self._policy.check_deployed(observed.record, config)
        failed = self._failed_verification(observed, desired, source)
        plan = make_plan(observed, desired, source, layout, failed_verification=failed)
        step = plan.replacement
        fetches = not isinstance(step, PutSideBySide) or step.versions.fetch
        if self.repository and step and fetches:
            self.repository.require_space(step.layout.room)
        return plan

    def _as_recorded(self, desired: DesiredModel, record: Record | None) -> Source | None:
        """The source without more questions, where an alias still means the version that is
        deployed.
        """
        uri = desired.uri
        if (
            record is None
            or uri is None
            or desired.keep_source
            or uri.kind not in ("alias", "latest")
        ):
            return None
        if (record.registry_name, record.tracking_uri) != (uri.name, self._tracking_id):
            return None
        if self._versions.get(uri.text) != record.registry_version:
            return None
        return Source(
            uri,
            record.registry_name,
            record.registry_version,
            uri.alias,
            record.source,
            "",
            record.run_id,
            record.model_id,
        )

    def _resolve(self, desired: DesiredModel, asked: ModelUri, record: Record | None) -> Source:
        uri = parse_model_uri(record.pinned_uri) if record and desired.keep_source else asked
        key = uri.text if uri.kind != "folder" else f"{desired.name} {uri.text}"
        if key not in self._sources:
            source = self.registry.resolve(uri)
            files = self.registry.files(source) if uri.kind == "folder" else None
            if isinstance(files, LocalRoot):
                source = folder_source(source, files, record)
            self._sources[key] = source
        return self._sources[key]

    def _listed(self, source: Source) -> ArtifactRoot:
        artifacts = self.registry.files(source)
        self._patience.list(artifacts, source.artifact_root)
        self._roots[source.artifact_root] = artifacts
        return artifacts

    def artifacts(self, source: Source) -> ArtifactRoot:
        """Where the files of a source are, for which a plan was made."""
        return self._roots.get(source.artifact_root) or self.registry.files(source)

    def before_download(self, source: Source) -> None:
        """Ask a place whose download of another model failed whether it still answers. Raises
        ArtifactError where it does not.
        """
        if self._patience.suspects(source.artifact_root):
            self._listed(source)

    def failed_download(self, source: Source) -> None:
        self._patience.suspect(source.artifact_root)

    def _layout(
        self, artifacts: ArtifactRoot, source: Source, desired: DesiredModel, pinned: bool
    ) -> Layout:
        """The model folder to be made, fit for the servers and for the policy."""
        artifact = read_artifact(artifacts)
        pinned = pinned or desired.name in self._pinned_in_repository()
        layout = layout_of(
            artifact,
            desired.flavor,
            Numbering(desired.version_folders, source.registry_version, pinned),
        )
        if layout.missing and not {"input", "output"} <= {*(desired.config or {})}:
            raise ArtifactError(layout.missing, step="find the model")
        config = config_for(layout.author_config.decode(), desired.name, "-", desired.request)
        if self._policy:
            published = artifact.manifest.digest if artifact.manifest else None
            self._policy.check_new(
                layout,
                config,
                published,
                source.tags,
                registered=source.registry_version is not None,
            )
        return self._compared(layout, source)

    def _compared(self, layout: Layout, source: Source) -> Layout:
        """Refuse a TensorRT plan that was built for something else than the servers have; what is
        not known is a warning.
        """
        if not tensorrt.is_plan(config_pbtxt.parse(layout.author_config)):
            return layout
        if self._tensorrt is None:
            self._tensorrt = tensorrt.read_target(
                self._tensorrt_target, [server.url for server in self.servers]
            )
        if reason := tensorrt.why_not(source.tags, self._tensorrt):
            raise ArtifactError(reason, step="compare with the server")
        said = tensorrt.unknown(source.tags, self._tensorrt)
        return replace(layout, warnings=(*layout.warnings, *([said] if said else [])))

    def _pinned_in_repository(self) -> frozenset[str]:
        """Models of which an ensemble that is deployed asks for a certain version."""
        if self._pinned is None:
            found: set[str] = set()
            for text in self.repository.configs() if self.repository else ():
                with contextlib.suppress(DeliveryError):
                    found |= (
                        config_pbtxt.pinned_by(config_pbtxt.parse(text))
                        if b"ensemble_scheduling" in text
                        else frozenset()
                    )
            self._pinned = frozenset(found)
        return self._pinned

    def _failed_verification(
        self, observed: ObservedModel, desired: DesiredModel, source: Source | None
    ) -> str | None:
        """Why the model that is served, and would be left alone, does not answer as ``verify``
        says.
        """
        record = observed.record
        if record is None or desired.state not in ("present", "rolled_back"):
            return None
        case = case_of(desired, record) if desired.verify else None
        if case is None or (
            desired.uri
            and (why_replace(observed, desired, source) or why_reconfigure(observed, desired))
        ):
            return None
        for server in self.servers:
            try:
                verify(server, desired.name, max(record.triton_versions), case)
            except VerificationFailed as error:
                return error.message
            except (NotFound, ServerError):
                return None  # not loaded there: that is a step of its own
        return None
