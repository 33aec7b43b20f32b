# SPDX-License-Identifier: Apache-2.0
"""What model URIs mean now, and where the files of that are; each is asked for once in a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ..artifacts.availability import StoreAvailability
from ..artifacts.folder_identity import folder_source
from ..artifacts.roots import ArtifactRoot, LocalRoot
from ..domain.desired import DesiredModel
from ..domain.record import Record
from ..domain.source import Source
from ..domain.uri import ModelUri, parse_model_uri
from ..errors import DeliveryError
from ..registry.registry import Registry
from .observation import QUESTIONS


class Sources:
    """The sources of one run, for several threads.

    Args:
        tracking_id: the registry's address, as records have it.
    """

    def __init__(self, registry: Registry, tracking_id: str | None) -> None:
        self._registry = registry
        self._tracking_id = tracking_id
        self._sources: dict[str, Source] = {}
        self._roots: dict[str, ArtifactRoot] = {}
        self._versions: dict[str, int] = {}
        self._availability = StoreAvailability(registry.timeout)

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
                self._versions[uri.text] = self._registry.version(uri)

        # Alone: the client is made, and a registry that is not there is not waited for by each.
        ask(uris[0])
        if uris[0].text in self._versions:
            with ThreadPoolExecutor(QUESTIONS) as pool:
                list(pool.map(ask, uris[1:]))

    def find(self, desired: DesiredModel, uri: ModelUri, record: Record | None) -> Source:
        """What ``uri`` means now; where an alias still means the version that is deployed, without
        more questions.

        Raises:
            DeliveryError: it means nothing, or the registry does not say.
        """
        return self._as_recorded(desired, record) or self.resolve(desired, uri, record)

    def _as_recorded(self, desired: DesiredModel, record: Record | None) -> Source | None:
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

    def resolve(self, desired: DesiredModel, asked: ModelUri, record: Record | None) -> Source:
        """Ask the registry. Raises DeliveryError."""
        uri = parse_model_uri(record.pinned_uri) if record and desired.keep_source else asked
        # A folder is known by what is recorded of it, which may be another record by now.
        known = f"{desired.name} {record and record.deploy_id} " if uri.kind == "folder" else ""
        key = known + uri.text
        if key not in self._sources:
            source = self._registry.resolve(uri)
            files = self._registry.files(source) if uri.kind == "folder" else None
            if isinstance(files, LocalRoot):
                source = folder_source(source, files, record)
            self._sources[key] = source
        return self._sources[key]

    def open(self, source: Source) -> ArtifactRoot:
        """The files of a source, listed anew.

        Raises:
            ArtifactError: its store does not answer, or did not for other models of this run.
        """
        artifacts = self._registry.files(source)
        self._availability.list(artifacts, source.artifact_root)
        self._roots[_place(source)] = artifacts
        return artifacts

    def artifacts(self, source: Source) -> ArtifactRoot:
        """Where the files of a source are, for which a plan was made."""
        return self._roots.get(_place(source)) or self._registry.files(source)

    def before_download(self, source: Source) -> None:
        """Ask a store whose download of another model failed whether it still answers. Raises
        ArtifactError where it does not.
        """
        if self._availability.suspects(source.artifact_root):
            self.open(source)

    def failed_download(self, source: Source) -> None:
        self._availability.suspect(source.artifact_root)


def _place(source: Source) -> str:
    return f"{source.artifact_root} {source.beside}" if source.beside else source.artifact_root
