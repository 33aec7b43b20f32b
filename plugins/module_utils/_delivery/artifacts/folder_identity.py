# SPDX-License-Identifier: Apache-2.0
"""The identity of a folder of this host, which has no version number."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace

from ..disk import hash_stream
from ..domain.record import Record
from ..domain.source import Source
from .roots import LocalRoot


def folder_source(source: Source, files: LocalRoot, record: Record | None) -> Source:
    """Give a folder on this host an identity: it has no version number that changes with its
    content.

    Bytes are hashed only where names, sizes or times differ from those of the last deployment.
    """
    stats = []
    for file in files.list():
        with files.open(file.path) as opened:
            info = os.fstat(opened.fileno())
        stats.append([file.path, info.st_size, info.st_mtime_ns])
    fingerprint = _digest([stats, files.folders()])
    if (
        record
        and record.source_fingerprint == fingerprint
        and record.source.startswith(f"{source.source}#")
    ):
        return replace(source, source=record.source, fingerprint=fingerprint)
    hashes = []
    for file in files.list():
        with files.open(file.path) as opened:
            hashes.append((file.path, hash_stream(opened)))
    content = _digest([hashes, files.folders()])
    return replace(source, source=f"{source.source}#{content[:16]}", fingerprint=fingerprint)


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
