# SPDX-License-Identifier: Apache-2.0
"""The identity of a folder of this host, which has no version number.

It is the sha256 of its files. To read a large model takes as long as to copy it, so that a plan
reads all only of a folder that looks otherwise than at its deployment and has the same samples.
One of other samples is another model, whatever its look: weights that are trained again have the
same size, and archives give all files one time. Its identity is what came of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace

from ..disk import hash_stream
from ..domain.manifest import FileEntry
from ..domain.record import Record
from ..domain.source import Source
from .roots import ArtifactRoot, LocalRoot

_SPOT = 4096
_SPOTS = 64


def folder_source(source: Source, files: LocalRoot, record: Record | None) -> Source:
    """Give a folder on this host an identity; one without a digest, which nothing that is deployed
    has, where it is not that of ``record``.
    """
    fingerprint = _fingerprint(files)
    unread = replace(source, source=f"{source.source}#", fingerprint=fingerprint)
    if record is None or not record.source.startswith(unread.source):
        return unread
    if record.source_samples not in (None, _sample(files)):
        return unread
    if record.source_fingerprint == fingerprint:
        return replace(unread, source=record.source)
    return replace(unread, source=unread.source + _content(files, {}))


def with_identity(source: Source, files: ArtifactRoot, came: Mapping[str, FileEntry]) -> Source:
    """What is recorded of a folder whose files ``came``, by their paths in it: hashed on the way.
    Files that a model does not need are hashed now. A folder that was changed since the plan may
    look again as it did then: its look is no proof of what came.
    """
    if not isinstance(files, LocalRoot) or source.fingerprint is None:
        return source
    unread = source.source.endswith("#")
    name = source.source + _content(files, came) if unread else source.source
    samples, look = _sample(files), _fingerprint(files)
    known = look if look == source.fingerprint else None
    return replace(source, source=name, samples=samples, fingerprint=known)


def _fingerprint(files: LocalRoot) -> str:
    """Changes when names, sizes or times do."""
    stats = []
    for file in files.list():
        with files.open(file.path) as opened:
            info = os.fstat(opened.fileno())
        stats.append([file.path, info.st_size, info.st_mtime_ns])
    return _digest([stats, files.folders()])


def _content(files: LocalRoot, came: Mapping[str, FileEntry]) -> str:
    hashes = []
    for file in files.list():
        if file.path in came:
            hashes.append((file.path, came[file.path].sha256))
            continue
        with files.open(file.path) as opened:
            hashes.append((file.path, hash_stream(opened)))
    return _digest([hashes, files.folders()])[:16]


def _sample(files: LocalRoot) -> str:
    """Other samples are other content; of small files all is read."""
    samples = []
    for file in files.list():
        digest = hashlib.sha256()
        with files.open(file.path) as opened:
            size = os.fstat(opened.fileno()).st_size
            if size <= _SPOT * _SPOTS:
                digest.update(opened.read(size))
            else:
                for spot in range(_SPOTS):
                    at = (size - _SPOT) * spot // (_SPOTS - 1)
                    digest.update(os.pread(opened.fileno(), _SPOT, at))
        samples.append((file.path, size, digest.hexdigest()))
    return _digest([samples, files.folders()])


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
