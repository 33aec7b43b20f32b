# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from: identities of folders, the metadata of an artifact, and stores that do
not answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from .artifacts import ArtifactRoot, LocalRoot
from .errors import ArtifactError
from .layout import Artifact
from .manifest import MANIFEST_NAME, Manifest, hash_file
from .record import Record
from .registry import Source

# What tells of an artifact, and how many bytes it may have.
_METADATA = {"MLmodel": 1 << 20, MANIFEST_NAME: 64 << 20}


def folder_source(source: Source, files: LocalRoot, record: Record | None) -> Source:
    """Give a folder on this host an identity: it has no version number that changes with its
    content.

    Bytes are hashed only where names, sizes or times differ from those of the last deployment.
    """
    stats = []
    for file in files.list():
        info = os.stat(files.real_path(file.path))
        stats.append([file.path, info.st_size, info.st_mtime_ns])
    fingerprint = _digest([stats, files.folders()])
    if (
        record
        and record.source_fingerprint == fingerprint
        and record.source.startswith(f"{source.source}#")
    ):
        return replace(source, source=record.source, fingerprint=fingerprint)
    hashes = [(file.path, hash_file(files.real_path(file.path))) for file in files.list()]
    content = _digest([hashes, files.folders()])
    return replace(source, source=f"{source.source}#{content[:16]}", fingerprint=fingerprint)


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def read_artifact(artifacts: ArtifactRoot) -> Artifact:
    """List an artifact and read its metadata files."""
    import yaml

    files = {file.path: file.size for file in artifacts.list()}
    limits = {name: limit for name, limit in _METADATA.items() if name in files}
    with ThreadPoolExecutor(len(_METADATA)) as pool:
        texts = dict(zip(limits, pool.map(artifacts.read, limits, limits.values()), strict=True))
    # The parser in C, where it was built, takes a tenth of the time.
    mlmodel = (
        yaml.load(texts["MLmodel"], getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if "MLmodel" in texts
        else None
    )
    manifest = (
        Manifest.from_dict(json.loads(texts[MANIFEST_NAME])) if MANIFEST_NAME in texts else None
    )
    return Artifact(
        files,
        artifacts.folders(),
        mlmodel if isinstance(mlmodel, dict) else None,
        manifest,
        artifacts.read,
    )


class Patience:
    """Remembers for one run which artifact stores did not answer, so that they are not waited for
    once for each model.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._silent: dict[str, int] = {}
        self._suspected: set[str] = set()
        self._lock = threading.Lock()

    def list(self, artifacts: ArtifactRoot, root: str) -> None:
        """Make an artifact list its files.

        Raises:
            ArtifactError: it could not; or the store at ``root`` was waited for in vain for two
                other models since it last answered.
        """
        if isinstance(artifacts, LocalRoot):
            return
        place, begun = _store_of(root), time.monotonic()
        if self._silent.get(place, 0) > 1:
            raise ArtifactError(
                f"the store of {artifacts.shown} did not answer for other models of this run",
                step="list the artifact",
            )
        try:
            artifacts.list()
        except ArtifactError:
            with self._lock:
                if time.monotonic() - begun >= self._timeout:
                    self._silent[place] = self._silent.get(place, 0) + 1
            raise
        with self._lock:
            self._silent[place] = 0
            self._suspected.discard(place)

    def suspect(self, root: str) -> None:
        """A download from there failed, for whatever reason."""
        with self._lock:
            self._suspected.add(_store_of(root))

    def suspects(self, root: str) -> bool:
        return _store_of(root) in self._suspected


def _store_of(root: str) -> str:
    parts = urlsplit(root)
    return f"{parts.scheme}://{parts.netloc}"
